"""The whole graph on real photos with SAM ViT-B, GroundingDINO SwinT and CLIP ViT-B/32 at full size, and kill -9.

    python -m benchmarks.full_size [--images 32] [--device cpu] [--photos DIR] [--cache DIR] [--work DIR]

A checkout of its own is made: the project's code under git and DVC, the photos, the weights (random ones in official
files, converted), the preset `coco` with the model backends and with thresholds so low that random weights give pairs.
`python -m pipeline run` is killed in the middle of a shard of detect and of segment, run again each time until all is
done, and `python -m pipeline verify` has the last word. Told: seconds of every stage, what resumed, what came through.
"""

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from benchmarks.made_weights import weights
from benchmarks.vision import DETECTOR, ENCODER, shared_photos
from benchmarks.vision_photos import DATASET, ROOT, collect, write_params

SEGMENTER = "sam-vit-base"
KILLED = ("detect", "segment")
_COPIED = ("pipeline", "stages", "model", "presets", "dvc.yaml", "requirements.lock", ".dvcignore", ".gitignore")
_COPIED += (".dvc/config", "demo/checkpoints/stanza_en", "demo/checkpoints/bert_tiny", "demo/world/sts")


@dataclass
class Run:
    """What a `python -m pipeline run` said and how long its stages took, by name."""

    code: int
    seconds: dict[str, float]
    lines: list[str] = field(default_factory=list)


def main() -> None:
    made = argparse.ArgumentParser(prog="python -m benchmarks.full_size", allow_abbrev=False)
    made.add_argument("--images", type=int, default=32)
    made.add_argument("--device", default="auto")
    made.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    made.add_argument("--photos", type=Path, default=shared_photos(), help="COCO photos (default: %(default)s)")
    made.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "made-weights", help="for weights")
    made.add_argument("--work", type=Path, help="where the checkout is made and kept (default: a temporary folder)")
    arguments = made.parse_args()
    print(f"{machine()}; load {os.getloadavg()[0]:.1f}", flush=True)
    with contextlib.ExitStack() as kept:
        folder = arguments.work or Path(kept.enter_context(tempfile.TemporaryDirectory()))
        checkout(folder, arguments)
        began = time.perf_counter()
        seconds: dict[str, float] = {}
        for victim in (*KILLED, None):
            done = run(folder, victim)
            for stage, took in done.seconds.items():
                seconds[stage] = seconds.get(stage, 0.0) + took
            if (done.code == 0) != (victim is None):
                sys.exit(f"ended with {done.code}:\n" + "\n".join(done.lines[-20:]))
        whole = time.perf_counter() - began
        print(command(folder, "verify"))
        if "nothing to do" not in (said := command(folder, "plan")):
            print(said)
    print("\n".join(f"{stage:24}{took:9.1f} s" for stage, took in seconds.items()))
    print(f"{'all, kills included':24}{whole:9.1f} s; load {os.getloadavg()[0]:.1f} at the end")


def checkout(folder: Path, arguments: argparse.Namespace) -> None:
    """The working tree, ready to run."""
    skip = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in _COPIED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=skip)
        else:
            shutil.copyfile(ROOT / name, folder / name)
    for name in (DETECTOR, SEGMENTER, ENCODER):
        shutil.copytree(weights(arguments.cache, name), folder / "weights" / name, copy_function=_link)
    images = collect(folder / "collection", arguments.photos, arguments.images)
    write_params(folder / "params.yaml", images, **_parameters(arguments, images))
    for words in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "start"],
    ):
        subprocess.run(["git", *words], cwd=folder, check=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _parameters(arguments: argparse.Namespace, images: int) -> dict[str, Any]:
    """Sections and what changes in them: the models, and rules that random weights can meet."""
    model = {"dtype": arguments.dtype}
    loose = {"min_score": 0.0, "min_mask_box_iou": 0.0, "min_area": 0.0, "max_area": 1.0}
    return {
        "ingest": {"shards": max(4, images // 64)},
        "parse": {"path": "demo/checkpoints/stanza_en"},
        "detect": model | {"backend": "transformers", "path": f"weights/{DETECTOR}", "box_threshold": 0.0, "top_k": 1},
        "segment": model | {"backend": "sam", "path": f"weights/{SEGMENTER}"},
        "embed": model | {"path": f"weights/{ENCODER}"},
        "align": loose,
        "train": {"path": "demo/checkpoints/bert_tiny", "init": "scratch", "max_steps": 8, "eval_every": 4}
        | {"pooling": "cls_mlp", "batch_size": 8, "captions_per_image": "all"},
        "grid": {"recipes": ["untrained", "mcseo"]},
        "evaluate": {"path": "demo/world/sts"},
        "runtime": {"devices": [arguments.device]},
    }


def run(folder: Path, victim: str | None) -> Run:
    """`python -m pipeline run`, told line by line; the stage `victim` is killed when it is in the middle of its second
    shard.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "run"],
        cwd=folder,
        env=_environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if victim:
        threading.Thread(target=_kill, args=(folder, victim, process), daemon=True).start()
    seconds: dict[str, float] = {}
    lines: list[str] = []
    stage, since = "", time.perf_counter()
    for line in process.stdout:
        lines.append(line.rstrip())
        if re.match(r"[a-z@0-9-]+: ", line):
            print(f"  {line.rstrip()}", flush=True)
        if found := re.search(r"Running stage '(.+?)'", line):
            now = time.perf_counter()
            seconds |= {stage: now - since} if stage else {}
            stage, since = found[1], now
    process.wait()
    seconds |= {stage: time.perf_counter() - since} if stage else {}
    return Run(process.returncode, seconds, lines)


def _kill(folder: Path, stage: str, whole: subprocess.Popen) -> None:
    scratch = folder / ".scratch" / DATASET
    while whole.poll() is None:
        finished = list((scratch / stage).glob("*.json"))
        if finished:
            time.sleep(0.5)  # into the next shard
            pid = int((scratch / f"{stage}.lock").read_text(encoding="utf-8"))
            os.kill(pid, signal.SIGKILL)
            print(f"  kill -9 of {stage} (PID {pid}) with {len(finished)} shards finished", flush=True)
            return
        time.sleep(0.1)


def command(folder: Path, *words: str) -> str:
    """What a command of the project says.

    Raises:
        SystemExit: it failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *words],
        cwd=folder,
        env=_environment(folder),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def _environment(folder: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PYTHONPATH": str(folder), "PATH": path, "HF_HUB_OFFLINE": "1", "DVC_NO_ANALYTICS": "1"}


if __name__ == "__main__":
    main()
