"""Stored images as tensors, and resizing and normalising on the device: bit for bit as Pillow decodes and resizes.

Pillow's resampling is arithmetic on integers, along one side of the image and then along the other: each output pixel
is a sum of input pixels times weights of 22 binary places, rounded. On an accelerator the sum is a matrix product in
fp32; the weights are split into a high and a low half of 11 bits, so that every product and (up to 64 taps) every sum
is exact, under TF32 too.
"""

import functools
import io
from collections.abc import Sequence

import numpy as np
import PIL
import torch
from PIL import Image
from torch import Tensor

from stages.common.images import decode

_JPEG = b"\xff\xd8"
_PLACES, _HALF = 22, 11
_CAN_START_DOWN = int(PIL.__version__.split(".")[0]) >= 13
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def decode_planes(data: bytes) -> Tensor:
    """A stored image as RGB, uint8 [3, H, W], the pixels that `stages.common.images.decode` gives.

    Raises:
        BadImage: `unreadable`.
    """
    if data[:2] == _JPEG and same_jpeg_decoder():
        try:
            return _decode_jpeg(data)
        except RuntimeError:
            pass  # Pillow says what is wrong with it, or reads it all the same
    return _decode_by_pillow(data)


def _decode_jpeg(data: bytes) -> Tensor:
    from torchvision.io import ImageReadMode, decode_jpeg

    return decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)


def _decode_by_pillow(data: bytes) -> Tensor:
    pixels = np.asarray(decode(data))
    planes = torch.empty((3, *pixels.shape[:2]), dtype=torch.uint8)
    np.copyto(planes.numpy(), pixels.transpose(2, 0, 1))
    return planes


@functools.cache
def same_jpeg_decoder() -> bool:
    """Whether torchvision decodes JPEG to the pixels of Pillow here. It takes two thirds of the time and makes no copy
    under Python's lock, but the libjpeg inside is another build, so pictures that would tell them apart are tried.
    """
    noise = np.random.default_rng(0).integers(0, 256, (61, 93, 3), dtype=np.uint8)
    for subsampling in (0, 1, 2):
        written = io.BytesIO()
        Image.fromarray(noise).save(written, "JPEG", quality=80, subsampling=subsampling)
        try:
            if not torch.equal(_decode_jpeg(written.getvalue()), _decode_by_pillow(written.getvalue())):
                return False
        except (ImportError, RuntimeError):
            return False
    return True


def resize(pixels: Tensor, height: int, width: int, mode: str = "bilinear") -> Tensor:
    """uint8 [3, H, W] -> uint8 [3, height, width] as `PIL.Image.resize` does it, the same on every device.

    Args:
        mode: `bilinear` or `bicubic`; both smooth when they shrink.
    """
    if pixels.device.type != "cpu":
        return resize_by_products(pixels, height, width, mode)
    planes = [Image.fromarray(plane).resize((width, height), _FILTERS[mode]) for plane in pixels.numpy()]
    return torch.from_numpy(np.stack([np.asarray(plane) for plane in planes]))


def resize_by_products(pixels: Tensor, height: int, width: int, mode: str) -> Tensor:
    """`resize` as two matrix products, for devices that Pillow does not know."""
    before, before_width = pixels.shape[1:]
    # Since Pillow 13 an image that loses far more rows than columns is shrunk from top to bottom first.
    if _CAN_START_DOWN and before > height and before - height > 2 * (before_width - width):
        return _across(_down(pixels, height, mode), width, mode)
    return _down(_across(pixels, width, mode), height, mode)


def _across(pixels: Tensor, width: int, mode: str) -> Tensor:
    if width == pixels.shape[2]:
        return pixels
    halves = _halves(pixels.shape[2], width, mode, pixels.device)  # [2 width, W]
    return _rounded((pixels.float() @ halves.T).unflatten(2, (2, width)).unbind(2))


def _down(pixels: Tensor, height: int, mode: str) -> Tensor:
    if height == pixels.shape[1]:
        return pixels
    halves = _halves(pixels.shape[1], height, mode, pixels.device)  # [2 height, H]
    return _rounded((halves @ pixels.float()).unflatten(1, (2, height)).unbind(1))


def _rounded(halves: tuple[Tensor, ...]) -> Tensor:
    high, low = (half.to(torch.int32) for half in halves)
    total = (high << _HALF) + low + (1 << (_PLACES - 1))
    return (total >> _PLACES).clamp_(0, 255).to(torch.uint8)


@functools.lru_cache(maxsize=64)
def _halves(before: int, after: int, mode: str, device: torch.device) -> Tensor:
    """fp32 [2 after, before]: the high halves of the weights, then the low ones."""
    whole = weights(before, after, mode)
    low = (whole + (1 << (_HALF - 1))) % (1 << _HALF) - (1 << (_HALF - 1))  # -1024 to 1023
    high = (whole - low) >> _HALF
    return torch.from_numpy(np.concatenate([high, low]).astype(np.float32)).to(device)


def weights(before: int, after: int, mode: str) -> np.ndarray:
    """int64 [after, before]: how much each of `before` pixels in a line adds to each of `after`, in 2^-22."""
    scale = before / after
    stretch = max(scale, 1.0)
    reach = stretch * (2.0 if mode == "bicubic" else 1.0)
    centre = (np.arange(after) + 0.5) * scale
    first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + reach + 0.5).astype(np.int64), before)
    column = first[:, None] + np.arange((last - first).max())
    inside = column < last[:, None]
    value = _kernel(np.abs((column - centre[:, None] + 0.5) * (1.0 / stretch)), mode) * inside
    value /= value.sum(1, keepdims=True)
    whole = np.trunc(value * (1 << _PLACES) + np.copysign(0.5, value)).astype(np.int64)
    dense = np.zeros((after, before), np.int64)
    rows = np.broadcast_to(np.arange(after)[:, None], column.shape)
    dense[rows[inside], column[inside]] = whole[inside]
    return dense


def _kernel(x: np.ndarray, mode: str) -> np.ndarray:
    """The filter at distance x >= 0: a triangle, or Keys' cubic with a = -1/2."""
    if mode == "bilinear":
        return np.maximum(1.0 - x, 0.0)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def normalise(batch: Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype) -> Tensor:
    """(batch - mean) / std for each channel, computed in fp32.

    Args:
        batch: uint8 or floating [B, 3, h, w], values 0 to 255.
        mean, std: a value a channel, on the same scale of 0 to 255.
        dtype: of the result.
    """
    mean, std = (_per_channel(tuple(values), batch.device) for values in (mean, std))
    return ((batch.float() - mean) / std).to(dtype)


@functools.cache
def _per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Kept on the device: a copy from the host at every batch would wait for it."""
    return torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1, 1)
