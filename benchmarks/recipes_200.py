"""Every recipe trained for 200 steps on the captions of the shared COCO photos: terms, gradients, memory, time.

    python -m benchmarks.recipes_200 [RECIPE ...] [--model bert-tiny] [--steps 200] [--out DIR]

RANDOM WEIGHTS: the student's shape is BERT's, its weights, CLIP's (vision and text), the teachers' and the generator's
are drawn from seeds (benchmarks/recipes_data.py). The run shows that every recipe trains from end to end on real
photos and captions, and what memory it takes; its losses say nothing about the recipes' worth. Each recipe has a
process of its own and leaves its log, a row a step with every term and statistic, in --out.
"""

import argparse
import os
import tempfile
from pathlib import Path

from benchmarks.fresh import fresh
from benchmarks.machine import machine
from benchmarks.recipes_data import collect, hidden, write_teachers
from benchmarks.recipes_run import ENDS, Outcome, trained
from benchmarks.trainer_data import SEED, SHAPES, Setting, shared_folder, write_model
from model.data import TrainingData
from model.recipes import NAMES
from stages.common.device import pick_device


def main() -> None:
    arguments = _arguments()
    device = str(pick_device(arguments.device))
    print(f"{machine()}; load {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores when it began")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = collect(arguments.shared / "coco", hidden(arguments.model))
        teachers = write_teachers(arguments.model, folder / "teachers")
        setting = Setting(
            arguments.model, write_model(arguments.model, folder / "student"), arguments.shared, device, arguments.batch
        )
        print(_of(data, arguments), flush=True)
        out = arguments.out or folder
        out.mkdir(parents=True, exist_ok=True)
        for name in arguments.recipes or [n for n in NAMES if n != "untrained"]:
            outcome = fresh(
                arguments.threads, trained, name, setting, data, teachers, arguments.steps, out / f"{name}.csv"
            )
            print(told(outcome), flush=True)


def told(outcome: Outcome) -> str:
    terms = ", ".join(f"{name} {first:.4g} -> {last:.4g}" for name, (first, last) in outcome.terms.items())
    lines = [
        f"{outcome.recipe:15}{outcome.steps} steps, {outcome.seconds:5.0f} s, {outcome.peak / 1e9:.2f} GB "
        f"({(outcome.peak - outcome.before) / 1e9:.2f} of it training): {terms}"
    ]
    return "\n".join(lines + [f"{'':15}{note}" for note in outcome.notes])


def _of(data: TrainingData, arguments: argparse.Namespace) -> str:
    return (
        f"RANDOM WEIGHTS everywhere ({arguments.model}, seed {SEED}): {len(data.image_features)} photos, "
        f"{len(data.captions)} captions, {len(data.object_features)} objects, {sum(map(len, data.pairs))} object-"
        f"phrase pairs, {len(data.triplets)} triplets; batch {arguments.batch}; means of the "
        f"first and last {ENDS} steps"
    )


def _arguments() -> argparse.Namespace:
    made = argparse.ArgumentParser(prog="python -m benchmarks.recipes_200", allow_abbrev=False)
    made.add_argument("recipes", nargs="*", metavar="RECIPE", help=f"of {', '.join(NAMES[1:])} (default: all)")
    made.add_argument("--model", choices=tuple(SHAPES), default="bert-tiny")
    made.add_argument("--steps", type=int, default=200)
    made.add_argument("--batch", type=int, default=64)
    made.add_argument("--device", default="auto")
    made.add_argument("--threads", type=int, default=max(1, (os.cpu_count() or 2) // 2))
    made.add_argument("--out", type=Path, help="where the logs are left (default: nowhere)")
    made.add_argument("--shared", type=Path, default=shared_folder(), help="shared data (default: %(default)s)")
    arguments = made.parse_args()
    if unknown := sorted(set(arguments.recipes) - set(NAMES[1:])):
        made.error(f"unknown recipe {', '.join(unknown)}")
    return arguments


if __name__ == "__main__":
    main()
