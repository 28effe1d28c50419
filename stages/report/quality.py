"""Pair quality: pairs against gold.

A pair is matched to the gold phrase of its caption that its span overlaps most, among those that denote objects. It
is *right* if its mask and the mask of those objects together have an IoU of at least 0.5. Precision is the share of
right pairs among the pairs of captions that have gold; recall the share of gold phrases (pronouns aside) that a right
pair was matched to.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from pycocotools import mask as coco

from pipeline.rows import matching, verified
from stages.common import rle
from stages.report.cards import Case
from stages.report.gold import Gold, GoldPhrase
from stages.report.reasons import meaning
from stages.report.records import draw_key, each_shard, place_of
from stages.report.sample import PAIR_COLUMNS, SHOWN, pair_case

RIGHT_FROM = 0.5
WORST = 8  # cards of a kind
# What a pair is found to be; the last three are faults.
RIGHT, OTHER, OFF, NOTHING = "right", "other_object", "off_mask", "denotes_nothing"
MEANING = {
    RIGHT: "right",
    OTHER: "the mask is another annotated object’s",
    OFF: "the mask fits no annotated object, or none well enough",
    NOTHING: "the phrase denotes nothing that the image shows",
}
# Why a gold phrase has no right pair, where no drop says it.
WRONG_PAIR, NO_PHRASE = "wrong_pair", "not_cut_out"
_WHY = {WRONG_PAIR: "its pair is not right", NO_PHRASE: "no phrase of the caption overlaps it"}
# Gold masks by their share of the image, in percent, and phrases by the number of objects they denote.
SIZES = ((1.0, "smaller than 1 % of the image"), (10.0, "1 to 10 % of the image"), (100.0, "larger than 10 %"))
NUMBERS = ("one object", "several objects")


def why(stage: str, reason: str) -> str:
    """What it means that a gold phrase has no right pair for this reason."""
    return _WHY.get(reason) or meaning(stage, reason) or reason


@dataclass
class Tally:
    """Counts of a group of gold phrases: how many, how many found; pairs matched to them, and the sum of their IoU."""

    gold: int = 0
    found: int = 0
    pairs: int = 0
    right: int = 0
    iou: float = 0.0

    @property
    def mean_iou(self) -> float | None:
        return self.iou / self.pairs if self.pairs else None


@dataclass
class Quality:
    """What was measured. `verdicts` counts judged pairs, `unjudged` those of captions without gold, `missed` gold
    phrases by why they have no right pair (stage, reason), `misfits` gold phrases that do not fit caption or image.
    `faults` and `gaps` are the worst pairs and some missed phrases.
    """

    digest: str
    verdicts: Counter = field(default_factory=Counter)
    unjudged: int = 0
    misfits: int = 0
    missed: Counter = field(default_factory=Counter)
    groups: dict[str, Tally] = field(default_factory=lambda: {name: Tally() for name in (*_SIZE_NAMES, *NUMBERS)})
    whole: Tally = field(default_factory=Tally)
    faults: list[Case] = field(default_factory=list)
    gaps: list[Case] = field(default_factory=list)

    @property
    def judged(self) -> int:
        return sum(self.verdicts.values())


_SIZE_NAMES = tuple(name for _, name in SIZES)


@dataclass(frozen=True)
class _Target:
    """A gold phrase of a caption with its mask."""

    phrase: GoldPhrase
    mask: bytes
    groups: tuple[str, str]


def measure(data: Path, gold: Gold, seed: int) -> Quality:
    """Every pair of a dataset against gold, shard after shard.

    Raises:
        InputError: a shard is damaged.
    """
    quality = Quality(gold.digest)
    faults: list[tuple] = []
    gaps: dict[tuple, list[tuple]] = defaultdict(list)
    for shard, pairs in each_shard(data / "align" / "pairs", PAIR_COLUMNS):
        of_caption: dict[str, list[dict]] = defaultdict(list)
        for row in pairs.to_pylist():
            of_caption[row["caption_id"]].append(row)
        drops = _drops(data, shard)
        sizes = _sizes(data, shard)
        captions = matching(data / "ingest" / "captions", shard, "image_id", sizes, ["id", "image_id", "text"])
        for caption in captions.to_pylist():
            phrases = gold.phrases(caption["id"])
            rows = of_caption.pop(caption["id"], [])
            if phrases is None:
                quality.unjudged += len(rows)
                continue
            targets = _targets(gold, caption, phrases, sizes[caption["image_id"]], quality)
            got = _judge_pairs(gold, rows, targets, shard, quality, faults)
            faults = heapq.nsmallest(WORST, faults, key=lambda item: item[:2])
            for place, target in enumerate(targets):
                if not target.phrase.pronoun and got.get(place) is not True:
                    key = _why(target.phrase, drops[caption["id"]]) if place not in got else ("align", WRONG_PAIR)
                    quality.missed[key] += 1
                    case = _gap(caption, target, key, shard, sizes[caption["image_id"]])
                    gaps[key] = heapq.nsmallest(WORST, [*gaps[key], (draw_key(seed, case.id), case.id, case)])
    quality.faults = [case for _, _, case in faults]
    turns = sorted((turn, key, item) for key, found in gaps.items() for turn, item in enumerate(found))
    quality.gaps = [item[-1] for _, _, item in turns[:WORST]]
    return quality


def _sizes(data: Path, shard: int) -> dict[str, tuple[int, int]]:
    """Height and width of every image of a shard."""
    table = verified(data / "ingest" / "images", shard, ["id", "height", "width"])
    return {row["id"]: (row["height"], row["width"]) for row in table.to_pylist()}


def _targets(
    gold: Gold, caption: dict, phrases: Iterable[GoldPhrase], size: tuple[int, int], quality: Quality
) -> list[_Target]:
    targets = []
    for phrase in phrases:
        mask = gold.mask(caption["image_id"], phrase.objects, *size) if phrase.objects else None
        text = caption["text"][phrase.start : phrase.end]
        if phrase.text not in (None, text) or (phrase.objects and mask is None):
            quality.misfits += 1
        elif mask is not None:
            percent = 100 * rle.area(mask, *size) / (size[0] * size[1])
            name = next((name for most, name in SIZES if percent <= most), _SIZE_NAMES[-1])
            target = _Target(phrase, mask, (name, NUMBERS[len(phrase.objects) > 1]))
            targets.append(target)
            if not phrase.pronoun:
                for tally in _tallies(quality, target):
                    tally.gold += 1
    return targets


def _tallies(quality: Quality, target: _Target) -> list[Tally]:
    return [quality.whole, *(quality.groups[name] for name in target.groups)]


def _judge_pairs(
    gold: Gold, rows: list[dict], targets: list[_Target], shard: int, quality: Quality, faults: list[tuple]
) -> dict[int, bool]:
    """Judges the pairs of a caption; returns which targets got a pair, and whether a right one."""
    got: dict[int, bool] = {}
    for row in rows:
        place = _matched(row, targets)
        iou = 0.0
        if place is None:
            verdict = NOTHING
        else:
            iou = mask_iou(row["counts"], targets[place].mask, row["height"], row["width"])
            verdict = RIGHT if iou >= RIGHT_FROM else _fault(gold, row)
            if not targets[place].phrase.pronoun:
                for tally in _tallies(quality, targets[place]):
                    tally.pairs += 1
                    tally.iou += iou
                    tally.right += verdict == RIGHT
                    tally.found += verdict == RIGHT and got.get(place) is not True
            got[place] = got.get(place, False) or verdict == RIGHT
        quality.verdicts[verdict] += 1
        if iou < 1.0:
            mask = None if place is None else targets[place].mask
            case = pair_case(row, shard)
            measures = {"score": case.measures["score"]} | ({} if mask is None else {"gold": iou})
            told = {"outcome": RIGHT if verdict == RIGHT else "wrong", "reason": verdict, "measures": measures}
            faults.append((iou, row["id"], replace(case, gold=mask, box=None, **told)))
    return got


def _matched(row: dict, targets: list[_Target]) -> int | None:
    """The target whose span the pair's overlaps most, as a share of both; the first of equal ones."""
    best, found = 0.0, None
    for place, target in enumerate(targets):
        shared = min(row["end"], target.phrase.end) - max(row["start"], target.phrase.start)
        both = max(row["end"], target.phrase.end) - min(row["start"], target.phrase.start)
        if shared > 0 and shared / both > best:
            best, found = shared / both, place
    return found


def _fault(gold: Gold, row: dict) -> str:
    size = row["height"], row["width"]
    for thing in gold.objects.of_image.get(row["image_id"], ()):
        mask = gold.object_mask(thing.id, *size)
        if mask is not None and mask_iou(row["counts"], mask, *size) >= RIGHT_FROM:
            return OTHER
    return OFF


def mask_iou(a: bytes, b: bytes, height: int, width: int) -> float:
    """Intersection over union of two masks in compressed counts; 0 where both are empty."""
    shape = [height, width]
    return float(coco.iou([{"counts": a, "size": shape}], [{"counts": b, "size": shape}], [0])[0][0])


def _drops(data: Path, shard: int) -> dict[str, list[tuple[int, int, str, str]]]:
    """Caption id -> what was dropped of it: start, end, stage, reason; later stages first."""
    found: dict[str, list[tuple[int, int, str, str]]] = defaultdict(list)
    for stage, units in reversed(SHOWN.items()):
        for row in matching(data / stage / "drops", shard, "unit", units).to_pylist():
            place = place_of(row["id"]) if row["unit"] != "caption" else (row["id"], 0, 1 << 30)
            if place:
                found[place[0]].append((place[1], place[2], stage, row["reason"]))
    return found


def _why(phrase: GoldPhrase, drops: list[tuple[int, int, str, str]]) -> tuple[str, str]:
    for start, end, stage, reason in drops:
        if start < phrase.end and phrase.start < end:
            return stage, reason
    return "parse", NO_PHRASE


def _gap(caption: dict, target: _Target, why: tuple[str, str], shard: int, size: tuple[int, int]) -> Case:
    span = target.phrase.start, target.phrase.end
    return Case(
        f"{caption['id']}@{span[0]}-{span[1]}/gold",
        caption["image_id"],
        shard,
        caption["id"],
        span,
        size,
        gold=target.mask,
        outcome="missed",
        stage=why[0],
        reason=why[1],
    )
