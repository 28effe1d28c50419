"""The work on the device: images to pictures (each image, and the crops of its objects), pictures and texts to
vectors.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from pipeline.sections import Embed, Runtime
from stages.common.feeder import Feeder, Halving, Meter, Picture
from stages.common.images import BadImage
from stages.embed.crops import cut, expand, windows
from stages.embed.encoder import Encoder
from stages.embed.objects import Objects

_PIXELS = 1 << 24  # the most that the images of one feeding hold, where they are several
_AHEAD = 2  # batches that a GPU may have waiting


class Made(NamedTuple):
    """A picture: the id and kind of its feature, its image, and its pixels; or why there are none."""

    name: str
    kind: str
    image_id: str
    pixels: Tensor | BadImage


class Worker:
    """An encoder on one device, with what feeds it and what measures it."""

    def __init__(self, section: Embed, runtime: Runtime, device: str):
        self.section, self.rows = section, runtime.batch_rows
        self.encoder = Encoder(section.path, device, section.dtype, runtime.threads)
        self.device = self.encoder.device
        self.meter = Meter(self.device, self.encoder.dtype, "pictures")
        self.feeder = Feeder(self.device, runtime.threads, self.meter)
        self.preparing, self.encoding, self.reading = (Halving(what) for what in ("crops", "pictures", "texts"))
        self._waiting: deque[torch.cuda.Event] = deque()

    def pictures(self, images: pa.Table, objects: Objects) -> Iterator[Made]:
        """Every image and each of its objects, by image id and feature id whatever the order of the rows, their pixels
        as `Encoder.prepare` makes them.
        """
        ids = images.column("id").to_pylist()
        for pictures, bad in self.feeder.batches(images, self._plan(images, objects)):
            for row, error in bad:
                yield Made(f"image:{ids[row]}", "image", ids[row], error)
                first, last = objects.of.get(ids[row], (0, 0))
                yield from (Made(name, "object", ids[row], error) for name in objects.names[first:last])
            if not pictures:
                continue
            with self.meter.busy():
                cuts = [one for picture in pictures for one in self._cut(picture, objects)]
                prepared = self.preparing.run(lambda some: list(self.encoder.prepare(some)), [c.pixels for c in cuts])
                made = [one._replace(pixels=pixels) for one, pixels in zip(cuts, prepared, strict=True)]
            del pictures, cuts, prepared  # nothing here keeps the images while the next ones come
            yield from made

    def _plan(self, images: pa.Table, objects: Objects) -> list[list[int]]:
        """Rows of images that are fed together: enough for a batch of pictures, but not too many pixels."""
        ids, heights, widths = (images.column(name).to_pylist() for name in ("id", "height", "width"))
        plan: list[list[int]] = []
        pictures = pixels = 0
        for row in sorted(range(len(ids)), key=ids.__getitem__):
            more = heights[row] * widths[row]
            if not plan or pictures >= self.rows or pixels + more > _PIXELS:
                plan.append([])
                pictures = pixels = 0
            plan[-1].append(row)
            pictures += 1 + objects.number(ids[row])
            pixels += more
        return plan

    def _cut(self, picture: Picture, objects: Objects) -> Iterator[Made]:
        """The whole image and its objects, uint8 [3, h, w] each of its own size."""
        yield Made(f"image:{picture.id}", "image", picture.id, picture.pixels)
        first, last = objects.of.get(picture.id, (0, 0))
        if first == last:
            return
        mode, fill = self.section.crop, self.encoder.fill
        begin = objects.begin[first : last + 1]
        places = windows(objects.boxes[first:last], self.section.crop_margin, picture.height, picture.width)
        masks: Sequence[Tensor | None] = [None] * (last - first)
        if mode != "box":
            lengths = objects.lengths[begin[0] : begin[-1]]
            masks = expand(lengths, begin - begin[0], places, picture.height, self.device)
        for name, place, mask in zip(objects.names[first:last], places.tolist(), masks, strict=True):
            yield Made(name, "object", picture.id, cut(picture.pixels, place, mask, mode, fill))

    def encode(self, pixels: list[Tensor]) -> list[Tensor]:
        """Vectors of prepared pictures, float16 [dim] each, in host memory; read them after `wait`."""
        with self.meter.busy(len(pixels), len(pixels) * self.encoder.image_flop):
            return self.encoding.run(lambda some: self._to_host(self.encoder.encode(torch.stack(some))), pixels)

    def texts(self, texts: list[str]) -> np.ndarray:
        """Vectors of texts, float16 [texts, dim]. Batches are of texts of like length, whatever their order."""
        tokens = self.encoder.tokens(texts) if texts else []
        vectors = torch.empty((len(texts), self.encoder.dim), dtype=torch.float16)
        made: list[tuple[list[int], list[Tensor]]] = []
        order = sorted(range(len(texts)), key=lambda i: (len(tokens[i]), texts[i]))
        for start in range(0, len(order), self.rows):
            batch = order[start : start + self.rows]
            flop = len(batch) * len(tokens[batch[-1]]) * self.encoder.token_flop
            with self.meter.busy(0, flop):
                read = self.reading.run(
                    lambda some: self._to_host(self.encoder.texts(some)), [tokens[i] for i in batch]
                )
            made.append((batch, read))
        self.wait()
        for batch, read in made:
            vectors[batch] = torch.stack(read)
        return vectors.numpy()

    def wait(self) -> None:
        """Until every vector is in host memory."""
        while self._waiting:
            self._waiting.popleft().synchronize()

    def _to_host(self, vectors: Tensor) -> list[Tensor]:
        """[n, dim] -> float16 [dim] each; on CUDA they are on their way while the next batch is computed."""
        halves = vectors.to(torch.float16)
        if self.device.type != "cuda":
            return list(halves.cpu())
        host = torch.empty(halves.shape, dtype=halves.dtype, pin_memory=True)
        host.copy_(halves, non_blocking=True)
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self.device))
        self._waiting.append(event)
        if len(self._waiting) > _AHEAD:
            self._waiting.popleft().synchronize()
        return list(host)
