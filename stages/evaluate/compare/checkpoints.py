"""Which runs are one checkpoint: a copy under another seed number is no second seed."""

from collections.abc import Mapping, Sequence

import numpy as np

# other batches or another processor move a cosine by less; other weights move some pair's by far more
_SAME_COSINE = 1e-5


def grouped(digests: Sequence[str | None], cosines: Mapping[str, np.ndarray]) -> list[list[int]]:
    """The rows, those of one checkpoint together, in the order of their first.

    `digests`: of each row's model, None where nobody says; `cosines`: {task: [R, n]}. Rows are one checkpoint if their
    models have one digest, or all their cosines are the same.
    """
    found: list[list[int]] = []
    for row, digest in enumerate(digests):
        for group in found:
            if (digest is not None and digest == digests[group[0]]) or _same(cosines, group[0], row):
                group.append(row)
                break
        else:
            found.append([row])
    return found


def _same(cosines: Mapping[str, np.ndarray], one: int, two: int) -> bool:
    return all(np.abs(values[one] - values[two]).max() < _SAME_COSINE for values in cosines.values())
