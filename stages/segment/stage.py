"""segment: every box gets the pixels of what is in it.

In: `images`, `boxes`. Out: `masks`, COCO RLE at image resolution. Done to a row: the backend finds the mask; a box
without one is dropped or rejected. With `prompt: grid` the masks of the whole image are kept too, without a box.
"""

from typing import Any

import pyarrow as pa

from pipeline.ledger import Drop
from pipeline.runner import Context, Output, Stage, Task
from stages.common import rle
from stages.common.annotations import path_hash
from stages.segment.backends import Miss, open_segmenter


def open_worker(context: Context) -> Any:
    return open_segmenter(context.section, context.params.runtime, context.device)


def devices(context: Context) -> list[str]:
    if context.section.backend == "annotations":
        return []
    from stages.common.device import devices_of

    return devices_of(context.params.runtime)


def process(segmenter: Any, task: Task, inputs: dict[str, pa.Table]) -> Output:
    boxes, images = inputs["boxes"], inputs["images"]
    frame = {row["id"]: (row["height"], row["width"]) for row in images.select(["id", "height", "width"]).to_pylist()}
    masks, drops = [], []
    for identifier, image_id, box_id, found in segmenter.segment(images, boxes):
        if isinstance(found, Miss):
            drops.append(Drop("box", identifier, image_id, found.outcome, found.reason, found.detail))
            continue
        height, width = frame[image_id]
        masks.append(
            {
                "id": identifier,
                "image_id": image_id,
                "box_id": box_id,
                "height": height,
                "width": width,
                "counts": found.counts,
                "area": rle.area(found.counts, height, width),
                "predicted_iou": found.predicted_iou,
                "stability": found.stability,
            }
        )
    return Output(
        {"masks": masks}, {"box": boxes.num_rows}, drops, facts=dict(segmenter.facts), speed=segmenter.speed()
    )


def columns(section: Any) -> dict[str, list[str]]:
    needed = ["id", "height", "width"]
    return {"images": needed if section.backend == "annotations" else [*needed, "bytes"]}


STAGE = Stage(
    name="segment",
    version=1,
    reads=("images", "boxes"),
    writes=("masks",),
    units={"box": ("masks", "box_id")},
    open=open_worker,
    process=process,
    columns=columns,
    devices=devices,
    path_hash=path_hash("boxes"),
    libraries=("torch", "torchvision", "segment-anything", "scipy", "pillow", "pycocotools"),
    advice="do the annotations, or the segmenter, give masks for these boxes? see the rows in drops/",
)
