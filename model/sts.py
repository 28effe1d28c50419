"""Semantic textual similarity: readers of the SentEval layout, correlations, aggregation.

Protocol (SentEval as used by SimCSE, Gao et al. 2021, appendix B): similarity = cosine of two embeddings, NaN = 0;
`all` = one Spearman over the concatenated subsets of a task, the published number; `mean` and `wmean` = plain and
pair-weighted average over subsets. Text is split on whitespace and re-joined with single spaces, and not truncated
before the encoder's positions end. STS-B: test, SICK-R: test. Avg = mean of the seven `all`, each rounded to two
decimals (x100) first.

Correlations are fractions in [-1, 1] or None; only `percent` multiplies by 100 and rounds.
"""

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import stats

from model.errors import PARAMETERS, ModelError

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
    **{f"STS-B-{split}": ("STSBenchmark", {split: f"sts-{split}.csv"}) for split in ("train", "dev", "test")},
    **{f"SICK-R-{split}": ("SICK", {split: file}) for split, file in _SICK.items()},
    "SICK-R-all": ("SICK", _SICK),
}
_FILES |= {"STS-B": _FILES.pop("STS-B-test"), "SICK-R": _FILES.pop("SICK-R-test")}
KNOWN = (*_SUBSETS, *_FILES)

Embed = Callable[[list[str]], np.ndarray]


@dataclass(frozen=True)
class Subset:
    """Sentence pairs and their human scores; `gold` is float64 [n]; `dropped` = lines without a gold score."""

    sentences1: list[str]
    sentences2: list[str]
    gold: np.ndarray
    dropped: int = 0


@dataclass(frozen=True)
class Task:
    """A task's subsets by name. `missing` says why there are none; `absent` names the protocol's subsets not found."""

    name: str
    subsets: dict[str, Subset] = field(default_factory=dict)
    missing: str | None = None
    absent: tuple[str, ...] = ()


# ---------------------------------------------------------------- readers


def load_tasks(root: str | Path, names: Iterable[str] = SEVEN) -> dict[str, Task]:
    """The tasks `names` under `root`, in that order; one whose files are not there comes with `missing` set.

    Names: `KNOWN`. Beside the seven: STS-B-train, STS-B-dev, SICK-R-train, SICK-R-trial, SICK-R-all (all three).
    `root` holds STS12-en-test, ..., STSBenchmark and SICK, or a folder STS with them.
    Raises ModelError: 2 for an unknown name, 3 for a bad file (its name and line) or a root that is no folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise ModelError(f"{root}: no such folder; give the one that holds STS12-en-test, STSBenchmark, SICK")
    return {name: _load_task(root, name) for name in names}


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


def _load_task(root: Path, name: str) -> Task:
    if name in _SUBSETS:
        return _load_year(root, name)
    if name not in _FILES:
        raise ModelError(f"task {name!r} is unknown; known: {', '.join(KNOWN)}", PARAMETERS)
    folder, files = _FILES[name]
    read = _read_sts_b if folder == "STSBenchmark" else _read_sick
    place = _folder(root, folder)
    lost = [f for f in files.values() if place is None or not (place / f).is_file()]
    if lost:
        return Task(name, missing=f"{place or root / folder} has no {', '.join(lost)}")
    return Task(name, {split: read(place / file) for split, file in files.items()})


def _folder(root: Path, name: str) -> Path | None:
    return next((f for f in (root / name, root / "STS" / name) if f.is_dir()), None)


def _load_year(root: Path, name: str) -> Task:
    folder = _folder(root, f"{name}-en-test")
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
    return Task(name, {k: _read_year(found[k], folder / f"STS.gs.{k}.txt") for k in order}, absent=absent)


def _read_year(inputs: Path, golds: Path) -> Subset:
    pairs, scores = _lines(inputs), _lines(golds)
    if len(pairs) != len(scores):
        raise ModelError(f"{inputs}: {len(pairs)} lines, but {golds.name} has {len(scores)}; line n of both is a pair")
    # a pair without gold is not scored, so its text is not looked at either
    rows = [
        (*_columns(inputs, n, line, 2)[:2], gold.strip()) if gold.strip() else ("", "", "")
        for n, (line, gold) in enumerate(zip(pairs, scores, strict=True), 1)
    ]
    return _subset(golds, 1, rows)


def _read_sts_b(file: Path) -> Subset:
    rows = []
    for n, line in enumerate(_lines(file), 1):
        cells = _columns(file, n, line, 7)
        rows.append((cells[5], cells[6], cells[4].strip()))
    return _subset(file, 1, rows)


def _read_sick(file: Path) -> Subset:
    lines = _lines(file)
    header = lines[0].split("\t") if lines else []
    wanted = ("sentence_A", "sentence_B", "relatedness_score")
    if not set(wanted) <= set(header):
        raise ModelError(f"{file}:1: the header must name {', '.join(wanted)} (TAB-separated)")
    a, b, score = (header.index(w) for w in wanted)
    cells = [_columns(file, n, line, len(header)) for n, line in enumerate(lines[1:], 2)]
    return _subset(file, 2, [(c[a], c[b], c[score].strip()) for c in cells])


def _lines(file: Path) -> list[str]:
    """Lines of a UTF-8 file; BOM and CRLF are taken off. Only the newline separates (str.splitlines cuts at more)."""
    try:
        data = file.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ModelError(f"{file}:{line}: not UTF-8; convert the file (iconv -f latin1 -t utf-8)") from error
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines[-1] == "" else lines


def _columns(file: Path, number: int, line: str, least: int) -> list[str]:
    cells = line.split("\t")  # never a CSV reader: quotes are plain characters here, and unbalanced ones occur
    if len(cells) < least:
        raise ModelError(f"{file}:{number}: {len(cells)} TAB-separated columns where at least {least} are needed")
    return cells


def _subset(file: Path, first: int, rows: list[tuple[str, str, str]]) -> Subset:
    kept: list[tuple[str, str, float]] = []
    for number, (one, two, score) in enumerate(rows, first):
        if not score:
            continue
        try:
            gold = float(score)
        except ValueError:
            gold = math.nan
        if not math.isfinite(gold):
            raise ModelError(f"{file}:{number}: gold score {score!r} is not a number")
        kept.append((" ".join(one.split()), " ".join(two.split()), gold))
    if not kept:
        raise ModelError(f"{file}: no pair with a gold score")
    one, two, gold = zip(*kept, strict=True)
    return Subset(list(one), list(two), np.array(gold, dtype=np.float64), dropped=len(rows) - len(kept))


# ---------------------------------------------------------------- scores


def spearman(x: np.ndarray, y: np.ndarray) -> float | None:
    """Spearman's rank correlation with average ranks for ties; None where it is undefined (see `_defined`)."""
    return float(stats.spearmanr(x, y).statistic) if _defined(x, y) else None


def pearson(x: np.ndarray, y: np.ndarray) -> float | None:
    """Pearson's correlation; None where it is undefined (see `_defined`)."""
    if not _defined(x, y):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)
        return float(stats.pearsonr(x, y).statistic)


def _defined(x: np.ndarray, y: np.ndarray) -> bool:
    """Both have two values at least and vary by more than float32 noise: constant embeddings rank nothing."""
    return all(len(v) > 1 and np.isfinite(v).all() and np.ptp(v) > 1e-6 * np.abs(v).max() for v in (x, y))


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Row-wise cosine of a and b [n, D], in float64 [n]; NaN where a row is zero or not finite."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        a = a / np.linalg.norm(a, axis=1, keepdims=True)
        b = b / np.linalg.norm(b, axis=1, keepdims=True)
        return np.einsum("nd,nd->n", a, b)


def aggregate(parts: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, dict]:
    """{subset: (system [n], gold [n])} -> {'spearman' | 'pearson': {'all', 'mean', 'wmean', 'subsets': {...}}}.

    A value is None where a correlation it needs is undefined.
    """
    system = np.concatenate([s for s, _ in parts.values()])
    gold = np.concatenate([g for _, g in parts.values()])
    sizes = [len(g) for _, g in parts.values()]
    result = {}
    for name, correlation in (("spearman", spearman), ("pearson", pearson)):
        each = {subset: correlation(s, g) for subset, (s, g) in parts.items()}
        known = None not in each.values()
        result[name] = {
            "all": correlation(system, gold),
            "mean": float(np.mean(list(each.values()))) if known else None,
            "wmean": float(np.average(list(each.values()), weights=sizes)) if known else None,
            "subsets": each,
        }
    return result


def score_task(task: Task, embed: Embed) -> dict:
    """Scores of a task that is there. `embed(sentences)` returns [n, D], one row per sentence.

    {'all', 'mean', 'wmean': Spearman, 'pearson': {'all', 'mean', 'wmean'},
     'subsets': {name: {'pairs', 'dropped', 'spearman', 'pearson'}}, 'pairs', 'dropped' (without gold),
     'nan_pairs' (a zero or non-finite embedding: similarity 0), 'absent' (subsets of the protocol not found)}
    """
    if task.missing:
        raise ModelError(f"{task.name} cannot be scored: {task.missing}")
    similarity = {k: cosines(embed(s.sentences1), embed(s.sentences2)) for k, s in task.subsets.items()}
    nan_pairs = sum(int(np.isnan(v).sum()) for v in similarity.values())
    scores = aggregate({k: (np.nan_to_num(similarity[k], nan=0.0), s.gold) for k, s in task.subsets.items()})
    rank, linear = scores["spearman"], scores["pearson"]
    subsets = {
        k: {"pairs": len(s.gold), "dropped": s.dropped, "spearman": rank["subsets"][k], "pearson": linear["subsets"][k]}
        for k, s in task.subsets.items()
    }
    return {
        **{k: rank[k] for k in ("all", "mean", "wmean")},
        "pearson": {k: linear[k] for k in ("all", "mean", "wmean")},
        "subsets": subsets,
        "pairs": sum(s["pairs"] for s in subsets.values()),
        "dropped": sum(s["dropped"] for s in subsets.values()),
        "nan_pairs": nan_pairs,
        "absent": list(task.absent),
    }


def embed_once(tasks: dict[str, Task], encode: Embed) -> Embed:
    """`encode` applied once to every distinct sentence of all tasks; returns the look-up."""
    subsets = [s for t in tasks.values() for s in t.subsets.values()]
    sentences = list(dict.fromkeys(x for s in subsets for x in (*s.sentences1, *s.sentences2)))
    vectors = np.asarray(encode(sentences)) if sentences else np.zeros((0, 1), np.float32)
    row_of = {sentence: i for i, sentence in enumerate(sentences)}
    return lambda wanted: vectors[[row_of[s] for s in wanted]]


def score_suite(tasks: dict[str, Task], encode: Embed) -> dict:
    """{'tasks': {name: score_task(...) or {'missing': why}}, 'average': percent or None, 'withheld': why or None}.

    `average` is of the seven tasks, whatever else is in `tasks`.
    """
    embed = embed_once(tasks, encode)
    scores = {n: {"missing": t.missing} if t.missing else score_task(t, embed) for n, t in tasks.items()}
    value, why = average(scores)
    return {"tasks": scores, "average": value, "withheld": why}


def average(scores: dict[str, dict]) -> tuple[float | None, str | None]:
    """(Avg, None) = mean of the seven two-decimal percents, two decimals; or (None, why it is withheld)."""
    for name in SEVEN:
        score = scores.get(name, {"missing": "not asked for"})
        if "missing" in score:
            return None, f"{name} is missing: {score['missing']}"
        if score["absent"]:
            return None, f"{name} lacks {', '.join(score['absent'])}"
        if score["all"] is None:
            return None, f"{name} is undefined: the similarities do not vary"
    return float(f"{np.mean([percent(scores[n]['all']) for n in SEVEN]):.2f}"), None


def percent(value: float | None) -> float | None:
    """A correlation x 100, rounded to two decimals as tables print it."""
    return None if value is None else float(f"{100 * value:.2f}")
