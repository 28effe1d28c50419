"""One phrase, one pair; and a caption keeps only so many."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def choose(made: pa.Table, phrases: pa.Table, tie: float) -> np.ndarray:
    """Why each candidate is not its phrase's pair: reason codes [N], "" for the one that is kept.

    Args:
        made: the candidates that passed the filters (`candidates.SCHEMA`), those of a phrase together.
        phrases: the table whose rows `made.phrase` names.

    A plural that states its count takes the union of exactly so many masks, else nothing (`count_mismatch`). Any
    other plural does not say how many objects it denotes (`uncounted_plural`), unless one such thing is itself named in
    the plural: by its annotated category ("scissors", "skis"), or, where a model found it, by a noun whose lemma is its
    plural ("scissors"). A singular takes its best candidate, the first id of several exactly equal; if another is
    as good (within `tie`), nothing says which is meant (`ambiguous`).
    """
    reason = np.full(made.num_rows, "", object)
    if not made.num_rows:
        return reason
    phrase, union = made.column("phrase").to_numpy(), made.column("objects").to_numpy() > 1
    first = np.flatnonzero(np.diff(phrase, prepend=-1))
    number = np.diff(first, append=len(phrase))
    has_union = np.repeat(np.logical_or.reduceat(union, first), number)
    plural, counted = (np.repeat(each, number) for each in _numbers(made, phrases, first))

    reason[plural & ~counted] = "uncounted_plural"
    reason[plural & counted & ~union] = "count_mismatch"
    reason[plural & counted & ~union & has_union] = "part_of_union"

    order = _best_first(made, phrase, union)
    best = np.repeat(order[first], number)
    score = made.column("score").to_numpy().astype(np.float64)
    equal = ~union & (score[best] - score < tie)
    equal[order[first]] = True
    several = np.repeat(np.add.reduceat(equal.astype(int), first), number) > 1
    reason[~plural & ~equal] = "not_best"
    reason[~plural & equal & several] = "ambiguous"
    return reason


def _best_first(made: pa.Table, phrase: np.ndarray, union: np.ndarray) -> np.ndarray:
    """Rows by phrase, within it singles before the union, then best score, then id."""
    keys = pa.table({"phrase": phrase, "union": union, "score": made.column("score"), "id": made.column("id")})
    order = [("phrase", "ascending"), ("union", "ascending"), ("score", "descending"), ("id", "ascending")]
    return pc.sort_indices(keys, order).to_numpy()


def _numbers(made: pa.Table, phrases: pa.Table, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each phrase, whose candidates begin at `first`: is it a plural, and does it state a count of two or more?"""
    asked = phrases.select(["text", "head", "number", "count"]).take(made.column("phrase").take(first))
    plural = pc.equal(asked.column("number"), "plur").to_numpy().copy()
    counted = pc.fill_null(pc.greater_equal(asked.column("count"), 2), False).to_numpy()
    rows = np.flatnonzero(plural)
    texts, lemmas = (asked.column(name).take(rows).to_pylist() for name in ("text", "head"))
    categories = made.column("category").take(first[rows]).to_pylist()
    names = (lemma if category is None else category for lemma, category in zip(lemmas, categories, strict=True))
    plural[rows] = [not _named_in_plural(text, name) for text, name in zip(texts, names, strict=True)]
    return plural, counted


def _named_in_plural(text: str, name: str) -> bool:
    word = name.lower().split()[-1] if name.strip() else ""
    return word.endswith("s") and text.lower().split()[-1] == word


def beyond_cap(pairs: pa.Table, most: int) -> np.ndarray:
    """Which pairs are one too many for their caption: best score first, then similarity, then place in the text.

    `pairs` has `caption_id`, `score`, `similarity` (null: not known), `start` and `end`; returns bool [N].
    """
    caption = pc.rank(pairs.column("caption_id"), tiebreaker="min").to_numpy()
    score, alike = (
        pc.fill_null(pairs.column(name), 0.0).to_numpy().astype(np.float64) for name in ("score", "similarity")
    )
    order = np.lexsort((pairs.column("end").to_numpy(), pairs.column("start").to_numpy(), -alike, -score, caption))
    caption = caption[order]
    place = np.arange(len(caption)) - np.searchsorted(caption, caption)
    beyond = np.zeros(len(caption), bool)
    beyond[order] = place >= most
    return beyond
