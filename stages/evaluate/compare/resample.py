"""Spearman's correlation over sentence pairs drawn anew, many draws and runs at a time.

A draw is how often each pair was taken, so the values are sorted once a run and never again: in sorted order the
average rank of a value is what was drawn before it plus half of what was drawn of it. A draw is a column, so that
sorting a draw moves whole rows of memory.
"""

import zlib
from collections.abc import Mapping

import numpy as np

_CELLS = 1 << 16  # pairs x draws at a time: what is held of them stays in the cache


def pair_draws(pairs: int, columns: int, draw: np.random.Generator) -> np.ndarray:
    """How often each pair is taken when `pairs` are drawn with replacement: float64 [pairs, columns]."""
    taken = draw.integers(0, pairs, size=(pairs, columns)) * columns + np.arange(columns)
    return np.bincount(taken.ravel(), minlength=pairs * columns).reshape(pairs, columns).astype(np.float64)


class Ranked:
    """The values of one variable, sorted, to be ranked under any draw."""

    def __init__(self, values: np.ndarray):
        _, self.group, sizes = np.unique(values, return_inverse=True, return_counts=True)
        self.order = np.argsort(self.group, kind="stable")
        self.starts = None if len(sizes) == len(values) else np.concatenate([[0], np.cumsum(sizes)[:-1]])

    def ranks(self, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(ranks [n, B], sum of their squares over what was drawn [B]), both about the mean rank.

        Equal values share their average rank; the rank of a pair that was not drawn has no meaning and no weight.
        """
        count = drawn[self.order]
        if self.starts is not None:
            count = np.add.reduceat(count, self.starts, axis=0)
        rank = np.cumsum(count, axis=0)
        rank -= count / 2
        rank -= len(drawn) / 2
        return rank[self.group], np.einsum("nb,nb->b", count * rank, rank)


def resampled_spearman(gold: np.ndarray, cosines: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Spearman of every run under every draw: gold [n], cosines [R, n], drawn [n, B] -> [B, R].

    0 where a draw leaves only equal values, which rank nothing.
    """
    return _correlated(Ranked(gold), [Ranked(row) for row in cosines], drawn)


def _correlated(gold: Ranked, runs: list[Ranked], drawn: np.ndarray) -> np.ndarray:
    right, right_square = gold.ranks(drawn)
    weighted = right * drawn
    found = np.empty((drawn.shape[1], len(runs)))
    for column, run in enumerate(runs):
        rank, square = run.ranks(drawn)
        scale = np.sqrt(square * right_square)
        together = np.einsum("nb,nb->b", rank, weighted)
        found[:, column] = np.divide(together, scale, out=np.zeros_like(scale), where=scale > 0)
    return found


def resample(
    gold: Mapping[str, np.ndarray], cosines: Mapping[str, np.ndarray], resamples: int, seed: int
) -> dict[str, np.ndarray]:
    """Spearman x 100 of every run under `resamples` draws of each task's pairs, shared by all runs: [resamples, R].

    A task's draws follow from seed, name and number of pairs alone, whatever else is compared.
    """
    found = {}
    for name, right in gold.items():
        draw = generator(seed, f"pairs of {name}")
        ranked, runs = Ranked(right), [Ranked(row) for row in cosines[name]]
        step = max(1, _CELLS // len(right))
        parts = [
            _correlated(ranked, runs, pair_draws(len(right), min(step, resamples - start), draw))
            for start in range(0, resamples, step)
        ]
        found[name] = 100 * np.concatenate(parts)
    return found


def generator(seed: int, what: str) -> np.random.Generator:
    """Random numbers of their own for each use, equal in every process."""
    return np.random.default_rng([seed, zlib.crc32(what.encode())])
