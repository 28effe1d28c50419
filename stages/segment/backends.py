"""Where masks come from. A backend is anything with `segment`; `annotations` needs no model."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from pipeline.errors import InputError, ParamsError
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


class Segmenter(Protocol):
    """Finds the pixels inside the boxes of a shard.

    `segment` takes the shard's `images` and `boxes` tables and yields every box id once, with its mask or a Miss.
    Each image is to be encoded once.
    """

    def segment(self, images: pa.Table, boxes: pa.Table) -> Iterator[tuple[str, Mask | Miss]]: ...


class AnnotatedSegmenter:
    """The annotated mask of the object a box was taken from."""

    def __init__(self, annotations: Annotations):
        self.annotations = annotations

    def segment(self, images: pa.Table, boxes: pa.Table) -> Iterator[tuple[str, Mask | Miss]]:
        frame = {
            row["id"]: (row["height"], row["width"]) for row in images.select(["id", "height", "width"]).to_pylist()
        }
        for row in boxes.select(["id", "image_id", "object_id"]).to_pylist():
            thing = self.annotations.of_id.get(row["object_id"])
            if thing is None:
                yield row["id"], Miss("dropped", "no_annotation", f"object {row['object_id']} is not annotated")
                continue
            height, width = frame[row["image_id"]]
            try:
                counts = rle.from_annotation(thing.segmentation, height, width)
            except InputError as error:
                yield row["id"], Miss("rejected", "bad_mask", f"object {thing.id}: {error}")
                continue
            if counts is None or not rle.area(counts, height, width):
                yield row["id"], Miss("dropped", "no_mask", f"object {thing.id} has a box but no pixels")
            else:
                yield row["id"], Mask(counts, 1.0, 1.0)


def open_segmenter(section: Any, runtime: Any) -> Segmenter:
    """Builds the backend that `segment.backend` names.

    Raises:
        ParamsError: the backend is not part of this version.
    """
    if section.backend == "annotations":
        return AnnotatedSegmenter(Annotations(Path(section.path), section.annotations))
    raise ParamsError(f"segment.backend: {section.backend!r} is not part of this version yet; use `annotations`")
