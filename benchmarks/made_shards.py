"""Shards as a large collection gives them to align, made up: photos of 640 x 480 with five captions each, about three
phrases a caption, up to three detected boxes a phrase, masks of the size that outlines of real objects have (about
450 bytes), all from one seed.
"""

from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline import tables
from pipeline.files import sha256_file
from pipeline.shards import Sidecar, shard_name, sidecar_path, write_table
from stages.common import rle
from stages.common.candidates import candidates, feature_ids

HEIGHT, WIDTH = 480, 640
IMAGES, CAPTIONS, PHRASES = 125, 5, 3
BLOBS = 500
_NUMBERS = (("sing", None), ("plur", None), ("plur", 2), ("plur", 3))
_NUMBER_SHARES = (0.8, 0.1, 0.07, 0.03)


def make_shard(number: int, dim: int | None = None) -> dict[str, pa.Table]:
    """`phrases`, `boxes`, `masks` and `features` of one shard.

    Args:
        dim: width of the feature vectors of an encoder with a text tower; None: one without (vectors of width 8).
    """
    draw = np.random.default_rng(number)
    outlines = blobs()
    phrases, boxes, masks = [], [], []
    for image in range(IMAGES):
        for caption in range(CAPTIONS):
            for place in range(draw.integers(PHRASES - 1, PHRASES + 2)):
                phrase = _phrase(draw, f"{number:04d}{image:08d}", caption, 14 * place)
                phrases.append(phrase)
                for rank, score in enumerate(sorted(draw.uniform(0.3, 1, draw.integers(1, 4)), reverse=True)):
                    box, mask = _found(draw, phrase, rank, score, *outlines[draw.integers(BLOBS)])
                    boxes.append(box)
                    masks.append(mask)
    rows = {"phrases": phrases, "boxes": boxes, "masks": masks}
    shard = {name: tables.build(name, rows[name]) for name in rows}
    return shard | {"features": _features(draw, shard, dim)}


def _phrase(draw: np.random.Generator, image_id: str, caption: int, start: int) -> dict:
    number, count = _NUMBERS[draw.choice(len(_NUMBERS), p=_NUMBER_SHARES)]
    head = f"thing{draw.integers(400)}"
    text = f"a red {head}"
    caption_id = f"{image_id}/{caption}"
    return {
        "id": f"{caption_id}@{start}-{start + len(text)}",
        "image_id": image_id,
        "caption_id": caption_id,
        "start": start,
        "end": start + len(text),
        "text": text,
        "head": head,
        "number": number,
        "count": count,
        "key": head,
        "kind": "noun",
    }


def _found(
    draw: np.random.Generator, phrase: dict, rank: int, score: float, counts: bytes, corners: tuple, area: int
) -> tuple[dict, dict]:
    identifier = f"{phrase['id']}/{rank}"
    jitter = dict(zip(("x0", "y0", "x1", "y1"), np.array(corners) + draw.uniform(-4, 4, 4), strict=True))
    own = {"id": identifier, "image_id": phrase["image_id"]}
    box = own | jitter | {"phrase_id": phrase["id"], "rank": rank, "score": score, "label": phrase["head"]}
    mask = own | {"box_id": identifier, "height": HEIGHT, "width": WIDTH, "counts": counts, "area": area}
    return box | {"object_id": None}, mask | {"predicted_iou": draw.uniform(0.7, 1), "stability": draw.uniform(0.8, 1)}


@cache
def blobs() -> list[tuple[bytes, tuple, int]]:
    draw = np.random.default_rng(0)
    return [_blob(draw) for _ in range(BLOBS)]


def _blob(draw: np.random.Generator) -> tuple[bytes, tuple, int]:
    """A wobbly ellipse somewhere in the frame: counts, bounding box, pixels."""
    (x, y), (across, down) = draw.uniform(0.1, 0.9, 2) * (WIDTH, HEIGHT), draw.uniform(15, 150, 2)
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    angle, radius = np.arctan2(rows - y, columns - x), np.hypot((columns - x) / across, (rows - y) / down)
    edge = 1 + sum(draw.uniform(0, 0.15) * np.cos(k * angle + draw.uniform(0, 6)) for k in range(2, 7))
    counts = rle.encode(radius < edge)
    return counts, rle.box(counts, HEIGHT, WIDTH), rle.area(counts, HEIGHT, WIDTH)


def _features(draw: np.random.Generator, shard: dict[str, pa.Table], dim: int | None) -> pa.Table:
    made = candidates(shard["phrases"], shard["boxes"], shard["masks"])
    named = [("image", f"image:{name}", name) for name in sorted(set(made.column("image_id").to_pylist()))]
    pairs = zip(feature_ids(made), made.column("image_id").to_pylist(), strict=True)
    named += [("object", name, image) for name, image in sorted(set(pairs))]
    if dim:
        texts = sorted(set(shard["phrases"].column("text").to_pylist()))
        named += [("phrase", f"phrase:{text}", None) for text in texts]
    vectors = draw.standard_normal((len(named), dim or 8)).astype("<f2")
    rows = [
        {"id": name, "kind": kind, "image_id": image, "vector": vector.tobytes()}
        for (kind, name, image), vector in zip(named, vectors, strict=True)
    ]
    return tables.build("features", rows, tables.features_schema(dim or 8))


def write_shards(root: Path, shards: list[dict[str, pa.Table]]) -> dict[str, Path]:
    """Lays shards out as the stages before align would; returns the folder of each table."""
    for number, shard in enumerate(shards):
        write_shard(root, number, shard)
    return {name: root / tables.WRITER[name] / name for name in shards[0]}


def write_shard(root: Path, number: int, shard: dict[str, pa.Table]) -> None:
    """Writes tables and sidecars of one shard below `root`, which stands for data/<dataset>."""
    for name, table in shard.items():
        stage = tables.WRITER[name]
        path = root / stage / name / f"{shard_name(number)}.parquet"
        write_table(path, name, table)
        wrote = {name: {"sha256": sha256_file(path), "rows": table.num_rows}}
        Sidecar(number, stage, 1, wrote, {}, {}, None, {}, {}).write(sidecar_path(path.parent, number))
