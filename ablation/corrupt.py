"""Pairs made worse on purpose: a share of the phrases gets pixels that they do not denote.

jitter: each mask is moved by half to the whole of its width and height, so that the crop shows mostly what lies beside
the object. swap: the phrase gets another object of the same image, whole, whether a caption tells of it or not. A
phrase is spoilt or not by a hash of its id, so that a larger share spoils the same phrases and more, and both kinds
the same ones. How many pairs are wrong in the end is measured (stages/quality), not assumed.
"""

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ablation import tables
from ablation.gold import Annotations
from ablation.tables import Denoted
from pipeline.errors import ParamsError
from pipeline.shards import shard_numbers, verified_hash
from stages.common import rle
from stages.common.ids import draw_key
from stages.common.rle import Mask

_SEED = 0


def write(gold: Path, dataset: Path, annotations: Annotations, source: Mapping[str, Any]) -> None:
    """Writes the phrases, boxes and masks of `gold` (a dataset with gold pairs) into `dataset`, some of them spoilt.

    Raises:
        ParamsError: `source` is not {kind: jitter or swap, share: 0 to 1}.
    """
    kind, share = source.get("kind"), source.get("share")
    if kind not in _SPOILT or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise ParamsError(f"a source of pairs is {{kind: {' or '.join(_SPOILT)}, share: 0 to 1}}, not {dict(source)}")
    for shard in shard_numbers(gold / "parse/phrases"):
        known = [
            _SPOILT[kind](one, annotations) if is_spoilt(one.phrase["id"], share) else one
            for one in tables.read(gold, shard)
        ]
        inputs = {name: verified_hash(gold / place, shard) for name, place in _INPUTS.items()}
        tables.write(dataset, shard, known, inputs)


_INPUTS = {"phrases": "parse/phrases", "boxes": "detect/boxes", "masks": "segment/masks"}


def is_spoilt(phrase_id: str, share: float) -> bool:
    """Whether this phrase is among the share: the same ones and more for a larger share."""
    return int(draw_key(_SEED, phrase_id)[:13], 16) < share * 16**13


def jittered(one: Denoted, annotations: Annotations) -> Denoted:
    """The phrase with its masks moved."""
    draw = random.Random(f"{_SEED}:{one.phrase['id']}")
    return one.showing([moved(mask, draw) for mask in one.masks], one.objects)


def moved(mask: Mask, draw: random.Random) -> Mask:
    """The mask moved by half to the whole of its box along both axes, to a side where more than half of that box stays
    in the image, if there is one; by less where nothing of it would be left.
    """
    x0, y0, x1, y1 = rle.box(*mask)
    right = _shift(x0, x1, mask.width, draw)
    down = _shift(y0, y1, mask.height, draw)
    pixels = rle.decode(*mask)
    while True:
        found = _shifted(pixels, down, right)
        if found.any():
            return mask._replace(counts=rle.encode(found))
        right, down = int(right / 2), int(down / 2)


def _shift(low: float, high: float, side: int, draw: random.Random) -> int:
    length = high - low
    step = max(1, round(draw.uniform(0.5, 1.0) * length))
    by = draw.choice((step, -step))
    return by if _inside(low + by, high + by, side) > length / 2 else -by


def _inside(low: float, high: float, side: int) -> float:
    return min(high, side) - max(low, 0)


def _shifted(pixels: np.ndarray, down: int, right: int) -> np.ndarray:
    """The boolean picture moved; what leaves the image is gone."""
    height, width = pixels.shape
    found = np.zeros_like(pixels)
    rows = slice(max(0, down), min(height, height + down))
    columns = slice(max(0, right), min(width, width + right))
    found[rows, columns] = pixels[
        slice(rows.start - down, rows.stop - down), slice(columns.start - right, columns.stop - right)
    ]
    return found


def swapped(one: Denoted, annotations: Annotations) -> Denoted:
    """The phrase with as many other objects of its image, or as many as there are; unchanged if there is no other."""
    others = [name for name in annotations.objects[one.phrase["image_id"]] if name not in one.objects]
    draw = random.Random(f"{_SEED}:{one.phrase['id']}")
    names = sorted(draw.sample(others, min(len(others), len(one.objects))), key=others.index)
    return one.showing([annotations.masks[name] for name in names], names) if names else one


_SPOILT: dict[str, Callable[[Denoted, Annotations], Denoted]] = {"jitter": jittered, "swap": swapped}
