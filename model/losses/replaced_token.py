"""Replaced-token detection: which tokens did the generator change?"""

import torch
from torch import Tensor
from torch.nn import functional as F

from model.losses.precision import full_precision

PADDINGS = ("ignore", "count")


@full_precision
def replaced_token(logits: Tensor, labels: Tensor, mask: Tensor, padding: str = "ignore") -> Tensor:
    """Mean two-way cross-entropy over positions.

    logits: [R, L, 2] of the discriminator (class 1 = replaced); labels: [R, L] int, 0 or 1; mask: [R, L], 1 on real
    tokens. `ignore`: the mean is over real tokens; `count`: over every position, padding with label 0.

    Source: L_RTD of DiffCSE (Chuang et al. 2022), weight 0.005; both views, R = 2N. Its released code
    is `count`.
    """
    if padding not in PADDINGS:
        raise ValueError(f"padding {padding!r} is not one of {', '.join(PADDINGS)}")
    each = F.cross_entropy(logits.flatten(0, 1), labels.flatten().long(), reduction="none")
    if padding == "count":
        return each.mean()
    weight = mask.flatten().to(each.dtype)
    return (each * weight).sum() / weight.sum().clamp(min=1)


def replaced_labels(
    input_ids: Tensor, generated: Tensor, mask: Tensor, cls_id: int, pad_id: int = 0
) -> tuple[Tensor, Tensor]:
    """What the discriminator reads, and what it must say: (ids, labels), both [R, L] int64.

    input_ids: [R, L] the sentence; generated: [R, L] the generator's best token at every position; mask: [R, L].
    Position 0 is forced to `cls_id`, padding to `pad_id` (the released code writes 0 there, which is <s> to RoBERTa).
    label = 1 where a real token differs from the sentence's.
    """
    real = mask.bool()
    ids = generated.long().clone()
    ids[:, 0] = cls_id
    ids = torch.where(real, ids, pad_id)
    return ids, ((ids != input_ids) & real).long()
