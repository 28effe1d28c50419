"""Object-phrase contrastive loss: a phrase against the objects of the batch."""

import torch
from torch import Tensor

from model.losses.precision import full_precision, softplus

PHRASE_DUP = ("multi_positive", "mask", "negative")
SAME_IMAGE = ("iou_ignore", "ignore", "negative")
DIRECTION = ("t2v", "symmetric")


@full_precision
def object_phrase(
    phrases: Tensor,
    objects: Tensor,
    key: Tensor,
    image: Tensor,
    box: Tensor,
    temperature: float,
    phrase_dup: str = "multi_positive",
    same_image: str = "iou_ignore",
    direction: str = "t2v",
    iou_threshold: float = 0.5,
) -> Tensor:
    """Multi-positive InfoNCE between phrases and objects with some pairs left out.

    phrases: [V, M, D] unit rows, V dropout views of M phrases; objects: [M, D] unit rows, object n belongs to phrase n.
    key: [M] int, equal for phrases that mean the same ("a man", "the man"); image: [M] int; box: [M, 4] xyxy, pixels,
    continuous coordinates (no +1).

    P(n) = positives of n: all items with n's key (`multi_positive`), else n alone.
    X(n) = items outside P(n) that are left out: the others with n's key (`mask`); of n's image those whose boxes
    overlap n's with IoU >= `iou_threshold` (`iou_ignore`), all (`ignore`) or none (`negative`).

        loss = mean over views, n, m in P(n) of -log( e(n,m) / (e(n,m) + sum_{j not in P(n) or X(n)} e(n,j)) ),
        e(n,m) = exp(phrase_n . object_m / t)

    `symmetric` averages it with the object -> phrase direction over the same sets.

    Source: the object-phrase objective of MCSEO (Zhao, Miao, Tsuruoka 2025, arXiv 2508.00332), for which no formula
    or code is published: the sets P and X are this project's reading. `phrase_dup='negative', same_image='negative',
    direction='t2v'` is plain InfoNCE.
    """
    positive, negative = _sets(key, image, box, phrase_dup, same_image, iou_threshold)
    losses = []
    for view in phrases:
        logits = view @ objects.T / temperature
        loss = _multi_positive(logits, positive, negative)
        if direction == "symmetric":
            loss = (loss + _multi_positive(logits.T, positive, negative)) / 2
        losses.append(loss)
    return torch.stack(losses).mean()


def _multi_positive(logits: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    # the lowest finite number, not -inf: a row without negatives would get a NaN gradient
    others = logits.masked_fill(~negative, torch.finfo(logits.dtype).min).logsumexp(1, keepdim=True)
    each = softplus(others - logits)  # = -log( e^s / (e^s + sum of negatives) )
    weight = positive.to(logits.dtype)
    return ((each * weight).sum(1) / weight.sum(1)).mean()


def _sets(
    key: Tensor, image: Tensor, box: Tensor, phrase_dup: str, same_image: str, iou_threshold: float
) -> tuple[Tensor, Tensor]:
    """(P, negatives) as boolean [M, M]; negatives = what is in neither P nor X."""
    for value, known in ((phrase_dup, PHRASE_DUP), (same_image, SAME_IMAGE)):
        if value not in known:
            raise ValueError(f"{value!r} is not one of {', '.join(known)}")
    self_pair = torch.eye(len(key), dtype=torch.bool, device=key.device)
    same_key = key[:, None] == key[None, :]
    positive = same_key if phrase_dup == "multi_positive" else self_pair
    ignored = same_key if phrase_dup == "mask" else torch.zeros_like(self_pair)
    if same_image != "negative":
        shared = image[:, None] == image[None, :]
        if same_image == "iou_ignore":
            shared = shared & (box_iou(box) >= iou_threshold)
        ignored = ignored | shared
    return positive, ~(positive | ignored)


def box_iou(box: Tensor) -> Tensor:
    """Pairwise intersection over union of xyxy boxes [M, 4] -> [M, M]; 0 where both boxes are empty."""
    corner = torch.minimum(box[:, None, 2:], box[None, :, 2:]) - torch.maximum(box[:, None, :2], box[None, :, :2])
    inter = corner.clamp(min=0).prod(-1)
    area = (box[:, 2:] - box[:, :2]).clamp(min=0).prod(-1)
    union = area[:, None] + area[None, :] - inter
    return torch.where(union > 0, inter / union.clamp(min=torch.finfo(box.dtype).tiny), 0.0)
