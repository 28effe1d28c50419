"""Semantic textual similarity: correlations, aggregation, scores (the readers are in sts_files.py).

Protocol (SentEval as used by SimCSE, Gao et al. 2021, appendix B): similarity = cosine of two embeddings, NaN = 0;
`all` = one Spearman over the concatenated subsets of a task, the published number; `mean` and `wmean` = plain and
pair-weighted average over subsets. Text is split on whitespace and re-joined with single spaces, and not truncated
before the encoder's positions end. STS-B: test, SICK-R: test. Avg = mean of the seven `all`, each rounded to two
decimals (x100) first. MTEB's protocol differs in the text, in truncation, and in SICK-R (see sts_files.py).

Correlations are fractions in [-1, 1] or None; only `percent` multiplies by 100 and rounds.
"""

import warnings
from collections.abc import Callable

import numpy as np
from scipy import stats

from model.errors import ModelError
from model.sts_files import KNOWN, PROTOCOLS, SEVEN, Subset, Task, load_sick, load_sts_b, load_tasks  # noqa: F401

Embed = Callable[[list[str]], np.ndarray]


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


def similarities(task: Task, embed: Embed) -> dict[str, np.ndarray]:
    """{subset: cosine of each pair, float64 [n]; NaN where an embedding is zero or not finite}."""
    if task.missing:
        raise ModelError(f"{task.name} cannot be scored: {task.missing}")
    return {k: cosines(embed(s.sentences1), embed(s.sentences2)) for k, s in task.subsets.items()}


def score_task(task: Task, embed: Embed) -> dict:
    """Scores of a task that is there. `embed(sentences)` returns [n, D], one row per sentence. See `score_pairs`."""
    return score_pairs(task, similarities(task, embed))


def score_pairs(task: Task, similarity: dict[str, np.ndarray]) -> dict:
    """Scores of a task from the cosine of each pair, {subset: [n]}.

    {'all', 'mean', 'wmean': Spearman, 'pearson': {'all', 'mean', 'wmean'},
     'subsets': {name: {'pairs', 'dropped', 'spearman', 'pearson'}}, 'pairs', 'dropped' (without gold),
     'empty' (pairs with a sentence without text), 'nan_pairs' (a zero or non-finite embedding: similarity 0),
     'absent' (subsets of the protocol not found)}
    `mean` and `wmean` are None where the file does not tell the subsets apart, and where a correlation is undefined.
    """
    nan_pairs = sum(int(np.isnan(v).sum()) for v in similarity.values())
    scores = aggregate({k: (np.nan_to_num(similarity[k], nan=0.0), s.gold) for k, s in task.subsets.items()})
    rank, linear = scores["spearman"], scores["pearson"]
    if task.merged:
        rank, linear = ({**part, "mean": None, "wmean": None} for part in (rank, linear))
    subsets = {
        k: {"pairs": len(s.gold), "dropped": s.dropped, "spearman": rank["subsets"][k], "pearson": linear["subsets"][k]}
        for k, s in task.subsets.items()
    }
    both = [pair for s in task.subsets.values() for pair in zip(s.sentences1, s.sentences2, strict=True)]
    return {
        **{k: rank[k] for k in ("all", "mean", "wmean")},
        "pearson": {k: linear[k] for k in ("all", "mean", "wmean")},
        "subsets": subsets,
        "pairs": sum(s["pairs"] for s in subsets.values()),
        "dropped": sum(s["dropped"] for s in subsets.values()),
        "empty": sum(not (one.strip() and two.strip()) for one, two in both),
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
