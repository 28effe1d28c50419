"""Phrases, boxes and masks as the stages parse, detect and segment write them, from what is already known.

A phrase with its masks becomes a row of `phrases`, and for each mask a row of `boxes` and of `masks`. Files, sidecars
and shards are those of the contract (pipeline/tables.py, pipeline/shards.py), so that every later stage takes them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import tables
from pipeline.files import sha256_file
from pipeline.rows import verified
from pipeline.shards import SIDECARS, Sidecar, shard_name, write_table
from stages.common import rle
from stages.common.rle import Mask


@dataclass(frozen=True)
class Denoted:
    """A phrase (its row of `phrases`) and the masks of what it denotes; `boxes`: of each, x0, y0, x1, y1 in pixels."""

    phrase: dict[str, Any]
    masks: tuple[Mask, ...]
    objects: tuple[str, ...]

    @property
    def boxes(self) -> list[tuple[float, float, float, float]]:
        return [rle.box(*mask) for mask in self.masks]

    def showing(self, masks: Sequence[Mask], objects: Sequence[str]) -> "Denoted":
        """The same words, with other pixels."""
        return replace(self, masks=tuple(masks), objects=tuple(objects))


def read(folder: Path, shard: int) -> list[Denoted]:
    """The phrases of a shard of a dataset with their masks, in the order of the table."""
    phrases = verified(folder / "parse/phrases", shard).to_pylist()
    masks = {row["box_id"]: row for row in verified(folder / "segment/masks", shard).to_pylist()}
    of: dict[str, list[dict]] = {row["id"]: [] for row in phrases}
    for box in verified(folder / "detect/boxes", shard).to_pylist():
        of[box["phrase_id"]].append(box)
    found = []
    for phrase in phrases:
        rows = [(masks[box["id"]], box["object_id"]) for box in of[phrase["id"]]]
        own = tuple(Mask(row["counts"], row["height"], row["width"]) for row, _ in rows)
        found.append(Denoted(phrase, own, tuple(name for _, name in rows)))
    return found


def write(folder: Path, shard: int, known: Sequence[Denoted], inputs: dict[str, str]) -> None:
    """Writes parse/phrases, detect/boxes and segment/masks of a shard; `inputs`: content hashes of what it is made of.

    The count of a phrase is that of its masks, so that align takes all of them together.
    """
    phrases, boxes, masks = [], [], []
    for one in known:
        several = len(one.masks)
        phrases.append(one.phrase | {"count": several, "number": "plur" if several > 1 else "sing"})
        for rank, (mask, box, name) in enumerate(zip(one.masks, one.boxes, one.objects, strict=True), 1):
            box_id = f"{one.phrase['id']}/{rank}"
            shared = {"image_id": one.phrase["image_id"]}
            corners = dict(zip(("x0", "y0", "x1", "y1"), box, strict=True))
            told = {"rank": rank, "score": 1.0, "label": one.phrase["head"], "object_id": name}
            boxes.append({"id": box_id, "phrase_id": one.phrase["id"], **shared, **corners, **told})
            scores = {"predicted_iou": 1.0, "stability": 1.0, "area": rle.area(*mask)}
            masks.append({"id": box_id, "box_id": box_id, **shared, **mask._asdict(), **scores})
    for stage, name, rows in (("parse", "phrases", phrases), ("detect", "boxes", boxes), ("segment", "masks", masks)):
        _shard(folder / stage, stage, name, shard, tables.build(name, rows), inputs)


def _shard(out: Path, stage: str, name: str, shard: int, table: pa.Table, inputs: dict[str, str]) -> None:
    written = {}
    for called, content in ((name, table), ("drops", tables.build("drops", []))):
        file = out / called / f"{shard_name(shard)}.parquet"
        write_table(file, called, content)
        written[called] = {"sha256": sha256_file(file), "rows": content.num_rows}
    described = Sidecar(shard, stage, 1, written, inputs, ledger={}, path_hash=None, params={}, facts={})
    described.write(out / SIDECARS / f"{shard_name(shard)}.json")
