"""Resizing many crops of different sizes at once on an accelerator, bit for bit as Pillow resizes each.

stages/common/pixels.py resizes one image at a time, with weights made on the host. Crops are many, and each has a size
of its own: here the weights are made on the device, and all crops of a batch go through the same few products. Only
the part of a resized crop that is kept is ever computed.
"""

from collections.abc import Sequence

import PIL
import torch
from torch import Tensor

_PLACES, _HALF = 22, 11  # Pillow's weights are whole numbers in 2^-22; a half of one, times a grey level, is exact
_MOST = 1 << 25  # pixels of the crops that are resized together, padding included; and weights of a line of theirs
_CAN_START_DOWN = int(PIL.__version__.split(".")[0]) >= 13


def resize_many(crops: Sequence[Tensor], frames: Sequence[tuple[int, int]], side: tuple[int, int], mode: str) -> Tensor:
    """The middle of every resized crop.

    Args:
        crops: uint8 [3, h, w], each of its own size, on one device (one that knows fp64).
        frames: height and width that each is resized to, at least `side`.
        side: height and width that are kept.
        mode: `bilinear` or `bicubic`.

    Returns:
        uint8 [crops, 3, *side].
    """
    resized = torch.empty((len(crops), 3, *side), dtype=torch.uint8, device=crops[0].device)
    shapes = [tuple(crop.shape[1:]) for crop in crops]
    lying = [_starts_down(*shape, *frame) for shape, frame in zip(shapes, frames, strict=True)]
    for chunk in _chunks(shapes, lying, max(side)):
        some, to = [crops[index] for index in chunk], [frames[index] for index in chunk]
        if lying[chunk[0]]:  # top to bottom first: the same with rows and columns exchanged
            turned = [crop.transpose(1, 2) for crop in some]
            made = _resize(turned, [frame[::-1] for frame in to], side[::-1], mode).transpose(2, 3)
        else:
            made = _resize(some, to, side, mode)
        resized[torch.tensor(chunk, device=resized.device)] = made
    return resized


def _starts_down(before: int, before_width: int, height: int, width: int) -> bool:
    """Whether Pillow shrinks from top to bottom first: since version 13, where far more rows are lost than columns."""
    return _CAN_START_DOWN and before > height and before - height > 2 * (before_width - width)


def _chunks(shapes: list[tuple[int, int]], lying: list[bool], kept: int) -> list[list[int]]:
    """Indices of crops that are resized together: alike, and as many as memory should hold."""
    chunks: list[list[int]] = []
    height = width = 0
    for index in sorted(range(len(shapes)), key=lambda index: (lying[index], shapes[index], index)):
        height, width = max(height, shapes[index][0]), max(width, shapes[index][1])
        each = max(height * width, max(height, width) * kept)
        if not chunks or (len(chunks[-1]) + 1) * each > _MOST or lying[chunks[-1][0]] != lying[index]:
            chunks.append([])
            height, width = shapes[index]
        chunks[-1].append(index)
    return chunks


def _resize(crops: list[Tensor], frames: list[tuple[int, int]], side: tuple[int, int], mode: str) -> Tensor:
    """Along the rows, then along the columns. uint8 [crops, 3, *side]."""
    device = crops[0].device
    high, wide = (max(crop.shape[axis] for crop in crops) for axis in (1, 2))
    pixels = torch.zeros((len(crops), 3, high, wide), dtype=torch.uint8, device=device)
    for place, crop in zip(pixels, crops, strict=True):
        place[:, : crop.shape[1], : crop.shape[2]] = crop
    lengths = torch.tensor([crop.shape[1:] for crop in crops], device=device)
    targets = torch.tensor(frames, device=device)
    rows = _along(pixels, lengths[:, 1], targets[:, 1], side[1], mode)
    return _along(rows.transpose(2, 3), lengths[:, 0], targets[:, 0], side[0], mode).transpose(2, 3)


def _along(pixels: Tensor, length: Tensor, target: Tensor, kept: int, mode: str) -> Tensor:
    """uint8 [n, 3, lines, longest] -> uint8 [n, 3, lines, kept]: the middle of lines of `length` pixels, resized to
    `target` pixels.
    """
    number, _, lines, longest = pixels.shape
    whole = weights(length, target, kept, longest, mode)
    low = (whole + (1 << (_HALF - 1))) % (1 << _HALF) - (1 << (_HALF - 1))
    halves = torch.cat([(whole - low) >> _HALF, low], 1).float()  # [n, 2 kept, longest]
    sums = torch.bmm(pixels.reshape(number, 3 * lines, longest).float(), halves.transpose(1, 2)).to(torch.int32)
    high, low = sums.view(number, 3, lines, 2, kept).unbind(3)
    total = (high << _HALF) + low + (1 << (_PLACES - 1))
    return (total >> _PLACES).clamp_(0, 255).to(torch.uint8)


def weights(length: Tensor, target: Tensor, kept: int, longest: int, mode: str) -> Tensor:
    """How much each of the `kept` middle pixels of a resized line takes of each pixel of the line.

    Args:
        length: int64 [n], pixels of the lines.
        target: int64 [n], pixels that each is resized to.
        longest: the longest line.

    Returns:
        int64 [n, kept, longest] in units of 2^-22.
    """
    first = (target - kept) // 2
    scale = (length.double() / target)[:, None, None]
    stretch = scale.clamp(min=1.0)
    reach = stretch * (2.0 if mode == "bicubic" else 1.0)
    place = torch.arange(kept, device=length.device)[None, :, None] + first[:, None, None]
    centre = (place + 0.5) * scale
    source = torch.arange(longest, device=length.device)[None, None, :]
    begin, end = (centre - reach + 0.5).trunc(), (centre + reach + 0.5).trunc()
    inside = (source >= begin) & (source < end) & (source < length[:, None, None])
    share = _KERNELS[mode](((source - centre + 0.5) * (1.0 / stretch)).abs()) * inside
    share = share / share.sum(2, keepdim=True)
    return (share * (1 << _PLACES) + torch.where(share < 0, -0.5, 0.5)).trunc().to(torch.int64)


def _triangle(distance: Tensor) -> Tensor:
    return (1.0 - distance).clamp(min=0.0)


def _cubic(distance: Tensor) -> Tensor:
    """Keys' cubic with a = -1/2."""
    near = (1.5 * distance - 2.5) * distance * distance + 1.0
    far = (((distance - 5.0) * distance + 8.0) * distance - 4.0) * -0.5
    return torch.where(distance < 1.0, near, torch.where(distance < 2.0, far, 0.0))


_KERNELS = {"bilinear": _triangle, "bicubic": _cubic}
