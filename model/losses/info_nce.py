"""InfoNCE over a batch."""

import torch
from torch import Tensor
from torch.nn import functional as F


def info_nce(anchors: Tensor, candidates: Tensor, temperature: float, symmetric: bool = False) -> Tensor:
    """Cross-entropy of each anchor against all candidates of the batch, on cosines; averaged over anchors.

        -1/N sum_i log( exp(cos(a_i, c_i)/t) / sum_j exp(cos(a_i, c_j)/t) )

    anchors, candidates: [N, D], any norm; row i of one belongs to row i of the other. One direction (rows anchors);
    `symmetric` averages it with the other direction. With N = 1 there is nothing to tell apart and the loss is 0.

    Intra-text: two dropout views of a sentence (Gao et al. 2021, SimCSE, eq. 4). Text to image: a sentence and its
    image through the grounding heads (Zhang et al. 2022, MCSE, eq. 3).
    """
    logits = F.normalize(anchors, dim=-1) @ F.normalize(candidates, dim=-1).T / temperature
    target = torch.arange(len(logits), device=logits.device)
    loss = F.cross_entropy(logits, target)
    return (loss + F.cross_entropy(logits.T, target)) / 2 if symmetric else loss
