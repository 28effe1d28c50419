"""What a checkpoint's image processor does to an image, done on the device to many at once.

Hugging Face's processors come in two kinds: those on Pillow, which all published weights were made with, and those on
torchvision, which come near. Here it is Pillow's way on every device.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stages.common.feeder import normalise, resize
from stages.embed.sampling import resize_many

_MODES = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers
# Images that a processor is compared on: enlarged, shrunk, lying, standing, narrow.
_SHAPES = ((37, 61), (61, 37), (400, 310), (300, 40), (16, 16))
_WASTE = 8  # a resized image this many times as large as what is kept of it is not computed whole


@dataclass(frozen=True)
class Preparation:
    """Resize, keep the middle, normalise.

    Attributes:
        size: height and width that an image is resized to; or the length of its shorter side.
        side: height and width that are kept.
        mode: `bilinear` or `bicubic`.
        mean, std: a value a channel, on a scale of 0 to 255.
    """

    size: tuple[int, int] | int
    side: tuple[int, int]
    mode: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def frame(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that an image of this size is resized to."""
        if not isinstance(self.size, int):
            return self.size
        long = int(self.size * max(height, width) / min(height, width))
        return (long, self.size) if width <= height else (self.size, long)

    def pixels(self, crops: Sequence[Tensor], apply: Callable = map) -> Tensor:
        """uint8 [3, h, w] of any sizes, on one device -> uint8 [crops, 3, *side].

        Args:
            apply: `map`, or a pool of threads that does it; not used where the device takes all at once.
        """
        frames = [self.frame(*crop.shape[1:]) for crop in crops]
        if crops[0].device.type == "cuda":
            return resize_many(crops, frames, self.side, self.mode)
        return torch.stack(list(apply(self._one, crops, frames)))

    def values(self, pixels: Tensor, dtype: torch.dtype) -> Tensor:
        """uint8 [n, 3, *side] -> what the encoder is given."""
        return normalise(pixels, self.mean, self.std, dtype)

    def _one(self, crop: Tensor, frame: tuple[int, int]) -> Tensor:
        height, width = self.side
        if frame[0] * frame[1] > _WASTE * height * width:  # a crop one pixel wide becomes a frame of millions
            return resize_many([crop.cpu()], [frame], self.side, self.mode)[0].to(crop.device)
        top, left = (frame[0] - height) // 2, (frame[1] - width) // 2
        return resize(crop, *frame, self.mode)[:, top : top + height, left : left + width]


def mirror(processor: Any) -> Preparation | None:
    """The Preparation that gives what a Hugging Face image processor gives; None if there is none.

    Processors differ in more than their settings, so it is compared on images: with a processor on Pillow every grey
    level must agree, with one on torchvision to within two.

    Raises:
        ValueError: the processor cannot make images of several sizes into one batch.
    """
    images = [_made_up(height, width) for height, width in _SHAPES]
    expected = on_host(processor, images)
    preparation = _from_settings(processor)
    if preparation is None or tuple(expected.shape[2:]) != preparation.side:
        return None
    levels = torch.tensor(preparation.std).view(-1, 1, 1)
    ours = preparation.values(preparation.pixels(images), torch.float32)
    tolerance = 0.01 if getattr(processor, "backend", None) == "pil" else 2.01
    return preparation if ((ours - expected).abs() * levels).max() <= tolerance else None


def on_host(processor: Any, crops: Sequence[Tensor]) -> Tensor:
    """The processor's own way: uint8 [3, h, w] on any device -> float32 [crops, 3, height, width] on the CPU.

    Raises:
        ValueError: it makes images of several sizes of them.
    """
    arrays = [crop.cpu().numpy() for crop in crops]
    try:
        values = processor(images=arrays, input_data_format="channels_first", return_tensors="pt")["pixel_values"]
    except (ValueError, RuntimeError, TypeError, KeyError):
        values = None
    if not isinstance(values, Tensor) or values.dim() != 4 or values.shape[1] != 3:
        raise ValueError("its image processor does not make pictures of one size of images")
    return values.float()


def _from_settings(processor: Any) -> Preparation | None:
    size, crop = _plain(processor, "size"), _plain(processor, "crop_size")
    mode = _MODES.get(int(getattr(processor, "resample", None) or 0))
    if mode is None or not getattr(processor, "do_resize", False) or getattr(processor, "do_pad", False):
        return None
    if set(size) == {"height", "width"}:
        target: tuple[int, int] | int = (size["height"], size["width"])
        side = target
    elif set(size) == {"shortest_edge"}:
        target = size["shortest_edge"]
        side = (target, target)
        share = getattr(processor, "crop_pct", None)
        if share is not None:  # ConvNeXt's: small ones are cut from a larger frame, large ones squeezed
            target = int(target / share) if target < 384 else side
    else:
        return None
    if getattr(processor, "do_center_crop", False):
        side = (crop.get("height", 0), crop.get("width", 0))
    least = (target, target) if isinstance(target, int) else target
    if not 0 < side[0] <= least[0] or not 0 < side[1] <= least[1]:
        return None
    scale = processor.rescale_factor if getattr(processor, "do_rescale", False) else 1.0
    mean, std = (0.0,) * 3, (1.0,) * 3
    if getattr(processor, "do_normalize", False):
        mean, std = ((v,) * 3 if isinstance(v, float) else v for v in (processor.image_mean, processor.image_std))
    return Preparation(target, side, mode, tuple(m / scale for m in mean), tuple(s / scale for s in std))


def _plain(processor: Any, name: str) -> dict[str, int]:
    """A size of a processor's settings, those of its keys that are set."""
    value = getattr(processor, name, None)
    return {key: number for key, number in dict(value).items() if number is not None} if value else {}


def _made_up(height: int, width: int) -> Tensor:
    """An image with edges, slopes and noise, always the same. uint8 [3, height, width]."""
    draw = np.random.default_rng(height * 10_007 + width)
    rows, columns = np.mgrid[:height, :width]
    slopes = np.stack([rows * 255 // height, columns * 255 // width, (rows // 5 + columns // 7) % 2 * 255])
    return torch.from_numpy(np.clip(slopes + draw.integers(-40, 41, slopes.shape), 0, 255).astype(np.uint8))
