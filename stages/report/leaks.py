"""What training saw of what it is judged on: the same or nearly the same texts and images on both sides.

`check` gives `Leaks`:
- `jaccard`, `distance`: the thresholds of "near" for texts and images; None: only equal ones were looked for.
- `training_texts`, `training_images`: how many rows of the training side were held against the others.
- `texts`: a `TextLeak` for every STS task that is there, for the STS-B dev set (it selects checkpoints), and for the
  captions of the dev and test splits. `name`; `sentences`: different texts in it; `exact`: how many of them training
  saw, but for case, punctuation and blanks; `near`: how many others share most of their words with a training text
  (None: not looked for); `examples`: a few `TextMatch` (`training`, `evaluation`, both as written, `jaccard`; 1 for
  an exact one), the nearest first.
- `missing`: a line that says why there are no STS sentences, or which tasks have none that are read here, or "".
- `images`: an `ImageLeak` for the dev and the test split. `name`; `images`: images in it; `exact`: how many are byte
  for byte a training image; `near`: how many others look like one (None: not looked for); `examples`: a few
  `ImageMatch` (`training`, `evaluation`: image ids, `distance`: bits that differ, `equal`: the same file).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.rows import shard_file
from pipeline.shards import read_table, scan, shard_numbers
from stages.common.phash import near
from stages.report import sts_sets
from stages.report.near_text import Texts, plain

EXAMPLES = 3
SPLITS = ("dev", "test")
_PICTURE = ["id", "sha256", "phash", "split"]
_HASHES_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class TextMatch:
    training: str
    evaluation: str
    jaccard: float


@dataclass(frozen=True)
class TextLeak:
    name: str
    sentences: int
    exact: int
    near: int | None
    examples: list[TextMatch]


@dataclass(frozen=True)
class ImageMatch:
    training: str
    evaluation: str
    distance: int
    equal: bool


@dataclass(frozen=True)
class ImageLeak:
    name: str
    images: int
    exact: int
    near: int | None
    examples: list[ImageMatch]


@dataclass(frozen=True)
class Leaks:
    jaccard: float | None
    distance: int | None
    training_texts: int
    training_images: int
    texts: list[TextLeak] = field(default_factory=list)
    missing: str = ""
    images: list[ImageLeak] = field(default_factory=list)


def check(data: Path, sets: Path, jaccard: float | None, distance: int | None, protocol: str = "senteval") -> Leaks:
    """Holds the training side of a dataset against everything it is judged on, shard after shard.

    Args:
        data: data/<dataset>, which holds the tables of ingest.
        sets: the folder of the STS tasks in SentEval layout (evaluate.path).
        jaccard: texts are near from this index on, None: off.
        distance: images are near up to so many bits, None: off.
        protocol: of the STS tasks (evaluate.protocol).

    Raises:
        InputError: a shard is damaged, or a file of an STS task cannot be read.
    """
    ingest = data / "ingest"
    judged = {name: texts for name, texts in read_sets(sets, protocol).items() if texts}
    missing = _missing(sets, bool(judged))
    judged |= {f"captions {split}": _captions(ingest, split) for split in SPLITS}
    seen, texts = _text_leaks(judged, _training_texts(ingest), jaccard)
    shown, images = _image_leaks(ingest, distance)
    return Leaks(jaccard, distance, seen, shown, texts, missing, images)


def _missing(sets: Path, some: bool) -> str:
    """What of the STS tasks in `sets` is not looked at; `some`: whether there are sentences of any."""
    only = "" if some else "; only captions are compared"
    if unread := sts_sets.unread(sets):
        return (
            f"{sets}: leaks into {', '.join(unread)} were not looked for: the sentences are not at hand as files in "
            f"SentEval’s layout{only}"
        )
    return "" if some else f"{sets}: no STS task here, so only captions are compared"


# ---------------------------------------------------------------- texts


def _text_leaks(judged: dict[str, list[str]], training: Iterator[str], jaccard: float | None) -> tuple[int, list]:
    """How many training texts there were, and a TextLeak for each of these sets."""
    written: dict[str, str] = {}  # plain text -> the first way it is written
    rows_of: dict[str, dict[str, None]] = {}
    for name, texts in judged.items():
        own = {plain(text): text for text in sorted(texts, reverse=True)}
        own.pop("", None)
        written = own | written
        rows_of[name] = dict.fromkeys(sorted(own))
    index = Texts(sorted(written), jaccard)
    found: dict[int, tuple] = {}  # row -> best match as (not exact, -index, training text)
    number = 0
    for text in training:
        number += 1
        short = plain(text)
        for row, alike in index.near(short):
            _keep(found, row, (True, -alike, text))
        if (row := index.equal(short)) is not None:
            _keep(found, row, (False, -1.0, text))
    leaks = [_text_leak(name, list(rows), index, written, found) for name, rows in rows_of.items()]
    return number, leaks


def _keep(found: dict[int, tuple], row: int, match: tuple) -> None:
    """Keeps the better match: the smaller tuple, so that the order of shards does not matter."""
    if row not in found or match < found[row]:
        found[row] = match


def _text_leak(name: str, texts: list[str], index: Texts, written: dict[str, str], found: dict[int, tuple]) -> TextLeak:
    matches = [(*found[row], written[text]) for text in texts if (row := index.row_of[text]) in found]
    exact = [match for match in matches if not match[0]]
    others = [match for match in matches if match[0]]
    shown = [*sorted(others)[:EXAMPLES], *sorted(exact)[:EXAMPLES]]
    return TextLeak(
        name,
        len(texts),
        len(exact),
        None if index.jaccard is None else len(others),
        [TextMatch(training, evaluation, -alike) for _, alike, training, evaluation in shown],
    )


def _training_texts(ingest: Path) -> Iterator[str]:
    yield from _captions(ingest, "train")
    for table in scan(ingest / "sentences", ["text"]):
        yield from table.column("text").to_pylist()


def _captions(ingest: Path, split: str) -> Iterator[str]:
    for table in scan(ingest / "captions", ["text", "split"]):
        yield from table.filter(pc.equal(table.column("split"), split)).column("text").to_pylist()


# ---------------------------------------------------------------- images


def _image_leaks(ingest: Path, distance: int | None) -> tuple[int, list[ImageLeak]]:
    """How many training images there are, and an ImageLeak for the dev and the test split."""
    folder = ingest / "images"
    judged = pa.concat_tables(_pictures(scan(folder, _PICTURE), SPLITS))
    hashes, row_of = np.unique(judged.column("phash").to_numpy(), return_inverse=True)
    files: dict[str, str | None] = dict.fromkeys(judged.column("sha256").to_pylist())
    best: dict[int, tuple[int, str]] = {}  # row of `hashes` -> (bits that differ, training image)
    number = 0
    for table in _pictures(_again(folder), ("train",)):
        number += table.num_rows
        for file, identifier in zip(table.column("sha256").to_pylist(), table.column("id").to_pylist(), strict=True):
            if file in files:
                files[file] = min(files[file] or identifier, identifier)
        if distance is not None and table.num_rows:
            _nearest(best, table, hashes, distance)
    equal = [files[file] for file in judged.column("sha256").to_pylist()]
    leaks = []
    for split in SPLITS:
        rows = np.flatnonzero(pc.equal(judged.column("split"), split).to_numpy())
        ids, rows = judged.column("id").take(rows).to_pylist(), rows.tolist()
        exact = sorted((one, equal[row]) for one, row in zip(ids, rows, strict=True) if equal[row])
        looks = [
            (*best[row_of[row]], one)
            for one, row in zip(ids, rows, strict=True)
            if not equal[row] and row_of[row] in best
        ]
        shown = [ImageMatch(training, one, bits, False) for bits, training, one in sorted(looks)[:EXAMPLES]]
        shown += [ImageMatch(training, one, 0, True) for one, training in exact[:EXAMPLES]]
        leaks.append(ImageLeak(split, len(rows), len(exact), None if distance is None else len(looks), shown))
    return number, leaks


def _nearest(best: dict[int, tuple[int, str]], table: pa.Table, hashes: np.ndarray, distance: int) -> None:
    """Takes the nearest of these training images into `best`; of equally near ones the smallest id."""
    order = pc.sort_indices(table.column("id"))
    own, first = np.unique(table.column("phash").take(order).to_numpy(), return_index=True)
    ids = table.column("id").take(order.take(pa.array(first))).to_pylist()
    for mine, row, bits in near(own, hashes, distance).tolist():
        best[row] = min(best.get(row, (bits, ids[mine])), (bits, ids[mine]))


def _pictures(tables: Iterator[pa.Table], splits: tuple[str, ...]) -> Iterator[pa.Table]:
    """Ids and hashes of the images of some splits, several shards at once."""
    waiting, rows = [], 0
    for table in tables:
        waiting.append(table.filter(pc.is_in(table.column("split"), pa.array(splits))))
        rows += waiting[-1].num_rows
        if rows >= _HASHES_AT_ONCE:
            yield pa.concat_tables(waiting)
            waiting, rows = [], 0
    if waiting:
        yield pa.concat_tables(waiting)


def _again(folder: Path) -> Iterator[pa.Table]:
    """What `scan` has just verified, without hashing the pixels a second time."""
    for number in shard_numbers(folder):
        yield read_table(shard_file(folder, number), folder.name, _PICTURE)


# ---------------------------------------------------------------- STS sentences


def read_sets(sets: Path, protocol: str = "senteval") -> dict[str, list[str]]:
    """The sentences of every STS task that is judged on, by task; only of pairs that have a gold score. SICK-R is its
    test split, with protocol mteb all of it.

    Raises:
        InputError: a file of a task cannot be read (stages/report/sts_sets.py).
    """
    judged = {}
    for task, subsets in sts_sets.read(sets).items():
        if task == "SICK-R" and protocol == "senteval":
            subsets = {split: pairs for split, pairs in subsets.items() if split == "test"}
        texts = [text for pairs in subsets.values() for text in pairs.sentences]
        judged["STS-B dev" if task == "STS-B-dev" else task] = texts
    return judged
