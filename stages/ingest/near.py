"""Images that look like another one: of pictures whose perceptual hashes differ in few bits, the smallest id stays."""

import contextlib
import importlib.metadata
import sqlite3
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from pipeline.errors import ResourceError
from pipeline.files import sha256_json
from stages.common.images import BadImage, Limits, normalise
from stages.common.phash import BLANK, near, perceptual_hash
from stages.ingest.index import Index, chunks
from stages.ingest.places import Places

# Whatever decides a hash, besides the file itself.
_LIBRARIES = ("pillow", "imagehash", "scipy", "numpy")
_CANDIDATES = """
SELECT id, sha256, path, offset, length FROM image
WHERE sha256 IS NOT NULL AND outcome IS NULL AND EXISTS (SELECT 1 FROM caption WHERE caption.image_id = image.id)
"""

_DROP = """
UPDATE image SET outcome = 'dropped', reason = 'near_duplicate',
                 detail = 'looks like ' || (SELECT id FROM candidate WHERE n = ?) || ', ' || ? || ' of 64 bits apart'
WHERE id = (SELECT id FROM candidate WHERE n = ?)
"""


def drop_near(index: Index, limits: Limits, distance: int, cache: Path) -> None:
    """Marks every image that looks like one that stays as dropped (`near_duplicate`), in a settled index.

    Images without captions, and files that cannot be used, are neither dropped nor looked like. Hashes are cached by
    the sha256 of the file, so that a second run decodes only new files. Takes 8 bytes of memory an image.

    Args:
        distance: most bits in which the hashes of two pictures of the same differ.
    """
    hashes = array("Q")
    with index.storing(), Places(index.root, index.spill) as places, _Cache(cache, limits) as known:
        index.db.execute("CREATE TEMP TABLE candidate(n INTEGER PRIMARY KEY, id TEXT)")
        for rows in chunks(index.db, _CANDIDATES):
            found = known.look_up(rows, lambda row: _hash(places, row, limits))
            hashed = [(row[0], value) for row, value in zip(rows, found, strict=True) if value is not None]
            numbered = [(len(hashes) + n, key) for n, (key, _) in enumerate(hashed)]
            index.db.executemany("INSERT INTO candidate VALUES (?, ?)", numbered)
            hashes.extend(value for _, value in hashed)
        alike = look_alikes(np.frombuffer(hashes, np.uint64), distance)
        index.db.executemany(_DROP, ((kept, bits, dropped) for dropped, kept, bits in alike))


def look_alikes(hashes: np.ndarray, distance: int) -> Iterator[tuple[int, int, int]]:
    """Goes through hashes in order and keeps one if no kept one is within `distance`.

    Args:
        hashes: (n,) uint64.

    Yields:
        (dropped, kept, bits): indices of every hash that is not kept and of the kept one that it is nearest to (the
        first of several), and the bits in which they differ.
    """
    unique, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.argsort(order)
    unique, first, group = unique[order], first[order], place[group]
    pairs = near(unique, unique, distance)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    kept = np.arange(len(unique))
    for i, j in pairs[np.lexsort((pairs[:, 0], pairs[:, 2], pairs[:, 1])), :2].tolist():
        if kept[j] == j and kept[i] == i:
            kept[j] = i
    stays = first[kept[group]]
    for dropped in np.flatnonzero((stays != np.arange(len(hashes))) & (hashes != BLANK)).tolist():
        one, other = hashes[dropped], hashes[stays[dropped]]
        yield dropped, int(stays[dropped]), int(np.bitwise_count(one ^ other))


def _hash(places: Places, row: tuple, limits: Limits) -> int | None:
    try:
        return perceptual_hash(normalise(places.read(*row[2:]), limits).pixels)
    except (OSError, BadImage):
        return None


class _Cache:
    """Perceptual hashes by the sha256 of the file, in SQLite; None for a file that these limits reject."""

    def __init__(self, file: Path, limits: Limits):
        versions = {name: importlib.metadata.version(name) for name in _LIBRARIES}
        self._file, self._maker = file, sha256_json([versions, limits.__dict__])[:16]

    def __enter__(self) -> "_Cache":
        try:
            self._open()
        except sqlite3.DatabaseError:
            # Damaged, or of another make: everything in it can be had again.
            with contextlib.suppress(OSError):
                self._file.unlink()
            try:
                self._open()
            except sqlite3.Error as error:
                raise ResourceError(f"{self._file}: cannot be written ({error}); make its folder writable") from None
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def look_up(self, rows: list[tuple], compute: Callable[[tuple], int | None]) -> list[int | None]:
        """The hash of every row (id, sha256, ...), computed and kept where it is not known."""
        found = []
        for row in rows:
            key = f"{self._maker}:{row[1]}"
            held = self._db.execute("SELECT value FROM phash WHERE key = ?", (key,)).fetchone()
            if held is None:
                value = compute(row)
                stored = None if value is None else value.to_bytes(8, "big")
                self._db.execute("INSERT OR REPLACE INTO phash VALUES (?, ?)", (key, stored))
            else:
                value = None if held[0] is None else int.from_bytes(held[0], "big")
            found.append(value)
        self._db.commit()
        return found

    def _open(self) -> None:
        self._db = sqlite3.connect(self._file, timeout=60)
        self._db.execute("CREATE TABLE IF NOT EXISTS phash(key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID")
