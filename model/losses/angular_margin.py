"""InfoNCE with an angular margin on the negatives, fixed (ArcCSE) or adaptive to a teacher (AdapACSE)."""

import math

import torch
from torch import Tensor

from model.losses.cosine import cosine_matrix
from model.losses.info_nce import own_against_all
from model.losses.precision import full_precision


@full_precision
def angular_info_nce(
    anchors: Tensor,
    candidates: Tensor,
    temperature: float,
    margin: float,
    difference: Tensor | None = None,
    keep: Tensor | None = None,
) -> Tensor:
    """InfoNCE (one direction, rows anchors, averaged over them) on `angular_margin` of the cosines, over t.

    anchors, candidates: [N, D], any norm; row i of one belongs to row i of the other. margin: radians.
    difference: [N, N], how far the teacher finds i and j apart (1 - its cosine); None = the fixed margin.
    keep: [N, N] bool; entries where it is False leave the denominator (see teacher_mask); None = all stay.

    Source: Nguyen et al. 2024, KDMCSE: AdapACSE (adaptive, to images and captions) and its fixed form, which the
    released code uses between the two views of a sentence (docs/recipes.md, kdmcse).
    """
    logits = angular_margin(cosine_matrix(anchors, candidates), margin, difference) / temperature
    return own_against_all(logits, keep)


@full_precision
def angular_margin(cosine: Tensor, margin: float, difference: Tensor | None = None) -> Tensor:
    """Cosines with every negative made to look closer, and so harder: [N, N] -> [N, N].

        i = j, or theta_ij <= margin:  cos(theta_ij)
        otherwise:                     cos(theta_ij - margin * D_ij),  theta_ij = arccos(cosine_ij)

    margin: radians, 0 to pi. difference: D [N, N]; None = 1 everywhere (the fixed margin). The condition asks for the
    whole margin, not margin * D, so the value jumps at theta = margin; D up to 2 (teacher cosine -1) moves by 2 margin.

    arccos has no finite gradient at the ends, where identical views lie. The trigonometric identity
    cos(theta - a) = cos theta cos a + sin theta sin a is finite everywhere, with sin theta held at 0 at the ends.
    """
    if cosine.ndim != 2 or cosine.shape[0] != cosine.shape[1]:
        raise ValueError(f"cosine has shape {list(cosine.shape)}; the margin needs [N, N], positives on the diagonal")
    own = torch.eye(len(cosine), dtype=torch.bool, device=cosine.device)
    square = (1 - cosine) * (1 + cosine)
    end = square <= 0
    sine = torch.where(end, 0.0, torch.where(end, 1.0, square).sqrt())
    angle = torch.full_like(cosine, margin) if difference is None else margin * difference
    harder = cosine * angle.cos() + sine * angle.sin()
    return torch.where(own | (cosine >= math.cos(margin)), cosine, harder)
