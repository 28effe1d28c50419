"""The artifacts of earlier stages as the trainer takes them.

Feature vectors are not held in memory: those that a recipe reads go, in the order in which it numbers them, to a file
without a name in the scratch store, as the float16 they are, and are mapped from there. The file is gone when the
process ends, however it ends.
"""

import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from model.data import PairItem, TrainingData
from model.recipes import Recipe
from pipeline.errors import InputError
from pipeline.files import sha256_json
from pipeline.shards import read_all, read_sidecar, read_table, shard_name, shard_numbers, sidecar_path, verified_hash

# what a recipe needs -> the kind of feature that is
KINDS = {"images": "image", "objects": "object", "caption_text": "caption", "phrase_text": "phrase"}
_FROM_TEXT = ("caption", "phrase")  # there only if the encoder has a text tower and embed.text is set
_PAIR = ["caption_id", "image_id", "start", "end", "text", "key", "x0", "y0", "x1", "y1", "feature_id"]


@dataclass
class _Rows:
    """Numbers for feature ids, in the order in which they are first asked for, and which shard each is in."""

    of: dict[str, int] = field(default_factory=dict)
    by_shard: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))

    def number(self, shard: int, identifier: str) -> int:
        if identifier not in self.of:
            self.of[identifier] = len(self.of)
            self.by_shard[shard].append(identifier)
        return self.of[identifier]


def training_data(
    inputs: dict[str, Path], recipe: Recipe, scratch: Path, triplets: list[tuple[str, str, str]] | None = None
) -> TrainingData:
    """What `recipe` reads of the split `train`: text, features and pairs; of a recipe on triplets, these alone.

    Args:
        inputs: the folders of sentences, captions, pairs and features.
        scratch: a folder for the features, 2 bytes a number.

    Raises:
        InputError: an artifact is missing or damaged, or a feature of an image, pair or text is not there.
    """
    if "triplets" in recipe.needs:
        return TrainingData(triplets=triplets or [])
    rows = {kind: _Rows() for need, kind in KINDS.items() if need in recipe.needs}
    with_pairs = "objects" in recipe.needs or "phrases" in recipe.needs
    for folder in (*([inputs["features"]] if rows else []), *([inputs["pairs"]] if with_pairs else [])):
        if shard_numbers(folder) != shard_numbers(inputs["captions"]):
            raise _other_runs(folder, f"other shards than {inputs['captions']}")
    texts: list[str] = []
    pairs: list[list[PairItem]] = []
    caption_image: list[int] = []
    # Images are numbered alike for every recipe, so that all of them read the same captions in the same order.
    images: dict[str, int] = {}
    for shard in shard_numbers(inputs["captions"]):
        captions = _shard(inputs["captions"], shard)
        captions = captions.filter(pc.equal(captions.column("split"), "train"))
        ids, owners = captions.column("id").to_pylist(), captions.column("image_id").to_pylist()
        texts += captions.column("text").to_pylist()
        caption_image += [images.setdefault(image, len(images)) for image in owners]
        for kind, named in (("image", owners), ("caption", ids)):
            for name in named if kind in rows else ():
                rows[kind].number(shard, f"{kind}:{name}")
        found = _pairs(inputs["pairs"], shard, set(ids), rows) if with_pairs else {}
        pairs += [found.get(key, []) for key in ids]
    features = {kind: _gather(inputs["features"], kind, wanted, scratch) for kind, wanted in rows.items()}
    return TrainingData(
        sentences=read_all(inputs["sentences"], ["text"]).column("text").to_pylist(),
        captions=texts,
        caption_image=caption_image,
        image_features=features.get("image"),
        pairs=pairs,
        object_features=features.get("object"),
        caption_text=features.get("caption"),
        phrase_text=features.get("phrase"),
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


def _shard(folder: Path, number: int, columns: list[str] | None = None) -> pa.Table:
    verified_hash(folder, number)
    return read_table(folder / f"{shard_name(number)}.parquet", folder.name, columns)


def _pairs(folder: Path, shard: int, captions: set[str], rows: dict[str, _Rows]) -> dict[str, list[PairItem]]:
    """The pairs of these captions, by caption. A pair lies in the shard of its caption."""
    pairs = defaultdict(list)
    for row in _shard(folder, shard, _PAIR).to_pylist():
        if row["caption_id"] not in captions:
            continue
        item = PairItem(
            phrase=row["text"],
            object_row=rows["object"].number(shard, row["feature_id"]) if "object" in rows else 0,
            key=sys.intern(row["key"]),
            box=(row["x0"], row["y0"], row["x1"], row["y1"]),
            image_id=sys.intern(row["image_id"]),
            phrase_row=rows["phrase"].number(shard, f"phrase:{row['text']}") if "phrase" in rows else None,
            start=row["start"],
            end=row["end"],
        )
        pairs[row["caption_id"]].append(item)
    return pairs


def _gather(folder: Path, kind: str, wanted: _Rows, scratch: Path) -> np.ndarray | None:
    """The wanted vectors, float16 [rows, dim], mapped; None if there are no such features at all."""
    scratch.mkdir(parents=True, exist_ok=True)
    dim = None
    with TemporaryFile(dir=scratch) as file:
        for shard, identifiers in wanted.by_shard.items():
            table = _shard(folder, shard, ["id", "kind", "vector"])
            table = table.filter(pc.equal(table.column("kind"), kind))
            if kind in _FROM_TEXT and not table.num_rows:
                continue
            place = {name: row for row, name in enumerate(table.column("id").to_pylist())}
            if lost := next((name for name in identifiers if name not in place), None):
                raise _other_runs(folder, f"no feature {lost!r}")
            width = table.schema.field("vector").type.byte_width // 2
            if dim not in (None, width):
                raise _other_runs(folder, f"vectors of {dim} and of {width} numbers")
            dim = width
            chosen = table.column("vector").take(pa.array([place[name] for name in identifiers])).combine_chunks()
            file.write(b"".join(chosen.to_pylist()))
        file.flush()
        if dim is None:
            return None
        if file.tell() != 2 * dim * len(wanted.of):
            raise _other_runs(folder, f"some shards have no features of kind {kind!r}")
        return np.memmap(file, "<f2", "r", shape=(len(wanted.of), dim))


def _other_runs(folder: Path, what: str) -> InputError:
    return InputError(f"{folder}: {what}; the stages come from different runs, `dvc repro` mends it")
