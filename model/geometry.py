"""Alignment and uniformity of embeddings (Wang and Isola 2020), over a whole set and as MCSE's evaluation has them;
how much embeddings point one way (anisotropy).

    alignment  = mean over pairs with gold >= threshold of |f(x) - f(y)|^alpha
    uniformity = log mean over unordered pairs of distinct rows of exp(-t |f(x) - f(y)|^2)

Vectors are unit rows: `unit_rows` makes them. Lower is better for both. The per-batch values of MCSE's SentEval copy
are other numbers than those over a whole set (docs/recipes.md): never compare one with the other.
"""

from dataclasses import dataclass

import numpy as np

_ROWS = 1024  # of a block of distances: memory stays bounded by it times the number of rows


@dataclass(frozen=True)
class Geometry:
    """`alignment` is None where no pair reaches the threshold, `uniformity` where there are fewer than two rows."""

    alignment: float | None
    uniformity: float | None


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Rows [n, D] divided by their L2 norm, float64; NaN where a row is zero."""
    vectors = np.asarray(vectors, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def alignment(x: np.ndarray, y: np.ndarray, alpha: float = 2.0) -> float | None:
    """Mean distance to the power alpha between row i of x and row i of y, both [n, D]; None if there is no row."""
    difference = np.asarray(x, np.float64) - np.asarray(y, np.float64)
    return float(np.mean(np.linalg.norm(difference, axis=1) ** alpha)) if len(difference) else None


def uniformity(vectors: np.ndarray, t: float = 2.0) -> float | None:
    """log mean of exp(-t d^2) over all unordered pairs of rows of vectors [n, D]; None if there is no pair."""
    vectors = np.asarray(vectors, np.float64)
    n = len(vectors)
    if n < 2:
        return None
    total, squares = 0.0, np.einsum("nd,nd->n", vectors, vectors)
    for start in range(0, n, _ROWS):
        block, own = vectors[start : start + _ROWS], squares[start : start + _ROWS]
        # |a - b|^2 by way of the product: of unit rows it is off by 1e-15, and several times as fast as differences
        distance = np.maximum(own[:, None] + squares[start:] - 2 * (block @ vectors[start:].T), 0)
        near = np.exp(-t * distance)
        among, later = near[:, : len(block)], near[:, len(block) :]
        total += float(np.triu(among, 1).sum() + later.sum())
    return float(np.log(total / (n * (n - 1) / 2)))


def mean_cosine(rows: np.ndarray) -> float | None:
    """Mean cosine over all unordered pairs of unit rows [n, D], exactly; None if there is no pair.

    0 for directions without a bias, 1 for vectors that all point one way (anisotropy, Ethayarajh 2019).
    """
    rows = np.asarray(rows, np.float64)
    n = len(rows)
    if n < 2:
        return None
    total = rows.sum(0)
    return float((total @ total - (rows * rows).sum()) / (n * (n - 1)))


def variance_shares(vectors: np.ndarray) -> np.ndarray | None:
    """Which share of the variance of vectors [n, D] lies in each principal direction, the largest first: [D].

    None where they do not vary.
    """
    vectors = np.asarray(vectors, np.float64)
    if len(vectors) < 2:
        return None
    centred = vectors - vectors.mean(0)
    values = np.linalg.eigvalsh(centred.T @ centred)[::-1].clip(min=0)
    # what is left of equal vectors after their mean is taken off is rounding, and no variance
    return values / values.sum() if values.sum() > 1e-12 * (vectors * vectors).sum() else None


def of_set(
    x: np.ndarray, y: np.ndarray, gold: np.ndarray, threshold: float = 4.0, alpha: float = 2.0, t: float = 2.0
) -> Geometry:
    """Over all sentence pairs at once. x, y: unit rows [n, D] of the pairs; gold: [n]. Uniformity is over all 2n rows,
    so that two paired sentences count as a pair like any other.
    """
    positive = np.asarray(gold) >= threshold
    return Geometry(alignment(x[positive], y[positive], alpha), uniformity(np.concatenate([x, y]), t))


def of_batches(
    x: np.ndarray,
    y: np.ndarray,
    gold: np.ndarray,
    batch_size: int = 128,
    threshold: float = 4.0,
    alpha: float = 2.0,
    t: float = 2.0,
) -> Geometry:
    """As MCSE's evaluation does it: `of_set` of each batch of consecutive pairs, averaged with equal weight.

    A batch without a pair that reaches the threshold counts as alignment 0, which biases the mean down. MCSE's
    batches are of 128 pairs sorted by length: the caller brings them in that order.
    """
    parts = [
        of_set(x[start:end], y[start:end], gold[start:end], threshold, alpha, t)
        for start, end in ((s, s + batch_size) for s in range(0, len(x), batch_size))
    ]
    if not parts:
        return Geometry(None, None)
    return Geometry(
        float(np.mean([part.alignment or 0.0 for part in parts])), float(np.mean([part.uniformity for part in parts]))
    )
