"""Masks that segment found for boxes that are right, against the masks of the objects in them."""

from collections import Counter

import numpy as np

from stages.common import rle
from stages.common.cases import Case
from stages.quality.detect import RIGHT_FROM
from stages.quality.scene import Scene, Target, corners, overlaps
from stages.quality.tally import Numbers, Sums, share
from stages.quality.worst import Worst

SHARES = {"at_50": 0.5, "at_75": 0.75}
MEASURES = ("mean_iou", *SHARES)


class Segment:
    """A box is right if its IoU with the box of an object that its gold phrase denotes is 0.5 or more; it is of the
    object that it overlaps most. Its mask's IoU with that object's mask: the mean, and the shares of 0.5 and 0.75 or
    more. A right box without a mask counts as 0.
    """

    def __init__(self) -> None:
        self.sums, self.worst = Sums(), Worst()

    def add(self, scene: Scene) -> None:
        for place, phrase in scene.phrase_of().items():
            target = scene.targets[place]
            if target.sought:
                for row in scene.boxes.get(phrase["id"], []):
                    self._one(scene, target, phrase, row)

    def _one(self, scene: Scene, target: Target, phrase: dict, row: dict) -> None:
        ious = overlaps(corners(row), np.array([thing.box for thing in target.phrase.objects], float))
        best = int(ious.argmax())
        if ious[best] < RIGHT_FROM:
            return
        gold, mask = target.masks[best], scene.masks.get(row["id"])
        if gold is None:
            self.sums.add(target.groups, without_gold=1)
            return
        iou = 0.0 if mask is None else rle.mask_iou(mask, gold, *scene.frame)
        reached = {name: iou >= least for name, least in SHARES.items()}
        self.sums.add(target.groups, boxes=1, without_mask=mask is None, iou=iou, **reached)
        if iou < 1.0:
            self.worst.add(iou, _case(scene, phrase, row, mask, gold, iou))

    def body(self) -> Numbers:
        told = self.sums.all
        why = "the gold has boxes but no masks" if told["without_gold"] else "no box is right"
        return self.sums.told(_numbers) | {"missing": {} if told["boxes"] else dict.fromkeys(MEASURES, why)}


def _numbers(sums: Counter) -> Numbers:
    boxes = sums["boxes"]
    shares = {name: share(sums[name], boxes) for name in SHARES}
    return {"mean_iou": share(sums["iou"], boxes), **shares, "boxes": boxes, "without_mask": sums["without_mask"]}


def _case(scene: Scene, phrase: dict, row: dict, mask: bytes | None, gold: bytes, iou: float) -> Case:
    return Case(
        row["id"],
        scene.caption["image_id"],
        scene.shard,
        scene.caption["id"],
        (phrase["start"], phrase["end"]),
        scene.frame,
        mask=mask,
        gold=gold,
        box=corners(row),
        outcome="wrong",
        stage="segment",
        reason="off_mask" if mask is not None else "no_mask",
        measures={"score": row["score"], "gold": iou},
    )
