"""From pixels to run lengths on worker threads, beside the device: waiting for a copy, clean-up, encoding."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from pipeline.errors import StageError
from stages.common import rle
from stages.segment.backends import Mask

_AHEAD = 4
_EIGHT = np.ones((3, 3), bool)  # neighbours, corners included


@dataclass(frozen=True)
class Bits:
    """Masks of one image on the way to the host.

    Attributes:
        pixels: uint8 [n, width, height], 0 or 1.
        figures: [n, 3]: predicted IoU, stability, and whether all numbers behind the mask were finite.
        event: after which both are there; None if they are.
    """

    pixels: Tensor
    figures: Tensor
    event: "torch.cuda.Event | None"


def measure(logits: Tensor, low: Tensor, iou: Tensor) -> tuple[Tensor, Tensor]:
    """Masks and their figures (see `Bits`).

    Stability is the IoU of the mask at a threshold one higher and one lower.

    Args:
        logits: at image resolution [n, height, width]. low: as the decoder gave them [n, h, w]. iou: [n].
    """
    surer, looser = ((logits > threshold).flatten(1).sum(1) for threshold in (1.0, -1.0))
    finite = torch.isfinite(iou) & torch.isfinite(low).flatten(1).all(1)
    figures = torch.stack([iou, surer / looser, finite.float()], 1)
    return (logits > 0.0).transpose(1, 2).contiguous().view(torch.uint8), figures


def send(pixels: Tensor, figures: Tensor) -> Bits:
    """Starts the copy of masks and figures to the host; on CUDA it runs beside what comes next."""
    if pixels.device.type != "cuda":
        return Bits(pixels.cpu(), figures.cpu(), None)
    there = [
        torch.empty(t.shape, dtype=t.dtype, pin_memory=True).copy_(t, non_blocking=True) for t in (pixels, figures)
    ]
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(pixels.device))
    return Bits(*there, event)


class Outliner:
    """Threads that make masks of bits. Whoever brings bits faster than they go waits: no more than `_AHEAD` a thread
    are kept.
    """

    def __init__(self, threads: int):
        self._pool = ThreadPoolExecutor(threads, "outline")
        self._room = threading.BoundedSemaphore(_AHEAD * threads)

    def outline(self, bits: Bits, image_id: str, min_island: int) -> "Future[list[Mask | None]]":
        """`outline`, in a thread."""
        self._room.acquire()
        future = self._pool.submit(outline, bits, image_id, min_island)
        future.add_done_callback(lambda _: self._room.release())
        return future

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Future:
        """Any other work; it may wait for what was brought before it."""
        return self._pool.submit(work, *arguments)


def outline(bits: Bits, image_id: str, min_island: int) -> list[Mask | None]:
    """The masks in order, None for one without pixels; holes and islands of fewer than `min_island` pixels are cleaned
    away (0: none).

    Raises:
        StageError: NaN or infinity in a mask or its predicted IoU.
    """
    if bits.event is not None:
        bits.event.synchronize()
    figures = bits.figures.numpy()
    check(figures, image_id)
    made: list[Mask | None] = []
    for pixels, (iou, stability, _) in zip(bits.pixels.numpy(), figures.tolist(), strict=True):
        mask = clean(pixels.T.astype(bool), min_island)[0] if min_island else pixels.T
        made.append(Mask(rle.encode(mask), iou, stability) if mask.any() else None)
    return made


def check(figures: np.ndarray, image_id: str) -> None:
    """Raises StageError if a number behind a mask of this image was not finite."""
    if not figures[:, 2].all():
        raise StageError(
            f"image {image_id}: NaN or infinity in its masks or their predicted IoU; are the weights whole "
            "(`python -m pipeline weights verify`)? fp16 overflows where bf16 and fp32 do not: see segment.dtype"
        )


def clean(mask: np.ndarray, least: int) -> tuple[np.ndarray, bool]:
    """Fills holes and takes away islands of fewer than `least` pixels; of islands that are all small the largest stays.

    Holes are filled first. Pixels that touch at a corner hang together. Also says whether anything changed.
    """
    filled = _without_small(~mask, least, leave_one=False)
    whole = mask if filled is None else ~filled
    rid = _without_small(whole, least, leave_one=True)
    return (whole if rid is None else rid), filled is not None or rid is not None


def _without_small(mask: np.ndarray, least: int, leave_one: bool) -> np.ndarray | None:
    """The mask without its components of fewer than `least` pixels; None if it has none."""
    labels, count = ndimage.label(mask, _EIGHT)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    stays = sizes >= least
    if stays.all():
        return None
    if leave_one and not stays.any():
        stays[np.argmax(sizes)] = True
    return np.concatenate([[False], stays])[labels]
