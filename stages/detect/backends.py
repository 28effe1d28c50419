"""Where boxes come from. A backend is anything with `detect`; `annotations` needs no model."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from stages.common.annotations import Annotations
from stages.common.categories import Categories


@dataclass(frozen=True)
class Found:
    """A box for a phrase: x0, y0, x1, y1 in pixels, a score in [0, 1], what the backend calls it."""

    box: tuple[float, float, float, float]
    score: float
    label: str
    object_id: str | None = None


@dataclass(frozen=True)
class Miss:
    """Why a phrase got no box: a reason code of the ledger and a detail; `outcome` as in the ledger."""

    reason: str
    detail: str = ""
    outcome: str = "dropped"


class Detector(Protocol):
    """Grounds the phrases of a shard.

    `detect` takes the shard's `images` and `phrases` tables and yields every phrase id once, with its boxes or a
    Miss. It may look at images in any order and in batches; the boxes of a phrase must not depend on that (beyond
    1e-5). `meter` (stages.common.meter) counts what its device does; None: there is no model.
    """

    meter: Any

    def detect(self, images: pa.Table, phrases: pa.Table) -> Iterator[tuple[str, list[Found] | Miss]]: ...


class AnnotatedDetector:
    """A phrase takes the annotated objects whose category its words name.

    The words of a category are its name and its synonyms; the longest one that ends the phrase's key (as whole words,
    head last) decides, so that a "hot dog" is no dog and a "computer mouse" no animal.
    """

    meter = None

    def __init__(self, annotations: Annotations, synonyms: dict[str, list[str]]):
        self.annotations = annotations
        self.categories = Categories(annotations.categories, synonyms)

    def detect(self, images: pa.Table, phrases: pa.Table) -> Iterator[tuple[str, list[Found] | Miss]]:
        for row in phrases.select(["id", "image_id", "key", "head"]).to_pylist():
            things = self.annotations.of_image.get(row["image_id"])
            category = self.categories.named(row["key"], row["head"])
            if not things:
                yield row["id"], Miss("no_annotation", "no object is annotated in this image")
            elif category is None:
                yield row["id"], Miss("no_category", row["head"])
            elif matching := [thing for thing in things if thing.category == category]:
                yield row["id"], [Found(t.box, 1.0, t.category, t.id) for t in matching]
            else:
                yield row["id"], Miss("no_match", f"no {category} is annotated in this image")


def open_detector(section: Any, runtime: Any, device: str) -> Detector:
    """Builds the backend that `detect.backend` names, its model on `device`.

    Raises:
        InputError: what lies at `detect.path` cannot be used.
    """
    if section.backend == "annotations":
        return AnnotatedDetector(Annotations(Path(section.path), section.annotations), section.synonyms)
    import torch

    if section.backend == "transformers":
        from stages.detect.transformers_backend import TransformersDetector

        return TransformersDetector(section, runtime, torch.device(device))
    from stages.detect.official import OfficialDetector

    return OfficialDetector(section, runtime, torch.device(device))
