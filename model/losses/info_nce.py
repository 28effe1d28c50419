"""InfoNCE over a batch."""

import torch
from torch import Tensor
from torch.nn import functional as F

from model.losses.precision import full_precision, softplus


@full_precision
def info_nce(
    anchors: Tensor, candidates: Tensor, temperature: float, symmetric: bool = False, keep: Tensor | None = None
) -> Tensor:
    """Cross-entropy of each anchor against all candidates of the batch, on cosines; averaged over anchors.

        -1/N sum_i log( exp(cos(a_i, c_i)/t) / sum_j exp(cos(a_i, c_j)/t) )

    anchors, candidates: [N, D], any norm; row i of one belongs to row i of the other. One direction (rows anchors);
    `symmetric` averages it with the other direction. keep: [N, N] bool; where it is False, candidate j leaves the
    denominator of anchor i (see teacher_mask). With N = 1 there is nothing to tell apart and the loss is 0.

    Intra-text: two dropout views of a sentence (Gao et al. 2021, SimCSE, eq. 4). Text to image: a sentence and its
    image through the grounding heads (Zhang et al. 2022, MCSE, eq. 3).
    """
    logits = F.normalize(anchors, dim=-1) @ F.normalize(candidates, dim=-1).T / temperature
    loss = own_against_all(logits, keep)
    return (loss + own_against_all(logits.T, None if keep is None else keep.T)) / 2 if symmetric else loss


def own_against_all(logits: Tensor, keep: Tensor | None = None) -> Tensor:
    """Mean over rows of the cross-entropy whose target is the diagonal: [N, M >= N] -> scalar.

    keep: bool, same shape; entries where it is False leave the denominator, but for the diagonal, which always counts.

    Computed as log(1 + sum of the others / own): the logarithm of the softmax would take two nearly equal numbers off
    each other, and a loss of 0.001 would keep four digits in float32.
    """
    gone = torch.eye(*logits.shape, dtype=torch.bool, device=logits.device)
    if keep is not None:
        gone = gone | ~keep
    # the lowest finite number, not -inf: a row without negatives would get a NaN gradient
    others = logits.masked_fill(gone, torch.finfo(logits.dtype).min).logsumexp(1)
    return softplus(others - logits.diagonal()).mean()
