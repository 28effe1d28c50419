"""A caption with all that the stages made of it, and its gold as it lies in its image."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.errors import InputError
from stages.common import groups, rle
from stages.common.annotations import Thing
from stages.common.cases import Box
from stages.common.groups import Group
from stages.quality.gold import CaptionGold, GoldPhrase


@dataclass(frozen=True)
class Target:
    """A gold phrase in its image. `masks` are those of its objects as compressed counts (None: the gold has only a
    box), `mask` is their union where all have one, `box` is around all of them; without objects there is neither.
    """

    phrase: GoldPhrase
    groups: tuple[Group, ...]
    masks: tuple[bytes | None, ...] = ()
    mask: bytes | None = None
    box: Box | None = None

    @property
    def sought(self) -> bool:
        """Whether a right pair for it is wanted: it denotes objects, by name."""
        return bool(self.phrase.objects) and not self.phrase.pronoun

    @property
    def aside(self) -> bool:
        """Whether parse is free to cut it or not: it cannot become a right pair."""
        return self.phrase.pronoun or self.phrase.objects == ()


@dataclass(frozen=True)
class Scene:
    """A caption (rows of the tables; `frame` is height and width of its image) and its gold.

    `boxes`: phrase id -> its boxes, best first; `image_boxes`: float64 [N, 4], those of all phrases of the image;
    `masks`: box id -> compressed counts; `things`: all objects that the gold has in the image.
    """

    shard: int
    caption: dict
    frame: tuple[int, int]
    whole: bool
    targets: tuple[Target, ...]
    phrases: list[dict]
    boxes: dict[str, list[dict]]
    image_boxes: np.ndarray
    masks: dict[str, bytes]
    pairs: list[dict]
    things: list[Thing]

    def phrase_of(self) -> dict[int, dict]:
        """Target -> the phrase that parse cut for it: of those that overlap it more than another, the one that does so
        most.
        """
        found: dict[int, tuple[float, dict]] = {}
        for row in self.phrases:
            place = matched(row, self.targets)
            if place is not None:
                much = overlap(row, self.targets[place].phrase)
                if place not in found or much > found[place][0]:
                    found[place] = much, row
        return {place: row for place, (_, row) in found.items()}


def overlap(row: dict, phrase: GoldPhrase) -> float:
    """Characters that two spans share, as a share of those of both."""
    shared = min(row["end"], phrase.end) - max(row["start"], phrase.start)
    both = max(row["end"], phrase.end) - min(row["start"], phrase.start)
    return shared / both if shared > 0 else 0.0


def matched(row: dict, targets: Sequence[Target], denoting: bool = True) -> int | None:
    """The target whose span the row's overlaps most; the first of equal ones. `denoting`: only one with objects."""
    best, found = 0.0, None
    for place, target in enumerate(targets):
        if (target.phrase.objects or not denoting) and (much := overlap(row, target.phrase)) > best:
            best, found = much, place
    return found


def targets_of(gold: CaptionGold, text: str, frame: tuple[int, int]) -> tuple[tuple[Target, ...], int, bool]:
    """The gold phrases of a caption in their image, how many do not fit, and whether they are all its phrases.

    Those that do not fit the caption are left out, and then they are not all; of those whose objects do not fit the
    image nothing is known but the span.
    """
    made, misfits, whole = [], 0, gold.whole
    for phrase in gold.phrases:
        if phrase.end > len(text) or phrase.text not in (None, text[phrase.start : phrase.end]):
            misfits, whole = misfits + 1, False
            continue
        masks = None if phrase.unknown else _masks(phrase, frame)
        if masks is None:
            misfits += 1
            phrase = replace(phrase, objects=None, unknown=False)
        made.append(_target(phrase, text, frame, masks or ()))
    return tuple(made), misfits, whole


def _masks(phrase: GoldPhrase, frame: tuple[int, int]) -> tuple[bytes | None, ...] | None:
    """One an object; None where one does not fit the image."""
    try:
        return tuple(rle.from_annotation(thing.segmentation, *frame) for thing in phrase.objects or ())
    except InputError:
        return None


def _target(phrase: GoldPhrase, text: str, frame: tuple[int, int], masks: tuple[bytes | None, ...]) -> Target:
    told = [*groups.of_kind((_number(phrase), *phrase.types)), groups.of_length(text[phrase.start : phrase.end])]
    if not phrase.objects:
        return Target(phrase, tuple(told))
    mask = None if None in masks else rle.union(list(masks), *frame)
    box = around(thing.box for thing in phrase.objects)
    pixels = (box[2] - box[0]) * (box[3] - box[1]) if mask is None else rle.area(mask, *frame)
    return Target(phrase, (*told, groups.of_area(pixels, *frame)), masks, mask, box)


def _number(phrase: GoldPhrase) -> str:
    if phrase.pronoun:
        return groups.PRONOUN
    if phrase.objects is None:
        return groups.UNKNOWN
    return (groups.NOTHING, groups.ONE, groups.SEVERAL)[min(len(phrase.objects), 2)]


def object_mask(thing: Thing, frame: tuple[int, int]) -> bytes | None:
    """An object's mask as compressed counts; None where it has none that fits the image."""
    try:
        return rle.from_annotation(thing.segmentation, *frame)
    except InputError:
        return None


def around(boxes: Iterable[Box]) -> Box:
    """The smallest box that holds all of them."""
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def corners(row: dict) -> Box:
    return row["x0"], row["y0"], row["x1"], row["y1"]


def overlaps(box: Box, others: np.ndarray) -> np.ndarray:
    """IoU of a box with each of `others`, float64 [N, 4] -> [N]."""
    return rle.box_ious(np.broadcast_to(np.array(box, float), others.shape), others)
