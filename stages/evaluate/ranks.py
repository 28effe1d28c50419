"""At which rank a query finds what is right, and what that comes to: recall at 1, 5, 10 and the median rank.

    rank = 1 + wrong candidates that are strictly more similar + half of the wrong ones that are equally similar

to the most similar right one: the rank that is to be expected if ties are broken by chance, so that a space in which
everything lies in one point is at chance level and not at the top. Similarities that differ by less than float32's
rounding are equal. Where the query or all that is right has no vector (NaN), the rank is the last.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

AT = (1, 5, 10)
EQUAL = 1e-6
_CELLS = 1 << 23  # similarities held at once


@dataclass(frozen=True)
class Sets:
    """For every query some candidates: those of query i are members[starts[i] : starts[i + 1]]."""

    starts: np.ndarray
    members: np.ndarray

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> "Sets":
        starts = np.concatenate([[0], np.cumsum([len(own) for own in lists])]).astype(np.int64)
        return cls(starts, np.array([member for own in lists for member in own], np.int64))

    def part(self, first: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """(row within [first, end), candidate) of every member of these queries."""
        counts = np.diff(self.starts[first : end + 1])
        return np.repeat(np.arange(end - first), counts), self.members[self.starts[first] : self.starts[end]]


def ranks(queries: np.ndarray, candidates: np.ndarray, right: Sets, ignored: Sets | None = None) -> np.ndarray:
    """The rank of every query, float64 [Q], in chunks of queries.

    Args:
        queries, candidates: unit rows [Q, d] and [C, d].
        right: the right candidates of each query, one at least, each once.
        ignored: candidates that are neither right nor wrong for a query.
    """
    found = np.empty(len(queries))
    step = max(1, _CELLS // max(1, len(candidates)))
    for first in range(0, len(queries), step):
        end = min(first + step, len(queries))
        found[first:end] = _ranks(
            queries[first:end] @ candidates.T, right.part(first, end), ignored and ignored.part(first, end)
        )
    return found


def _ranks(similarity: np.ndarray, right: tuple, ignored: tuple | None) -> np.ndarray:
    similarity = np.where(np.isfinite(similarity), similarity, -np.inf)
    best = np.full(len(similarity), -np.inf)
    np.maximum.at(best, right[0], similarity[right])
    wrong = np.ones(similarity.shape, bool)
    for own in (right, ignored):
        if own is not None:
            wrong[own] = False
    better = (wrong & (similarity > best[:, None] + EQUAL)).sum(1)
    equal = (wrong & (similarity >= best[:, None] - EQUAL)).sum(1) - better
    return np.where(np.isfinite(best), 1 + better + equal / 2, 1.0 + wrong.sum(1))


def summary(found: np.ndarray, candidates: int) -> dict:
    """Recall (shares in [0, 1]) and median rank of `found` ranks [Q] among so many candidates."""
    recall = {f"R@{k}": float((found <= k).mean()) if len(found) else None for k in AT}
    median = float(np.median(found)) if len(found) else None
    return {**recall, "median_rank": median, "queries": len(found), "candidates": candidates}
