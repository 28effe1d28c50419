"""InfoNCE with a hard negative for each anchor."""

import torch
from torch import Tensor

from model.losses.cosine import cosine_matrix
from model.losses.info_nce import own_against_all
from model.losses.precision import full_precision


@full_precision
def hard_negative_info_nce(
    anchors: Tensor, positives: Tensor, negatives: Tensor, temperature: float, weight: float = 0.0
) -> Tensor:
    """InfoNCE of each anchor against all positives and all hard negatives of the batch; averaged over anchors.

        -1/N sum_i log( e(a_i, p_i) / sum_j ( e(a_i, p_j) + e(a_i, n_j) * alpha^[i = j] ) ),  e = exp(cos / t)

    anchors, positives, negatives: [N, D], any norm: premise, entailment, contradiction of triplet i.
    weight = log alpha, added to the logit of the anchor's own hard negative; 0 = none of them counts more.

    Source: supervised SimCSE (Gao et al. 2021, eq. 5 and the weighted form of its ablation).
    """
    return own_against_all(hard_negative_logits(anchors, positives, negatives, temperature, weight))


def hard_negative_logits(
    anchors: Tensor, positives: Tensor, negatives: Tensor, temperature: float, weight: float = 0.0
) -> Tensor:
    """[N, 2N]: cosines with all positives, then with all hard negatives, over t; `weight` on the own hard negative."""
    hard = cosine_matrix(anchors, negatives) / temperature
    own = torch.eye(len(hard), dtype=hard.dtype, device=hard.device)
    return torch.cat([cosine_matrix(anchors, positives) / temperature, hard + weight * own], dim=1)
