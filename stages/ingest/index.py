"""The index of a collection: its records on disk, in SQLite, so that a collection of any length takes little memory.

Records are streamed in as they come. What concerns several of them (images with the same bytes, captions with the
same id, captions of unknown images, shards) is then settled by SQL, and a shard is read back row by row. The index is
made anew in every run, in a folder that is removed with it; nothing of it is in an artifact.

Images whose bytes cannot be looked up again (rows of compressed Parquet) are copied to a spill file beside the index
as they stream by: it takes as much disk as those images' encoded bytes, as long as the run lasts.
"""

import contextlib
import hashlib
import re
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InputError, ResourceError
from pipeline.files import canonical_json
from pipeline.shards import shard_of
from stages.ingest.places import Places
from stages.ingest.records import Caption, Image, Lost, Record
from stages.ingest.scratch import Scratch

CHUNK = 2000
_SURROGATES = re.compile("[\ud800-\udfff]")
_NOT_UTF8 = "the name is not UTF-8"

_TABLES = """
CREATE TABLE image(id TEXT PRIMARY KEY, shard INTEGER, uri TEXT, path TEXT, offset INTEGER, length INTEGER,
                   sha256 TEXT, outcome TEXT, reason TEXT, detail TEXT) WITHOUT ROWID;
CREATE TABLE stated(id TEXT, sha256 TEXT);
CREATE TABLE caption(seq INTEGER PRIMARY KEY, image_id TEXT, id TEXT, text TEXT);
CREATE TABLE lost(shard INTEGER, unit TEXT, id TEXT, reason TEXT, detail TEXT);
CREATE TABLE sentence(shard INTEGER, id TEXT, text TEXT);
"""

_NUMBER_CAPTIONS = """
UPDATE caption SET id = image_id || '#' || n
FROM (SELECT seq AS place, ROW_NUMBER() OVER (PARTITION BY image_id ORDER BY seq) - 1 AS n FROM caption)
WHERE seq = place AND id IS NULL
"""

_LOSE_UNKNOWN = """
INSERT INTO lost SELECT shard_of(id), 'caption', id, 'unknown_image',
                        'names image ' || image_id || ', which the collection does not list'
FROM caption WHERE NOT EXISTS (SELECT 1 FROM image WHERE image.id = caption.image_id);
DELETE FROM caption WHERE NOT EXISTS (SELECT 1 FROM image WHERE image.id = caption.image_id);
"""

_LOSE_REPEATED = """
CREATE INDEX caption_by_id ON caption(id);
CREATE TEMP TABLE repeated AS
SELECT seq, first FROM (SELECT seq, MIN(seq) OVER (PARTITION BY id) AS first FROM caption) WHERE seq <> first;
INSERT INTO lost SELECT shard_of(a.id), 'caption', a.id, 'duplicate_id',
                        quoted(a.text) || ' of ' || a.image_id ||
                        ' has the id of ' || quoted(b.text) || ' of ' || b.image_id
FROM repeated JOIN caption a ON a.seq = repeated.seq JOIN caption b ON b.seq = repeated.first;
DELETE FROM caption WHERE seq IN (SELECT seq FROM repeated);
"""

_REJECT_CHANGED = """
CREATE TEMP TABLE changed AS
SELECT image.id, MIN(stated.sha256) AS stated FROM stated JOIN image ON image.id = stated.id
WHERE image.sha256 <> stated.sha256 GROUP BY image.id;
UPDATE image SET outcome = 'rejected', reason = 'sha256_differs',
                 detail = uri || ': the file has ' || sha256 || ', the collection states ' || changed.stated
FROM changed WHERE image.id = changed.id;
"""

_MERGE_TWINS = """
CREATE INDEX image_by_sha256 ON image(sha256);
CREATE TEMP TABLE twin(id TEXT PRIMARY KEY, kept TEXT) WITHOUT ROWID;
INSERT INTO twin SELECT image.id, same.kept FROM
    (SELECT sha256, MIN(id) AS kept FROM image WHERE sha256 IS NOT NULL AND outcome IS NULL
     GROUP BY sha256 HAVING COUNT(*) > 1) AS same
    JOIN image ON image.sha256 = same.sha256 WHERE image.id <> same.kept AND outcome IS NULL;
UPDATE image SET outcome = 'dropped', reason = 'duplicate', detail =
    'byte-equal to ' || (SELECT kept FROM twin WHERE twin.id = image.id) || ', which keeps its captions'
WHERE id IN (SELECT id FROM twin);
UPDATE caption SET image_id = (SELECT kept FROM twin WHERE twin.id = image_id) WHERE image_id IN (SELECT id FROM twin);
"""

_FOR_READING = """
CREATE INDEX image_by_shard ON image(shard, id);
CREATE INDEX lost_by_shard ON lost(shard, unit, id, reason, detail);
CREATE INDEX sentence_by_shard ON sentence(shard, id, text);
"""


class Index:
    """The index while it is made; use it as a context, then hand out `shard`s.

    Raises:
        ResourceError: the disk is full or cannot be written.
    """

    def __init__(self, folder: Path, root: Path, shards: int):
        self.root, self._shards = root, shards
        self._scratch = Scratch(folder)
        self.spill = self._scratch.path / "spill"
        self.db = _connect(f"file:{_quoted(self._file)}?mode=rwc")
        # Nothing is ever recovered: what was not finished is made anew.
        self.db.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE;")
        self.db.create_function("shard_of", 1, lambda key: shard_of(key, shards), deterministic=True)
        self.db.create_function("quoted", 1, lambda text: repr(text[:60]), deterministic=True)
        self.db.executescript(_TABLES)
        self.db.execute("BEGIN")
        self._rows: dict[str, list[tuple]] = {"caption": [], "stated": [], "lost": [], "sentence": []}
        self._last: str | None = None
        self._spilled = self.spill.open("wb")

    @property
    def _file(self) -> Path:
        return self._scratch.path / "index.sqlite"

    def __enter__(self) -> "Index":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # a full disk was told when it was met
            self._spilled.close()
        self.db.close()

    def add(self, records: Iterable[Record]) -> None:
        """Streams a source's records in."""
        for record in records:
            with self.storing():
                if isinstance(record, Image):
                    self._add_image(record)
                elif isinstance(record, Caption):
                    self._add_caption(record)
                else:
                    self._lose(record)

    def add_sentences(self, lines: Iterable[str | None]) -> None:
        """Streams the lines of a text-only stream in; None stands for a line that is not UTF-8."""
        for line in lines:
            identifier = hashlib.sha256((line or "").encode()).hexdigest()[:16]
            with self.storing():
                self._put("sentence", (shard_of(identifier, self._shards), identifier, line))

    def settle(self, deduplicate: bool) -> None:
        """Numbers captions without an id, loses those of unknown images and those with an id that was there before,
        hashes the images, rejects those that are not as the collection states, and, if asked, drops all but the
        smallest id of byte-equal ones, which gets their captions.
        """
        with self.storing():
            self._flush()
            self._spilled.flush()
            self.db.execute(_NUMBER_CAPTIONS)
            self._script(_LOSE_UNKNOWN)
            self._script(_LOSE_REPEATED)
            self._hash_images()
            self._script(_REJECT_CHANGED)
            if deduplicate:
                self._script(_MERGE_TWINS)
            self.db.execute("CREATE INDEX caption_by_image ON caption(image_id, id)")

    def finish(self) -> None:
        """Makes the index ready to be read shard by shard.

        Raises:
            InputError: it holds nothing.
        """
        with self.storing():
            self._script(_FOR_READING)
            self.db.execute("COMMIT")
        if not any(
            self.db.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in ("image", "lost", "sentence")
        ):
            raise InputError(
                f"{self.root}: the collection is empty: no image, no caption, no sentence; check ingest.path and "
                "ingest.source"
            )

    def shard(self, number: int) -> "Shard":
        return Shard(self._scratch, number)

    def _add_image(self, image: Image) -> None:
        if image.mention and image.id == self._last and image.stated is None:
            return
        self._last = image.id
        if not (_is_utf8(image.id) and _is_utf8(image.uri)):
            self._lose(Lost("image", _told(image.id), "bad_encoding", f"{_told(image.uri)}: {_NOT_UTF8}"))
            return
        if not image.id:
            self._lose(Lost("image", image.id, "bad_record", f"{image.uri}: its id is empty"))
            return
        outcome, reason, detail = ("rejected", *image.fault) if image.fault else (None, None, None)
        path, offset, length, digest = image.path or image.uri, image.offset, image.length, None
        if image.data is not None:
            path, offset, length = None, self._spilled.tell(), len(image.data)
            digest = hashlib.sha256(image.data).hexdigest()
        shard = shard_of(image.id, self._shards)
        row = (image.id, shard, image.uri, path, offset, length, digest, outcome, reason, detail)
        added = self.db.execute(f"INSERT INTO image VALUES ({_marks(row)}) ON CONFLICT DO NOTHING", row).rowcount
        if added and image.data is not None:
            self._spilled.write(image.data)
        if image.stated is not None:
            self._put("stated", (image.id, _told(image.stated)))
        if not added and not image.mention:
            (other,) = self.db.execute("SELECT uri FROM image WHERE id = ?", (image.id,)).fetchone()
            self._lose(Lost("image", image.id, "duplicate_id", f"{image.uri} and {other}"))

    def _add_caption(self, given: Caption) -> None:
        if not _is_utf8(given.image_id) or not _is_utf8(given.id or ""):
            self._lose(Lost("caption", _told(given.id or given.image_id), "bad_encoding", _NOT_UTF8))
        else:
            self._put("caption", (None, given.image_id, given.id, _SURROGATES.sub(" ", given.text)))

    def _lose(self, lost: Lost) -> None:
        identifier = _told(lost.id)
        row = (shard_of(identifier, self._shards), lost.unit, identifier, lost.reason, _told(lost.detail))
        self._put("lost", row)

    def _put(self, table: str, row: tuple) -> None:
        rows = self._rows[table]
        rows.append(row)
        if len(rows) == CHUNK:
            self._flush(table)

    def _flush(self, *tables: str) -> None:
        for table in tables or self._rows:
            if rows := self._rows[table]:
                self.db.executemany(f"INSERT INTO {table} VALUES ({_marks(rows[0])})", rows)
                rows.clear()

    def _script(self, text: str) -> None:
        # Not executescript, which would commit first.
        for statement in text.split(";"):
            self.db.execute(statement)

    def _hash_images(self) -> None:
        """Every file is read: a hash known from another run may be stale."""
        with Places(self.root, self.spill) as places:
            for rows in chunks(
                self.db, "SELECT id, path, offset, length FROM image WHERE sha256 IS NULL AND outcome IS NULL"
            ):
                found = [(_hash(places, *place), key) for key, *place in rows]
                self.db.executemany("UPDATE image SET sha256 = ? WHERE id = ?", found)

    @contextlib.contextmanager
    def storing(self) -> Iterator[None]:
        """Where something is written: a full disk or a locked file becomes one readable line."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise ResourceError(
                f"{self._scratch.path.parent}: the index of the collection cannot be written ({error}); "
                "runtime.scratch needs a writable folder with space"
            ) from error


@dataclass(frozen=True)
class Shard:
    """One shard's part of a finished index; it keeps the index, and travels to a worker process by its place."""

    scratch: Scratch
    number: int

    @property
    def spill(self) -> Path:
        return self.scratch.path / "spill"

    @contextlib.contextmanager
    def open(self) -> Iterator["Rows"]:
        file = self.scratch.path / "index.sqlite"
        try:
            with contextlib.closing(_connect(f"file:{_quoted(file)}?mode=ro&immutable=1")) as db:
                yield Rows(db, self.number)
        except sqlite3.Error as error:
            raise ResourceError(f"{file}: the index cannot be read any more ({error}); run again") from None

    def digest(self) -> str:
        """The content hash of everything the shard is made from, read row by row."""
        digest = hashlib.sha256()
        with self.open() as rows:
            for part in (rows.images, rows.lost, rows.sentences):
                for row in part():
                    plain = {key: row[key] for key in row if key not in ("path", "offset", "length")}
                    digest.update(canonical_json(plain).encode() + b"\n")
        return digest.hexdigest()


class Rows:
    """Reads a shard, each of its parts in a fixed order."""

    def __init__(self, db: sqlite3.Connection, number: int):
        self._db, self._number = db, number

    def images(self) -> Iterator[dict]:
        """Images by id, each with `captions`: (id, text) by id."""
        columns = ("id", "uri", "path", "offset", "length", "sha256", "outcome", "reason", "detail")
        for row in self._of(f"SELECT {', '.join(columns)} FROM image WHERE shard = ? ORDER BY id"):
            captions = self._db.execute("SELECT id, text FROM caption WHERE image_id = ? ORDER BY id", (row[0],))
            yield {**dict(zip(columns, row, strict=True)), "captions": captions.fetchall()}

    def lost(self) -> Iterator[dict]:
        columns = ("unit", "id", "reason", "detail")
        for row in self._of(f"SELECT {', '.join(columns)} FROM lost WHERE shard = ? ORDER BY unit, id, reason, detail"):
            yield dict(zip(columns, row, strict=True))

    def sentences(self) -> Iterator[dict]:
        for row in self._of("SELECT id, text FROM sentence WHERE shard = ? ORDER BY id, text"):
            yield {"id": row[0], "text": row[1]}

    def _of(self, query: str) -> Iterator[tuple]:
        return iter(self._db.execute(query, (self._number,)))


def chunks(db: sqlite3.Connection, query: str) -> Iterator[list[tuple]]:
    """The rows of a query on `image` (ending in its WHERE clause), id first, by id, some at a time; they may be updated
    meanwhile.
    """
    last = ""
    while rows := db.execute(f"{query} AND id > ? ORDER BY id LIMIT {CHUNK}", (last,)).fetchall():
        yield rows
        last = rows[-1][0]


def _hash(places: Places, path: str | None, offset: int, length: int | None) -> str | None:
    if places.fault(path):
        return None
    try:
        return places.sha256(path, offset, length)
    except OSError:
        return None


def _connect(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(uri, uri=True, isolation_level=None)


def _quoted(path: Path) -> str:
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _marks(row: tuple) -> str:
    return ", ".join("?" * len(row))


def _is_utf8(text: str) -> bool:
    return not _SURROGATES.search(text)


def _told(text: str) -> str:
    """A text that may not be UTF-8, as it can be shown and stored."""
    return text.encode("utf-8", "backslashreplace").decode()
