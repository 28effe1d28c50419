"""The photos that detect, segment and embed are measured on, as the stages before them leave them.

COCO photos go through the pipeline's own ingest, its own parser and its annotations backends; every annotated object is
a box to segment. A photo without annotations borrows the boxes of an annotated one, scaled to its sides.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from ruamel.yaml import YAML

from benchmarks.made_shards import write_shard
from pipeline import tables
from pipeline.files import sha256_json
from pipeline.shards import read_table, shard_name, shard_numbers
from stages.common.annotations import Annotations

ROOT = Path(__file__).resolve().parents[1]
DATASET = "vision"
IMAGES_A_SHARD = 128
ANNOTATED = f"data/{DATASET}/detect/boxes"
OBJECTS = "objects"  # the boxes of all annotated objects, beside those that phrases name


@dataclass(frozen=True)
class Photos:
    """A working folder with params.yaml, the collection and the finished stages; how many photos, captions, phrases,
    boxes to segment, and masked objects to embed there are.
    """

    folder: Path
    images: int
    captions: int
    phrases: int
    boxes: int
    objects: int

    def table(self, stage: str, name: str) -> pa.Table:
        """All shards of a table, one after another."""
        place = self.folder / "data" / DATASET / stage / name
        return pa.concat_tables(read_table(place / f"{shard_name(n)}.parquet", name) for n in shard_numbers(place))


def prepare(folder: Path, source: Path, images: int) -> Photos:
    """Runs ingest, parse and the annotations backends over photos, in a working folder; one that holds as many prepared
    photos already is taken as it is.
    """
    told = folder / "photos.json"
    if told.is_file() and (known := json.loads(told.read_text(encoding="utf-8")))["images"] == images:
        return Photos(folder, **known)
    copied = collect(folder / "collection", source, images)
    write_params(folder / "params.yaml", copied)
    for stage in ("ingest", "parse", "detect", "segment"):
        run_stage(stage, folder)
    annotations = Annotations(folder / "collection/annotations", "instances_*.json")
    data = folder / "data" / DATASET
    lent: list[Any] = [(0.25, 0.25, 0.75, 0.75)]
    for number in shard_numbers(data / "ingest/images"):
        shard = read_table(data / "ingest/images" / f"{shard_name(number)}.parquet", "images")
        boxes, lent = objects_of(shard, annotations, lent)
        write_shard(folder / OBJECTS, number, {"boxes": tables.build("boxes", boxes)})
    photos = Photos(folder, copied, 0, 0, 0, 0)
    rows = {name: photos.table(tables.WRITER[name], name).num_rows for name in ("captions", "phrases", "masks")}
    objects = sum(
        read_table(folder / OBJECTS / "detect/boxes" / f"{shard_name(n)}.parquet", "boxes").num_rows
        for n in shard_numbers(folder / OBJECTS / "detect/boxes")
    )
    shutil.rmtree(folder / "collection")  # the tables hold all of it
    counts = {"images": copied, "boxes": objects, "objects": rows.pop("masks"), **rows}
    told.write_text(json.dumps(counts), encoding="utf-8")
    return Photos(folder, **counts)


def write_params(file: Path, images: int, **changes: Any) -> None:
    """The parameters of the preset `coco` over the collection beside `file`; `changes` are sections to change."""
    text = (ROOT / "presets/coco.yaml").read_text(encoding="utf-8").replace("{data_root}", "collection")
    values = YAML(typ="safe").load(text)
    values["dataset"] = DATASET
    values["ingest"] |= {"shards": max(1, images // IMAGES_A_SHARD), "sentences_path": "sentences.txt"}
    values["parse"]["path"] = str(ROOT / values["parse"]["path"])
    values["embed"]["path"] = str(ROOT / values["embed"]["path"])
    values["runtime"] |= {"devices": ["cpu"], "threads": os.cpu_count() or 1}
    for section, entries in changes.items():
        values[section] |= entries
    (file.parent / "sentences.txt").touch()
    with file.open("w", encoding="utf-8") as handle:
        YAML().dump(values, handle)


def run_stage(stage: str, folder: Path) -> str:
    """Runs a stage as the graph does, in `folder`; returns what it said.

    Raises:
        SystemExit: it failed.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", f"stages.{stage}"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{stage} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stderr


def collect(target: Path, source: Path, images: int) -> int:
    """Copies photos, annotated ones first, with their captions and annotations; returns how many."""
    found, annotated = [], set()
    for part in ("val2017", "train2017"):
        captions = json.loads((source / f"annotations/captions_{part}_subset.json").read_text(encoding="utf-8"))
        instances = json.loads((source / f"annotations/instances_{part}_subset.json").read_text(encoding="utf-8"))
        annotated |= {item["image_id"] for item in instances["annotations"]}
        found += [(part, image, captions, instances) for image in captions["images"]]
    # Evenly drawn, and the same ones each time.
    found.sort(key=lambda entry: (entry[1]["id"] not in annotated, sha256_json(entry[1]["id"])))
    chosen = {entry[1]["id"] for entry in found[:images]}
    for part, image, captions, instances in found[:images]:
        (target / part).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / part / image["file_name"], target / part / image["file_name"])
        for name, document in (("captions", captions), ("instances", instances)):
            kept = {
                **document,
                "images": [i for i in document["images"] if i["id"] in chosen],
                "annotations": [a for a in document["annotations"] if a["image_id"] in chosen],
            }
            file = target / "annotations" / f"{name}_{part}.json"
            if not file.exists():
                file.parent.mkdir(exist_ok=True)
                file.write_text(json.dumps(kept), encoding="utf-8")
    return len(chosen)


def objects_of(images: pa.Table, annotations: Annotations, lent: list[Any]) -> tuple[list[dict], list[Any]]:
    """A box for every annotated object of these images, and what an image without any may borrow: the shares of the
    sides that the boxes of the last annotated image take up.
    """
    rows: list[dict] = []
    for image in images.select(["id", "height", "width"]).to_pylist():
        height, width = image["height"], image["width"]
        if things := annotations.of_image.get(image["id"]):
            lent = [(x0 / width, y0 / height, x1 / width, y1 / height) for x0, y0, x1, y1 in (t.box for t in things)]
        for number, (x0, y0, x1, y1) in enumerate(lent):
            corners = {"x0": x0 * width, "y0": y0 * height, "x1": x1 * width, "y1": y1 * height}
            phrase = f"{image['id']}#{number}"
            own = {"id": f"{phrase}/0", "image_id": image["id"], "phrase_id": phrase, "rank": 0, "score": 1.0}
            rows.append(own | corners | {"label": "object", "object_id": None})
    return rows, lent
