"""Phrases that parse cut, against the phrases that gold marks."""

from collections import Counter

from stages.common import groups
from stages.common.cases import Case
from stages.quality.scene import Scene, matched, overlap
from stages.quality.tally import Numbers, Sums, f1, share
from stages.quality.worst import Worst

OVERLAPS = 0.5
NO_GOLD, OTHER_SPAN = "no_gold_phrase", "other_span"
MEASURES = ("precision", "recall", "f1", "overlap_precision", "overlap_recall", "overlap_f1")


class Parse:
    """Precision is the share of phrases whose span is that of a gold phrase (second line: overlaps one by half or
    more), recall the share of gold phrases that such a phrase was cut for.

    Over all, gold phrases that cannot become a right pair are left out, with the phrases that overlap them most: parse
    is right to drop a pronoun, and right not to know what is shown. They are told by kind only.
    """

    def __init__(self) -> None:
        self.sums, self.worst = Sums(), Worst()

    def add(self, scene: Scene) -> None:
        if not scene.whole:
            return
        for row in scene.phrases:
            place = matched(row, scene.targets, denoting=False)
            target = None if place is None else scene.targets[place]
            best = overlap(row, target.phrase) if target else 0.0
            own = target.groups if target else (groups.of_length(row["text"]),)
            counted = target is None or not target.aside
            own = own if counted else _kinds(own)
            self.sums.add(own, counted, cut=1, cut_exact=best == 1.0, cut_overlap=best >= OVERLAPS)
            if counted and best < 1.0:
                self.worst.add(best, _case(scene, row, OTHER_SPAN if target else NO_GOLD))
        for target in scene.targets:
            best = max((overlap(row, target.phrase) for row in scene.phrases), default=0.0)
            amounts = {"gold": 1, "gold_exact": best == 1.0, "gold_overlap": best >= OVERLAPS}
            own = _kinds(target.groups) if target.aside else target.groups
            self.sums.add(own, not target.aside, **amounts)

    def body(self) -> Numbers:
        missing = {} if self.sums.all["gold"] else dict.fromkeys(MEASURES, "the gold does not mark phrases of captions")
        return self.sums.told(_numbers) | {"missing": missing}


def _kinds(own: tuple[groups.Group, ...]) -> list[groups.Group]:
    return [group for group in own if group[0] == "kind"]


def _numbers(sums: Counter) -> Numbers:
    found = {}
    for prefix, kind in (("", "exact"), ("overlap_", "overlap")):
        precision, recall = share(sums[f"cut_{kind}"], sums["cut"]), share(sums[f"gold_{kind}"], sums["gold"])
        found |= {f"{prefix}precision": precision, f"{prefix}recall": recall, f"{prefix}f1": f1(precision, recall)}
    return found | {"phrases": sums["cut"], "gold": sums["gold"]}


def _case(scene: Scene, row: dict, reason: str) -> Case:
    span = row["start"], row["end"]
    place = scene.caption["image_id"], scene.shard, scene.caption["id"], span
    return Case(row["id"], *place, outcome="wrong", stage="parse", reason=reason)
