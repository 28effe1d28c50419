"""The artifacts of earlier stages as the trainer takes them."""

import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from model.data import PairItem, TrainingData
from pipeline.errors import InputError
from pipeline.files import sha256_json
from pipeline.shards import read_all, read_sidecar, shard_numbers, sidecar_path


@dataclass(frozen=True)
class Features:
    """Frozen vectors [n, dim] as float32 and the row of each id."""

    vectors: np.ndarray
    row_of: dict[str, int]


def training_data(inputs: dict[str, Path], multimodal: bool) -> TrainingData:
    """Text and, for multimodal recipes, features and pairs, of the split `train`.

    Raises:
        InputError: an artifact is missing or damaged, or a pair has no feature.
    """
    sentences = read_all(inputs["sentences"], ["text"]).column("text").to_pylist()
    captions = read_all(inputs["captions"])
    captions = captions.filter(pc.equal(captions.column("split"), "train"))
    texts = captions.column("text").to_pylist()
    # Images are numbered alike for every recipe, so that all of them read the same captions in the same order.
    number = {key: code for code, key in enumerate(dict.fromkeys(captions.column("image_id").to_pylist()))}
    caption_image = [number[key] for key in captions.column("image_id").to_pylist()]
    if not multimodal:
        return TrainingData(sentences, texts, caption_image, pairs=[[] for _ in texts])
    table = read_all(inputs["features"])
    images, objects = _features(table, "image"), _features(table, "object")
    try:
        image_features = images.vectors[[images.row_of[f"image:{key}"] for key in number]]
        pairs = _pairs(inputs["pairs"], objects)
    except KeyError as error:
        raise InputError(
            f"{inputs['features']}: no feature {error}; the stages come from different runs, `dvc repro` mends it"
        ) from None
    return TrainingData(
        sentences,
        texts,
        caption_image,
        image_features,
        [pairs.get(key, []) for key in captions.column("id").to_pylist()],
        objects.vectors if len(objects.vectors) else None,
    )


def data_hashes(inputs: dict[str, Path]) -> dict[str, str]:
    """One content hash a table: of the sha256 of its shards."""
    return {
        name: sha256_json(
            [read_sidecar(sidecar_path(folder, n)).tables[folder.name]["sha256"] for n in shard_numbers(folder)]
        )
        for name, folder in inputs.items()
    }


def random_vision(features: Path) -> bool:
    """Whether the features come from an encoder that was never trained."""
    return any(
        read_sidecar(sidecar_path(features, number)).facts.get("random_weights", False)
        for number in shard_numbers(features)
    )


def _features(table: pa.Table, kind: str) -> Features:
    chosen = table.filter(pc.equal(table.column("kind"), kind))
    width = table.schema.field("vector").type.byte_width
    data = b"".join(chosen.column("vector").to_pylist())
    vectors = np.frombuffer(data, "<f2").reshape(chosen.num_rows, width // 2).astype(np.float32)
    return Features(vectors, {key: row for row, key in enumerate(chosen.column("id").to_pylist())})


def _pairs(folder: Path, objects: Features) -> dict[str, list[PairItem]]:
    columns = ["caption_id", "image_id", "text", "key", "x0", "y0", "x1", "y1", "feature_id"]
    pairs = defaultdict(list)
    for row in read_all(folder, columns).to_pylist():
        box = (row["x0"], row["y0"], row["x1"], row["y1"])
        item = PairItem(
            row["text"], objects.row_of[row["feature_id"]], sys.intern(row["key"]), box, sys.intern(row["image_id"])
        )
        pairs[row["caption_id"]].append(item)
    return pairs
