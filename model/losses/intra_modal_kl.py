"""Intra-modal alignment: the student's text-to-text distribution against the teachers'."""

from torch import Tensor

from model.losses.divergence import divergence
from model.losses.precision import full_precision


@full_precision
def intra_modal_kl(
    student: Tensor,
    teacher: Tensor,
    student_temperature: float,
    teacher_temperature: float,
    reduction: str = "mean",
) -> Tensor:
    """L_IMA = KL( softmax(teacher_i / t_t) || softmax(student_i / t_s) ), mean or sum over rows i.

    student: [N, N] similarity of view 1 of text i with view 2 of text j (cosines, or cosines with a margin);
    teacher: [N, N] similarity of the texts, of frozen teachers (see teacher_similarity).

    Source: DALR (2025). Released code: fixed-margin cosines, t_s = 0.05 * 0.45, t_t = 0.5, mean.
    Paper: sum; temperatures not stated. A sharp student against a flat teacher has a large constant floor.
    """
    return divergence(teacher / teacher_temperature, student / student_temperature, reduction)
