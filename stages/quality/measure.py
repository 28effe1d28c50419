"""Every caption with gold, shard after shard, through the measures of the four stages."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.rows import matching, verified
from pipeline.shards import shard_numbers
from stages.common.cases import Case
from stages.common.ids import place_of
from stages.quality import align, detect, parse, segment
from stages.quality.align import Align, Drops
from stages.quality.detect import Detect
from stages.quality.gold import Gold
from stages.quality.parse import Parse
from stages.quality.scene import Scene, corners, targets_of
from stages.quality.segment import Segment
from stages.quality.tally import Numbers

STAGES = {"parse": parse.MEASURES, "detect": detect.MEASURES, "segment": segment.MEASURES, "align": align.MEASURES}
# Whose drops can be the reason that a gold phrase has no pair, later stages first.
_UNITS = {"align": ("candidate",), "segment": ("box",), "detect": ("phrase",), "parse": ("caption", "phrase")}
_PHRASES = ["id", "image_id", "caption_id", "start", "end", "text", "head", "number", "count", "key"]
_BOXES = ["id", "image_id", "phrase_id", "rank", "x0", "y0", "x1", "y1", "score"]
_PAIRS = ["id", "image_id", "caption_id", "start", "end", "x0", "y0", "x1", "y1", "height", "width", "counts", "score"]


@dataclass
class Quality:
    """What was measured. `captions` are those with gold, `others` those without, `misfits` gold phrases that do not
    fit their caption or image.
    """

    parse: Parse = field(default_factory=Parse)
    detect: Detect = field(default_factory=Detect)
    segment: Segment = field(default_factory=Segment)
    align: Align = field(default_factory=Align)
    captions: int = 0
    others: int = 0
    misfits: int = 0

    def bodies(self, gold: Gold) -> dict[str, Numbers]:
        """What the metrics file of each stage holds."""
        said = {
            "gold": gold.digest,
            "sources": gold.names,
            "captions": {"with_gold": self.captions, "without": self.others},
            "misfits": self.misfits,
        }
        return {name: said | getattr(self, name).body() for name in STAGES}

    def cases(self) -> dict[str, list[Case]]:
        return {
            "pairs": self.align.worst.cases,
            "missed": self.align.gaps,
            "masks": self.segment.worst.cases,
            "boxes": self.detect.worst.cases,
            "phrases": self.parse.worst.cases,
        }


def without_gold() -> dict[str, Numbers]:
    """The metrics where there is no gold: every measure is null, and says why."""
    why = "no gold: quality.gold_path is an empty file"
    return {
        name: {
            "gold": None,
            "sources": [],
            "all": dict.fromkeys(measures),
            "by": {},
            "missing": dict.fromkeys(measures, why),
        }
        for name, measures in STAGES.items()
    }


def measure(data: Path, gold: Gold) -> Quality:
    """Every caption of a dataset that has gold.

    Raises:
        InputError: a shard is missing or damaged, or the gold is.
    """
    quality = Quality()
    for shard in shard_numbers(data / "align" / "pairs"):
        drops = _drops(data, shard)
        for scene in _scenes(data, shard, gold, quality):
            quality.parse.add(scene)
            quality.detect.add(scene)
            quality.segment.add(scene)
            quality.align.add(scene, lambda caption_id, drops=drops: drops.get(caption_id, []))
    return quality


def _scenes(data: Path, shard: int, gold: Gold, quality: Quality) -> Iterator[Scene]:
    """The captions of a shard that have gold; the others are counted."""
    frames = {
        row["id"]: (row["height"], row["width"])
        for row in verified(data / "ingest" / "images", shard, ["id", "height", "width"]).to_pylist()
    }
    phrases = _by(data / "parse" / "phrases", shard, "caption_id", _PHRASES)
    boxes = _by(data / "detect" / "boxes", shard, "phrase_id", _BOXES)
    of_image: dict[str, list[tuple]] = defaultdict(list)
    for rows in boxes.values():
        rows.sort(key=lambda row: row["rank"])
        of_image[rows[0]["image_id"]] += map(corners, rows)
    masks = verified(data / "segment" / "masks", shard, ["box_id", "counts"])
    counts = dict(zip(masks.column("box_id").to_pylist(), masks.column("counts").to_pylist(), strict=True))
    pairs = _by(data / "align" / "pairs", shard, "caption_id", _PAIRS)
    captions = matching(data / "ingest" / "captions", shard, "image_id", frames, ["id", "image_id", "text"])
    for caption in captions.sort_by([("image_id", "ascending"), ("id", "ascending")]).to_pylist():
        own, image_id = phrases.get(caption["id"], []), caption["image_id"]
        known = gold.caption(caption, own)
        if known is None:
            quality.others += 1
            quality.align.unjudged += len(pairs.get(caption["id"], []))
            continue
        quality.captions += 1
        targets, misfits, whole = targets_of(known, caption["text"], frames[image_id])
        quality.misfits += misfits
        yield Scene(
            shard=shard,
            caption=caption,
            frame=frames[image_id],
            whole=whole,
            targets=targets,
            phrases=own,
            boxes=boxes,
            image_boxes=np.array(of_image[image_id], float).reshape(-1, 4),
            masks=counts,
            pairs=pairs.get(caption["id"], []),
            things=gold.things(image_id),
        )


def _by(table: Path, shard: int, column: str, columns: list[str]) -> dict[str, list[dict]]:
    """The rows of a shard by the value of a column, in the shard's order."""
    found: dict[str, list[dict]] = defaultdict(list)
    for row in verified(table, shard, columns).to_pylist():
        found[row[column]].append(row)
    return dict(found)


def _drops(data: Path, shard: int) -> dict[str, Drops]:
    """Caption id -> what was dropped of it."""
    found: dict[str, Drops] = defaultdict(list)
    for stage, units in _UNITS.items():
        for row in matching(data / stage / "drops", shard, "unit", units).to_pylist():
            place = place_of(row["id"]) if row["unit"] != "caption" else (row["id"], 0, 1 << 30)
            if place:
                found[place[0]].append((place[1], place[2], stage, row["reason"]))
    return found
