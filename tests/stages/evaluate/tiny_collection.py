"""A model with grounding heads, and a small collection as the graph writes it: captions, images, features, pairs."""

from pathlib import Path

import numpy as np
import torch

from model.encoder import Encoder, load_encoder
from model.export import export
from model.heads import build_heads
from model.recipes import resolve
from pipeline import tables
from pipeline.files import sha256_file
from pipeline.shards import Sidecar, shard_name, sidecar_path, write_table

CHECKPOINT = Path(__file__).resolve().parents[3] / "demo/checkpoints/bert_tiny"
DIM = 12  # of the features


def encoder(pooling: str = "cls") -> Encoder:
    torch.manual_seed(3)
    made = load_encoder(CHECKPOINT, "scratch", 3, pooling)
    for weight in made.parameters():  # far enough apart that no two texts tie by chance
        weight.data += 0.1 * torch.randn_like(weight)
    return made


def write_model(folder: Path, recipe: str = "mcseo", pooling: str = "cls", object_dim: int = DIM, **settings) -> Path:
    made, resolved = encoder(pooling), resolve(recipe, **settings)
    heads = build_heads(
        tuple(name for name in resolved.heads if name != "simcse"),
        hidden=made.hidden,
        image_dim=DIM,
        object_dim=object_dim,
        projection=16,
        share_object_head=resolved.share_object_head,
        seed=5,
    )
    return export(folder, made, resolved, 0, heads=heads)


def write_collection(root: Path, rows: dict[str, list[dict]], shards: int = 2) -> Path:
    """`rows`: some of captions, images, features, pairs; what a row leaves out is filled in. Row n is of shard n mod 2,
    features with a `vector` of `DIM` numbers.
    """
    for name, own in rows.items():
        folder = root / tables.WRITER[name] / name
        schema = tables.features_schema(DIM) if name == "features" else tables.TABLES[name]
        for number in range(shards):
            part = [_filled(row, schema) for n, row in enumerate(own) if n % shards == number]
            file = folder / f"{shard_name(number)}.parquet"
            write_table(file, name, tables.build(name, part, schema))
    for stage in {tables.WRITER[name] for name in rows}:
        for number in range(shards):
            wrote = {
                name: {"sha256": sha256_file(root / stage / name / f"{shard_name(number)}.parquet"), "rows": 0}
                for name in rows
                if tables.WRITER[name] == stage
            }
            path = sidecar_path(root / stage / "any", number)
            path.parent.mkdir(parents=True, exist_ok=True)
            Sidecar(number, stage, 1, wrote, {}, {}, None, {}, {}).write(path)
    return root


def _filled(row: dict, schema) -> dict:
    plain = {"string": "", "int32": 0, "float": 0.0, "binary": b"", "uint64": 0}
    filled = {field.name: None if field.nullable else plain.get(str(field.type)) for field in schema} | row
    if "vector" in row:
        filled["vector"] = np.asarray(row["vector"], "<f2").tobytes()
    return filled


def feature(identifier: str, kind: str, seed: int) -> dict:
    vector = np.random.default_rng(seed).normal(size=DIM)
    return {"id": identifier, "kind": kind, "vector": vector}


def caption(image: str, number: int, text: str, split: str = "test") -> dict:
    return {"id": f"{image}#{number}", "image_id": image, "text": text, "split": split}


def pair(of: dict, text: str, key: str, feature_id: str, box=(0, 0, 10, 10)) -> dict:
    start = of["text"].index(text)
    place = dict(zip(("x0", "y0", "x1", "y1"), map(float, box), strict=True))
    span = {"start": start, "end": start + len(text), "text": text, "key": key}
    own = {"id": f"{of['id']}@{start}-{feature_id}", "caption_id": of["id"], "image_id": of["image_id"]}
    return own | span | place | {"feature_id": feature_id}
