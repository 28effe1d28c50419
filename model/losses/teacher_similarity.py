"""One similarity matrix out of the sentence vectors of several teachers."""

from collections.abc import Sequence

from torch import Tensor

from model.losses.cosine import cosine_matrix

FORMS = ("cosines", "vectors")


def teacher_similarity(vectors: Sequence[Tensor], weights: Sequence[float], form: str = "cosines") -> Tensor:
    """How similar the teachers find the sentences of a batch: [N, N].

    vectors: one [N, D_k] a teacher, any norm; weights: one number a teacher.
    `cosines`: the weighted sum of the teachers' cosine matrices. `vectors`: the cosines of the weighted sum of their
    vectors, which mixes spaces that have nothing to do with each other and needs equal widths.

    Source: DALR's two text teachers (SimCSE 0.33, DiffCSE 0.67): its released code ranks by `cosines` and takes
    `vectors` for its distributions; `cosines` for both is recommended.
    """
    if form not in FORMS:
        raise ValueError(f"form {form!r} is not one of {', '.join(FORMS)}")
    pairs = list(zip(vectors, weights, strict=True))
    if form == "vectors":
        mixed = sum(weight * vector for vector, weight in pairs)
        return cosine_matrix(mixed, mixed)
    return sum(weight * cosine_matrix(vector, vector) for vector, weight in pairs)
