"""Which negatives a teacher finds too similar to be negatives."""

import torch
from torch import Tensor

FORMS = ("code", "paper")


def teacher_mask(
    similarity: Tensor, threshold: float | None, form: str = "code", image: Tensor | None = None
) -> Tensor:
    """What stays in the denominators: [N, N] bool, True on the diagonal. For `keep` of the InfoNCE losses.

    similarity: [N, N] of a frozen teacher, row i = anchor i; entries above `threshold` go (`code`: strictly greater,
    `paper`: greater or equal); None = no threshold. image: [N] int; captions of the same image go too.

    Which similarity, and for which target, is the recipe's choice (C = CLIP vector of the caption, I = of the image):
    the released KDMCSE masks image row i by C_i . I_j and caption row i by I_i . C_j (its published
    commands never switch the mask on, and it compares raw dot products: give unit vectors). CLIP cosines between
    text and image seldom exceed 0.35, so a threshold of 0.85 to 0.9 can only be meant for text with text: the
    recommended mask is C_i . C_j for both targets, with `image` (docs/recipes.md, kdmcse).
    """
    if form not in FORMS:
        raise ValueError(f"form {form!r} is not one of {', '.join(FORMS)}")
    gone = torch.zeros(similarity.shape, dtype=torch.bool, device=similarity.device)
    if threshold is not None:
        gone = similarity > threshold if form == "code" else similarity >= threshold
    if image is not None:
        gone = gone | (image[:, None] == image[None, :])
    return ~gone | torch.eye(len(gone), dtype=torch.bool, device=gone.device)
