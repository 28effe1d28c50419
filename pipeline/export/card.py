"""The dataset card of an export: the YAML header that `datasets` reads, and what a person should know."""

import io
import json
from collections import Counter

import pyarrow as pa
from ruamel.yaml import YAML

_MEANING = {
    "id": "the pair: `<caption id>@<start>-<end>`",
    "image": "the image as it was stored: plain RGB, upright",
    "image_id": "the image's id in its collection",
    "image_sha256": "sha256 of the file the image was read from",
    "caption_id": "the caption's id",
    "caption": "the whole caption",
    "phrase": "the phrase; `caption[start:end] == phrase`",
    "start": "where the phrase begins, in characters",
    "end": "where it ends, exclusive",
    "head": "lemma of the head noun",
    "key": "canonical form that phrases for the same sort of thing share",
    "objects": "how many masks were united (a counted plural)",
    "bbox": "x0, y0, x1, y1 in pixels, x1 and y1 exclusive",
    "mask": "COCO RLE: `pycocotools.mask.decode(row['mask'])`",
    "area": "the mask's share of the image",
    "score": "score of the box",
    "predicted_iou": "the segmenter's own estimate (1 for annotated masks)",
    "stability": "stability of the mask (1 for annotated masks)",
    "mask_box_iou": "IoU of the mask's bounding box with the box",
    "similarity": "cosine of crop and phrase where the encoder has a text tower, else null",
}


def card(made: dict, counts: dict[str, Counter], schema: pa.Schema) -> str:
    """README.md: `made` is the provenance, `counts` images and pairs a split."""
    splits = [split for split in ("train", "dev", "test") if split in counts]
    splits += sorted(set(counts) - set(splits))
    header = {
        "pretty_name": f"Object-phrase pairs of {made['dataset']}",
        "tags": ["object-phrase-pairs", "image-captions", "segmentation"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}-*.parquet"} for split in splits],
            }
        ],
        "dataset_info": {"features": [_feature(field) for field in schema]},
    }
    stream = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump(header, stream)
    rows = "\n".join(f"| {split} | {counts[split]['images']:,} | {counts[split]['pairs']:,} |" for split in splits)
    columns = "\n".join(f"| `{field.name}` | {_MEANING[field.name]} |" for field in schema)
    stages = "\n".join(
        f"| {name} | {stage['version']} | {_code(stage['path_sha256'])} | `{_params(stage['params'])}` |"
        for name, stage in made["stages"].items()
    )
    return f"""---
{stream.getvalue()}---

# Object-phrase pairs of {made["dataset"]}

Each row is a phrase of a caption with the pixels it denotes in the caption's image.

Licence: **TO BE FILLED IN** by whoever shares this. The images and captions keep the licence of the collection they
come from; put its name here and as `license:` into the header above.

| split | images | pairs |
|---|---|---|
{rows}

```python
from datasets import load_dataset
from pycocotools import mask

rows = load_dataset("PATH/OF/THIS/FOLDER", split="{splits[0]}")
pixels = mask.decode(rows[0]["mask"])  # height x width, 0 or 1
```

## Columns

| column | |
|---|---|
{columns}

## Where it comes from

Each stage with its version, the sha256 of the weights or annotations it used (of all shards, where each shard has its
own), and its parameters; `provenance.json` has all of it, with the hashes of the tables.

| stage | version | sha256 of its path | parameters |
|---|---|---|---|
{stages}
"""


def _feature(field: pa.Field) -> dict:
    if field.name == "image":
        return {"name": "image", "dtype": "image"}
    if pa.types.is_struct(field.type):
        return {"name": field.name, "struct": [_feature(inner) for inner in field.type.fields]}
    if pa.types.is_list(field.type):
        return {"name": field.name, "list": _dtype(field.type.value_type)}
    return {"name": field.name, "dtype": _dtype(field.type)}


def _dtype(kind: pa.DataType) -> str:
    return {"float": "float32"}.get(str(kind), str(kind))


def _code(digest: str | None) -> str:
    return f"`{digest}`" if digest else ""


def _params(params: dict) -> str:
    text = json.dumps(params, ensure_ascii=False, sort_keys=True)
    return (text if len(text) <= 600 else f"{text[:596]} ...").replace("|", "\\|").replace("`", "'")
