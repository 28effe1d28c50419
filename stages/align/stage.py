"""align: candidates become pairs.

In: `phrases`, `boxes`, `masks`, `features`. Out: `pairs`. Done to a row: every candidate is filtered (scores, area,
agreement of mask and box, crop-phrase similarity); of what is left a phrase keeps one, and a caption at most
`max_per_caption`. Cheap, no model: thresholds are tuned here.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import ParamsError
from pipeline.ledger import Drop
from pipeline.runner import Context, Output, Stage, Task
from stages.common import rle
from stages.common.candidates import Candidate, candidates


@dataclass(frozen=True)
class Measured:
    """A candidate with what align measures of it: `area` as a share of the image, `mask_box_iou`, `similarity` or
    None.
    """

    candidate: Candidate
    area: float
    mask_box_iou: float
    similarity: float | None


def process(section: Any, task: Task, inputs: dict[str, pa.Table]) -> Output:
    similarity = Similarity(inputs["features"], section)
    drops: list[Drop] = []
    seen = 0
    kept: dict[str, list[tuple[dict, Measured]]] = defaultdict(list)

    def drop(item: Measured, reason: str, detail: str = "") -> None:
        drops.append(Drop("candidate", item.candidate.id, item.candidate.image_id, "dropped", reason, detail))

    for phrase, made in candidates(inputs["phrases"], inputs["boxes"], inputs["masks"]):
        seen += len(made)
        left = []
        for item in (measure(candidate, phrase, similarity) for candidate in made):
            if fault := filtered(item, section):
                drop(item, *fault)
            else:
                left.append(item)
        chosen, lost = choose(phrase, left, section.tie)
        for item, reason in lost:
            drop(item, reason)
        if chosen:
            kept[phrase["caption_id"]].append((phrase, chosen))
    pairs = []
    for caption in kept.values():
        caption.sort(
            key=lambda pair: (-pair[1].candidate.score, -(pair[1].similarity or 0.0), pair[0]["start"], pair[0]["end"])
        )
        pairs += [_row(phrase, item) for phrase, item in caption[: section.max_per_caption]]
        for _, item in caption[section.max_per_caption :]:
            drop(item, "caption_cap")
    return Output({"pairs": pairs}, {"candidate": seen}, drops)


class Similarity:
    """Cosine of a crop and the phrase's text, where the encoder has a text tower; else None.

    Raises:
        ParamsError: `align.min_similarity` is set but there are no text features.
    """

    def __init__(self, features: pa.Table, section: Any):
        kinds = features.column("kind").to_pylist()
        wanted = [i for i, kind in enumerate(kinds) if kind in ("object", "phrase")]
        self.known = "phrase" in kinds
        if section.min_similarity is not None and not self.known and "object" in kinds:
            raise ParamsError(
                "align.min_similarity needs phrase features: set embed.text to true and embed.path to an encoder "
                "with a text tower (CLIP), or align.min_similarity to null"
            )
        self.vectors = {}
        if self.known:
            table = features.take(wanted)
            matrix = (
                np.frombuffer(b"".join(table.column("vector").to_pylist()), "<f2")
                .reshape(len(wanted), -1)
                .astype(np.float32)
            )
            matrix /= np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12)
            self.vectors = dict(zip(table.column("id").to_pylist(), matrix, strict=True))

    def __call__(self, feature_id: str, text: str) -> float | None:
        crop, phrase = self.vectors.get(feature_id), self.vectors.get(f"phrase:{text}")
        return None if crop is None or phrase is None else float(crop @ phrase)


def measure(candidate: Candidate, phrase: dict, similarity: Similarity) -> Measured:
    c = candidate
    return Measured(
        c,
        rle.area(c.counts, c.height, c.width) / (c.height * c.width),
        rle.box_iou(rle.box(c.counts, c.height, c.width), c.box),
        similarity(c.feature_id, phrase["text"]),
    )


def filtered(item: Measured, section: Any) -> tuple[str, str] | None:
    """Why a candidate is dropped by its own measures, as (reason, detail), or None."""
    c = item.candidate
    rules = (
        ("low_score", c.score < section.min_score, f"{c.score:.3f}"),
        ("low_predicted_iou", c.predicted_iou < section.min_predicted_iou, f"{c.predicted_iou:.3f}"),
        ("too_small", item.area < section.min_area, f"{item.area:.4f} of the image"),
        ("too_large", item.area > section.max_area, f"{item.area:.4f} of the image"),
        ("mask_off_box", item.mask_box_iou < section.min_mask_box_iou, f"IoU {item.mask_box_iou:.3f}"),
        (
            "low_similarity",
            section.min_similarity is not None
            and item.similarity is not None
            and item.similarity < section.min_similarity,
            f"{item.similarity}",
        ),
    )
    return next(((reason, detail) for reason, fails, detail in rules if fails), None)


def choose(phrase: dict, left: list[Measured], tie: float) -> tuple[Measured | None, list[tuple[Measured, str]]]:
    """One phrase, one pair: the candidate that is kept, and why each other is not.

    A plural that states its count takes the union of exactly so many masks, else nothing (`count_mismatch`). Any
    other plural does not say how many objects it denotes (`uncounted_plural`), unless the category itself is named in
    the plural ("scissors"). A singular takes its best candidate; if another is as good (within `tie`), nothing says
    which is meant (`ambiguous`).
    """
    if not left:
        return None, []
    union = next((item for item in left if item.candidate.objects > 1), None)
    singles = [item for item in left if item.candidate.objects == 1]
    if phrase["number"] == "plur" and not _named_in_plural(phrase, left[0].candidate.label):
        if (phrase["count"] or 0) >= 2:
            return union, [(item, "part_of_union" if union else "count_mismatch") for item in singles]
        return None, [(item, "uncounted_plural") for item in left]
    singles.sort(key=lambda item: (-item.candidate.score, item.candidate.id))
    best = singles[0]
    equal = [item for item in singles if best.candidate.score - item.candidate.score < tie]
    lost = [(item, "not_best") for item in left if item not in equal]
    if len(equal) > 1:
        return None, lost + [(item, "ambiguous") for item in equal]
    return best, lost


def _named_in_plural(phrase: dict, label: str) -> bool:
    word = label.lower().split()[-1] if label else ""
    return word.endswith("s") and phrase["text"].lower().split()[-1] == word


def _row(phrase: dict, item: Measured) -> dict:
    c = item.candidate
    return {
        "id": phrase["id"],
        "image_id": c.image_id,
        "caption_id": phrase["caption_id"],
        "phrase_id": phrase["id"],
        "start": phrase["start"],
        "end": phrase["end"],
        "text": phrase["text"],
        "head": phrase["head"],
        "key": phrase["key"],
        "objects": c.objects,
        "x0": c.box[0],
        "y0": c.box[1],
        "x1": c.box[2],
        "y1": c.box[3],
        "height": c.height,
        "width": c.width,
        "counts": c.counts,
        "area": item.area,
        "score": c.score,
        "predicted_iou": c.predicted_iou,
        "stability": c.stability,
        "mask_box_iou": item.mask_box_iou,
        "similarity": item.similarity,
        "feature_id": c.feature_id,
        "image_feature_id": f"image:{c.image_id}",
    }


def open_worker(context: Context) -> Any:
    return context.section


STAGE = Stage(
    name="align",
    version=1,
    reads=("phrases", "boxes", "masks", "features"),
    writes=("pairs",),
    units={"candidate": ("pairs", "id")},
    open=open_worker,
    process=process,
    path_hash=lambda context: lambda task: None,
    libraries=("pycocotools",),
    advice="loosen the thresholds of the section align, or see the rows in drops/",
)
