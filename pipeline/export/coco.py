"""export coco: the pairs as COCO instances, their captions as COCO captions, and the images as they are stored.

OUT/annotations/instances.json   an annotation a pair: RLE mask, box, area, category, and of the pair its phrase
OUT/annotations/captions.json    all captions of these images
OUT/images/000000000001.jpg
OUT/provenance.json
"""

import json
from pathlib import Path

from pycocotools import mask as coco

from pipeline.export.folder import MARK
from pipeline.export.walk import outline, pictures, provenance
from pipeline.files import write_json

_KINDS = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"RIFF": ".webp"}
_SCORES = ("score", "predicted_iou", "stability", "mask_box_iou", "similarity")


def write(data: Path, out: Path) -> tuple[int, int]:
    """Fills a folder; returns how many images and pairs it holds. Numbers of images stay where all are numbers.

    Raises:
        InputError: a shard is damaged, stages do not fit together, or there is no pair.
    """
    whole = outline(data)
    made = provenance(data)
    category = {head: number for number, head in enumerate(whole.heads, 1)}
    (out / "images").mkdir(parents=True)
    (out / "annotations").mkdir()
    images = pairs = captions = 0
    names = ("images.part", "pairs.part", "captions.part")
    with (
        _Parts(out / names[0]) as image_part,
        _Parts(out / names[1]) as pair_part,
        _Parts(out / names[2]) as caption_part,
    ):
        for images, picture in enumerate(pictures(data), 1):
            number = int(picture.image["id"]) if whole.numeric else images
            name = f"{number:012d}{suffix(picture.image['bytes'])}"
            (out / "images" / name).write_bytes(picture.image["bytes"])
            image_part.add(_image(number, name, picture.image))
            for row in picture.captions:
                captions += 1
                caption_part.add({"id": captions, "image_id": number, "caption": row["text"], "caption_id": row["id"]})
            for pair in picture.pairs:
                pairs += 1
                pair_part.add(_annotation(pairs, number, category[pair["head"]], pair, picture.words_of(pair)))
    info = {"description": f"object-phrase pairs of dataset {data.name}", "version": "1.0", "provenance": made}
    categories = [{"id": number, "name": head, "supercategory": "phrase"} for head, number in category.items()]
    head = {"info": info, "licenses": [], "categories": categories}
    parts = {"images": out / names[0], "annotations": out / names[1]}
    _join(out / "annotations" / "instances.json", head, parts)
    head = {"info": {"description": f"captions of dataset {data.name}", "version": "1.0"}, "licenses": []}
    _join(out / "annotations" / "captions.json", head, parts | {"annotations": out / names[2]})
    for name in names:
        (out / name).unlink()
    write_json(out / MARK, made)
    return images, pairs


def suffix(data: bytes) -> str:
    """The file name suffix that fits stored bytes."""
    return next((kind for start, kind in _KINDS.items() if data.startswith(start)), ".img")


def _image(number: int, name: str, row: dict) -> dict:
    return {
        "id": number,
        "file_name": name,
        "width": row["width"],
        "height": row["height"],
        "source_id": row["id"],
        "source_uri": row["uri"],
        "source_sha256": row["sha256"],
        "split": row["split"],
    }


def _annotation(number: int, image: int, category: int, pair: dict, words: dict) -> dict:
    size = [pair["height"], pair["width"]]
    x0, y0, x1, y1 = (pair[name] for name in ("x0", "y0", "x1", "y1"))
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "iscrowd": 0,
        "segmentation": {"size": size, "counts": pair["counts"].decode("ascii")},
        "area": int(coco.area({"size": size, "counts": pair["counts"]})),
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        **words,
        "pair_id": pair["id"],
        "caption_id": pair["caption_id"],
        **{name: pair[name] for name in _SCORES},
    }


class _Parts:
    """The items of a JSON list, written as they come."""

    def __init__(self, path: Path):
        self.handle = path.open("w", encoding="utf-8")
        self.first = True

    def __enter__(self) -> "_Parts":
        return self

    def __exit__(self, *_: object) -> None:
        self.handle.close()

    def add(self, item: dict) -> None:
        self.handle.write("" if self.first else ",\n")
        self.first = False
        json.dump(item, self.handle, ensure_ascii=False, allow_nan=False)


def _join(target: Path, head: dict, lists: dict[str, Path]) -> None:
    """A JSON object of `head` and, under each name, the list whose items lie in a file."""
    with target.open("w", encoding="utf-8") as handle:
        handle.write(json.dumps(head, ensure_ascii=False, allow_nan=False)[:-1])
        for name, path in lists.items():
            handle.write(f',\n"{name}": [\n')
            with path.open(encoding="utf-8") as part:
                while text := part.read(1 << 20):
                    handle.write(text)
            handle.write("]")
        handle.write("}\n")
