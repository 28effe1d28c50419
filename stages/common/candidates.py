"""Candidates: what a phrase may denote. A candidate is a phrase with one mask, or with the union of as many masks as
it counts.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

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
    label: str
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
        box["label"],
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
        first.label,
        around,
        counts,
        first.height,
        first.width,
        len(parts),
        min(p.score for p in parts),
        min(p.predicted_iou for p in parts),
        min(p.stability for p in parts),
    )
