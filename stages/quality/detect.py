"""Boxes that detect found, against those of the objects that a gold phrase denotes."""

from collections import Counter

import numpy as np

from stages.common.cases import Case
from stages.quality.scene import Scene, Target, corners, overlaps
from stages.quality.tally import Numbers, Sums, share
from stages.quality.worst import Worst

RIGHT_FROM = 0.5
NO_BOX, LOWER, OTHERS, OFF = "no_box_found", "lower_rank", "another_phrase", "off_box"
MEASURES = ("accuracy", "accuracy_any", "box_recall", "box_recall_image")


class Detect:
    """Of gold phrases that parse cut a phrase for: accuracy is the share whose best-scored box has an IoU of 0.5 or
    more with the box around all objects of the gold phrase (how Flickr30k Entities is scored: merged boxes), or with
    that of any one of them (`accuracy_any`). A phrase without a box is wrong. Box recall is the share of those objects
    that some box of the phrase, or of any phrase in the image (`box_recall_image`), meets so.
    """

    def __init__(self) -> None:
        self.sums, self.worst = Sums(), Worst()

    def add(self, scene: Scene) -> None:
        asked = scene.phrase_of()
        for place, target in enumerate(scene.targets):
            if not target.sought:
                continue
            self.sums.add(target.groups, gold=1, asked=place in asked)
            if place in asked:
                self._one(scene, target, asked[place])

    def _one(self, scene: Scene, target: Target, phrase: dict) -> None:
        rows = scene.boxes.get(phrase["id"], [])
        own = np.array([corners(row) for row in rows], float).reshape(-1, 4)
        objects = [thing.box for thing in target.phrase.objects]
        met = [_meets(box, own) for box in objects]
        in_image = [_meets(box, scene.image_boxes) for box in objects]
        top = float(overlaps(target.box, own[:1])[0]) if rows else 0.0
        top_any = max((float(overlaps(box, own[:1])[0]) for box in objects), default=0.0) if rows else 0.0
        self.sums.add(
            target.groups,
            without_box=not rows,
            right=top >= RIGHT_FROM,
            right_any=top_any >= RIGHT_FROM,
            objects=len(objects),
            met=sum(met),
            met_image=sum(in_image),
        )
        if top < RIGHT_FROM:
            lower = any(met) or _meets(target.box, own)
            reason = NO_BOX if not rows else LOWER if lower else OTHERS if any(in_image) else OFF
            self.worst.add(top, _case(scene, target, phrase, rows, reason, top))

    def body(self) -> Numbers:
        told = self.sums.all
        why = "the gold has no boxes of phrases" if not told["gold"] else "parse cut no phrase that the gold locates"
        return self.sums.told(_numbers) | {"missing": {} if told["asked"] else dict.fromkeys(MEASURES, why)}


def _meets(box: tuple[float, ...], others: np.ndarray) -> bool:
    return bool((overlaps(box, others) >= RIGHT_FROM).any())


def _numbers(sums: Counter) -> Numbers:
    return {
        "accuracy": share(sums["right"], sums["asked"]),
        "accuracy_any": share(sums["right_any"], sums["asked"]),
        "box_recall": share(sums["met"], sums["objects"]),
        "box_recall_image": share(sums["met_image"], sums["objects"]),
        "gold": sums["gold"],
        "asked": sums["asked"],
        "without_box": sums["without_box"],
        "objects": sums["objects"],
    }


def _case(scene: Scene, target: Target, phrase: dict, rows: list[dict], reason: str, iou: float) -> Case:
    measures = {"score": rows[0]["score"], "gold": iou} if rows else {}
    return Case(
        rows[0]["id"] if rows else phrase["id"],
        scene.caption["image_id"],
        scene.shard,
        scene.caption["id"],
        (phrase["start"], phrase["end"]),
        scene.frame,
        box=corners(rows[0]) if rows else None,
        gold_box=target.box,
        outcome="wrong",
        stage="detect",
        reason=reason,
        measures=measures,
    )
