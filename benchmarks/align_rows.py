"""align row by row: every candidate an object, every rule a call. The baseline of benchmarks.align, and what the tests
hold the stage's columns against, row for row and byte for byte.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import ParamsError
from pipeline.ledger import Drop
from pipeline.runner import Output
from stages.common import rle


@dataclass(frozen=True)
class Candidate:
    """Phrase x box x mask. `box` is the detected box (for a union: the box around all), `objects` how many masks it
    is made of.

    `score`, `predicted_iou` and `stability` of a union are the least of its parts.
    """

    id: str
    phrase_id: str
    image_id: str
    category: str | None
    box: tuple[float, float, float, float]
    counts: bytes
    height: int
    width: int
    objects: int
    score: float
    predicted_iou: float
    stability: float

    @property
    def feature_id(self) -> str:
        """Names the crop by content: several phrases for one object share its feature."""
        digest = hashlib.sha256(self.image_id.encode() + b"\0" + self.counts).hexdigest()
        return f"object:{digest[:24]}"


def candidates(phrases: pa.Table, boxes: pa.Table, masks: pa.Table) -> Iterator[tuple[dict, list[Candidate]]]:
    """Every phrase row that has masks, with its candidates: single masks by rank, then the union where the stated
    count fits.

    "Two dogs" with exactly two masks gets a union; the singles stay candidates, so that the ledger can say what
    became of them.
    """
    mask_of = {row["box_id"]: row for row in masks.to_pylist() if row["box_id"] is not None}
    boxes_of = defaultdict(list)
    for row in boxes.to_pylist():
        if row["id"] in mask_of:
            boxes_of[row["phrase_id"]].append(row)
    for phrase in phrases.to_pylist():
        rows = sorted(boxes_of.get(phrase["id"], ()), key=lambda row: row["rank"])
        if not rows:
            continue
        made = [_single(phrase, row, mask_of[row["id"]]) for row in rows]
        if (phrase["count"] or 0) >= 2 and len(made) == phrase["count"]:
            made.append(_union(phrase, made))
        yield phrase, made


def _single(phrase: dict, box: dict, mask: dict) -> Candidate:
    return Candidate(
        box["id"],
        phrase["id"],
        phrase["image_id"],
        box["label"] if box["object_id"] is not None else None,
        (box["x0"], box["y0"], box["x1"], box["y1"]),
        mask["counts"],
        mask["height"],
        mask["width"],
        1,
        box["score"],
        mask["predicted_iou"],
        mask["stability"],
    )


def _union(phrase: dict, parts: list[Candidate]) -> Candidate:
    first = parts[0]
    around = (
        min(p.box[0] for p in parts),
        min(p.box[1] for p in parts),
        max(p.box[2] for p in parts),
        max(p.box[3] for p in parts),
    )
    counts = rle.union([part.counts for part in parts], first.height, first.width)
    return Candidate(
        f"{phrase['id']}/all",
        phrase["id"],
        phrase["image_id"],
        first.category,
        around,
        counts,
        first.height,
        first.width,
        len(parts),
        min(p.score for p in parts),
        min(p.predicted_iou for p in parts),
        min(p.stability for p in parts),
    )


@dataclass(frozen=True)
class Measured:
    """A candidate with what align measures of it: `area` as a share of the image, `mask_box_iou`, `similarity` or
    None.
    """

    candidate: Candidate
    area: float
    mask_box_iou: float
    similarity: float | None


def process(section: Any, inputs: dict[str, pa.Table]) -> Output:
    """Pairs and drops of a shard; `inputs` are the stage's, features with their vectors."""
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
        _box_iou(rle.box(c.counts, c.height, c.width), c.box),
        similarity(c.feature_id, phrase["text"]),
    )


def _box_iou(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    shared = width * height
    whole = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / whole if whole > 0 else 0.0


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
    other plural does not say how many objects it denotes (`uncounted_plural`), unless one such thing is itself named in
    the plural: by its annotated category, or, where a model found it, by a noun whose lemma is its plural. A singular
    takes its best candidate; if another is as good (within `tie`), nothing says which is meant (`ambiguous`).
    """
    if not left:
        return None, []
    union = next((item for item in left if item.candidate.objects > 1), None)
    singles = [item for item in left if item.candidate.objects == 1]
    if phrase["number"] == "plur" and not _named_in_plural(phrase, left[0].candidate.category):
        if (phrase["count"] or 0) >= 2:
            return union, [(item, "part_of_union" if union else "count_mismatch") for item in singles]
        return None, [(item, "uncounted_plural") for item in left]
    singles.sort(key=lambda item: (-item.candidate.score, item.candidate.id))
    best = (singles or left)[0]
    equal = [best] + [item for item in singles[1:] if best.candidate.score - item.candidate.score < tie]
    lost = [(item, "not_best") for item in left if item not in equal]
    if len(equal) > 1:
        return None, lost + [(item, "ambiguous") for item in equal]
    return best, lost


def _named_in_plural(phrase: dict, category: str | None) -> bool:
    name = phrase["head"] if category is None else category
    word = name.lower().split()[-1] if name.strip() else ""
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
