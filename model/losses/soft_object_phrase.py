"""Object-phrase loss with soft targets from a teacher (variant C)."""

import torch
from torch import Tensor

from model.losses.divergence import divergence
from model.losses.object_phrase import object_phrase
from model.losses.precision import full_precision


@full_precision
def soft_object_phrase(
    phrases: Tensor,
    objects: Tensor,
    teacher: Tensor,
    key: Tensor,
    image: Tensor,
    box: Tensor,
    temperature: float,
    teacher_temperature: float,
    beta: float = 0.5,
    phrase_dup: str = "multi_positive",
    same_image: str = "iou_ignore",
    direction: str = "symmetric",
    iou_threshold: float = 0.5,
) -> Tensor:
    """(1 - beta) * object_phrase + beta * 1/2 [ KL(T || P) + KL(T' || P') ], averaged over views.

        P = softmax(phrase_n . object_m / t),  T = softmax(teacher / t_T),  both over objects; P', T' the same of the
        transposed scores, over phrases. Both divergences are means over rows.

    phrases: [V, M, D] unit rows; objects: [M, D] unit rows; teacher: [M, M] cosine of a frozen teacher's vector of
    phrase n with its vector of object m (CLIP). teacher_temperature 0.02 to 0.05, as CLIP's cosines lie close
    together. key, image, box and the options: see object_phrase. beta = 1: soft targets alone.

    Source: variant C of docs/recipes.md (this project's; no code of MCSEO is published).
    """
    target = teacher / teacher_temperature
    soft = []
    for view in phrases:
        scores = view @ objects.T / temperature
        soft.append((divergence(target, scores) + divergence(target.T, scores.T)) / 2)
    loss = torch.stack(soft).mean()
    if beta == 1:
        return loss
    hard = object_phrase(
        phrases, objects, key, image, box, temperature, phrase_dup, same_image, direction, iou_threshold
    )
    return (1 - beta) * hard + beta * loss
