"""Writes the demo world: `python -m demo.build --scenes 400 --seed 0 --out demo/world`.

Images and their masks, captions, gold phrases and trees, sentences without images, world STS and probes in SentEval's
layout, a dataset card, and the hashes of it all. The same seed and knobs write the same text and the same decoded
pixels everywhere, under any number of workers. `--check` writes nothing and says whether `--out` is what its seed says.
"""

import argparse
import hashlib
import io
import json
import os
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from itertools import accumulate
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from demo.captions import Caption, caption_for
from demo.card import card
from demo.graded import graded_sentences, sts_files
from demo.lexicon import NAMES
from demo.plans import Knobs
from demo.probes import probe_files
from demo.render import Picture, render
from demo.scenes import KINDS, SIDE, Scene, sample_scene
from demo.sts import plain
from demo.trees import conllu

CAPTIONS_PER_SCENE, SENTENCES = 3, 6400


@dataclass(frozen=True)
class Settings:
    """What a world is made from. `knobs` shape its captions and sentences; world STS and probes have their own, so that
    worlds of other knobs are graded alike. `sts`: whether those two are made. No caption and no sentence is in `avoid`
    (see `demo.sts.plain`)."""

    seed: int
    scenes: int
    knobs: Knobs = field(default_factory=Knobs)
    sentences: int = SENTENCES
    sts: bool = True
    avoid: frozenset[str] = frozenset()

    def info(self) -> dict:
        """What a world's files say of how it was made."""
        return {
            "description": "rendered demo world",
            "seed": self.seed,
            "scenes": self.scenes,
            "sentences": self.sentences,
            "sts": self.sts,
            "knobs": asdict(self.knobs),
            "avoided": len(self.avoid),
            "licence": "CC0-1.0",
        }


@dataclass(frozen=True)
class World:
    """Every file of a world but its hashes: `texts` by path, and by file name the PNG bytes of the `images` and the
    hashes of their decoded `pixels`."""

    settings: Settings
    texts: dict[str, str]
    images: dict[str, bytes]
    pixels: dict[str, str]

    def hashes(self) -> dict:
        """The content of hashes.json."""
        return {
            "seed": self.settings.seed,
            "scenes": self.settings.scenes,
            "pixels": self.pixels,
            "text": {path: _sha256(text.encode()) for path, text in sorted(self.texts.items())},
        }


def scene_for(seed: int, index: int) -> Scene:
    """Scene number `index` of the world; image ids are index + 1."""
    return sample_scene(seed, index)


def captions_for(
    settings: Settings, scene: Scene, *stream: str | int, number: int = CAPTIONS_PER_SCENE
) -> list[Caption]:
    """Different captions of one scene."""
    found: dict[str, Caption] = {}
    for attempt in range(20 * number):
        caption = caption_for(settings.seed, scene, *stream, "caption", attempt, knobs=settings.knobs)
        if (text := plain(caption.text)) not in settings.avoid:
            found.setdefault(text, caption)
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
                "pattern": thing.pattern,
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


def sentences_for(settings: Settings) -> list[str]:
    """Different sentences about scenes that are never rendered."""
    found: dict[str, str] = {}
    index = 0
    while len(found) < settings.sentences:
        scene = sample_scene(settings.seed, "sentence", index)
        for caption in captions_for(settings, scene, "sentence", index, number=4):
            found.setdefault(plain(caption.text), caption.text)
        index += 1
    return list(found.values())[: settings.sentences]


def scenes_of(settings: Settings) -> list[Scene]:
    return [scene_for(settings.seed, index) for index in range(settings.scenes)]


def first_ids(scenes: list[Scene]) -> list[int]:
    """Annotation id of the first object of each scene; ids begin at 1."""
    return list(accumulate((len(scene.objects) for scene in scenes), initial=1))[:-1]


def text_files(settings: Settings) -> dict[str, str]:
    """Every text file of the world that does not depend on pixels: path under the world's folder and content."""
    scenes = scenes_of(settings)
    captions, phrases, trees, told, used = [], {}, [], Counter(), set()
    for index, (scene, first_id) in enumerate(zip(scenes, first_ids(scenes), strict=True)):
        for caption in captions_for(settings, scene, index):
            number = len(captions) + 1
            captions.append({"id": number, "image_id": index + 1, "caption": caption.text})
            phrases[str(number)] = phrase_rows(caption, first_id)
            trees.append(conllu(caption, number))
            told.update(bond.name for bond in caption.plan.bonds)
            used.add(plain(caption.text))
    sentences = sentences_for(settings)
    used |= {plain(text) for text in sentences}
    images = [
        {"id": i, "file_name": image_name(i), "width": SIDE, "height": SIDE, "backdrop": scene.backdrop}
        for i, scene in enumerate(scenes, 1)
    ]
    info = settings.info() | {"relations": dict(sorted(told.items()))}  # told in captions, by name
    files = {
        "annotations/captions_world.json": _json({"info": info, "images": images, "annotations": captions}),
        "annotations/phrases_world.json": _json(phrases),
        "annotations/trees_world.conllu": "".join(trees),
        "sentences.txt": "".join(text + "\n" for text in sentences),
    }
    if settings.sts:
        files |= {f"sts/{path}": text for path, text in sts_files(settings.seed, used)}
        files |= {f"sts/probing/{path}": text for path, text in probe_files(settings.seed, used)}
    return files


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


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def pixel_hash(image: Image.Image) -> str:
    """SHA-256 of the decoded RGB bytes, row by row."""
    return _sha256(image.convert("RGB").tobytes())


def _drawn(seed: int, index: int, first_id: int) -> tuple[bytes, str, list[dict]]:
    """A scene's PNG, the hash of its pixels, and its annotations: what a worker does."""
    scene = scene_for(seed, index)
    picture, png = render(scene), io.BytesIO()
    picture.image.save(png, "PNG", optimize=True)
    return png.getvalue(), pixel_hash(picture.image), instance_rows(scene, picture, index + 1, first_id)


def make(settings: Settings, workers: int = 1) -> World:
    """The whole world in memory; `workers` processes draw it."""
    work = (range(settings.scenes), first_ids(scenes_of(settings)))
    if workers > 1:
        with ProcessPoolExecutor(workers) as pool:
            drawing = pool.map(partial(_drawn, settings.seed), *work, chunksize=8)  # while the text is written here
            texts, drawn = text_files(settings), list(drawing)
    else:
        texts, drawn = text_files(settings), list(map(partial(_drawn, settings.seed), *work))
    names = [image_name(i) for i in range(1, settings.scenes + 1)]
    texts["annotations/instances_world.json"] = _json(
        {
            "info": settings.info(),
            "images": json.loads(texts["annotations/captions_world.json"])["images"],
            "categories": categories(),
            "annotations": [row for _, _, rows in drawn for row in rows],
        }
    )
    texts["README.md"] = card(texts)
    images = {name: png for name, (png, _, _) in zip(names, drawn, strict=True)}
    return World(settings, texts, images, {name: pixels for name, (_, pixels, _) in zip(names, drawn, strict=True)})


def build(
    seed: int,
    scenes: int,
    out: Path,
    *,
    knobs: Knobs | None = None,
    sentences: int = SENTENCES,
    sts: bool = True,
    avoid: frozenset[str] = frozenset(),
    workers: int = 1,
) -> None:
    """Write a world (see `Settings`) under `out`; what an earlier build left there and this one has not is removed."""
    world = make(Settings(seed, scenes, knobs or Knobs(), sentences, sts, avoid), workers)
    files = {path: text.encode() for path, text in world.texts.items()}
    files |= {f"images/{name}": png for name, png in world.images.items()}
    for path in _listed(out) - set(files):
        (out / path).unlink(missing_ok=True)
    for path, content in files.items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(content)
    (out / "hashes.json").write_text(json.dumps(world.hashes(), indent=1) + "\n")


def _listed(out: Path) -> set[str]:
    """Files that the hashes of a world name; none where there is no world."""
    if not (out / "hashes.json").is_file():
        return set()
    hashes = json.loads((out / "hashes.json").read_text("utf-8"))
    return {*hashes["text"], *(f"images/{name}" for name in hashes["pixels"])}


def differences(out: Path, avoid: frozenset[str] = frozenset(), workers: int = 1) -> list[str]:
    """Files of the world at `out` that are not what its seed, scenes and knobs say, or are missing, or too many."""
    info = json.loads((out / "annotations/captions_world.json").read_text("utf-8"))["info"]
    told = {f.name: info[f.name] for f in fields(Settings) if f.name not in ("knobs", "avoid")}
    world = make(Settings(**told, knobs=Knobs(**info["knobs"]), avoid=avoid), workers)
    wrong = [path for path, text in world.texts.items() if _content(out / path) != text.encode()]
    for name, pixels in world.pixels.items():
        path = out / "images" / name
        if not path.is_file() or pixel_hash(Image.open(path)) != pixels:
            wrong.append(f"images/{name}")
    if json.loads(_content(out / "hashes.json") or b"null") != world.hashes():
        wrong.append("hashes.json")
    known = {*world.texts, *(f"images/{name}" for name in world.images), "hashes.json"}
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    return sorted({*wrong, *(found - known)})


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to 1")
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("demo/world"))
    parser.add_argument("--sentences", type=int, default=SENTENCES, help="sentences about scenes that are not drawn")
    parser.add_argument("--no-sts", action="store_true", help="neither world STS nor probes")
    parser.add_argument("--avoid", type=Path, metavar="WORLD", help="say nothing that its STS or probes say")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that draw")
    parser.add_argument("--check", action="store_true", help="write nothing; is --out what its seed says?")
    for knob in fields(Knobs):
        name = f"--{knob.name.replace('_', '-')}"
        parser.add_argument(name, type=_share, default=knob.default, help="0 to 1; see demo.plans.Knobs")
    args = parser.parse_args()
    if min(args.scenes, args.workers) < 1 or args.sentences < 0:
        parser.error("--scenes and --workers: at least 1; --sentences: at least 0")
    avoid = graded_sentences(args.avoid) if args.avoid else frozenset()
    if args.check:
        sys.exit(_check(parser, args.out, avoid, args.workers))
    knobs = Knobs(**{knob.name: getattr(args, knob.name) for knob in fields(Knobs)})
    settings = {"knobs": knobs, "sentences": args.sentences, "sts": not args.no_sts, "avoid": avoid}
    build(args.seed, args.scenes, args.out, **settings, workers=args.workers)
    total = sum(path.stat().st_size for path in args.out.rglob("*") if path.is_file())
    print(f"{args.scenes} scenes, seed {args.seed}: {args.out} ({total / 1e6:.2f} MB)")


def _check(parser: argparse.ArgumentParser, out: Path, avoid: frozenset[str], workers: int) -> int:
    if not (out / "annotations/captions_world.json").is_file():
        parser.error(f"--check: {out} holds no world; build one with `python -m demo.build --out {out}`")
    if wrong := differences(out, avoid, workers):
        print(f"{out}: {len(wrong)} files are not what the seed and knobs say; the first: {wrong[0]}")
        return 1
    print(f"{out}: all {len(_listed(out)) + 1} files are what the seed and knobs say")
    return 0


if __name__ == "__main__":
    main()
