"""A small collection for tests: a few drawn images with captions, marked phrases, boxes and masks, and its parameters.

It needs no parser (backend markup) and no detector (backend annotations); the encoder is the tiny random one that
ships.
"""

import contextlib
import io
import json
import os
import random
import subprocess
import sys
from pathlib import Path

from PIL import Image, ImageDraw
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
THINGS = ("ball", "box", "kite", "cup")
COLOURS = {"red": (200, 40, 40), "green": (40, 160, 60), "blue": (40, 80, 200), "yellow": (220, 200, 40)}


def make_collection(root: Path, images: int, first: int = 1) -> None:
    """Writes COCO captions and instances of `images` images more under `root`, keeping what is there; ids run on from
    `first`.
    """
    (root / "images").mkdir(parents=True, exist_ok=True)
    captions = _read(root / "captions.json", {"images": [], "annotations": []})
    instances = _read(
        root / "instances.json",
        {"images": [], "annotations": [], "categories": [{"id": i + 1, "name": name} for i, name in enumerate(THINGS)]},
    )
    marked = (root / "marked.txt").read_text().splitlines() if (root / "marked.txt").exists() else []
    for number in range(first, first + images):
        draw = random.Random(number)
        things = draw.sample(THINGS, 2)
        colours = draw.sample(sorted(COLOURS), 2)
        picture = Image.new("RGB", (64, 48), tuple(draw.randrange(180, 256) for _ in range(3)))
        pen = ImageDraw.Draw(picture)
        for side, (thing, colour) in enumerate(zip(things, colours, strict=True)):
            box = (4 + 30 * side, 10, 28 + 30 * side, 38 - 10 * side)
            (pen.ellipse if thing in ("ball", "cup") else pen.rectangle)(box, fill=COLOURS[colour])
            instances["annotations"].append(
                {
                    "id": 10 * number + side,
                    "image_id": number,
                    "category_id": THINGS.index(thing) + 1,
                    "iscrowd": 0,
                    "area": 24 * (28 - 10 * side),
                    "bbox": [box[0], box[1], 24, 28 - 10 * side],
                    "segmentation": [[box[0], box[1], box[2], box[1], box[2], box[3], box[0], box[3]]],
                }
            )
        name = f"{number:06d}.png"
        picture.save(root / "images" / name)
        captions["images"].append({"id": number, "file_name": name})
        a, b = (f"[/EN#{i}/other a {c} {t}]" for i, (c, t) in enumerate(zip(colours, things, strict=True), 1))
        for index, line in enumerate((f"{a} next to {b} .", f"{b} beside {a} in the picture {number} .")):
            plain = line.replace("[/EN#1/other ", "").replace("[/EN#2/other ", "").replace("]", "")
            captions["annotations"].append({"id": 10 * number + index, "image_id": number, "caption": plain})
            marked.append(line)
    (root / "captions.json").write_text(json.dumps(captions))
    (root / "instances.json").write_text(json.dumps(instances))
    (root / "marked.txt").write_text("\n".join(marked) + "\n")


def write_params(file: Path, root: Path, base: Path = Path(), **changes: object) -> Path:
    """A parameter file for a small collection; `changes` are dotted keys with `__` for the dot.

    Paths are written as given; a relative `root` is below `base`.
    """
    values = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    sentences = root / "sentences.txt"
    if not (base / sentences).exists():
        (base / sentences).write_text(
            "".join(f"a {c} {t} lies on the {u}\n" for c in COLOURS for t in THINGS for u in THINGS if t != u)
        )
    values["dataset"] = "small"
    values["ingest"] |= {
        "path": str(root),
        "captions": "captions.json",
        "images": ["images"],
        "sentences_path": str(sentences),
        "shards": 4,
        "splits": {"train": 1.0, "dev": 0.0, "test": 0.0},
    }
    values["parse"] |= {"backend": "markup", "path": str(root / "marked.txt")}
    for stage in ("detect", "segment"):
        values[stage] |= {"backend": "annotations", "path": str(root / "instances.json")}
    values["embed"]["path"] = "demo/checkpoints/vision_random"
    values["train"] |= {"init": "scratch", "teachers_path": "presets/no_teachers"}
    values["runtime"] |= {"devices": ["cpu"], "threads": 1}
    for key, value in changes.items():
        *parents, last = key.split("__")
        place = values
        for part in parents:
            place = place[part]
        place[last] = value
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as handle:
        YAML().dump(values, handle)
    return file


def run_stage(name: str, cwd: Path, *arguments: str, env: dict | None = None) -> subprocess.CompletedProcess:
    """Runs `python -m stages.NAME` in `cwd`, which must hold params.yaml; the code is the repository's."""
    return subprocess.run(
        [sys.executable, "-m", f"stages.{name}", *arguments],
        cwd=cwd,
        env=environment(env),
        capture_output=True,
        text=True,
        timeout=300,
    )


def in_process(name: str, folder: Path) -> str:
    """Runs a sharded stage in this process, with `folder` as the working folder; returns what it said. Quick, for
    set-ups.
    """
    from pipeline import entry, runner

    said = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stderr(said):
        stage = runner.load_stage(name)
        arguments = entry.parser(name, stage.reads, "").parse_args([])
        runner.run_stage(stage, entry.context(name, stage.reads, arguments))
    return said.getvalue()


def environment(extra: dict | None = None) -> dict:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **(extra or {})}


def digests(folder: Path) -> dict[str, str]:
    """sha256 of every file under a folder, by relative path."""
    from pipeline.files import sha256_file

    return {p.relative_to(folder).as_posix(): sha256_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def _read(path: Path, otherwise: dict) -> dict:
    return json.loads(path.read_text()) if path.exists() else otherwise
