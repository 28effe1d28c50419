"""Memory and time of ingest, parse and align as a collection grows: `python -m benchmarks.memory [--sizes 1000 10000]`.

Every image is a file of its own with pixels of its own (64 x 48, PNG); the captions come from a few texts of the demo
world, so that parsing is quick. A shard holds 125 images at every size. Each stage is a process of its own, as in the
graph; its peak is what the system states when it ends. The boxes, masks and features that align reads are written
here, for every phrase that parse found: two boxes a phrase.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from ruamel.yaml import YAML

from benchmarks.machine import machine
from benchmarks.made_shards import write_shard
from pipeline import tables
from pipeline.shards import read_table, shard_name, shard_numbers
from stages.common import rle

SIZES = (1_000, 10_000, 100_000)
IMAGES_A_SHARD, IMAGES_A_FOLDER, TEXTS = 125, 1_000, 12
HEIGHT, WIDTH = 48, 64
STAGES = ("ingest", "parse", "align")
# A process takes over the peak of the one that started it, and this one is large; so a small one stands between.
_LAUNCHER = """
import os, sys
_, status, used = os.wait4(os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ), 0)
print(used.ru_maxrss, used.ru_utime + used.ru_stime)
sys.exit(os.waitstatus_to_exitcode(status))
"""


@dataclass(frozen=True)
class Run:
    """A stage's process: seconds by the clock and of processor time, peak resident memory in bytes."""

    seconds: float
    processor: float
    peak: int


def main() -> None:
    made = argparse.ArgumentParser(prog="python -m benchmarks.memory", allow_abbrev=False)
    made.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of images (default: %(default)s)")
    made.add_argument("--work", type=Path, help="folder for the collections (default: the system's temporary folder)")
    arguments = made.parse_args()
    print(machine())
    print(f"{'':14}" + "".join(f"{name:>40}" for name in STAGES))
    print(f"{'images':>14}" + f"{'MB':>10}{'of first':>10}{'s':>8}{'cpu ms/im.':>12}" * len(STAGES))
    first: dict[str, Run] = {}
    for images in arguments.sizes:
        with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
            runs = measure(Path(folder), images)
        first = first or runs
        cells = (
            f"{run.peak / 1e6:10.0f}{run.peak / first[name].peak:10.2f}"
            f"{run.seconds:8.1f}{1e3 * run.processor / images:12.2f}"
            for name, run in runs.items()
        )
        print(f"{images:14,}" + "".join(cells), flush=True)


def measure(folder: Path, images: int) -> dict[str, Run]:
    """Writes a collection of so many images and runs the stages over it, one process each."""
    texts = _texts()
    _write_collection(folder / "collection", images, texts)
    _write_params(folder, max(1, images // IMAGES_A_SHARD))
    runs = {name: run(name, folder) for name in ("ingest", "parse")}
    _write_candidates(folder / "data/memory")
    return runs | {"align": run("align", folder)}


def run(stage: str, folder: Path) -> Run:
    """Runs a stage in `folder` as the graph does."""
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1"}
    started = time.perf_counter()
    with (folder / f"{stage}.log").open("w+") as log:
        command = [sys.executable, "-c", _LAUNCHER, sys.executable, "-m", f"stages.{stage}"]
        done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
        seconds = time.perf_counter() - started
        if done.returncode:
            log.seek(0)
            sys.exit(f"{stage} ended with {done.returncode}:\n{log.read()[-2000:]}")
    peak, processor = done.stdout.split()[-2:]
    return Run(seconds, float(processor), int(peak) * (1 if sys.platform == "darwin" else 1024))


def _texts() -> list[str]:
    world = json.loads(Path("demo/world/annotations/captions_world.json").read_text(encoding="utf-8"))
    return list(dict.fromkeys(item["caption"] for item in world["annotations"]))[:TEXTS]


def _write_collection(root: Path, images: int, texts: list[str]) -> None:
    """Image files and captions.jsonl, two captions an image."""
    draw = np.random.default_rng(0)
    scenes = [np.kron(draw.integers(0, 256, (6, 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8)) for _ in texts]
    root.mkdir(parents=True)
    with (root / "captions.jsonl").open("w", encoding="utf-8") as manifest:
        for number in range(images):
            uri = f"images/{number // IMAGES_A_FOLDER:04d}/{number:08d}.png"
            if number % IMAGES_A_FOLDER == 0:
                (root / uri).parent.mkdir(parents=True)
            picture = scenes[number % len(scenes)].copy()
            picture[:8] = draw.integers(0, 256, (8, WIDTH, 3), np.uint8)
            (root / uri).write_bytes(_png(picture))
            captions = [texts[(number + shift) % len(texts)] for shift in (0, 5)]
            manifest.write(json.dumps({"image": uri, "captions": captions}) + "\n")


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _write_params(folder: Path, shards: int) -> None:
    values = YAML(typ="safe").load(Path("params.yaml").read_text(encoding="utf-8"))
    (folder / "sentences.txt").write_text("", encoding="utf-8")
    values["dataset"] = "memory"
    values["ingest"] |= {
        "source": "folder",
        "path": "collection",
        "captions": "captions.jsonl",
        "images": ["images"],
        "sentences_path": "sentences.txt",
        "shards": shards,
    }
    values["parse"]["path"] = str(Path(values["parse"]["path"]).resolve())
    values["runtime"] |= {"devices": ["cpu"], "threads": 1, "workers": 1}
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(values, file)


def _write_candidates(data: Path) -> None:
    """Boxes, masks and features as detect, segment and embed would leave them, shard after shard."""
    blobs = [_blob(x, y) for x in (4, 20, 36) for y in (4, 14)]
    for number in shard_numbers(data / "parse" / "phrases"):
        phrases = read_table(data / "parse" / "phrases" / f"{shard_name(number)}.parquet", "phrases")
        found = [_found(row, rank, *blobs[(at + rank) % len(blobs)]) for at, row, rank in _each_box(phrases)]
        images = sorted(set(phrases.column("image_id").to_pylist()))
        features = [
            {"id": f"image:{image}", "kind": "image", "image_id": image, "vector": b"\0" * 16} for image in images
        ]
        shard = {
            "boxes": tables.build("boxes", [box for box, _ in found]),
            "masks": tables.build("masks", [mask for _, mask in found]),
            "features": tables.build("features", features, tables.features_schema(8)),
        }
        write_shard(data, number, shard)


def _each_box(phrases: pa.Table) -> Iterator[tuple[int, dict, int]]:
    for at, row in enumerate(phrases.select(["id", "image_id", "head"]).to_pylist()):
        yield from ((at, row, rank) for rank in range(2))


def _blob(x: int, y: int) -> tuple[bytes, tuple[float, float, float, float], int]:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y : y + 20, x : x + 20] = True
    counts = rle.encode(mask)
    return counts, rle.box(counts, HEIGHT, WIDTH), int(mask.sum())


def _found(phrase: dict, rank: int, counts: bytes, corners: tuple, area: int) -> tuple[dict, dict]:
    own = {"id": f"{phrase['id']}/{rank}", "image_id": phrase["image_id"]}
    box = dict(zip(("x0", "y0", "x1", "y1"), corners, strict=True))
    box |= own | {"phrase_id": phrase["id"], "rank": rank, "score": 0.9 - 0.1 * rank, "label": phrase["head"]}
    mask = own | {"box_id": own["id"], "height": HEIGHT, "width": WIDTH, "counts": counts, "area": area}
    return box | {"object_id": None}, mask | {"predicted_iou": 1.0, "stability": 1.0}


if __name__ == "__main__":
    main()
