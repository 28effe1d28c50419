"""embed against a plain loop with transformers: every image and every masked object cut out by Pillow, the checkpoint's
own image processor, the model in batches.
"""

import io
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.made_weights import weights
from benchmarks.vision_flop import counted
from benchmarks.vision_measure import Clock, Figure, peak, whole_stage
from benchmarks.vision_photos import Photos
from stages.common import rle
from stages.common.candidates import candidates, feature_ids

BATCH = 32


def plain(photos: Photos, cache: Path, name: str, device: str, dtype: str, images: int) -> list[Figure]:
    """The first images and their objects, features kept as float16 in a .npy file."""
    from transformers import AutoImageProcessor, AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()

    where, began = torch.device(device), time.perf_counter()
    folder = weights(cache, name)
    number = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    model = AutoModel.from_pretrained(folder, dtype=number).to(where).eval()
    processor = AutoImageProcessor.from_pretrained(folder)
    start = time.perf_counter() - began
    encode = model.get_image_features if hasattr(model, "get_image_features") else model

    @torch.inference_mode()
    def embed(batch: list[Image.Image], passing: Clock) -> np.ndarray:
        pixels = processor(images=batch, return_tensors="pt")["pixel_values"].to(where, number)
        with passing:
            made = encode(pixel_values=pixels)
        return made.pooler_output.flatten(1).float().cpu().numpy().astype("<f2")

    passing = Clock(where)
    with Clock(where) as warm_up:
        embed([Image.new("RGB", (320, 240))] * BATCH, passing)
    pixels = processor(images=[Image.new("RGB", (320, 240))], return_tensors="pt")["pixel_values"].to(where, number)
    flop = counted(lambda: encode(pixel_values=pixels))
    passing.reset()
    vectors, batch = [], []
    with Clock(where) as whole:
        for picture in _pictures(photos, images):
            batch.append(picture)
            if len(batch) == BATCH:
                vectors.append(embed(batch, passing))
                batch = []
        if batch:
            vectors.append(embed(batch, passing))
        np.save(photos.folder / "plain.npy", np.concatenate(vectors))
    return [
        Figure(
            f"{name}, plain loop {dtype}",
            sum(map(len, vectors)),
            whole.seconds,
            whole.processor,
            dtype,
            flop,
            passing.seconds,
            start,
            warm_up.seconds,
            peak(where),
        )
    ]


def _pictures(photos: Photos, images: int) -> Iterator[Image.Image]:
    """Every image, and after it its objects on grey, each cut out a tenth wider than its mask's box."""
    made = candidates(*(photos.table(*place) for place in (("parse", "phrases"), ("detect", "boxes"), _MASKS)))
    objects: dict[str, dict[str, tuple]] = defaultdict(dict)
    masks = zip(*(made.column(name).to_pylist() for name in ("image_id", "counts", "height", "width")), strict=True)
    for identifier, (image, *mask) in zip(feature_ids(made), masks, strict=True):
        objects[image][identifier] = tuple(mask)
    for row in photos.table("ingest", "images").slice(0, images).select(["id", "bytes"]).to_pylist():
        image = Image.open(io.BytesIO(row["bytes"])).convert("RGB")
        yield image
        for mask in objects[row["id"]].values():
            x0, y0, x1, y1 = rle.box(*mask)
            dx, dy = 0.1 * (x1 - x0), 0.1 * (y1 - y0)
            place = max(0, int(x0 - dx)), max(0, int(y0 - dy)), min(image.width, int(x1 + dx) + 1)
            place += (min(image.height, int(y1 + dy) + 1),)
            inside = Image.fromarray(rle.decode(*mask)).crop(place)
            crop = Image.new("RGB", inside.size, (122, 116, 104))
            crop.paste(image.crop(place), mask=inside)
            yield crop


_MASKS = ("segment", "masks")


def ours(photos: Photos, cache: Path, name: str, device: str, dtype: str, runtime: dict[str, Any]) -> list[Figure]:
    """The stage, from verified shards to verified shards, without texts."""
    figure = whole_stage(
        f"{name}, ours {dtype}",
        photos,
        "embed",
        device,
        dtype,
        {},
        path=str(weights(cache, name)),
        text=False,
        runtime=runtime,
    )
    return [figure]
