"""The gallery's data: the cards as columns of plain values, the photos in blocks that are read one at a time.

A page of 10,000 pairs holds a few tens of megabytes of photos. They lie in inert blocks of JSON; the page's script
makes cards only of what is near the reader's eyes, and reads a block of photos when it first needs one of them.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stages.report.cards import Card, Photo

# Cards that are there without a script, and photos a block.
FIRST, BLOCK = 12, 200
MEASURES = ("score", "area", "iou", "similarity", "objects")


@dataclass(frozen=True)
class Reason:
    """Why cards of the gallery are no pairs: `shown` of `total`."""

    stage: str
    reason: str
    shown: int
    total: int


@dataclass(frozen=True)
class Gallery:
    """`total` pairs and `totals` of drops by (stage, reason) there are; `cards` are the drawn ones, kept before
    dropped, `worst` those of the section on quality. `photos` are in order of use.
    """

    total: int
    totals: dict[tuple[str, str], int]
    photos: list[Photo]
    cards: list[Card]
    worst: list[Card]

    @property
    def first(self) -> list[Card]:
        return [card for card in self.cards[:FIRST] if card.case.outcome == "kept"]

    @property
    def kept(self) -> int:
        return sum(card.case.outcome == "kept" for card in self.cards)

    @property
    def reasons(self) -> list[Reason]:
        """Commonest first, in all."""
        shown = Counter((c.case.stage, c.case.reason) for c in self.cards if c.case.outcome != "kept")
        ranked = sorted(self.totals.items(), key=lambda item: (-item[1], item[0]))
        return [Reason(*key, shown[key], total) for key, total in ranked if shown[key]]

    @property
    def standing(self) -> list[Photo]:
        """Photos of cards that are there without a script, as elements of the page."""
        used = {card.photo.name for card in (*self.first, *self.worst)}
        return [photo for photo in self.photos if photo.name in used]

    def has(self, measure: str) -> bool:
        """Whether any card has this number."""
        return any(measure in card.case.measures for card in self.cards)

    def columns(self) -> dict[str, list[Any]]:
        """The cards as columns, for the script: numbers rounded to what is shown, null where there is none."""
        numbers = {photo.name: number for number, photo in enumerate(self.photos)}
        places = {(r.stage, r.reason): place for place, r in enumerate(self.reasons)}
        cases = [card.case for card in self.cards]
        found: dict[str, list[Any]] = {
            "anchor": [card.anchor for card in self.cards],
            "id": [case.id for case in cases],
            "image": [case.image_id for case in cases],
            "photo": [numbers[card.photo.name] for card in self.cards],
            "before": [card.caption.before for card in self.cards],
            "phrase": [card.caption.phrase for card in self.cards],
            "after": [card.caption.after for card in self.cards],
            "mask": [card.mask for card in self.cards],
            "box": [card.box for card in self.cards],
            "reason": [places.get((case.stage, case.reason)) if case.outcome != "kept" else None for case in cases],
            "detail": [card.case.detail if card.case.detail != card.caption.phrase else "" for card in self.cards],
        }
        for name in MEASURES:
            found[name] = [_rounded(case.measures.get(name)) for case in cases]
        return found

    def blocks(self) -> Iterator[list[tuple[int, int, str] | None]]:
        """Width, height and data of the photos, `BLOCK` a block; null for those that stand in the page already."""
        standing = {photo.name for photo in self.standing}
        for start in range(0, len(self.photos), BLOCK):
            yield [
                None if photo.name in standing else (photo.width, photo.height, photo.url.partition(",")[2])
                for photo in self.photos[start : start + BLOCK]
            ]


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), 5)
