"""Pairs, against the objects that gold phrases denote.

A pair is matched to the gold phrase of its caption that its span overlaps most, among those that denote objects. It
is *right* if its mask and the mask of those objects together have an IoU of at least 0.5; where the gold has boxes
only, its box and the box around them. Precision is the share of right pairs among the pairs that are judged; recall
the share of gold phrases (pronouns aside) that a right pair was matched to.
"""

from collections import Counter, defaultdict
from collections.abc import Callable

from stages.common import rle
from stages.common.cases import Case
from stages.common.ids import draw_key
from stages.quality.scene import Scene, Target, corners, matched, object_mask
from stages.quality.tally import Numbers, Sums, share
from stages.quality.worst import MOST, Worst

RIGHT_FROM = 0.5
# What a pair is found to be; the last three are faults.
RIGHT, OTHER, OFF, NOTHING = "right", "other_object", "off_mask", "denotes_nothing"
VERDICTS = (RIGHT, OTHER, OFF, NOTHING)
# Why a gold phrase has no right pair, where no drop says it.
WRONG_PAIR, NO_PHRASE = "wrong_pair", "not_cut_out"
MEASURES = ("precision", "recall", "mean_iou")
Drops = list[tuple[int, int, str, str]]  # what was dropped of a caption: start, end, stage, reason; later stages first


class Align:
    """`verdicts` counts judged pairs, `unjudged` those of captions or phrases of which the gold does not say what they
    denote, `missed` gold phrases by why they have no right pair (stage, reason).
    """

    def __init__(self) -> None:
        self.sums, self.worst = Sums(), Worst()
        self.verdicts: Counter = Counter()
        self.missed: Counter = Counter()
        self.unjudged = 0
        self._gaps: dict[tuple[str, str], Worst] = defaultdict(Worst)

    def add(self, scene: Scene, drops: Callable[[str], Drops]) -> None:
        got: dict[int, bool] = {}
        for row in scene.pairs:
            self._pair(scene, row, got)
        for place, target in enumerate(scene.targets):
            if not target.sought:
                continue
            self.sums.add(target.groups, gold=1, found=got.get(place, False))
            if not got.get(place):
                key = ("align", WRONG_PAIR) if place in got else _why(target, drops(scene.caption["id"]))
                self.missed[key] += 1
                self._gaps[key].add(0.0, _gap(scene, target, key))

    def _pair(self, scene: Scene, row: dict, got: dict[int, bool]) -> None:
        place = matched(row, scene.targets)
        if place is None:
            known = matched(row, scene.targets, denoting=False)
            if known is None and not scene.whole or known is not None and scene.targets[known].phrase.objects is None:
                self.unjudged += 1
                return
            self._judged(scene, row, NOTHING, None, 0.0)
            return
        target = scene.targets[place]
        iou = _iou(row, target)
        verdict = RIGHT if iou >= RIGHT_FROM else _fault(scene, row, target)
        got[place] = got.get(place, False) or verdict == RIGHT
        if target.sought:
            by_mask = {"masked": 1, "iou": iou} if target.mask is not None else {}
            self.sums.add(target.groups, pairs=1, right=verdict == RIGHT, **by_mask)
        self._judged(scene, row, verdict, target, iou)

    def _judged(self, scene: Scene, row: dict, verdict: str, target: Target | None, iou: float) -> None:
        self.verdicts[verdict] += 1
        if iou < 1.0:
            self.worst.add(iou, _case(scene, row, verdict, target, iou))

    @property
    def gaps(self) -> list[Case]:
        """Some gold phrases without a right pair: reason by reason in turn."""
        turns = [
            (turn, key, draw_key(0, case.id), case)
            for key, worst in self._gaps.items()
            for turn, case in enumerate(worst.cases)
        ]
        return [case for *_, case in sorted(turns, key=lambda item: item[:3])[:MOST]]

    def body(self) -> Numbers:
        told = self.sums.told(_numbers)
        judged = sum(self.verdicts.values())
        told["all"] |= {"precision": share(self.verdicts[RIGHT], judged), "judged": judged, "unjudged": self.unjudged}
        reasons: dict[str, dict[str, int]] = defaultdict(dict)
        for (stage, reason), number in sorted(self.missed.items()):
            reasons[stage][reason] = number
        why = {
            "precision": "no pair is in a caption of which the gold says what its phrases denote",
            "recall": "no gold phrase denotes objects",
            "mean_iou": "the gold has boxes but no masks" if self.sums.all["pairs"] else "no pair is of a gold phrase",
        }
        missing = {name: why[name] for name in MEASURES if told["all"][name] is None}
        verdicts = {verdict: self.verdicts[verdict] for verdict in VERDICTS}
        return told | {"missing": missing, "verdicts": verdicts, "missed": dict(reasons)}


def _numbers(sums: Counter) -> Numbers:
    return {
        "precision": share(sums["right"], sums["pairs"]),
        "recall": share(sums["found"], sums["gold"]),
        "mean_iou": share(sums["iou"], sums["masked"]),
        "gold": sums["gold"],
        "found": sums["found"],
        "pairs": sums["pairs"],
        "right": sums["right"],
        "masked": sums["masked"],
    }


def _iou(row: dict, target: Target) -> float:
    if target.mask is None:
        return rle.box_iou(corners(row), target.box)
    return rle.mask_iou(row["counts"], target.mask, row["height"], row["width"])


def _fault(scene: Scene, row: dict, target: Target) -> str:
    """Whether another annotated object is what the pair shows."""
    size = row["height"], row["width"]
    for thing in scene.things:
        if target.mask is None:
            met = rle.box_iou(corners(row), thing.box)
        else:
            mask = object_mask(thing, size)
            met = 0.0 if mask is None else rle.mask_iou(row["counts"], mask, *size)
        if met >= RIGHT_FROM:
            return OTHER
    return OFF


def _why(target: Target, drops: Drops) -> tuple[str, str]:
    for start, end, stage, reason in drops:
        if start < target.phrase.end and target.phrase.start < end:
            return stage, reason
    return "parse", NO_PHRASE


def _case(scene: Scene, row: dict, verdict: str, target: Target | None, iou: float) -> Case:
    masked = target is not None and target.mask is not None
    return Case(
        row["id"],
        row["image_id"],
        scene.shard,
        row["caption_id"],
        (row["start"], row["end"]),
        (row["height"], row["width"]),
        mask=row["counts"],
        gold=target.mask if target else None,
        box=None if masked or target is None else corners(row),
        gold_box=None if masked or target is None else target.box,
        outcome=RIGHT if verdict == RIGHT else "wrong",
        reason=verdict,
        measures={"score": row["score"]} | ({"gold": iou} if target else {}),
    )


def _gap(scene: Scene, target: Target, why: tuple[str, str]) -> Case:
    span = target.phrase.start, target.phrase.end
    return Case(
        f"{scene.caption['id']}@{span[0]}-{span[1]}/gold",
        scene.caption["image_id"],
        scene.shard,
        scene.caption["id"],
        span,
        scene.frame,
        gold=target.mask,
        gold_box=None if target.mask is not None else target.box,
        outcome="missed",
        stage=why[0],
        reason=why[1],
    )
