"""Kullback-Leibler divergence between the softmax distributions of two score matrices."""

from torch import Tensor

from model.losses.precision import full_precision


@full_precision
def divergence(teacher: Tensor, student: Tensor, reduction: str = "mean") -> Tensor:
    """KL( softmax(teacher_i) || softmax(student_i) ) over rows i.

    teacher, student: [N, M] scores, already over their temperatures. `mean` or `sum` over rows. Not symmetric: the
    teacher's distribution weighs. Computed from log-probabilities, so that sharp scores stay finite.
    """
    return divergence_of_logs(teacher.log_softmax(-1), student.log_softmax(-1), reduction)


def divergence_of_logs(teacher: Tensor, student: Tensor, reduction: str) -> Tensor:
    """sum_j q_ij (log q_ij - log p_ij) over rows i, of log q = teacher and log p = student, both [N, M]."""
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction {reduction!r} is not one of mean, sum")
    each = (teacher.exp() * (teacher - student)).sum(-1)
    return each.mean() if reduction == "mean" else each.sum()
