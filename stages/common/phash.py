"""Which pictures look the same: 64-bit perceptual hashes, and an exact search for those that differ in few bits.

The hash is `imagehash.phash`: the signs of the lowest 8 x 8 cosine frequencies of a 32 x 32 grey version, against
their median. A rescaled or recompressed copy differs in a few bits; two unrelated photos in about 32.
"""

from collections.abc import Iterator
from itertools import combinations
from math import comb

import imagehash
import numpy as np
from PIL import Image

BITS = 64
BLANK = 0
_SIDE = 32
_PAIRS_AT_ONCE = 1 << 20


def perceptual_hash(image: Image.Image) -> int:
    """The hash of a picture's pixels, 0 <= hash < 2**64; `BLANK` for a picture of one brightness, which has no
    structure that could be compared.
    """
    grey = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    darkest, brightest = grey.getextrema()
    if darkest == brightest:
        return BLANK
    return int.from_bytes(np.packbits(imagehash.phash(grey).hash).tobytes(), "big")


def near(hashes_a: np.ndarray, hashes_b: np.ndarray, distance: int) -> np.ndarray:
    """Every pair of hashes that differ in at most `distance` bits; `BLANK` is near nothing.

    Exact, and far from comparing all with all: if the 64 bits are cut into m bands, two hashes within `distance`
    differ in at most distance // m bits of some band, so only those that share a band up to that many bits are
    compared.

    Args:
        hashes_a, hashes_b: (n,) and (k,) uint64.
        distance: 0 <= distance <= 64.

    Returns:
        (pairs, 3) int64: index into `hashes_a`, index into `hashes_b`, bits that differ; ascending.
    """
    a, b = np.asarray(hashes_a, np.uint64), np.asarray(hashes_b, np.uint64)
    places_a, places_b = np.flatnonzero(a != BLANK), np.flatnonzero(b != BLANK)
    a, b = a[places_a], b[places_b]
    found = [np.empty(0, np.int64)]
    for shift, width, flips in _probes(len(a), len(b), distance):
        mask = np.uint64((1 << width) - 1)
        keys_a, keys_b = ((hashes >> np.uint64(shift)) & mask for hashes in (a, b))
        order = np.argsort(keys_b, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(keys_b.astype(np.int64), minlength=1 << width))])
        for flip in flips:
            keys = (keys_a ^ np.uint64(flip)).astype(np.int64)
            for rows, columns in _matches(starts[keys], starts[keys + 1], order):
                close = np.bitwise_count(a[rows] ^ b[columns]) <= distance
                found.append(rows[close] * len(b) + columns[close])
    codes = np.unique(np.concatenate(found))
    i, j = np.divmod(codes, max(len(b), 1))
    return np.stack([places_a[i], places_b[j], np.bitwise_count(a[i] ^ b[j]).astype(np.int64)], axis=1)


def _probes(rows: int, columns: int, distance: int) -> list[tuple[int, int, list[int]]]:
    """The cheapest cut into bands, each (shift, width, patterns of the bits that may differ inside it).

    One band of no width, in which all are alike, compares all with all.
    """

    def cost(bands: int) -> float:
        width = BITS // bands
        probes = sum(comb(width, k) for k in range(distance // bands + 1))
        return bands * probes * (rows + rows * columns / 2.0**width + (1 << width) / 8)

    bands = min(range(4, min(max(4, distance + 1), BITS) + 1), key=cost)
    if cost(bands) > rows * columns:
        return [(0, 0, [0])]
    edges = [BITS * band // bands for band in range(bands + 1)]
    return [
        (low, high - low, _patterns(high - low, distance // bands)) for low, high in zip(edges, edges[1:], strict=False)
    ]


def _patterns(width: int, most: int) -> list[int]:
    """Every number below 2**width with at most `most` bits set."""
    chosen = (bits for k in range(most + 1) for bits in combinations(range(width), k))
    return [sum(1 << bit for bit in bits) for bits in chosen]


def _matches(lows: np.ndarray, highs: np.ndarray, order: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs (row, order[k]) for lows[row] <= k < highs[row], in pieces that fit into memory."""
    counts = highs - lows
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _PAIRS_AT_ONCE, side="right")))
        some = counts[start:stop]
        rows = np.repeat(np.arange(start, stop), some)
        inside = np.arange(len(rows)) - np.repeat(np.cumsum(some) - some, some)
        yield rows, order[np.repeat(lows[start:stop], some) + inside]
        start = stop
