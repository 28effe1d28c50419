"""From what a Grounding DINO says to boxes of phrases; the same for every backend that runs one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_convert, nms

from pipeline.errors import InputError
from stages.common.device import send
from stages.detect.backends import Found, Miss
from stages.detect.prompts import Prompt


@dataclass(frozen=True)
class Rules:
    """Which boxes stay: a least phrase score, and the IoU above which the lower-scored of a phrase's boxes goes."""

    box_threshold: float
    nms_iou: float


def phrase_scores(logits: Tensor, prompts: Sequence[Prompt]) -> Tensor:
    """The score of every phrase at every query: the mean, over the phrase's own tokens, of the token probabilities.

    So does the original code where it is given the phrases' spans (`create_positive_map_from_span` makes rows that
    weigh each token of a span by one over their number, and these rows are multiplied by the sigmoid of the logits);
    it adds 1e-6 to that number, which is left out here.

    Args:
        logits: [B, Q, T], T at least the tokens of the longest prompt; -inf beyond a prompt's own tokens.
        prompts: B of them.

    Returns:
        fp32 [B, P, Q], P the most phrases of a prompt, rows of shorter ones 0; NaN wherever a prompt got a logit that
        is not finite.
    """
    batch, _, length = logits.shape
    weights = torch.zeros(batch, max(len(p.asked) for p in prompts), length)
    padding = torch.zeros(batch, 1, length, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        padding[row, 0, len(prompt.tokens) :] = True
        for number, asked in enumerate(prompt.asked):
            weights[row, number, asked.start : asked.end] = 1.0 / (asked.end - asked.start)
    weights, padding = send(weights, logits.device), send(padding, logits.device)
    logits = logits.float()
    wrong = ~(torch.isfinite(logits) | padding)
    probabilities = logits.masked_fill(padding, -torch.inf).sigmoid()
    return weights @ probabilities.masked_fill(wrong, torch.nan).mT


def ground(
    scores: Tensor, boxes: Tensor, prompt: Prompt, image: tuple[str, int, int], rules: Rules
) -> Iterator[tuple[str, list[Found] | Miss]]:
    """The boxes of every phrase of a prompt, best first; a Miss where none scores enough.

    Args:
        scores: [P, Q] by `phrase_scores`, P at least the phrases of the prompt, on the CPU.
        boxes: fp32 [Q, 4], centre x, y, width, height in shares of the image, on the CPU.
        image: id, height and width in pixels of the image as it is stored; boxes are clipped to it.

    Raises:
        InputError: a score or a box is not finite.
    """
    identifier, height, width = image
    scores = scores[: len(prompt.asked)]
    if not (torch.isfinite(scores).all() and torch.isfinite(boxes).all()):
        raise InputError(
            f"image {identifier}: the detector gave NaN or infinity for {prompt.text[:60]!r}; set detect.dtype to fp32 "
            "(or bf16 in place of fp16), or get its weights again (`python -m pipeline weights verify`)"
        )
    corners = box_convert(boxes.float(), "cxcywh", "xyxy") * torch.tensor([width, height, width, height])
    corners[:, 0::2] = corners[:, 0::2].clamp(0, width)
    corners[:, 1::2] = corners[:, 1::2].clamp(0, height)
    solid = (corners[:, 2:] > corners[:, :2]).all(1)
    for asked, row in zip(prompt.asked, scores, strict=True):
        enough = torch.nonzero(solid & (row >= rules.box_threshold)).flatten()
        kept = enough[nms(corners[enough], row[enough], rules.nms_iou)][: asked.most]
        found = [
            Found(tuple(box), score, asked.text)
            for box, score in zip(corners[kept].tolist(), row[kept].tolist(), strict=True)
        ]
        result = found or Miss("no_box", f"best score {row.max():.2f}")
        yield from ((phrase_id, result) for phrase_id in asked.ids)
