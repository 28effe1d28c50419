"""The trainer against the loops that people run today, in one run.

    python -m benchmarks.trainer [--models bert-base minilm] [--recipes simcse mcse mcseo] [--device cpu] [--steps N]

BERT-base's shape with random weights and MiniLM with its own, Wikipedia sentences (simcse) and COCO captions with
random features (mcse, mcseo), batch 64, length 32. Baselines: `benchmarks/published_loop.py`, and
sentence-transformers' loop with MultipleNegativesRankingLoss, which knows texts alone. Every way runs in a process of
its own; steps are timed after a warm-up, and the check on STS-B apart: `with evaluation` is 125 steps and one check, as
published. Ours: in fp32; in fp32 with batches cut by length; and so in bf16.

On a CPU, rates and ratios are of processor time, so that other work on the machine shows little. Needs the shared data
(MCSEO_SHARED) and requirements-dev.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import tempfile
import time
from pathlib import Path

from benchmarks.fresh import fresh
from benchmarks.machine import machine
from benchmarks.trainer_data import MODELS, Setting, shared_folder, write_model
from benchmarks.trainer_ways import WAYS, Pace, Work, evaluation, rate, work
from stages.common.device import pick_device

EVAL_EVERY = 125
RECIPES = ("simcse", "mcse", "mcseo")
# ours, by the settings it is given
OURS = {
    "ours, fp32": {"precision": "fp32"},
    "ours, fp32, by length": {"precision": "fp32", "length_chunks": 8},
    "ours, bf16, by length": {"precision": "bf16", "length_chunks": 8},
}
# steps of wiki1m + one caption an image (methods' mixing rule): pair steps, all steps of an epoch
MIXES = {"flickr30k": (488, 16_091), "coco": (1_410, 16_919)}


@dataclasses.dataclass(frozen=True)
class Row:
    """A way of training a recipe: seconds a step and a check, and what they come to."""

    way: str
    recipe: str
    pace: Pace
    step: float
    check: float
    mfu: float

    @property
    def with_check(self) -> float:
        """Seconds a step, the check's share in it."""
        return self.step + self.check / EVAL_EVERY


def main() -> None:
    arguments = _arguments()
    device, began = str(pick_device(arguments.device)), time.perf_counter()
    print(f"{machine()}; load {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores when it began", flush=True)
    rates = {p: fresh(arguments.threads, rate, device, p) for p in ("fp32", "bf16")}
    print(", ".join(f"{p} {value / 1e12:.3g} TFLOP/s" for p, value in rates.items()), "taken as the device's rate")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for model in arguments.models:
            place = write_model(model, Path(folder) / model)
            setting = Setting(model, place, arguments.shared, device, arguments.batch, arguments.length)
            rows = measure(setting, arguments, rates)
            print(told(setting, rows), flush=True)
            found[model] = [dataclasses.asdict(row) for row in rows]
    print(f"all of it took {time.perf_counter() - began:.0f} s; load {os.getloadavg()[0]:.1f} when it ended")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "rates": rates, "rows": found}, indent=1))


def measure(setting: Setting, arguments: argparse.Namespace, rates: dict[str, float]) -> list[Row]:
    threads, share = arguments.threads, arguments.evaluated
    checks = {p: fresh(threads, evaluation, "ours", setting, p, share).cost(setting.device) for p in rates}
    full = fresh(threads, evaluation, "published_loop", setting, "fp32", share).cost(setting.device)
    print(
        f"\n{setting.model}: a check takes {full:.3g} s as published, {checks['fp32']:.3g} s ours in fp32, "
        f"{checks['bf16']:.3g} s in bf16 (from {share:.1%} of the pairs)",
        flush=True,
    )
    rows = []
    for name in arguments.recipes:
        needed: Work = fresh(threads, work, name, setting)
        print(f"{name}: {needed.flop / 1e12:.3g} TFLOP a step; {needed.padding:.0%} of a batch is padding", flush=True)
        for way, kind, settings in _ways(name, arguments.only):
            pace = fresh(threads, WAYS[kind], name, setting, arguments.steps, arguments.warm_up, settings)
            precision = settings.get("precision", "fp32")
            step, check = pace.cost(setting.device), checks[precision] if kind == "ours" else full
            rows.append(Row(way, name, pace, step, check, needed.flop / step / rates[precision]))
            print(f"  {way}: {step:.3g} s a step ({pace.seconds / pace.steps:.3g} s by the clock)", flush=True)
    return rows


def _ways(name: str, only: list[str] | None) -> list[tuple[str, str, dict]]:
    found = [("published_loop", "published_loop", {})]
    if name == "simcse":
        found.append(("sentence-transformers", "sentence-transformers", {}))
    found += [(way, "ours", settings) for way, settings in OURS.items()]
    return [f for f in found if only is None or any(word in f[0] for word in only)]


def told(setting: Setting, rows: list[Row]) -> str:
    """The rows as a table, and what mcseo costs beside mcse."""
    lines = [f"{'':34}{'sentences/s':>12}{'ratio':>8}{'checked too':>13}{'ratio':>8}{'MFU':>7}{'memory':>10}"]
    for row in rows:
        base = next((r for r in rows if r.recipe == row.recipe and r.way == "published_loop"), None)
        plain, whole = (f"{b / a:.2f}x" if base else "" for a, b in _against(row, base))
        lines.append(
            f"{row.recipe + ': ' + row.way:34}{setting.batch / row.step:12.3g}{plain:>8}"
            f"{setting.batch / row.with_check:13.3g}{whole:>8}{row.mfu:7.0%}{row.pace.peak / 1e9:7.2f} GB"
        )
    return "\n".join(lines + list(_extra(rows)))


def _against(row: Row, base: Row | None) -> list[tuple[float, float]]:
    base = base or row
    return [(row.step, base.step), (row.with_check, base.with_check)]


def _extra(rows: list[Row]):
    """mcseo against mcse by way, on pair steps and in the published mixes with text steps."""
    cost = {(r.recipe, r.way): r.step for r in rows}
    for way in dict.fromkeys(r.way for r in rows):
        found = [cost.get((name, way)) for name in RECIPES]
        if None in found:
            continue
        mixed = ", ".join(f"{mix} {extra_of_mcseo(*found, *counts):+.1%}" for mix, counts in MIXES.items())
        yield f"mcseo beside mcse, {way}: {found[2] / found[1] - 1:+.0%} a pair step; with wiki1m, {mixed}"


def extra_of_mcseo(text: float, mcse: float, mcseo: float, pair_steps: int, steps: int) -> float:
    """How much more an epoch costs, as a fraction: `pair_steps` of its `steps` are pair steps of the one or the other,
    the rest are text steps; costs in seconds a step.
    """
    rest = (steps - pair_steps) * text
    return (rest + pair_steps * mcseo) / (rest + pair_steps * mcse) - 1


def _arguments() -> argparse.Namespace:
    made = argparse.ArgumentParser(prog="python -m benchmarks.trainer", allow_abbrev=False)
    made.add_argument("--models", nargs="+", choices=MODELS, default=["bert-base", "minilm"])
    made.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    made.add_argument("--only", nargs="+", help="ways whose name has one of these words")
    made.add_argument("--device", default="auto")
    made.add_argument("--threads", type=int, default=max(1, (os.cpu_count() or 2) // 2))
    made.add_argument("--batch", type=int, default=64)
    made.add_argument("--length", type=int, default=32)
    made.add_argument("--steps", type=int, help="timed (default: 2 on a CPU, 320 on an accelerator)")
    made.add_argument("--warm-up", type=int, help="steps not timed (default: 1 on a CPU, 32 on an accelerator)")
    made.add_argument("--evaluated", type=float, help="share of STS-B's pairs (default: 0.04 on a CPU, 1)")
    made.add_argument("--shared", type=Path, default=shared_folder(), help="shared data (default: %(default)s)")
    made.add_argument("--json", type=Path)
    arguments = made.parse_args()
    cpu = str(pick_device(arguments.device)) == "cpu"
    for name, values in {"steps": (2, 320), "warm_up": (1, 32), "evaluated": (0.04, 1.0)}.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, values[0] if cpu else values[1])
    return arguments


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
