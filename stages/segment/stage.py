"""segment: every box gets the pixels of what is in it.

In: `images`, `boxes`. Out: `masks`, COCO RLE at image resolution. Done to a row: the backend finds the mask; a box
without one is dropped or rejected.
"""

from typing import Any

import pyarrow as pa

from pipeline.ledger import Drop
from pipeline.runner import Context, Output, Stage, Task
from stages.common import rle
from stages.common.annotations import path_hash
from stages.segment.backends import Miss, open_segmenter


def open_worker(context: Context) -> Any:
    return open_segmenter(context.section, context.params.runtime)


def process(segmenter: Any, task: Task, inputs: dict[str, pa.Table]) -> Output:
    boxes, images = inputs["boxes"], inputs["images"]
    frame = {row["id"]: (row["height"], row["width"]) for row in images.select(["id", "height", "width"]).to_pylist()}
    image_of = dict(zip(boxes.column("id").to_pylist(), boxes.column("image_id").to_pylist(), strict=True))
    masks, drops = [], []
    for box_id, found in segmenter.segment(images, boxes):
        image_id = image_of[box_id]
        if isinstance(found, Miss):
            drops.append(Drop("box", box_id, image_id, found.outcome, found.reason, found.detail))
            continue
        height, width = frame[image_id]
        masks.append(
            {
                "id": box_id,
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
    return Output({"masks": masks}, {"box": boxes.num_rows}, drops)


def columns(section: Any) -> dict[str, list[str]]:
    return {"images": ["id", "height", "width"]} if section.backend == "annotations" else {}


STAGE = Stage(
    name="segment",
    version=1,
    reads=("images", "boxes"),
    writes=("masks",),
    units={"box": ("masks", "box_id")},
    open=open_worker,
    process=process,
    columns=columns,
    path_hash=path_hash("boxes"),
    libraries=("pycocotools",),
    advice="do the annotations hold masks for these objects? see the rows in drops/",
)
