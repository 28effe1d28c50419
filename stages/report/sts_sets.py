"""The sentences of the STS tasks, as the page needs them: reader of SentEval's layout. Tasks that are there in MTEB's
alone (Parquet, JSON lines) are scored and not read here: `unread` names them.

Of pairs with a gold score alone, in the files' order, so that pair n of a subset is the one that the scores of the
stage evaluate call n. Sentences are split on whitespace and joined with single spaces.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import InputError

_BELOW = ("", "STS", "sts", "downstream/STS", "downstream")
_SICK = {"train": "SICK_train.txt", "trial": "SICK_trial.txt", "test": "SICK_test_annotated.txt"}
_DATASETS = {f"STS{year}": f"sts{year}-sts" for year in range(12, 17)}
_DATASETS |= {"STS-B": "stsbenchmark-sts", "STS-B-dev": "stsbenchmark-sts", "SICK-R": "sickr-sts"}
_FORMATS = (".parquet", ".jsonl", ".jsonl.gz")
_SICK_COLUMNS = ("sentence_A", "sentence_B", "relatedness_score")


@dataclass(frozen=True)
class Pairs:
    """Row n of the three lists is a sentence pair."""

    first: list[str] = field(default_factory=list)
    second: list[str] = field(default_factory=list)
    gold: list[float] = field(default_factory=list)

    @property
    def sentences(self) -> list[str]:
        return [text for pair in zip(self.first, self.second, strict=True) for text in pair]


def read(sets: Path) -> dict[str, dict[str, Pairs]]:
    """{task: {subset: pairs}} of what is there: STS12 to STS16, STS-B (test), STS-B-dev, SICK-R (train, trial, test).

    Raises:
        InputError: a file is not UTF-8, has fewer columns than its layout, a score that is no number, or two files
            that belong together have different numbers of lines.
    """
    found = {f"STS{year}": _year(sets, f"STS{year}") for year in range(12, 17)}
    bench, sick = _folder(sets, "STSBenchmark"), _folder(sets, "SICK")
    for task, split in (("STS-B", "test"), ("STS-B-dev", "dev")):
        file = bench / f"sts-{split}.csv"
        found[task] = {split: _bench(file)} if file.is_file() else {}
    found["SICK-R"] = {split: _sick(sick / name) for split, name in _SICK.items() if (sick / name).is_file()}
    return {task: subsets for task, subsets in found.items() if subsets}


def unread(sets: Path) -> list[str]:
    """Tasks that `read` has nothing of, but whose dataset of MTEB is there."""
    known, found = read(sets), {}
    for task, dataset in _DATASETS.items():
        names = (dataset, *(f"{owner}{dataset}" for owner in ("mteb__", "mteb--", "mteb_", "datasets--mteb--")))
        folders = [sets / below / name for below in (*_BELOW, "mteb") for name in names]
        found[task] = any(file for folder in folders for file in folder.rglob("*") if file.name.endswith(_FORMATS))
    return [task for task, there in found.items() if there and task not in known]


def _folder(sets: Path, name: str) -> Path:
    return next((sets / below / name for below in _BELOW if (sets / below / name).is_dir()), sets / name)


def _year(sets: Path, name: str) -> dict[str, Pairs]:
    """A year's subsets but for `ALL`, which repeats the others, and `SMT` of 2013, which is in no published number."""
    found = {}
    for file in sorted(_folder(sets, f"{name}-en-test").glob("STS.input.*.txt")):
        subset = file.name.removeprefix("STS.input.").removesuffix(".txt")
        if subset == "ALL" or (name, subset) == ("STS13", "SMT"):
            continue
        golds = file.with_name(f"STS.gs.{subset}.txt")
        texts, scores = _lines(file), _lines(golds)
        if len(texts) != len(scores):
            raise InputError(
                f"{file}: {len(texts)} lines, but {golds.name} has {len(scores)}; line n of both is a pair"
            )
        found[subset] = pairs = Pairs()
        for line, (text, score) in enumerate(zip(texts, scores, strict=True), 1):
            if score.strip():
                _add(pairs, _cells(file, line, text, 2)[:2], golds, line, score)
    return found


def _bench(file: Path) -> Pairs:
    pairs = Pairs()
    for line, text in enumerate(_lines(file), 1):
        cells = _cells(file, line, text, 7)
        if cells[4].strip():
            _add(pairs, cells[5:7], file, line, cells[4])
    return pairs


def _sick(file: Path) -> Pairs:
    lines, pairs = _lines(file), Pairs()
    header = lines[0].split("\t") if lines else []
    if not set(_SICK_COLUMNS) <= set(header):
        raise InputError(f"{file}: line 1: the header must name {', '.join(_SICK_COLUMNS)} (TAB-separated)")
    first, second, score = (header.index(name) for name in _SICK_COLUMNS)
    for line, text in enumerate(lines[1:], 2):
        cells = _cells(file, line, text, len(header))
        if cells[score].strip():
            _add(pairs, [cells[first], cells[second]], file, line, cells[score])
    return pairs


def _add(pairs: Pairs, texts: list[str], file: Path, line: int, score: str) -> None:
    try:
        gold = float(score)
    except ValueError:
        gold = math.nan
    if not math.isfinite(gold):
        raise InputError(f"{file}: line {line}: gold score {score.strip()[:80]!r} is not a number")
    for column, text in zip((pairs.first, pairs.second), texts, strict=True):
        column.append(" ".join(text.split()))
    pairs.gold.append(gold)


def _cells(file: Path, line: int, text: str, least: int) -> list[str]:
    cells = text.split("\t")
    if len(cells) < least:
        raise InputError(f"{file}: line {line}: {len(cells)} TAB-separated columns, {least} are needed")
    return cells


def _lines(file: Path) -> list[str]:
    """The lines of a UTF-8 file; BOM and CRLF are taken off."""
    try:
        data = file.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(f"{file}: line {line}: not UTF-8; convert the file (iconv -f latin1 -t utf-8)") from None
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []
