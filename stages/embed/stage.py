"""embed: frozen features of whole images, of every candidate's crop, and of texts where the encoder has a text tower.

In: `images`, `captions`, `phrases`, `boxes`, `masks`. Out: `features`, float16, one row an id. Done to a row: an
image is decoded once; on the device its candidates are cut out of it (`crop`), and all go through the encoder in
batches. The same pixels are embedded once, however many phrases name them, and so is the same text.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import tables
from pipeline.errors import InputError
from pipeline.ledger import Drop
from pipeline.runner import Context, Output, Stage, Task
from stages.common.images import BadImage
from stages.embed.objects import objects_in


def open_worker(context: Context) -> Any:
    from stages.embed.worker import Worker

    return Worker(context.section, context.params.runtime, context.device)


def devices(context: Context) -> list[str]:
    from stages.common.device import devices_of

    return devices_of(context.params.runtime)


def process(worker: Any, task: Task, inputs: dict[str, pa.Table]) -> Output:
    objects, drops = objects_in(*(inputs[name] for name in ("images", "phrases", "boxes", "masks")))
    rows: list[tuple[str, str, str | None]] = []
    vectors: list[Any] = []
    for batch in _batches(worker.pictures(inputs["images"], objects), worker.rows):
        drops += [
            Drop("feature", one.name, one.image_id, "rejected", one.pixels.reason, one.pixels.detail)
            for one in batch
            if isinstance(one.pixels, BadImage)
        ]
        good = [one for one in batch if not isinstance(one.pixels, BadImage)]
        rows += [(one.name, one.kind, one.image_id) for one in good]
        vectors += worker.encode([one.pixels for one in good]) if good else []
    worker.wait()
    encoder = worker.encoder
    numbers = np.empty((len(vectors), encoder.dim), np.float16)
    for number, vector in zip(numbers, vectors, strict=True):
        number[:] = vector
    if worker.section.text and encoder.two_towers:
        named = list(_texts(inputs))
        unique = sorted({text for *_, text in named})
        place = {text: number for number, text in enumerate(unique)}
        numbers = np.concatenate([numbers, worker.texts(unique)[[place[text] for *_, text in named]]])
        rows += [(name, kind, image_id) for name, kind, image_id, _ in named]
    facts = {
        "architecture": encoder.architecture,
        "random_weights": encoder.random_weights,
        "dim": encoder.dim,
        "text_tower": encoder.two_towers,
    }
    seen = {"feature": len(rows) + len(drops)}
    return Output({"features": _table(rows, numbers)}, seen, drops, facts=facts, speed=worker.meter.speed())


def _texts(inputs: dict[str, pa.Table]) -> Iterator[tuple[str, str, str | None, str]]:
    """Name, kind, image and text of every caption and of every different phrase."""
    captions = inputs["captions"]
    for name, image_id, text in zip(*(captions.column(c).to_pylist() for c in ("id", "image_id", "text")), strict=True):
        yield f"caption:{name}", "caption", image_id, text
    for text in inputs["phrases"].column("text").unique().to_pylist():
        yield f"phrase:{text}", "phrase", None, text


def _batches(items: Iterable[Any], rows: int) -> Iterator[list[Any]]:
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == rows:
            yield batch
            batch = []
    if batch:
        yield batch


def _table(rows: list[tuple[str, str, str | None]], vectors: np.ndarray) -> pa.Table:
    """The table of features.

    Args:
        rows: id, kind and image id.
        vectors: float16 [rows, dim].

    Raises:
        InputError: a vector holds NaN or infinity.
    """
    broken = np.flatnonzero(~np.isfinite(vectors).all(1))
    if len(broken):
        name, _, image_id = rows[broken[0]]
        where = f"image {image_id}" if image_id else "a text"
        raise InputError(
            f"embed: {where}: NaN or infinity in the vector of {name} (and in {len(broken) - 1} more of its shard); "
            "are the weights of embed.path sound? numbers overflow under embed.dtype fp16: set bf16 or fp32"
        )
    schema = tables.features_schema(vectors.shape[1])
    packed = pa.py_buffer(np.ascontiguousarray(vectors, "<f2"))
    column = pa.FixedSizeBinaryArray.from_buffers(schema.field("vector").type, len(rows), [None, packed])
    named = [pa.array(list(values), pa.string()) for values in (zip(*rows, strict=True) if rows else ((), (), ()))]
    return tables.ordered("features", pa.table([*named, column], schema))


STAGE = Stage(
    name="embed",
    version=2,
    reads=("images", "captions", "phrases", "boxes", "masks"),
    writes=("features",),
    units={"feature": ("features", "id")},
    open=open_worker,
    process=process,
    devices=devices,
    libraries=("torch", "transformers", "pillow", "pycocotools"),
    advice="see the rows in drops/",
)
