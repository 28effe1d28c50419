"""Images to a device: decoded ahead in threads, batched by shape.

Beside this, and importable from here too: `resize`, `normalise` (pixels.py) on the device; `Meter` (meter.py), what the
device did; `Halving` (halving.py), for batches that do not fit.

A worker of a stage that runs a model on images holds one Feeder and uses it for all its shards:

    plan = plan_by_shape(images, rows, batch_images, key)
    for pictures, bad in feeder.batches(images, plan):
        with meter.busy(len(pictures), flop):
            ...
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import torch
from torch import Tensor

from pipeline.errors import ResourceError
from stages.common.halving import Halving, out_of_memory
from stages.common.images import BadImage
from stages.common.meter import Meter
from stages.common.pixels import decode_planes, normalise, resize, same_jpeg_decoder

__all__ = ["Feeder", "Halving", "Meter", "Picture", "normalise", "plan_by_shape", "resize"]


@dataclass(frozen=True)
class Picture:
    """A decoded image: its row in the images table, its id, its sides, and its pixels, RGB uint8 [3, height, width], on
    the device.
    """

    row: int
    id: str
    height: int
    width: int
    pixels: Tensor


def plan_by_shape(
    images: pa.Table, rows: Sequence[int], batch: int, key: Callable[[int, int], Hashable]
) -> list[list[int]]:
    """Batches of rows of the images table, at most `batch` each, the images of one batch of one key.

    The plan is the same whatever the order of the rows in the table: sorted by key, then by id.

    Args:
        key: (height, width) -> what images must share to be in one batch, e.g. their size after resizing; keys are
            compared, so they must be of one sortable kind.
    """
    ids, heights, widths = (images.column(name).to_pylist() for name in ("id", "height", "width"))
    keys = {row: key(heights[row], widths[row]) for row in rows}
    plan: list[list[int]] = []
    for row in sorted(rows, key=lambda row: (keys[row], ids[row])):
        if plan and len(plan[-1]) < batch and keys[plan[-1][0]] == keys[row]:
            plan[-1].append(row)
        else:
            plan.append([row])
    return plan


class Feeder:
    """Decodes images in threads and puts them on a device while the batch before them is computed.

    Args:
        device: where the pixels go; a CUDA device becomes this process's current one, so that nothing is put on
            another by default.
        threads: decodes at a time.
        meter: its clock is started with the first batch.
    """

    def __init__(self, device: torch.device, threads: int, meter: Meter):
        self.device, self.threads, self.meter = device, threads, meter
        self._pool = ThreadPoolExecutor(threads, "decode")
        self._stream = None
        if device.type == "cuda":
            torch.cuda.set_device(device)
            self._stream = torch.cuda.Stream(device)
        same_jpeg_decoder()  # now, not inside the first decode

    def batches(
        self, images: pa.Table, plan: Sequence[Sequence[int]]
    ) -> Iterator[tuple[list[Picture], list[tuple[int, BadImage]]]]:
        """The batches of the plan in its order: the pictures, and the rows whose image cannot be used, with the reason.

        While the caller works on a batch, no more decoded images are alive than that batch, the next one, and one a
        thread: if it has let go of the batches before.

        Args:
            images: a table with id, bytes, height, width.
            plan: rows of the table, batch by batch.

        Raises:
            ResourceError: the device has no room for a single image.
        """
        self.meter.begin()
        rows = iter([row for batch in plan for row in batch])
        columns = [images.column(name) for name in ("id", "height", "width", "bytes")]
        ahead: deque[Future] = deque()
        try:
            for number, batch in enumerate(plan):
                self._fill(ahead, len(batch), rows, columns)
                ready = [self._collect([ahead.popleft() for _ in batch])]
                following = len(plan[number + 1]) if number + 1 < len(plan) else 0
                self._fill(ahead, following + self.threads, rows, columns)
                yield ready.pop()  # nothing here keeps the batch alive while the caller has it
        finally:
            for future in ahead:
                future.cancel()

    def _fill(self, ahead: deque, count: int, rows: Iterator[int], columns: list[pa.ChunkedArray]) -> None:
        while len(ahead) < count and (row := next(rows, None)) is not None:
            ahead.append(self._pool.submit(self._load, row, columns))

    def _load(self, row: int, columns: list[pa.ChunkedArray]) -> "tuple[Picture, torch.cuda.Event | None] | tuple":
        """In a thread: one image, decoded and on its way to the device; or (row, BadImage)."""
        identifier, height, width, data = (column[row].as_py() for column in columns)
        try:
            pixels = decode_planes(data)
            if pixels.shape[1:] != (height, width):
                detail = f"decodes to {pixels.shape[2]}x{pixels.shape[1]} pixels, recorded as {width}x{height}"
                return row, BadImage("unreadable", detail)
            there, event = self._upload(pixels)
        except BadImage as error:
            return row, error
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise ResourceError(
                f"image {identifier}: no memory left for its {width}x{height} pixels on {self.device}; lower "
                "runtime.batch_images or runtime.batch_rows, or use a device with more memory"
            ) from None
        return Picture(row, identifier, height, width, there), event

    def _upload(self, pixels: Tensor) -> "tuple[Tensor, torch.cuda.Event | None]":
        """The pixels on the device; on CUDA with the event after which they are there."""
        if self._stream is None:
            return pixels.to(self.device), None
        with torch.cuda.stream(self._stream):
            # torch keeps pinned blocks for reuse and hands none out again before its copy is done.
            there = pixels.pin_memory().to(self.device, non_blocking=True)
            event = torch.cuda.Event()
            event.record(self._stream)
        return there, event

    def _collect(self, futures: list[Future]) -> tuple[list[Picture], list[tuple[int, BadImage]]]:
        pictures, bad = [], []
        for first, second in (future.result() for future in futures):
            if isinstance(second, BadImage):
                bad.append((first, second))
                continue
            if second is not None:
                stream = torch.cuda.current_stream(self.device)
                stream.wait_event(second)
                first.pixels.record_stream(stream)
            pictures.append(first)
        return pictures, bad
