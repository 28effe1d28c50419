"""Candidates: what a phrase may denote. A candidate is a phrase with one mask, or with the union of as many masks as
it counts.
"""

import hashlib
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.common import rle

# One row a candidate. `phrase` is the row of its phrase in the table of phrases. The box is the detected one (for a
# union: around all), `objects` how many masks the candidate is made of, `area` its pixels. `category` is that of an
# annotated object, null for what a model found. `score`, `predicted_iou` and `stability` of a union are the least of
# its parts.
SCHEMA = pa.schema(
    {
        "phrase": pa.int64(),
        "id": pa.string(),
        "image_id": pa.string(),
        "category": pa.string(),
        "x0": pa.float32(),
        "y0": pa.float32(),
        "x1": pa.float32(),
        "y1": pa.float32(),
        "height": pa.int32(),
        "width": pa.int32(),
        "counts": pa.binary(),
        "area": pa.int32(),
        "objects": pa.int32(),
        "score": pa.float32(),
        "predicted_iou": pa.float32(),
        "stability": pa.float32(),
    }
)
_OF_BOX = ("id", "x0", "y0", "x1", "y1", "score")
_SCORES = ("score", "predicted_iou", "stability")
_OF_MASK = ("height", "width", "counts", "area", "predicted_iou", "stability")


def candidates(phrases: pa.Table, boxes: pa.Table, masks: pa.Table) -> pa.Table:
    """The candidates of every phrase that has masks (`SCHEMA`), phrase after phrase: single masks by rank, then the
    union where the stated count fits.

    "Two dogs" with exactly two masks gets a union; the singles stay candidates, so that the ledger can say what
    became of them.
    """
    phrase = _row_in(phrases.column("id"), boxes.column("phrase_id"))
    mask = _row_in(masks.column("box_id"), boxes.column("id"))
    box = np.flatnonzero((phrase >= 0) & (mask >= 0))
    box = box[np.lexsort((boxes.column("rank").to_numpy()[box], phrase[box]))]
    phrase, mask = phrase[box], mask[box]
    columns = {
        "phrase": pa.array(phrase, pa.int64()),
        "image_id": phrases.column("image_id").take(phrase),
        "category": pc.if_else(boxes.column("object_id").is_valid(), boxes.column("label"), None).take(box),
        "objects": pa.array(np.ones(len(box), np.int32)),
        **{name: boxes.column(name).take(box) for name in _OF_BOX},
        **{name: masks.column(name).take(mask) for name in _OF_MASK},
    }
    singles = pa.table([columns[name] for name in SCHEMA.names], SCHEMA)
    if not (unions := _unions(phrases, singles)):
        return singles
    every = pa.concat_tables([singles, pa.Table.from_pylist(unions, SCHEMA)])
    order = np.lexsort((every.column("objects").to_numpy(), every.column("phrase").to_numpy()))
    return every.take(order)  # lexsort is stable: singles keep their rank, the union comes last


def _row_in(where: pa.ChunkedArray, values: pa.ChunkedArray) -> np.ndarray:
    """The row of each value in `where`, -1 if it is not there."""
    return pc.fill_null(pc.index_in(values, value_set=where), -1).to_numpy()


def _unions(phrases: pa.Table, singles: pa.Table) -> list[dict]:
    """A union for every phrase that counts two or more and has exactly so many masks."""
    phrase = singles.column("phrase").to_numpy()
    found, number = np.unique(phrase, return_counts=True)
    stated = pc.fill_null(phrases.column("count").take(found), 0).to_numpy()
    fits = (stated >= 2) & (stated == number)
    ids = phrases.column("id").take(found[fits]).to_pylist()
    rows = iter(singles.filter(pa.array(np.repeat(fits, number))).to_pylist())
    made = []
    for identifier, length in zip(ids, number[fits].tolist(), strict=True):
        parts = list(islice(rows, length))
        height, width = parts[0]["height"], parts[0]["width"]
        counts = rle.union([part["counts"] for part in parts], height, width)
        made.append(
            parts[0]
            | {"id": f"{identifier}/all", "counts": counts, "objects": length, "area": rle.area(counts, height, width)}
            | {name: min(part[name] for part in parts) for name in ("x0", "y0", *_SCORES)}
            | {name: max(part[name] for part in parts) for name in ("x1", "y1")}
        )
    return made


def feature_ids(made: pa.Table) -> list[str]:
    """Names the crops of candidates by content (image and pixels): several phrases for one object share its feature."""
    images, pixels = made.column("image_id").to_pylist(), made.column("counts").to_pylist()
    digests = (hashlib.sha256(image.encode() + b"\0" + counts) for image, counts in zip(images, pixels, strict=True))
    return [f"object:{digest.hexdigest()[:24]}" for digest in digests]
