"""The backend `sam`: masks from Segment Anything, by boxes or on a grid of points.

Images are encoded in batches, the box prompts of a batch of images are decoded together, and masks become run lengths
on threads while the device is at the next batch.
"""

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import groupby
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from pipeline.errors import tell
from stages.common.device import dtype_of
from stages.common.feeder import Feeder, Halving, Meter, Picture, plan_by_shape
from stages.segment import grid
from stages.segment.backends import Miss, Segmented
from stages.segment.network import Network
from stages.segment.outlines import Outliner, measure, send

Box = tuple[float, float, float, float]

_PIXELS = 64_000_000  # of enlarged logits held at a time: 256 MB


@dataclass(frozen=True)
class Prompt:
    """A box prompt: which of the batch's pictures it is in, that picture, and the box in its pixels."""

    index: int
    picture: Picture
    box: Box


class SamSegmenter:
    """Masks from a Segment Anything checkpoint.

    Args:
        section: `segment` of the parameters.
        runtime: `runtime` of the parameters.
        device: where this worker runs.

    Raises:
        InputError: the weights folder is missing, damaged or of another model.
        ParamsError: the network cannot be compiled here.
    """

    def __init__(self, section: Any, runtime: Any, device: str):
        torch.set_num_threads(runtime.threads)
        self.section, self.rows, self.images = section, runtime.batch_rows, runtime.batch_images
        self.device, dtype = torch.device(device), dtype_of(section.dtype)
        compiled = self.images if runtime.compile else 0
        self.network = Network(Path(section.path), self.device, dtype, compiled)
        self.meter = Meter(self.device, dtype)
        self.feeder = Feeder(self.device, runtime.threads, self.meter)
        self.outliner = Outliner(runtime.threads)
        self.image_halving, self.prompt_halving = Halving("images"), Halving("prompts")
        self.facts = {"architecture": self.network.name}
        if compiled or self.device.type == "cuda":
            with self.meter.warm_up():
                self.image_halving.run(self._warm_up, list(range(self.images)))

    def speed(self) -> dict[str, Any]:
        """What the device did since this was last asked."""
        return self.meter.speed()

    def segment(self, images: pa.Table, boxes: pa.Table) -> Iterator[Segmented]:
        """See `Segmenter`."""
        wanted: dict[int, dict[Box, list[str]]] = defaultdict(lambda: defaultdict(list))
        yield from _sort(images, boxes, wanted)
        by_grid = self.section.prompt == "grid"
        rows = range(images.num_rows) if by_grid else sorted(wanted)
        plan = plan_by_shape(images, rows, self.images, lambda height, width: 0)  # all are squares to the network
        pending: deque[Iterator[Segmented]] = deque()
        for pictures, bad in self.feeder.batches(images, plan):
            for row, error in bad:
                identifier = images.column("id")[row].as_py()
                if not wanted[row]:
                    tell(f"segment: image {identifier} has no masks: {error.reason} ({error.detail})")
                miss = Miss("rejected", error.reason, error.detail)
                yield from (Segmented(i, identifier, i, miss) for ids in wanted[row].values() for i in ids)
            if pictures:
                with self.meter.busy(len(pictures), len(pictures) * self.network.flop):
                    embeddings = self.image_halving.run(self._encode, pictures)
                with self.meter.busy():
                    work = self._on_grid if by_grid else self._in_boxes
                    pending.append(work(pictures, torch.stack(embeddings), wanted))
            while len(pending) > 1:
                yield from pending.popleft()
        for done in pending:
            yield from done

    def _warm_up(self, images: list[int]) -> list[int]:
        self.network.warm_up(len(images))
        return images

    def _encode(self, pictures: list[Picture]) -> list[Tensor]:
        fill = min(self.network.batch, self.image_halving.limit or self.network.batch)
        return list(self.network.encode([picture.pixels for picture in pictures], fill))

    # Box prompts

    def _in_boxes(self, pictures: list[Picture], embeddings: Tensor, wanted: dict) -> Iterator[Segmented]:
        """Starts all the work on a batch; what it returns waits for the masks."""
        prompts = [Prompt(index, p, box) for index, p in enumerate(pictures) for box in wanted[p.row]]
        made: list[tuple[Future, int]] = []
        for first in range(0, len(prompts), self.rows):
            some = prompts[first : first + self.rows]
            made += self.prompt_halving.run(lambda several: self._decode(embeddings, several), some)
        asked = [(p.picture.id, wanted[p.picture.row][p.box]) for p in prompts]
        return (
            _answer(identifier, image_id, future.result()[position])
            for (image_id, ids), (future, position) in zip(asked, made, strict=True)
            for identifier in ids
        )

    def _decode(self, embeddings: Tensor, prompts: list[Prompt]) -> list[tuple[Future, int]]:
        """For every prompt the future of its picture's masks, and its place among them."""
        frame = np.array([self._in_frame(np.reshape(p.box, (2, 2)), p.picture) for p in prompts])
        owner = self._put(np.array([p.index for p in prompts]))
        embedded = self.network.embed_boxes(self._put(frame.reshape(-1, 4).astype(np.float32)))
        kept = "best" if self.section.multimask else "single"
        low, iou = self.network.decode(embeddings, owner, embedded, kept)
        made: list[tuple[Future, int]] = []
        for _, group in groupby(prompts, lambda p: p.index):
            same = list(group)
            part = slice(len(made), len(made) + len(same))
            made += self._outline(low[part, 0], iou[part, 0], same[0].picture)
        return made

    def _outline(self, low: Tensor, iou: Tensor, picture: Picture) -> list[tuple[Future, int]]:
        size = (picture.height, picture.width)
        made: list[tuple[Future, int]] = []
        for part in self._parts(len(low), size):
            pixels, figures = measure(self.network.enlarge(low[part], size), low[part], iou[part])
            future = self.outliner.outline(send(pixels, figures), picture.id, self.section.min_island)
            made += [(future, position) for position in range(len(pixels))]
        return made

    # A grid of points

    def _on_grid(self, pictures: list[Picture], embeddings: Tensor, wanted: dict) -> Iterator[Segmented]:
        """Starts all the work on a batch; what it returns waits for the masks."""
        made = []
        for picture, embedding in zip(pictures, embeddings, strict=True):
            size = (picture.height, picture.width)
            shares = grid.points(self.section.grid.points_per_side)
            numbered = list(enumerate(self._in_frame(shares * (picture.width, picture.height), picture)))
            parts: list[tuple[Future, list[int]]] = []
            for first in range(0, len(numbered), self.rows):
                decoded = self.prompt_halving.run(
                    lambda some, embedding=embedding, picture=picture: self._decode_points(embedding, picture, some),
                    numbered[first : first + self.rows],
                )
                parts += [part for several in decoded for part in several]
            nms_iou, least = self.section.grid.nms_iou, self.section.min_island
            made.append((picture, size, self.outliner.submit(grid.gather, parts, size, nms_iou, least)))
        return (row for picture, size, future in made for row in _matched(picture, size, future, wanted[picture.row]))

    def _decode_points(
        self, embedding: Tensor, picture: Picture, numbered: list
    ) -> list[list[tuple[Future, list[int]]]]:
        """The parts that `grid.gather` takes, all with the first of the points; the others have none."""
        frame = self._put(np.array([point for _, point in numbered], dtype=np.float32))
        owner = self._put(np.zeros(len(numbered), np.int64))
        low, iou = self.network.decode(embedding[None], owner, self.network.embed_points(frame), "all")
        numbers = [3 * number + which for number, _ in numbered for which in range(3)]
        return [self._outline_good(low.flatten(0, 1), iou.flatten(), numbers, picture), *([] for _ in numbered[1:])]

    def _outline_good(
        self, low: Tensor, iou: Tensor, numbers: list[int], picture: Picture
    ) -> list[tuple[Future, list[int]]]:
        """What passes the thresholds. NaN passes, to be found out by `outline`."""
        size, least = (picture.height, picture.width), self.section.grid
        if least.min_predicted_iou:
            low, iou, numbers = _only((iou > least.min_predicted_iou) | ~torch.isfinite(iou), low, iou, numbers)
        made: list[tuple[Future, list[int]]] = []
        for part in self._parts(len(low), size):
            pixels, figures = measure(self.network.enlarge(low[part], size), low[part], iou[part])
            some = numbers[part]
            if least.min_stability:
                stays = (figures[:, 1] >= least.min_stability) | (figures[:, 2] == 0)
                pixels, figures, some = _only(stays, pixels, figures, some)
            if some:
                made.append((self.outliner.outline(send(pixels, figures), picture.id, 0), some))
        return made

    def _parts(self, count: int, size: tuple[int, int]) -> Iterator[slice]:
        """`count` masks of an image of this size in parts that memory holds, in the encoder's frame as well."""
        step = max(1, _PIXELS // max(size[0] * size[1], self.network.side**2))
        return (slice(first, min(first + step, count)) for first in range(0, count, step))

    def _in_frame(self, points: np.ndarray, picture: Picture) -> np.ndarray:
        """Points [..., 2], x and y, from an image's pixels to the encoder's frame."""
        height, width = self.network.resized((picture.height, picture.width))
        return points * (width / picture.width, height / picture.height)

    def _put(self, array: np.ndarray) -> Tensor:
        """On the device, without waiting for what it is at."""
        tensor = torch.from_numpy(array)
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)


def _sort(images: pa.Table, boxes: pa.Table, wanted: dict[int, dict[Box, list[str]]]) -> Iterator[Segmented]:
    """Fills `wanted`: row of the image -> box, clipped to the image -> ids of the boxes that are equal; yields the
    boxes that are none.
    """
    columns = images.select(["id", "height", "width"]).to_pydict()
    row_of = {identifier: row for row, identifier in enumerate(columns["id"])}
    for line in boxes.select(["id", "image_id", "x0", "y0", "x1", "y1"]).to_pylist():
        box = tuple(line[name] for name in ("x0", "y0", "x1", "y1"))
        row = row_of[line["image_id"]]
        height, width = columns["height"][row], columns["width"][row]
        x0, y0, x1, y1 = (min(max(v, 0.0), float(end)) for v, end in zip(box, (width, height) * 2, strict=True))
        if all(map(isfinite, box)) and x0 < x1 and y0 < y1:
            wanted[row][(x0, y0, x1, y1)].append(line["id"])
        else:
            detail = f"{', '.join(f'{v:g}' for v in box)} has no area in an image of {width}x{height} pixels"
            yield Segmented(line["id"], line["image_id"], line["id"], Miss("rejected", "bad_box", detail))


def _answer(identifier: str, image_id: str, mask: Any) -> Segmented:
    found = mask or Miss("dropped", "no_mask", "the network's mask has no pixels")
    return Segmented(identifier, image_id, identifier, found)


def _matched(
    picture: Picture, size: tuple[int, int], future: Future, boxes: dict[Box, list[str]]
) -> Iterator[Segmented]:
    """All masks of an image's grid, then every box with the one that fits it best."""
    found = future.result()
    for number, mask in found:
        yield Segmented(f"{picture.id}/grid/{number:05d}", picture.id, None, mask)
    chosen = grid.best_for(np.array(list(boxes)).reshape(-1, 4), found, size)
    missed = Miss("dropped", "no_mask", f"none of {len(found)} masks of the grid overlaps the box")
    for ids, mask in zip(boxes.values(), chosen, strict=True):
        yield from (Segmented(identifier, picture.id, identifier, mask or missed) for identifier in ids)


def _only(stays: Tensor, a: Tensor, b: Tensor, numbers: Sequence[int]) -> tuple[Tensor, Tensor, list[int]]:
    chosen = torch.nonzero(stays)[:, 0]
    return a[chosen], b[chosen], [numbers[index] for index in chosen.tolist()]
