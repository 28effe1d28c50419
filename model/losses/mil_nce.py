"""A caption against bags of objects: which of a caption's objects belongs to what it says is left open."""

import torch
from torch import Tensor

from model.losses.precision import full_precision, softplus


@full_precision
def mil_nce(captions: Tensor, objects: Tensor, owner: Tensor, temperature: float) -> Tensor:
    """Multiple-instance InfoNCE, averaged over the captions that have objects:

        -log( sum_{k of i} e(i,k) / ( sum_{k of i} e(i,k) + sum_{k of others} e(i,k) ) ),  e(i,k) = exp(p_i . q_k / t)

    captions: [N, D] unit rows, one view; objects: [M, D] unit rows; owner: [M] int, the row of the caption that object
    k belongs to. Captions without objects are no anchors; if no caption has objects of others to tell its own from,
    the loss is 0.

    Source: the weak baseline of docs/recipes.md, which needs no phrases (after MIL-NCE, Miech et al. 2020).
    """
    scores = captions @ objects.T / temperature
    own = owner[None, :] == torch.arange(len(captions), device=owner.device)[:, None]
    anchors = own.any(1)
    # the lowest finite number, not -inf: a caption that owns all objects would get a NaN gradient
    lowest = torch.finfo(scores.dtype).min
    others = scores.masked_fill(own, lowest).logsumexp(1)
    margin = others - scores.masked_fill(~own, lowest).logsumexp(1)
    each = torch.where(anchors, softplus(torch.where(anchors, margin, 0.0)), 0.0)
    return each.sum() / anchors.sum().clamp(min=1)
