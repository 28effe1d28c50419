"""Gold pairs of a world: every phrase that denotes objects, with their masks, as its annotations have them."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ablation import tables
from ablation.tables import Denoted
from pipeline.rows import verified
from pipeline.shards import shard_numbers, verified_hash
from stages.common import rle
from stages.common.rle import Mask
from stages.parse.markup import describe


class Annotations:
    """A world's annotations: `phrases` by caption id, `masks` by object id, the objects of an image by its id."""

    def __init__(self, folder: Path):
        self.phrases: dict[str, list[dict[str, Any]]] = _read(folder / "phrases_world.json")
        self.masks: dict[str, Mask] = {}
        self.objects: dict[str, list[str]] = {}
        for row in _read(folder / "instances_world.json")["annotations"]:
            height, width = row["segmentation"]["size"]
            counts = rle.from_annotation(row["segmentation"], height, width)
            self.masks[str(row["id"])] = Mask(counts, height, width)
            self.objects.setdefault(str(row["image_id"]), []).append(str(row["id"]))


def write(dataset: Path, annotations: Annotations) -> None:
    """Writes phrases, boxes and masks of every shard of a dataset whose captions are ingested."""
    captions = dataset / "ingest/captions"
    for shard in shard_numbers(captions):
        rows = verified(captions, shard, ["id", "image_id", "text"]).to_pylist()
        known = [one for row in rows for one in denoted(row, annotations)]
        tables.write(dataset, shard, known, {"captions": verified_hash(captions, shard)})


def denoted(caption: Mapping[str, str], annotations: Annotations) -> Iterator[Denoted]:
    """The phrases of a caption (its row) that denote objects, pronouns aside."""
    for item in annotations.phrases[caption["id"].rsplit("#", 1)[-1]]:
        if not item["objects"] or item["role"] == "pronoun":
            continue
        phrase = describe(caption["text"], item["start"], item["end"], "noun")
        row = {"id": f"{caption['id']}@{phrase.start}-{phrase.end}", "image_id": caption["image_id"]}
        row |= {"caption_id": caption["id"], **{name: getattr(phrase, name) for name in _OF_PHRASE}}
        names = tuple(str(name) for name in item["objects"])
        yield Denoted(row, tuple(annotations.masks[name] for name in names), names)


_OF_PHRASE = ("start", "end", "text", "head", "number", "count", "key", "kind")


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))
