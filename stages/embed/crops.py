"""Cutting objects out of their image, on the device where the image is."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageFilter

_ONE = 1 << 24  # Pillow's blur computes with 24 bits behind the point
_PASSES = 3


def windows(boxes: np.ndarray, margin: float, height: int, width: int) -> np.ndarray:
    """What is cut out around each box: top, left, bottom, right in whole pixels, int64 [boxes, 4].

    Args:
        boxes: x0, y0, x1, y1 in pixels, float64 [boxes, 4].
        margin: share of a box's sides added on each side; the image's edge is the limit.
    """
    x0, y0, x1, y1 = boxes.T
    dx, dy = margin * (x1 - x0), margin * (y1 - y0)
    top, left = np.maximum(0, y0 - dy), np.maximum(0, x0 - dx)
    bottom, right = np.minimum(height, y1 + dy + 0.999), np.minimum(width, x1 + dx + 0.999)
    return np.stack([top, left, bottom, right], 1).astype(np.int64)


def expand(
    lengths: np.ndarray, begin: np.ndarray, places: np.ndarray, height: int, device: torch.device
) -> Sequence[torch.Tensor]:
    """Masks of one image from their run lengths, each in its window: bool [height, window width], on the device.

    Args:
        lengths: int64 [runs] down the columns of each mask, unset pixels first.
        begin: int64 [masks + 1], where the runs of each begin.
        places: the windows, top, left, bottom, right, int64 [masks, 4].
        height: of the image; a window's columns are taken whole.
    """
    number = np.diff(begin)
    total = np.concatenate(([0], np.cumsum(lengths)))
    before = np.repeat(total[begin[:-1]] + places[:, 1] * height, number)
    area = (places[:, 3] - places[:, 1]) * height
    ends = np.clip(total[1:] - before, 0, np.repeat(area, number))
    first = np.arange(len(lengths)) == np.repeat(begin[:-1], number)
    shown = np.diff(ends, prepend=0)
    shown[first] = ends[first]
    inside = (np.arange(len(lengths)) - np.repeat(begin[:-1], number)) % 2 == 1
    if device.type == "cpu":  # numpy repeats twenty times as fast as torch does here
        flat = torch.from_numpy(np.repeat(inside, shown))
    else:
        flat = repeat_on_device(inside, shown, device)
    return [mask.view(-1, height).t() for mask in flat.split(area.tolist())]


def repeat_on_device(values: np.ndarray, often: np.ndarray, device: torch.device) -> torch.Tensor:
    """`np.repeat`, done on the device: some hundred bytes a mask go there, not a byte a pixel."""
    there, times = (torch.from_numpy(array).to(device) for array in (values, often))
    return torch.repeat_interleave(there, times, output_size=int(often.sum()))


def cut(
    pixels: torch.Tensor, window: tuple[int, int, int, int], mask: torch.Tensor | None, mode: str, fill: torch.Tensor
) -> torch.Tensor:
    """A crop, uint8 [3, window height, window width].

    Args:
        pixels: the whole image, uint8 [3, height, width].
        window: top, left, bottom, right.
        mask: the object's pixels in the window's columns, bool [height, window width]; not looked at for mode `box`.
        mode: what becomes of pixels outside the mask: `masked` fills them with `fill`, `blur` blurs them (radius 5 %
            of the crop's longer side), `box` keeps them.
        fill: uint8 [3, 1, 1].
    """
    top, left, bottom, right = window
    crop = pixels[:, top:bottom, left:right]
    if mode == "box":
        return crop
    around = blur(crop, 0.05 * max(crop.shape[1:])) if mode == "blur" else fill
    inside = mask[top:bottom]
    if pixels.device.type != "cpu":
        return torch.where(inside, crop, around)
    outside = ~np.ascontiguousarray(inside.numpy())
    made = np.array(crop.numpy())
    for plane, other in zip(made, around.numpy(), strict=True):  # three times as fast as torch.where here
        np.putmask(plane, outside, other)
    return torch.from_numpy(made)


def blur(pixels: torch.Tensor, radius: float) -> torch.Tensor:
    """Pillow's Gaussian blur, to the bit, on any device. uint8 [3, height, width] -> the same.

    Args:
        radius: standard deviation in pixels.
    """
    if pixels.device.type == "cpu":
        image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
        return torch.from_numpy(np.array(image.filter(ImageFilter.GaussianBlur(radius)))).permute(2, 0, 1)
    return blur_exactly(pixels, radius)


def blur_exactly(pixels: torch.Tensor, radius: float) -> torch.Tensor:
    """As Pillow does it, in whole numbers: three box blurs along the rows, then three along the columns."""
    side = _box_radius(radius)
    lines = pixels.to(torch.int64)
    for _ in range(_PASSES):
        lines = _box_blur(lines, side)
    lines = lines.transpose(1, 2)
    for _ in range(_PASSES):
        lines = _box_blur(lines, side)
    return lines.transpose(1, 2).to(torch.uint8)


def _box_radius(radius: float) -> np.float32:
    """The (broken) radius of a box whose blur, done three times, spreads as a Gaussian of this standard deviation."""
    spread = np.float32(radius) * np.float32(radius) / np.float32(_PASSES)
    whole = np.float32(math.floor((math.sqrt(12.0 * float(spread) + 1.0) - 1.0) / 2.0))
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * spread)
    return np.float32(whole + part / (6 * (spread - (whole + 1) * (whole + 1))))


def _box_blur(lines: torch.Tensor, radius: np.float32) -> torch.Tensor:
    """int64 [..., n] -> the same; the first and the last value go on beyond the edges."""
    reach = int(radius)
    weight = int(np.float32(_ONE) / (radius * 2 + 1))
    edge = (_ONE - (2 * reach + 1) * weight) // 2
    before, after = (lines[..., i].unsqueeze(-1).expand(*lines.shape[:-1], reach + 1) for i in (0, -1))
    wide = torch.cat([before, lines, after], -1)
    total = torch.nn.functional.pad(wide.cumsum(-1), (1, 0))
    n = lines.shape[-1]
    inner = total[..., 2 * reach + 2 :][..., :n] - total[..., 1 : n + 1]
    outer = wide[..., :n] + wide[..., 2 * reach + 2 :][..., :n]
    return (inner * weight + outer * edge + _ONE // 2) >> 24
