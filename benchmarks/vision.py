"""segment, detect and embed at full size against the code that people run today, in one run.

    python -m benchmarks.vision [segment|detect|embed|all] [--device ...] [--images N] [--photos DIR] [--json FILE]

Official architectures with random weights (benchmarks/made_weights.py; speed does not depend on the values), COCO
photos, phrases of the parser that ships, boxes of the annotations. Baselines: the SamPredictor loop in fp32 and under
bf16 autocast; the package groundingdino's `predict`, a pass an image and a pass a caption; a plain loop with
transformers and Pillow. Floor: the floating-point operations of the network at the rate that large matrix products
reach on this device in the same run; MFU is how near to it a way comes. Every way runs in a process of its own.

On a CPU a few photos are enough and take minutes; on a GPU ours does all photos, the baselines the first of them.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import vision_detect, vision_embed, vision_segment
from benchmarks.machine import machine
from benchmarks.vision_measure import Figure, apart, pace, rate, told
from benchmarks.vision_photos import Photos, prepare
from stages.common.device import pick_device

PARTS = ("segment", "detect", "embed")
DETECTOR, ENCODER = "grounding-dino-tiny", "clip-vit-base-patch32"
# On a CPU, on a GPU.
_DEFAULTS: dict[str, tuple[Any, Any]] = {
    "images": (4, 753),
    "baseline": (2, 48),
    "sam": (["sam-vit-base"], ["sam-vit-base", "sam-vit-huge"]),
    "dtypes": (["fp32", "bf16"], ["bf16"]),
    "batch_images": (2, 16),
    "batch_rows": (32, 256),
}


def main() -> None:
    arguments = _arguments()
    device = str(pick_device(arguments.device))
    for name, (cpu, gpu) in _DEFAULTS.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, cpu if device == "cpu" else gpu)
    began = time.perf_counter()
    print(f"{machine()}; load {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores when it began", flush=True)
    rates = apart(arguments.threads, _rates, device)
    print(
        ", ".join(f"{dtype} {value / 1e12:.3g} TFLOP/s" for dtype, value in rates.items()), "of large matrix products"
    )
    with contextlib.ExitStack() as kept:
        folder = arguments.work or Path(kept.enter_context(tempfile.TemporaryDirectory()))
        photos = prepare(folder, arguments.photos, arguments.images)
        print(
            f"{photos.images} photos, {photos.captions} captions, {photos.phrases} phrases, {photos.boxes} boxes to "
            f"segment, {photos.objects} masked candidates to embed; prepared in {time.perf_counter() - began:.0f} s"
        )
        figures: list[Figure] = []
        for part in PARTS if arguments.part == "all" else (arguments.part,):
            made, against = {"segment": _segment, "detect": _detect, "embed": _embed}[part](photos, arguments, device)
            print(f"\n{part}\n{told(made, against, rates, device)}", flush=True)
            figures += made
    if arguments.json:
        figures_as_dicts = [
            dataclasses.asdict(figure) | {"speed": figure.speed, "thrift": figure.thrift} for figure in figures
        ]
        document = {"machine": machine(), "host": platform.platform(), "rates": rates, "figures": figures_as_dicts}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"\n{time.perf_counter() - began:.0f} s in all, load {os.getloadavg()[0]:.1f} at the end")


def _arguments() -> argparse.Namespace:
    made = argparse.ArgumentParser(prog="python -m benchmarks.vision", allow_abbrev=False)
    made.add_argument("part", nargs="?", choices=(*PARTS, "all"), default="all")
    made.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: %(default)s)")
    made.add_argument("--photos", type=Path, default=shared_photos(), help="COCO photos (default: %(default)s)")
    made.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "made-weights", help="for weights")
    made.add_argument("--work", type=Path, help="prepare the photos here, and keep them for the next time")
    made.add_argument("--json", type=Path, help="also write the figures here")
    made.add_argument("--compile", action="store_true", help="ours with runtime.compile")
    made.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="(default: %(default)s)")
    for name, what in (("images", "photos"), ("baseline", "photos for the baselines")):
        made.add_argument(f"--{name}", type=int, help=f"{what} (default: {_default(name)})")
    for name in ("batch-images", "batch-rows"):
        made.add_argument(f"--{name}", type=int, help=f"runtime's (default: {_default(name.replace('-', '_'))})")
    made.add_argument("--sam", nargs="+", choices=tuple(vision_segment.SAM), help=f"(default: {_default('sam')})")
    made.add_argument("--dtypes", nargs="+", choices=("fp32", "bf16"), help=f"ours in (default: {_default('dtypes')})")
    return made.parse_args()


def _default(name: str) -> str:
    cpu, gpu = _DEFAULTS[name]
    return f"{cpu}, on a GPU {gpu}"


def shared_photos() -> Path:
    root = Path(__file__).resolve().parents[1]
    return Path(os.environ.get("MCSEO_SHARED", root.parent / "shared")) / "data" / "coco"


def _rates(device: str) -> dict[str, float]:
    return {dtype: rate(device, dtype) for dtype in ("fp32", "bf16")}


def _runtime(arguments: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(arguments, name) for name in ("batch_images", "batch_rows", "compile", "threads")}


def _segment(photos: Photos, arguments: argparse.Namespace, device: str) -> tuple[list[Figure], dict[str, str]]:
    figures, against = [], {}
    for name in arguments.sam:
        for dtype in ("fp32", "bf16"):
            few = min(arguments.baseline, photos.images)
            figures += apart(
                arguments.threads, vision_segment.official, photos, arguments.cache, name, device, dtype, few
            )
        for dtype in arguments.dtypes:
            work = (arguments.cache, name, device, dtype, photos.images, _runtime(arguments))
            figures += apart(arguments.threads, vision_segment.encoder, *work)
            figures += apart(
                arguments.threads,
                vision_segment.ours,
                photos,
                arguments.cache,
                name,
                device,
                dtype,
                _runtime(arguments),
            )
        for part in ("encoder", "whole"):
            base = f"{name}, official fp32: {part}"
            against |= {figure.what: base for figure in figures if figure.what.endswith(part) and name in figure.what}
    return figures, against


def _detect(photos: Photos, arguments: argparse.Namespace, device: str) -> tuple[list[Figure], dict[str, str]]:
    figures = []
    for prompting in ("per_image", "per_caption"):
        few = min(arguments.baseline, photos.images)
        figures += apart(
            arguments.threads, vision_detect.official, photos, arguments.cache, DETECTOR, device, prompting, few
        )
    for dtype in arguments.dtypes:
        for prompting in ("per_image", "per_caption"):
            work = (photos, arguments.cache, DETECTOR, device, dtype, prompting, _runtime(arguments))
            figures += apart(arguments.threads, vision_detect.ours, *work)
    image, caption = figures[0], figures[1]
    for place, figure in enumerate(figures[2:], 2):
        notes = {"against a pass a caption": f"{pace(figure, device) / pace(caption, device):.2f}x"}
        figures[place] = dataclasses.replace(figure, notes=figure.notes | notes)
    return figures, {figure.what: image.what for figure in figures[1:]}


def _embed(photos: Photos, arguments: argparse.Namespace, device: str) -> tuple[list[Figure], dict[str, str]]:
    figures = []
    for dtype in ("fp32", "bf16"):
        few = min(20 * arguments.baseline, photos.images)
        figures += apart(arguments.threads, vision_embed.plain, photos, arguments.cache, ENCODER, device, dtype, few)
    for dtype in arguments.dtypes:
        figures += apart(
            arguments.threads, vision_embed.ours, photos, arguments.cache, ENCODER, device, dtype, _runtime(arguments)
        )
    return figures, {figure.what: figures[0].what for figure in figures[1:]}


if __name__ == "__main__":
    main()
