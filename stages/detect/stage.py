"""detect: every phrase gets the boxes of what it denotes.

In: `images`, `phrases`. Out: `boxes`, the best `top_k` a phrase (a counted plural keeps one more than its count, so
that a mismatch can be seen). Done to a row: the backend grounds the phrase in its image; a phrase without a box is
dropped with the backend's reason.
"""

from typing import Any

import pyarrow as pa

from pipeline.ledger import Drop
from pipeline.runner import Context, Output, Stage, Task
from stages.common.annotations import path_hash
from stages.detect.backends import Found, Miss, open_detector


def open_worker(context: Context) -> tuple[Any, Any]:
    return context.section, open_detector(context.section, context.params.runtime, context.device)


def process(worker: tuple[Any, Any], task: Task, inputs: dict[str, pa.Table]) -> Output:
    section, detector = worker
    phrases = inputs["phrases"]
    row_of = {row["id"]: row for row in phrases.select(["id", "image_id", "count"]).to_pylist()}
    boxes, drops = [], []
    for phrase_id, found in detector.detect(inputs["images"], phrases):
        phrase = row_of[phrase_id]
        if isinstance(found, Miss):
            drops.append(Drop("phrase", phrase_id, phrase["image_id"], found.outcome, found.reason, found.detail))
            continue
        for rank, item in enumerate(best(found, max(section.top_k, (phrase["count"] or 0) + 1))):
            x0, y0, x1, y1 = item.box
            boxes.append(
                {
                    "id": f"{phrase_id}/{rank}",
                    "image_id": phrase["image_id"],
                    "phrase_id": phrase_id,
                    "rank": rank,
                    "x0": x0,
                    "y0": y0,
                    "x1": x1,
                    "y1": y1,
                    "score": item.score,
                    "label": item.label,
                    "object_id": item.object_id,
                }
            )
    speed = detector.meter.speed() if detector.meter else None
    return Output({"boxes": boxes}, {"phrase": phrases.num_rows}, drops, speed=speed)


def best(found: list[Found], most: int) -> list[Found]:
    """The best-scored boxes; of equal scores the larger, then the smaller object id, so that the order is the same
    everywhere.
    """

    def order(item: Found) -> tuple:
        x0, y0, x1, y1 = item.box
        return -item.score, -(x1 - x0) * (y1 - y0), item.object_id or "", item.box

    return sorted(found, key=order)[:most]


def devices(context: Context) -> list[str]:
    if context.section.backend == "annotations":
        return []
    from stages.common.device import devices_of

    return devices_of(context.params.runtime)


def columns(section: Any) -> dict[str, list[str]]:
    return {"images": ["id"]} if section.backend == "annotations" else {}


STAGE = Stage(
    name="detect",
    version=1,
    reads=("images", "phrases"),
    writes=("boxes",),
    units={"phrase": ("boxes", "phrase_id")},
    open=open_worker,
    process=process,
    libraries=("torch", "torchvision", "transformers", "tokenizers", "groundingdino-py", "pillow"),
    columns=columns,
    devices=devices,
    path_hash=path_hash("phrases"),
    advice="do the annotations name these images (file_name) and words (detect.synonyms), or is detect.box_threshold "
    "too high? see the rows in drops/",
)
