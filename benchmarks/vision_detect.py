"""detect against the `predict` of the package groundingdino: one pass an image over all its phrases, or one a caption,
as its users do.
"""

import io
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.made_weights import checkpoint, grounding_dino, weights
from benchmarks.vision_measure import Clock, Figure, peak, whole_stage
from benchmarks.vision_photos import Photos
from stages.common.checkpoints import read_state

BOX, TEXT = 0.35, 0.25
_UNUSED = ("bert.pooler.dense.weight", "bert.pooler.dense.bias", "bert.embeddings.position_ids", "label_enc.weight")


def official(photos: Photos, cache: Path, name: str, device: str, prompting: str, images: int) -> list[Figure]:
    """The package's own loading, preparation and `predict`, in fp32: `per_image` one prompt of all phrases of an image,
    `per_caption` one pass a caption.
    """
    from groundingdino.util.inference import load_image, predict

    where, began = torch.device(device), time.perf_counter()
    model = grounding_dino(name)
    state = read_state(checkpoint(cache, name))
    model.load_state_dict({key: value for key, value in state.items() if key not in _UNUSED})
    model.to(where)
    start = time.perf_counter() - began
    passing = Clock(where)
    model.register_forward_pre_hook(lambda *_: passing.__enter__() and None)
    model.register_forward_hook(lambda *_: passing.__exit__())
    found, passes = 0, 0
    items = list(_items(photos, prompting, images))
    with Clock(where) as warm_up:
        _, pixels = load_image(io.BytesIO(items[0][0]))
        predict(model, pixels, items[0][1][0], BOX, TEXT, device)
    passing.reset()
    with Clock(where) as whole:
        for data, prompts in items:
            _, pixels = load_image(io.BytesIO(data))
            for prompt in prompts:
                boxes, _, _ = predict(model, pixels, prompt, BOX, TEXT, device)
                found, passes = found + len(boxes), passes + 1
    notes = {"passes": passes, "boxes above the thresholds": f"{found / passes:.1f} a pass"}
    return [
        Figure(
            f"{name}, official fp32 {prompting}",
            len(items),
            whole.seconds,
            whole.processor,
            "fp32",
            busy=passing.seconds,
            start=start,
            warm_up=warm_up.seconds,
            peak=peak(where),
            notes=notes,
        )
    ]


def _items(photos: Photos, prompting: str, images: int) -> list[tuple[bytes, list[str]]]:
    """Bytes of an image, and what its passes ask for."""
    phrases, captions = defaultdict(set), defaultdict(list)
    for row in photos.table("parse", "phrases").select(["image_id", "text"]).to_pylist():
        phrases[row["image_id"]].add(row["text"])
    for row in photos.table("ingest", "captions").select(["image_id", "text"]).to_pylist():
        captions[row["image_id"]].append(row["text"])
    table = photos.table("ingest", "images").slice(0, images).select(["id", "bytes"]).to_pylist()
    return [
        (row["bytes"], [" . ".join(sorted(phrases[row["id"]]))] if prompting == "per_image" else captions[row["id"]])
        for row in table
    ]


def ours(
    photos: Photos, cache: Path, name: str, device: str, dtype: str, prompting: str, runtime: dict[str, Any]
) -> list[Figure]:
    """The stage, from verified shards to verified shards."""
    figure = whole_stage(
        f"{name}, ours {dtype} {prompting}",
        photos,
        "detect",
        device,
        dtype,
        {},
        backend="transformers",
        path=str(weights(cache, name)),
        prompting=prompting,
        box_threshold=BOX,
        max_reject_rate=1.0,
        runtime=runtime,
    )
    return [figure]
