"""The heads of a sentence's words: Stanza's search for the best tree is entered only where it is needed.

Stanza looks for the best dependency tree with one root (Chuliu and Edmonds), in Python, for every sentence. If each
word's own best head makes such a tree already, it is the best there can be, and most sentences of captions are so.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from stanza.models.common.chuliu_edmonds import chuliu_edmonds_one_root
from stanza.models.depparse import model


@contextmanager
def quick_heads() -> Iterator[None]:
    """Within it, Stanza's parser finds heads by `best_heads`."""
    stock = model.chuliu_edmonds_one_root
    model.chuliu_edmonds_one_root = best_heads
    try:
        yield
    finally:
        model.chuliu_edmonds_one_root = stock


def best_heads(scores: np.ndarray) -> np.ndarray:
    """The head of each word (0: the root) in the best tree with one root.

    Args:
        scores: float [N, N] with scores[i, j] for j as the head of i; row and column 0 are the root. Not changed.

    Returns:
        int [N]; entry 0 is 0.
    """
    masked = scores.copy()
    np.fill_diagonal(masked, -np.inf)
    heads = masked.argmax(axis=1)
    heads[0] = 0
    if np.isnan(scores).any() or np.count_nonzero(heads[1:] == 0) != 1 or not _all_reach_root(heads):
        return chuliu_edmonds_one_root(scores)
    return heads


def _all_reach_root(heads: np.ndarray) -> bool:
    above = heads
    for _ in range(len(heads).bit_length()):
        above = above[above]  # twice as many steps towards the root each time
    return not above.any()
