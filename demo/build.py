"""Writes the demo world: `python -m demo.build --scenes 400 --seed 0 --out demo/world`.

Images and their masks, captions and gold phrases in COCO layout, sentences without images, world STS in SentEval
layout, a dataset card, and the hashes of it all. The same seed writes the same text and the same decoded pixels
everywhere.
"""

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from demo.captions import Caption, caption_for
from demo.card import card
from demo.lexicon import NAMES
from demo.render import Picture, render
from demo.scenes import KINDS, SIDE, Scene, sample_scene
from demo.sts import EDITS, Pair, plain, sample_pair

CAPTIONS_PER_SCENE, SENTENCES = 3, 6400
# genre (see demo.sts.EDITS) and pairs of each subset; the folders are SentEval's, the subsets are named for what varies
STS_YEARS: dict[str, dict[str, int]] = {
    "STS12-en-test": {"colour": 110, "count": 90},
    "STS13-en-test": {"relation": 110, "size": 90},
    "STS14-en-test": {"kind": 70, "omission": 70, "paraphrase": 70},
    "STS15-en-test": {"place": 100, "roles": 100},
    "STS16-en-test": {"addition": 90, "mixed": 110},
}
STSB_SPLITS = {"train": 500, "dev": 250, "test": 250}
SICK_FILES = {"SICK_train.txt": 250, "SICK_trial.txt": 100, "SICK_test_annotated.txt": 250}
GENRES = (*sorted(EDITS), "mixed", "paraphrase")


def scene_for(seed: int, index: int) -> Scene:
    """Scene number `index` of the world; image ids are index + 1."""
    return sample_scene(seed, index)


def captions_for(seed: int, scene: Scene, *stream: str | int, number: int = CAPTIONS_PER_SCENE) -> list[Caption]:
    """Different captions of one scene."""
    found: dict[str, Caption] = {}
    for attempt in range(20 * number):
        caption = caption_for(seed, scene, *stream, "caption", attempt)
        found.setdefault(plain(caption.text), caption)
        if len(found) == number:
            break
    return list(found.values())


def image_name(image_id: int) -> str:
    return f"{image_id:012d}.png"


def encode(mask: Image.Image) -> dict:
    """COCO run-length encoding of a mask picture (mode L, 0 or 255), counts as text."""
    code = rle.encode(np.asfortranarray(np.asarray(mask) > 0, dtype=np.uint8))
    return {"size": [int(n) for n in code["size"]], "counts": code["counts"].decode("ascii")}


def instance_rows(scene: Scene, picture: Picture, image_id: int, first_id: int) -> list[dict]:
    """The COCO annotations of a scene's objects, in the order of `scene.objects`."""
    rows = []
    for thing, mask in zip(scene.objects, picture.masks, strict=True):
        x0, y0, x1, y1 = mask.getbbox()
        rows.append(
            {
                "id": first_id + thing.id,
                "image_id": image_id,
                "category_id": 1 + list(KINDS).index(thing.kind),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": mask.histogram()[255],
                "iscrowd": 0,
                "segmentation": encode(mask),
                "colour": thing.colour,
                "size_word": None if thing.size == "medium" else thing.size,
            }
        )
    return rows


def categories() -> list[dict]:
    """COCO categories with the nouns that name each kind, the plain one first."""
    return [
        {"id": i, "name": kind, "supercategory": "thing", "synonyms": [name.one for name in NAMES[kind]]}
        for i, kind in enumerate(KINDS, 1)
    ]


def phrase_rows(caption: Caption, first_id: int) -> list[dict]:
    """Gold phrases with annotation ids in place of the scene's own numbering."""
    rows = [phrase.row() for phrase in caption.phrases]
    return [{**row, "objects": [first_id + i for i in row["objects"]]} for row in rows]


def sentences_for(seed: int, number: int) -> list[str]:
    """Different sentences about scenes that are never rendered."""
    found: dict[str, str] = {}
    index = 0
    while len(found) < number:
        scene = sample_scene(seed, "sentence", index)
        for caption in captions_for(seed, scene, "sentence", index, number=4):
            found.setdefault(plain(caption.text), caption.text)
        index += 1
    return list(found.values())[:number]


def sts_files(seed: int, used: set[str]) -> Iterator[tuple[str, str]]:
    """Path under sts/ and content of every file of world STS; no sentence of it is in `used`."""
    used = set(used)
    for folder, subsets in STS_YEARS.items():
        for genre, number in subsets.items():
            pairs = [sample_pair(seed, genre, (folder, genre, i), used) for i in range(number)]
            yield f"{folder}/STS.input.{genre}.txt", "".join(f"{p.first}\t{p.second}\n" for p in pairs)
            yield f"{folder}/STS.gs.{genre}.txt", "".join(f"{p.grade:.3f}\n" for p in pairs)
    for split, number in STSB_SPLITS.items():
        pairs = _of_all_genres(seed, number, ("STSBenchmark", split), used)
        yield (
            f"STSBenchmark/sts-{split}.csv",
            "".join(
                f"world\t{p.genre}\tdemo\t{i:04d}\t{p.grade:.3f}\t{p.first}\t{p.second}\n" for i, p in enumerate(pairs)
            ),
        )
    for name, number in SICK_FILES.items():
        yield f"SICK/{name}", _sick(_of_all_genres(seed, number, ("SICK", name), used))


def _of_all_genres(seed: int, number: int, stream: tuple[str, ...], used: set[str]) -> list[Pair]:
    return [sample_pair(seed, GENRES[i % len(GENRES)], (*stream, i), used) for i in range(number)]


def _sick(pairs: list[Pair]) -> str:
    """SICK's own columns; relatedness runs from 1 to 5 there."""
    head = "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n"
    return head + "".join(
        f"{i}\t{p.first}\t{p.second}\t{1 + 0.8 * p.grade:.3f}\t{p.judgment}\n" for i, p in enumerate(pairs, 1)
    )


def text_files(seed: int, scenes: int) -> dict[str, str]:
    """Every text file of the world that does not depend on pixels: path under the world's folder and content."""
    images, captions, phrases, next_id, used = [], [], {}, 1, set()
    for index in range(scenes):
        scene = scene_for(seed, index)
        images.append(
            {
                "id": index + 1,
                "file_name": image_name(index + 1),
                "width": SIDE,
                "height": SIDE,
                "backdrop": scene.backdrop,
            }
        )
        for caption in captions_for(seed, scene, index):
            captions.append({"id": len(captions) + 1, "image_id": index + 1, "caption": caption.text})
            phrases[str(len(captions))] = phrase_rows(caption, next_id)
            used.add(plain(caption.text))
        next_id += len(scene.objects)
    sentences = sentences_for(seed, SENTENCES)
    used |= {plain(text) for text in sentences}
    files = {
        "annotations/captions_world.json": _json({"info": _info(seed), "images": images, "annotations": captions}),
        "annotations/phrases_world.json": _json(phrases),
        "sentences.txt": "".join(text + "\n" for text in sentences),
    }
    return files | {f"sts/{path}": text for path, text in sts_files(seed, used)}


def _info(seed: int) -> dict:
    return {"description": "rendered demo world", "seed": seed, "licence": "CC0-1.0"}


def _json(value: dict) -> str:
    """Compact JSON of a mapping, with each member of its lists of rows on a line of its own."""
    parts = [f"{_one_line(key)}: {_rows(item)}" for key, item in value.items()]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _rows(item: object) -> str:
    if isinstance(item, list) and len(item) > 8:
        return "[\n" + ",\n".join(map(_one_line, item)) + "\n]"
    return _one_line(item)


def _one_line(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def pixel_hash(image: Image.Image) -> str:
    """SHA-256 of the decoded RGB bytes, row by row."""
    return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


def build(seed: int, scenes: int, out: Path) -> None:
    """Write the whole world under `out`; files that are there are overwritten."""
    (out / "images").mkdir(parents=True, exist_ok=True)
    texts, pixels, instances, kinds = text_files(seed, scenes), {}, [], Counter()
    for index in range(scenes):
        scene = scene_for(seed, index)
        picture = render(scene)
        picture.image.save(out / "images" / image_name(index + 1), optimize=True)
        pixels[image_name(index + 1)] = pixel_hash(picture.image)
        instances += instance_rows(scene, picture, index + 1, len(instances) + 1)
        kinds.update(thing.kind for thing in scene.objects)
    images = json.loads(texts["annotations/captions_world.json"])["images"]
    texts["annotations/instances_world.json"] = _json(
        {"info": _info(seed), "images": images, "categories": categories(), "annotations": instances}
    )
    texts["README.md"] = card(seed, scenes, texts, kinds)
    for path, text in texts.items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(text.encode())
    hashes = {
        "seed": seed,
        "scenes": scenes,
        "pixels": pixels,
        "text": {path: hashlib.sha256(text.encode()).hexdigest() for path, text in sorted(texts.items())},
    }
    (out / "hashes.json").write_text(json.dumps(hashes, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("demo/world"))
    args = parser.parse_args()
    if args.scenes < 1:
        parser.error("--scenes: at least 1")
    build(args.seed, args.scenes, args.out)
    total = sum(path.stat().st_size for path in args.out.rglob("*") if path.is_file())
    print(f"{args.scenes} scenes, seed {args.seed}: {args.out} ({total / 1e6:.2f} MB)")


if __name__ == "__main__":
    main()
