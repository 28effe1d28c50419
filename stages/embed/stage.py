"""embed: frozen features of whole images, of every candidate's crop, and of texts where the encoder has a text tower.

In: `images`, `captions`, `phrases`, `boxes`, `masks`. Out: `features`, float16, one row an id. Done to a row: an
image is decoded once, its candidates are cut out (`crop`), and all go through the encoder in batches. The same pixels
are embedded once, however many phrases name them.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import tables
from pipeline.ledger import Drop
from pipeline.runner import Context, Output, Stage, Task
from stages.common.candidates import candidates, feature_ids
from stages.common.images import BadImage, decode
from stages.common.rle import Mask
from stages.embed.crops import cut


def open_worker(context: Context) -> tuple[Any, Any, int]:
    from stages.embed.encoder import Encoder

    runtime = context.params.runtime
    encoder = Encoder(context.section.path, runtime.device, context.section.dtype, runtime.threads)
    return context.section, encoder, runtime.batch_rows


def process(worker: tuple[Any, Any, int], task: Task, inputs: dict[str, pa.Table]) -> Output:
    section, encoder, batch_rows = worker
    crops = _crops(inputs)
    rows, drops, seen = [], [], 0
    for batch in _batches(_pictures(inputs["images"], crops, section, encoder.mean_colour), batch_rows):
        seen += len(batch)
        drops += [
            Drop("feature", identifier, image_id, "rejected", picture.reason, picture.detail)
            for identifier, _, image_id, picture in batch
            if isinstance(picture, BadImage)
        ]
        good = [item for item in batch if not isinstance(item[3], BadImage)]
        if good:
            rows += _rows(good, encoder.images([item[3] for item in good]))
    if section.text and encoder.two_towers:
        for batch in _batches(_texts(inputs), batch_rows):
            seen += len(batch)
            rows += _rows(batch, encoder.texts([item[3] for item in batch]))
    facts = {
        "architecture": encoder.architecture,
        "random_weights": encoder.random_weights,
        "dim": encoder.dim,
        "text_tower": encoder.two_towers,
    }
    return Output(
        {"features": rows}, {"feature": seen}, drops, {"features": tables.features_schema(encoder.dim)}, facts
    )


def _crops(inputs: dict[str, pa.Table]) -> dict[str, dict[str, Mask]]:
    """image id -> feature id -> the pixels it names."""
    made = candidates(inputs["phrases"], inputs["boxes"], inputs["masks"])
    crops: dict[str, dict[str, Mask]] = {}
    masks = map(Mask, *(made.column(name).to_pylist() for name in ("counts", "height", "width")))
    for image_id, feature_id, mask in zip(made.column("image_id").to_pylist(), feature_ids(made), masks, strict=True):
        crops.setdefault(image_id, {}).setdefault(feature_id, mask)
    return crops


def _pictures(images: pa.Table, crops: dict, section: Any, fill: tuple[int, int, int]) -> Iterator[tuple]:
    for batch in images.select(["id", "bytes"]).to_batches(max_chunksize=16):
        for row in batch.to_pylist():
            wanted = sorted(crops.get(row["id"], {}).items())
            try:
                image = decode(row["bytes"])
            except BadImage as error:
                yield from (
                    (name, kind, row["id"], error)
                    for name, kind in [(f"image:{row['id']}", "image"), *((f, "object") for f, _ in wanted)]
                )
                continue
            yield f"image:{row['id']}", "image", row["id"], image
            for feature_id, mask in wanted:
                yield feature_id, "object", row["id"], cut(image, mask, section.crop, section.crop_margin, fill)


def _texts(inputs: dict[str, pa.Table]) -> Iterator[tuple]:
    for row in inputs["captions"].select(["id", "image_id", "text"]).to_pylist():
        yield f"caption:{row['id']}", "caption", row["image_id"], row["text"]
    for text in sorted(set(inputs["phrases"].column("text").to_pylist())):
        yield f"phrase:{text}", "phrase", None, text


def _batches(items: Iterator[tuple], rows: int) -> Iterator[list[tuple]]:
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == rows:
            yield batch
            batch = []
    if batch:
        yield batch


def _rows(batch: list[tuple], vectors: np.ndarray) -> list[dict]:
    return [
        {"id": identifier, "kind": kind, "image_id": image_id, "vector": vector.astype("<f2").tobytes()}
        for (identifier, kind, image_id, _), vector in zip(batch, vectors, strict=True)
    ]


STAGE = Stage(
    name="embed",
    version=1,
    reads=("images", "captions", "phrases", "boxes", "masks"),
    writes=("features",),
    units={"feature": ("features", "id")},
    open=open_worker,
    process=process,
    libraries=("torch", "transformers", "pillow", "pycocotools"),
    advice="see the rows in drops/",
)
