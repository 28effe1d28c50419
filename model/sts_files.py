"""Readers of the STS tasks: SentEval's layout (TAB-separated text) and the one of MTEB's datasets on the hub (Parquet
or JSON lines with sentence1, sentence2, score).

A protocol is what of the files is taken, and how:
  senteval  SimCSE's: text split on whitespace and re-joined with single spaces; SICK-R is its 4,927 test pairs
  mteb      text as it stands in the file; SICK-R is all its 9,927 pairs
Nothing is passed over in silence: a pair without a gold score is counted in `dropped`, everything else that does not
fit ends in a ModelError with the file and the line.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from model.errors import PARAMETERS, ModelError
from model.sts_rows import check_shards, json_rows, parquet_rows
from model.text_files import read_text

PROTOCOLS = ("senteval", "mteb")
SEVEN = ("STS12", "STS13", "STS14", "STS15", "STS16", "STS-B", "SICK-R")
_SUBSETS = {
    "STS12": ("MSRpar", "MSRvid", "SMTeuroparl", "surprise.OnWN", "surprise.SMTnews"),
    "STS13": ("FNWN", "headlines", "OnWN"),
    "STS14": ("deft-forum", "deft-news", "headlines", "images", "OnWN", "tweet-news"),
    "STS15": ("answers-forums", "answers-students", "belief", "headlines", "images"),
    "STS16": ("answer-answer", "headlines", "plagiarism", "postediting", "question-question"),
}
_SICK = {"train": "SICK_train.txt", "trial": "SICK_trial.txt", "test": "SICK_test_annotated.txt"}
# tasks in files of their own: folder, and file by subset name
_FILES = {
    "STS-B": ("STSBenchmark", {"test": "sts-test.csv"}),
    **{f"STS-B-{split}": ("STSBenchmark", {split: f"sts-{split}.csv"}) for split in ("train", "dev")},
    **{f"SICK-R-{split}": ("SICK", {split: file}) for split, file in _SICK.items()},
    "SICK-R-all": ("SICK", _SICK),
}
# the datasets of MTEB: name of the repository, and which split a task is
_DATASETS = {
    **{name: (f"{name.lower()}-sts", "test") for name in _SUBSETS},
    "STS-B": ("stsbenchmark-sts", "test"),
    "STS-B-dev": ("stsbenchmark-sts", "dev"),
    "STS-B-train": ("stsbenchmark-sts", "train"),
    "SICK-R-all": ("sickr-sts", "test"),  # its one split, all pairs together
}
_SPLIT = {"train": "train", "dev": "dev|validation", "test": "test"}
_READERS = {".parquet": parquet_rows, ".jsonl": json_rows, ".jsonl.gz": json_rows}
KNOWN = (*_SUBSETS, *_FILES, "SICK-R")

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class Subset:
    """Sentence pairs and their human scores; `gold` is float64 [n]; `dropped` = lines without a gold score."""

    sentences1: list[str]
    sentences2: list[str]
    gold: np.ndarray
    dropped: int = 0


@dataclass(frozen=True)
class Task:
    """A task's subsets by name. `missing` says why there are none; `absent` names the protocol's subsets not found.

    `merged`: the file holds all subsets together and does not tell them apart, so that `mean` and `wmean` have no
    meaning.
    """

    name: str
    subsets: dict[str, Subset] = field(default_factory=dict)
    missing: str | None = None
    absent: tuple[str, ...] = ()
    merged: bool = False


def load_tasks(root: str | Path, names: Iterable[str] = SEVEN, protocol: str = "senteval") -> dict[str, Task]:
    """The tasks `names` under `root`, in that order; one whose files are not there comes with `missing` set.

    Names: `KNOWN`. Beside the seven: STS-B-train, STS-B-dev, SICK-R-train, SICK-R-trial, SICK-R-test, SICK-R-all (all
    three). `root` holds STS12-en-test, ..., STSBenchmark and SICK, or sts12-sts, ..., stsbenchmark-sts and sickr-sts,
    or a folder STS, sts, downstream or mteb with them; where both layouts are there, the protocol's own is read.
    Raises ModelError: 2 for an unknown name or protocol, 3 for a bad file (its name and line) or a root that is no
    folder.
    """
    root = Path(root)
    if protocol not in PROTOCOLS:
        raise ModelError(f"protocol {protocol!r} is unknown; known: {', '.join(PROTOCOLS)}", PARAMETERS)
    if not root.is_dir():
        raise ModelError(f"{root}: no such folder; give the one that holds STS12-en-test, STSBenchmark, SICK")
    return {name: _load_task(root, name, protocol) for name in names}


def load_sts_b(root: str | Path, split: str = "test") -> Task:
    """STS-B `train`, `dev` or `test`; must be there. The dev split selects checkpoints during training."""
    return _present(load_tasks(root, ["STS-B" if split == "test" else f"STS-B-{split}"]))


def load_sick(root: str | Path, split: str = "test") -> Task:
    """SICK-R `train`, `trial`, `test` (4,927 pairs) or `all` (9,927); must be there."""
    return _present(load_tasks(root, ["SICK-R" if split == "test" else f"SICK-R-{split}"]))


def _present(tasks: dict[str, Task]) -> Task:
    (task,) = tasks.values()
    if task.missing:
        raise ModelError(f"{task.name} is missing: {task.missing}")
    return task


def _load_task(root: Path, name: str, protocol: str) -> Task:
    if name not in KNOWN:
        raise ModelError(f"task {name!r} is unknown; known: {', '.join(KNOWN)}", PARAMETERS)
    plain = protocol == "senteval"
    meant = name if name != "SICK-R" else "SICK-R-test" if plain else "SICK-R-all"
    readers = (_senteval_task, _dataset_task) if plain else (_dataset_task, _senteval_task)
    found = [reader(root, meant, plain) for reader in readers]
    task = next((task for task in found if not task.missing), None) or _why(root, meant, *found[:: 1 if plain else -1])
    return Task(name, task.subsets, task.missing, task.absent, task.merged)


def _why(root: Path, name: str, senteval: Task, dataset: Task) -> Task:
    """Which of two missing tasks says it: the one of the layout that is there, else SentEval's."""
    at_hand = name in _DATASETS and _folder(root, _repositories(_DATASETS[name][0]))
    return dataset if at_hand and not _folder(root, [f"{name}-en-test", "STSBenchmark", "SICK"]) else senteval


def _bases(root: Path) -> list[Path]:
    below = ("STS", "sts", "downstream/STS", "downstream", "mteb")
    return [f for f in (root, *(root / name for name in below)) if f.is_dir()]


def _folder(root: Path, names: Iterable[str]) -> Path | None:
    wanted = list(names)
    return next((base / name for base in _bases(root) for name in wanted if (base / name).is_dir()), None)


# ---------------------------------------------------------------- SentEval's layout


def _senteval_task(root: Path, name: str, plain: bool) -> Task:
    if name in _SUBSETS:
        return _load_year(root, name, plain)
    folder, files = _FILES[name]
    read = _read_sts_b if folder == "STSBenchmark" else _read_sick
    place = _folder(root, [folder])
    lost = [f for f in files.values() if place is None or not (place / f).is_file()]
    if lost:
        return Task(name, missing=f"{place or root / folder} has no {', '.join(lost)}{_unsplit(root, name)}")
    return Task(name, {split: read(place / file, plain) for split, file in files.items()})


def _unsplit(root: Path, name: str) -> str:
    """Why SICK-R of the one layout cannot stand for a split of the other."""
    if not (name.startswith("SICK-R") and _folder(root, _repositories("sickr-sts"))):
        return ""
    return "; sickr-sts holds all 9,927 pairs without their splits, which is SICK-R of protocol mteb"


def _load_year(root: Path, name: str, plain: bool) -> Task:
    folder = _folder(root, [f"{name}-en-test"])
    if folder is None:
        return Task(name, missing=f"{root} has no folder {name}-en-test")
    found = {f.name[len("STS.input.") : -len(".txt")]: f for f in sorted(folder.glob("STS.input.*.txt"))}
    # ALL repeats the others; SMT of 2013 is under a licence and in no published number
    found = {k: f for k, f in found.items() if k != "ALL" and (name, k) != ("STS13", "SMT")}
    if not found:
        return Task(name, missing=f"{folder} has no STS.input.*.txt")
    known = [k for k in _SUBSETS[name] if k in found]
    # a set of one's own in this layout has other subset names, and then none of the protocol's is absent
    absent = tuple(k for k in _SUBSETS[name] if k not in found) if known else ()
    order = [*known, *(k for k in found if k not in known)]
    return Task(name, {k: _read_year(found[k], folder / f"STS.gs.{k}.txt", plain) for k in order}, absent=absent)


def _read_year(inputs: Path, golds: Path, plain: bool) -> Subset:
    pairs, scores = _lines(inputs), _lines(golds)
    if len(pairs) != len(scores):
        ends = f"{inputs if len(pairs) < len(scores) else golds}:{min(len(pairs), len(scores))}"
        raise ModelError(
            f"{ends}: the file ends here; {inputs.name} has {len(pairs)} lines, but {golds.name} has {len(scores)}: "
            f"line n of both is a pair"
        )
    # a pair without gold is not scored, so its text is not looked at either
    rows = [
        (*_columns(inputs, n, line, 2)[:2], gold.strip()) if gold.strip() else ("", "", "")
        for n, (line, gold) in enumerate(zip(pairs, scores, strict=True), 1)
    ]
    return _subset(golds, 1, rows, plain)


def _read_sts_b(file: Path, plain: bool) -> Subset:
    rows = []
    for n, line in enumerate(_lines(file), 1):
        cells = _columns(file, n, line, 7)
        rows.append((cells[5], cells[6], cells[4].strip()))
    return _subset(file, 1, rows, plain)


def _read_sick(file: Path, plain: bool) -> Subset:
    lines = _lines(file)
    header = lines[0].split("\t") if lines else []
    wanted = ("sentence_A", "sentence_B", "relatedness_score")
    if not set(wanted) <= set(header):
        raise ModelError(f"{file}:1: the header must name {', '.join(wanted)} (TAB-separated)")
    a, b, score = (header.index(w) for w in wanted)
    cells = [_columns(file, n, line, len(header)) for n, line in enumerate(lines[1:], 2)]
    return _subset(file, 2, [(c[a], c[b], c[score].strip()) for c in cells], plain)


def _lines(file: Path) -> list[str]:
    """Lines of a UTF-8 file; BOM and CRLF are taken off. Only the newline separates (str.splitlines cuts at more)."""
    lines = [line.removesuffix("\r") for line in read_text(file).split("\n")]
    for number, line in enumerate(lines, 1):
        if "\r" in line:  # lines that end in it alone would be read as one, and all but the first pair lost
            raise ModelError(f"{file}:{number}: a carriage return inside the line; convert the line ends to newlines")
    return lines[:-1] if lines[-1] == "" else lines


def _columns(file: Path, number: int, line: str, least: int) -> list[str]:
    cells = line.split("\t")  # never a CSV reader: quotes are plain characters here, and unbalanced ones occur
    if len(cells) < least:
        raise ModelError(f"{file}:{number}: {len(cells)} TAB-separated columns where at least {least} are needed")
    return cells


# ---------------------------------------------------------------- MTEB's layout


def _repositories(name: str) -> list[str]:
    """A dataset's folder: as cloned, with the owner before its name, or as the hub's cache has it."""
    return [name, f"mteb__{name}", f"mteb--{name}", f"mteb_{name}", f"datasets--mteb--{name}"]


def _dataset_task(root: Path, name: str, plain: bool) -> Task:
    if name not in _DATASETS:
        return Task(name, missing=f"{name} is no dataset of MTEB")
    repository, split = _DATASETS[name]
    folder = _folder(root, _repositories(repository))
    if folder is None:
        return Task(name, missing=f"{root} has no folder {repository}")
    files = _data_files(folder, split)
    if not files:
        return Task(name, missing=f"{folder} has no .parquet or .jsonl file of the {split} split")
    check_shards(files)
    rows, places = [], []
    for file in files:
        reader = next(read for suffix, read in _READERS.items() if file.name.endswith(suffix))
        for place, row in reader(file):
            rows.append(row)
            places.append(place)
    return Task(name, {split: _subset(files[0], places, rows, plain)}, merged=name in _SUBSETS)


def _data_files(folder: Path, split: str) -> list[Path]:
    """Files of a split, by the word in their name or their folder's; of several formats the first of `_READERS`."""
    if (folder / "snapshots").is_dir():  # the hub's cache: the newest of its revisions
        folder = max((folder / "snapshots").iterdir(), key=lambda f: (f.stat().st_mtime, f.name), default=folder)
    every = [f for f in sorted(folder.rglob("*")) if f.is_file() and f.name.endswith(tuple(_READERS))]

    def of(words: str) -> list[Path]:
        word = re.compile(rf"(^|[-_./])({words})([-_./]|$)")
        return [f for f in every if word.search(f.relative_to(folder).as_posix())]

    # one file that names no split is the whole data set, which these tasks' test split is
    named = of(_SPLIT[split]) or ([] if split != "test" or of("|".join(_SPLIT.values())) else every)
    return next((own for suffix in _READERS if (own := [f for f in named if f.name.endswith(suffix)])), [])


def _subset(file: Path, first: int | list[str], rows: list[tuple[str, str, str | float | None]], plain: bool) -> Subset:
    """Rows (sentence, sentence, score) as a Subset; `first` is the number of the first line, or each row's place."""
    kept: list[tuple[str, str, float]] = []
    for number, (one, two, score) in enumerate(rows):
        if score is None or score == "":
            continue
        if isinstance(score, str):
            gold = float(score) if _NUMBER.fullmatch(score) else np.nan
        else:
            gold = float(score)
        if not np.isfinite(gold):
            place = f"{file}:{first + number}" if isinstance(first, int) else first[number]
            raise ModelError(f"{place}: gold score {score!r} is not a number")
        kept.append((" ".join(one.split()), " ".join(two.split()), gold) if plain else (one, two, gold))
    if not kept:
        raise ModelError(f"{file}:1: no pair with a gold score ({len(rows)} lines)")
    one, two, gold = zip(*kept, strict=True)
    return Subset(list(one), list(two), np.array(gold, dtype=np.float64), dropped=len(rows) - len(kept))
