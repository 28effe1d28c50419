"""Real photos with the masks of their annotated objects."""

import json
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from stages.common import rle


class Photo(NamedTuple):
    id: str
    image: Image.Image
    data: bytes
    masks: list[rle.Mask]


def photos(shared: Path, number: int) -> list[Photo]:
    """The first photos of COCO's val2017 that have annotated objects, all of these."""
    folder = shared / "data" / "coco"
    noted = json.loads((folder / "annotations" / "instances_val2017_subset.json").read_text())
    objects: dict[int, list] = {}
    for entry in noted["annotations"]:
        objects.setdefault(entry["image_id"], []).append(entry["segmentation"])
    made = []
    for entry in sorted(noted["images"], key=lambda entry: entry["id"]):
        file, size = folder / "val2017" / entry["file_name"], (entry["height"], entry["width"])
        if len(made) == number or entry["id"] not in objects or not file.is_file():
            continue
        masks = [rle.Mask(counts, *size) for s in objects[entry["id"]] if (counts := rle.from_annotation(s, *size))]
        image = Image.open(file).convert("RGB")
        if (image.height, image.width) == size:
            made.append(Photo(str(entry["id"]), image, file.read_bytes(), masks))
    return made
