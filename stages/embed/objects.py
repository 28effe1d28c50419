"""The objects of a shard's images: every set of pixels that a candidate names, once."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.ledger import Drop
from stages.common import rle
from stages.common.candidates import candidates, feature_ids


@dataclass(frozen=True)
class Objects:
    """Objects by image, and by feature id within an image.

    Attributes:
        names: feature ids.
        of: image id -> its objects, first and last + 1.
        boxes: the masks' bounding boxes, x0, y0, x1, y1 in pixels, float64 [objects, 4].
        lengths: the masks' run lengths, down the columns, unset pixels first, int64 [runs].
        begin: where the runs of each begin, int64 [objects + 1].
    """

    names: list[str]
    of: dict[str, tuple[int, int]]
    boxes: np.ndarray
    lengths: np.ndarray
    begin: np.ndarray

    def number(self, image_id: str) -> int:
        """How many an image has."""
        first, last = self.of.get(image_id, (0, 0))
        return last - first


def objects_in(images: pa.Table, phrases: pa.Table, boxes: pa.Table, masks: pa.Table) -> tuple[Objects, list[Drop]]:
    """The objects that candidates in these images name; those without pixels, or of another size than their image, are
    rejected.
    """
    ids, *sides = (images.column(name).to_pylist() for name in ("id", "height", "width"))
    size_of = dict(zip(ids, zip(*sides, strict=True), strict=True))
    made = candidates(phrases, boxes, masks)
    named = zip(made.column("image_id").to_pylist(), feature_ids(made), strict=True)
    row_of = {key: row for row, key in enumerate(named) if key[0] in size_of}
    keys = sorted(row_of)
    taken = made.select(["counts", "height", "width"]).take(pa.array([row_of[key] for key in keys], pa.int64()))
    counts, heights, widths = (column.to_pylist() for column in taken.columns)
    lengths, begin = run_lengths(counts)
    box = rle.boxes(counts, heights, widths)
    fits = [size_of[image] == size for (image, _), size in zip(keys, zip(heights, widths, strict=True), strict=True)]
    good = _whole(lengths, begin, np.array(heights) * np.array(widths)) & (box[:, 2] > box[:, 0]) & np.array(fits, bool)
    bad = [
        Drop("feature", name, image, "rejected", "bad_mask", "no pixels, or not of the size of its image")
        for (image, name), keep in zip(keys, good, strict=True)
        if not keep
    ]
    number = np.diff(begin)
    of: dict[str, tuple[int, int]] = {}
    keys = [key for key, keep in zip(keys, good, strict=True) if keep]
    for place, (image, _) in enumerate(keys):
        of[image] = (of[image][0] if image in of else place, place + 1)
    kept = np.concatenate(([0], np.cumsum(number[good])))
    return Objects([name for _, name in keys], of, box[good], lengths[np.repeat(good, number)], kept), bad


def run_lengths(counts: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """The run lengths that compressed COCO counts stand for, all masks in one go.

    In the string a number is the low five bits of its characters, lowest first, bit 6 saying that more follow; from a
    mask's fourth number on it is the difference to the last but one.

    Returns:
        int64 [runs] of all masks, one after the other, and int64 [masks + 1], where those of each begin.
    """
    raw = np.frombuffer(b"".join(counts), np.uint8).astype(np.int64) - 48
    bytes_before = np.cumsum([0, *map(len, counts)])
    ends = (raw & 0x20) == 0
    ends[bytes_before[1:][bytes_before[1:] > 0] - 1] = True  # also where a damaged string breaks off
    end = np.flatnonzero(ends)
    start = np.concatenate(([0], end[:-1] + 1))[: len(end)]
    width = end - start + 1
    place = np.arange(len(raw)) - np.repeat(start, width)
    values = np.add.reduceat((raw & 0x1F) << (5 * place), start) if len(start) else start
    values = values - np.where(raw[end] & 0x10, 1 << (5 * width), 0)  # two's complement
    begin = np.searchsorted(start, bytes_before)
    number = np.diff(begin)
    position = np.arange(len(values)) - np.repeat(begin[:-1], number)
    owner = np.repeat(np.arange(len(counts)), number)
    for chain in (position % 2 == 1, (position % 2 == 0) & (position > 0)):
        steps, of = values[chain], owner[chain]
        total = np.cumsum(steps)
        first = np.searchsorted(of, of)  # where the chain of the same mask begins
        values[chain] = total - (total[first] - steps[first])
    return values, begin


def _whole(lengths: np.ndarray, begin: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Whether each mask's runs are lengths and cover its image, bool [masks]."""
    total, negative = (np.concatenate(([0], np.cumsum(values))) for values in (lengths, lengths < 0))
    return (np.diff(total[begin]) == pixels) & (np.diff(negative[begin]) == 0)
