"""Do a text and an image belong together: a cosine embedding loss."""

import torch
from torch import Tensor

from model.losses.cosine import unit
from model.losses.precision import full_precision


@full_precision
def consistency(text: Tensor, image: Tensor, matched: Tensor, margin: float = 0.2, reduction: str = "mean") -> Tensor:
    """Over pairs of a text and an image:

        matched:  1 - cos(t, v)          not matched:  max(0, cos(t, v) - margin)

    text, image: [P, D], any norm (a zero row has cosine 0); matched: [P] bool. `mean` or `sum` over the pairs.

    Source: L_cons of DALR (2025); the pairs are the N matched ones of a batch and N with another's image, which the
    released code takes by rolling the batch by 5 and the paper by shuffling it. Paper: sum; code: mean.
    """
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction {reduction!r} is not one of mean, sum")
    cosine = (unit(text) * unit(image)).sum(-1)
    each = torch.where(matched, 1 - cosine, (cosine - margin).clamp(min=0))
    return each.mean() if reduction == "mean" else each.sum()
