"""segment against the loop of segment-anything's README: one image after another, in fp32 and under autocast."""

import io
import json
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from benchmarks.made_weights import SAM, checkpoint, weights
from benchmarks.vision_measure import Clock, Figure, autocast, peak, whole_stage
from benchmarks.vision_photos import OBJECTS, Photos
from pipeline.shards import read_table, shard_name, shard_numbers
from stages.common import rle
from stages.common.device import dtype_of
from stages.segment.architecture import OFFICIAL, encoder_flop
from stages.segment.network import Network

_ENOUGH = 320  # images for the encoder alone


def official(photos: Photos, cache: Path, name: str, device: str, dtype: str, images: int) -> list[Figure]:
    """The first images, one by one: decoded, encoded, all their boxes prompted at once, the best of three masks of a
    box coded and written to a file. Two figures: the encoder alone, and the whole loop.
    """
    from segment_anything import SamPredictor, sam_model_registry

    where, began = torch.device(device), time.perf_counter()
    model = sam_model_registry[SAM[name]](checkpoint=str(checkpoint(cache, name))).to(where)
    predictor = SamPredictor(model)
    start = time.perf_counter() - began
    encoding, deciding = Clock(where), Clock(where)
    model.image_encoder.register_forward_pre_hook(lambda *_: encoding.__enter__() and None)
    model.image_encoder.register_forward_hook(lambda *_: encoding.__exit__())
    items = list(_items(photos, images))
    with Clock(where) as warm_up:
        _segment(predictor, items[0], device, dtype, deciding)
    encoding.reset()
    deciding.reset()
    with (photos.folder / f"official-{name}-{dtype}.jsonl").open("w", encoding="utf-8") as file, Clock(where) as whole:
        for item in items:
            for line in _segment(predictor, item, device, dtype, deciding):
                file.write(line)
    shared: dict[str, Any] = {"dtype": dtype, "flop": encoder_flop(OFFICIAL[SAM[name]]), "peak": peak(where)}
    shared |= {"start": start, "warm_up": warm_up.seconds}
    title = f"{name}, official {dtype}"
    return [
        Figure(f"{title}: encoder", len(items), encoding.seconds, encoding.processor, busy=encoding.seconds, **shared),
        Figure(
            f"{title}: whole",
            len(items),
            whole.seconds,
            whole.processor,
            busy=encoding.seconds + deciding.seconds,
            **shared,
        ),
    ]


def _items(photos: Photos, images: int) -> list[tuple[bytes, list[str], torch.Tensor]]:
    """Bytes of an image, the ids of its boxes, the boxes [N, 4]."""
    table = photos.table("ingest", "images").slice(0, images).select(["id", "bytes"])
    boxes = defaultdict(list)
    for row in objects(photos).select(["id", "image_id", "x0", "y0", "x1", "y1"]).to_pylist():
        identifier, image, *corners = row.values()
        boxes[image].append((identifier, corners))
    return [
        (row["bytes"], [name for name, _ in boxes[row["id"]]], torch.tensor([box for _, box in boxes[row["id"]]]))
        for row in table.to_pylist()
    ]


def objects(photos: Photos) -> pa.Table:
    place = photos.folder / OBJECTS / "detect/boxes"
    return pa.concat_tables(read_table(place / f"{shard_name(n)}.parquet", "boxes") for n in shard_numbers(place))


def _segment(predictor: Any, item: tuple, device: str, dtype: str, deciding: Clock) -> list[str]:
    data, names, boxes = item
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    with torch.inference_mode(), autocast(torch.device(device), dtype):
        predictor.set_image(pixels)
        prompts = predictor.transform.apply_boxes_torch(boxes.to(device), pixels.shape[:2])
        with deciding:
            masks, quality, _ = predictor.predict_torch(None, None, prompts, multimask_output=True)
            best = masks[torch.arange(len(masks)), quality.argmax(1)]
    found = zip(names, best.cpu().numpy(), quality.amax(1).tolist(), strict=True)
    return [
        json.dumps({"box": name, "size": mask.shape, "counts": rle.encode(mask).decode(), "predicted_iou": score})
        + "\n"
        for name, mask, score in found
    ]


def encoder(cache: Path, name: str, device: str, dtype: str, images: int, runtime: dict[str, Any]) -> list[Figure]:
    """Our encoder alone, on batches that are on the device already."""
    where, began = torch.device(device), time.perf_counter()
    batch = min(images, runtime["batch_images"])
    network = Network(weights(cache, name), where, dtype_of(dtype), batch if runtime["compile"] else 0)
    side = network.side
    pixels = torch.randn(batch, 3, side, side, device=where, dtype=dtype_of(dtype))
    start = time.perf_counter() - began
    with Clock(where) as warm_up:
        network.warm_up(batch)
    rounds = -(-min(images, _ENOUGH) // batch)
    with torch.inference_mode(), Clock(where) as clock:
        for _ in range(rounds):
            network.encoder(pixels)
    shared = {"flop": network.flop, "busy": clock.seconds, "start": start, "warm_up": warm_up.seconds}
    return [
        Figure(
            f"{name}, ours {dtype}: encoder",
            rounds * batch,
            clock.seconds,
            clock.processor,
            dtype,
            peak=peak(where),
            **shared,
        )
    ]


def ours(photos: Photos, cache: Path, name: str, device: str, dtype: str, runtime: dict[str, Any]) -> list[Figure]:
    """The stage, from verified shards to verified shards, and how far its masks are those of the official loop."""
    figure = whole_stage(
        f"{name}, ours {dtype}: whole",
        photos,
        "segment",
        device,
        dtype,
        {"boxes": photos.folder / OBJECTS / "detect/boxes"},
        backend="sam",
        path=str(weights(cache, name)),
        max_reject_rate=1.0,
        runtime=runtime,
    )
    place = photos.folder / "measured" / f"segment-{dtype}" / "masks"
    masks = pa.concat_tables(read_table(place / f"{shard_name(n)}.parquet", "masks") for n in shard_numbers(place))
    notes = {"masks": masks.num_rows, "against the official fp32 masks": agreement(photos, name, masks)}
    return [replace(figure, notes=notes)]


def agreement(photos: Photos, name: str, masks: pa.Table) -> str:
    """Mean and least IoU of our masks with those of the official loop in fp32, and how many were compared."""
    with (photos.folder / f"official-{name}-fp32.jsonl").open(encoding="utf-8") as file:
        theirs = {row["box"]: row for row in map(json.loads, file)}
    rows = masks.select(["box_id", "counts", "height", "width"]).to_pylist()
    found = [
        _iou(rle.decode(row["counts"], row["height"], row["width"]), theirs[row["box_id"]])
        for row in rows
        if row["box_id"] in theirs
    ]
    return f"IoU mean {np.mean(found):.4f}, least {min(found):.4f}, of {len(found)} masks"


def _iou(ours: np.ndarray, theirs: dict) -> float:
    mask = rle.decode(theirs["counts"].encode(), *theirs["size"])
    return float((ours & mask).sum() / max((ours | mask).sum(), 1))
