"""Where masks come from. A backend is anything with `segment`; `annotations` needs no model."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import pyarrow as pa

from pipeline.errors import InputError
from stages.common import rle
from stages.common.annotations import Annotations


@dataclass(frozen=True)
class Mask:
    """Compressed COCO counts at image resolution, with SAM's predicted IoU and stability (1 for annotated masks)."""

    counts: bytes
    predicted_iou: float
    stability: float


@dataclass(frozen=True)
class Miss:
    """Why a box got no mask: outcome (`dropped` or `rejected`), a reason code of the ledger, a detail."""

    outcome: str
    reason: str
    detail: str = ""


class Segmented(NamedTuple):
    """What was found: for a box its mask or a Miss, under the box's id; or a mask that no box asked for (`box_id`
    None), under an id of its own.
    """

    id: str
    image_id: str
    box_id: str | None
    found: Mask | Miss


class Segmenter(Protocol):
    """Finds the pixels inside the boxes of a shard.

    `segment` takes the shard's `images` and `boxes` tables and yields every box once, and masks without a box where
    the backend finds such. Each image is to be encoded once. `facts` of the model go into the sidecars; `speed` is
    what its device did for the last shard, None without a device.
    """

    facts: dict[str, Any]

    def segment(self, images: pa.Table, boxes: pa.Table) -> Iterator[Segmented]: ...

    def speed(self) -> dict[str, Any] | None: ...


class AnnotatedSegmenter:
    """The annotated mask of the object a box was taken from."""

    facts: ClassVar[dict[str, Any]] = {}

    def speed(self) -> None:
        return None

    def __init__(self, annotations: Annotations):
        self.annotations = annotations

    def segment(self, images: pa.Table, boxes: pa.Table) -> Iterator[Segmented]:
        frame = {
            row["id"]: (row["height"], row["width"]) for row in images.select(["id", "height", "width"]).to_pylist()
        }
        for row in boxes.select(["id", "image_id", "object_id"]).to_pylist():
            yield Segmented(row["id"], row["image_id"], row["id"], self._of(row["object_id"], *frame[row["image_id"]]))

    def _of(self, object_id: str, height: int, width: int) -> Mask | Miss:
        thing = self.annotations.of_id.get(object_id)
        if thing is None:
            return Miss("dropped", "no_annotation", f"object {object_id} is not annotated")
        try:
            counts = rle.from_annotation(thing.segmentation, height, width)
        except InputError as error:
            return Miss("rejected", "bad_mask", f"object {thing.id}: {error}")
        if counts is None or not rle.area(counts, height, width):
            return Miss("dropped", "no_mask", f"object {thing.id} has a box but no pixels")
        return Mask(counts, 1.0, 1.0)


def open_segmenter(section: Any, runtime: Any, device: str) -> Segmenter:
    """Builds the backend that `segment.backend` names.

    Raises:
        InputError: what lies at `segment.path` is not what the backend needs.
    """
    if section.backend == "annotations":
        return AnnotatedSegmenter(Annotations(Path(section.path), section.annotations))
    from stages.segment.sam import SamSegmenter

    return SamSegmenter(section, runtime, device)
