"""Cross-modal alignment: the student's text-to-image distribution against two teachers' own distributions."""

from torch import Tensor

from model.losses.divergence import divergence, divergence_of_logs
from model.losses.precision import full_precision

TRANSPOSES = ("scores", "probabilities")


@full_precision
def cross_modal_kl(
    student: Tensor,
    teacher_text: Tensor,
    teacher_image: Tensor,
    student_temperature: float,
    teacher_temperature: float,
    reduction: str = "mean",
    transpose: str = "scores",
) -> Tensor:
    """L_CMA = 1/2 [ KL(Q_text || P) + KL(Q_image || P^T) ],  P = softmax(student / t_s), Q = softmax(teacher / t_t).

    student: [N, N] similarity of text i with image j (cosines, or cosines with a margin); teacher_text,
    teacher_image: [N, N] similarities of texts with texts, images with images, of frozen teachers.
    transpose: what P^T means. `scores`: softmax of the transposed scores, a distribution over texts for each image;
    `probabilities`: the transposed softmax, whose rows do not sum to 1 (the paper's formula taken literally).

    Source: DALR (2025). Released code: student = fixed-margin cosines of z with the raw image feature, t_s = 0.05 *
    0.45, t_t = 0.5, mean, `scores`. Paper: sum; temperatures, the student's space and the transpose
    are not stated. Recommended: the image through the visual head, mean, `scores`.
    """
    if transpose not in TRANSPOSES:
        raise ValueError(f"transpose {transpose!r} is not one of {', '.join(TRANSPOSES)}")
    scores = student / student_temperature
    text = divergence(teacher_text / teacher_temperature, scores, reduction)
    image_logs = (teacher_image / teacher_temperature).log_softmax(-1)
    turned = scores.T.log_softmax(-1) if transpose == "scores" else scores.log_softmax(-1).T
    return (text + divergence_of_logs(image_logs, turned, reduction)) / 2
