"""Masks of a whole image from a grid of points: the method of SAM's automatic mask generator, without its crops."""

from concurrent.futures import Future

import numpy as np
import torch
from torchvision.ops import nms

from stages.common import rle
from stages.segment.backends import Mask
from stages.segment.outlines import clean

Size = tuple[int, int]
Numbered = list[tuple[int, Mask]]  # a mask and its number: three times its point's, plus which of the three it is


def points(per_side: int) -> np.ndarray:
    """Centres of the cells of a grid over an image, float64 [per_side * per_side, 2], x and y as shares of its sides,
    row by row.
    """
    line = np.linspace(0.5 / per_side, 1 - 0.5 / per_side, per_side)
    return np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)


def gather(parts: list[tuple[Future, list[int]]], size: Size, nms_iou: float, min_island: int) -> Numbered:
    """The masks of an image that stay, by number.

    Of masks whose boxes overlap by more than `nms_iou` the one of best predicted IoU stays. After a clean-up of small
    holes and islands (`min_island` > 0) this is done once more, and masks that needed none go first.

    Args:
        parts: futures of `Outliner.outline` and the numbers of their masks.
    """
    found = [
        (number, mask)
        for future, numbers in parts
        for number, mask in zip(numbers, future.result(), strict=True)
        if mask
    ]
    stay = _distinct(found, [mask.predicted_iou for _, mask in found], size, nms_iou)
    if min_island:
        cleaned = [_cleaned(mask, size, min_island) for _, mask in stay]
        stay = [(number, mask) for (number, _), (mask, _) in zip(stay, cleaned, strict=True)]
        stay = _distinct(stay, [float(not changed) for _, changed in cleaned], size, nms_iou)
    return sorted(stay, key=lambda item: item[0])


def _distinct(found: Numbered, scores: list[float], size: Size, nms_iou: float) -> Numbered:
    """Non-maximum suppression by boxes, best score first."""
    if not found:
        return []
    boxes = _boxes(found, size)
    boxes[:, 2:] -= 1  # the published code measures boxes from the first to the last pixel
    kept = nms(torch.from_numpy(boxes).float(), torch.tensor(scores, dtype=torch.float32), nms_iou)
    return [found[index] for index in kept.tolist()]


def _boxes(found: Numbered, size: Size) -> np.ndarray:
    return rle.boxes([mask.counts for _, mask in found], [size[0]] * len(found), [size[1]] * len(found))


def _cleaned(mask: Mask, size: Size, min_island: int) -> tuple[Mask, bool]:
    pixels, changed = clean(rle.decode(mask.counts, *size), min_island)
    return (Mask(rle.encode(pixels), mask.predicted_iou, mask.stability) if changed else mask), changed


def best_for(boxes: np.ndarray, found: Numbered, size: Size) -> list[Mask | None]:
    """For every box [n, 4] the mask whose own bounding box has the best IoU with it, the first of equals; None where
    none overlaps.
    """
    if not found or not len(boxes):
        return [None] * len(boxes)
    own = _boxes(found, size)
    overlap = np.stack([rle.box_ious(np.broadcast_to(box, own.shape), own) for box in boxes])
    best = overlap.argmax(1)
    return [found[index][1] if row[index] > 0 else None for row, index in zip(overlap, best.tolist(), strict=True)]
