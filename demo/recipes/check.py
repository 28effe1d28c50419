"""Measures every tiny checkpoint on scenes nobody has seen: `python -m demo.recipes.check [--seed N] [--scenes N]`.

A checkpoint NAME is measured by `figures(folder, seed, scenes) -> {name: number}` of demo/recipes/figures_NAME.py (or
of NAME.py), which loads the folder as the pipeline does and draws its scenes with `demo.recipes.heldout.check_scene`.
A parser is also measured on the treebank, where `--ewt PATH` gives it, by `ewt_figures(folder, treebank)` beside it.

Ends with 0 if every aim of demo/recipes/aims.py that was measured is met, with 1 if not.
"""

import argparse
import importlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from demo.recipes.aims import AIMS, Aim, rows
from demo.recipes.cards import Figures, read_figures
from demo.recipes.heldout import OWN_SEEDS, RECIPE_SEED, WORLD_SEED
from pipeline.errors import InputError, ParamsError, StageError, tell

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
PACKAGE = "demo.recipes"
SEED, SCENES = 77, 300
_LINE = "{:<15} {:<31} {:>9} {:>8}  {:<12} {:>8}"


@dataclass(frozen=True)
class Checkpoint:
    """Where it lies (or should), and the figures that lie beside its weights."""

    folder: Path
    shipped: Figures | None


@dataclass(frozen=True)
class Row:
    """A line of the table. `value` is None where nothing was measured, and `why` says the reason; `excused` if that
    is no failure."""

    aim: Aim
    value: float | None
    shipped: float | None
    why: str = ""
    excused: bool = False

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "not measured"
        if not self.aim.bounded:
            return "-"
        return "met" if self.aim.met(self.value) else "NOT MET"

    @property
    def failed(self) -> bool:
        if self.value is None:
            return self.aim.bounded and not self.excused
        return not self.aim.met(self.value)

    def __str__(self) -> str:
        measured, shipped = ("-" if v is None else f"{v:.3f}" for v in (self.value, self.shipped))
        cells = (self.aim.checkpoint, self.aim.label, measured, self.aim.bound, self.verdict, shipped)
        return _LINE.format(*cells) + (f"  {self.why}" if self.why else "")


def measuring(name: str) -> ModuleType | None:
    """The module whose `figures` measures checkpoint `name`, if there is one."""
    for module in (f"{PACKAGE}.figures_{name}", f"{PACKAGE}.{name}"):
        if find_spec(module) is not None and hasattr(found := importlib.import_module(module), "figures"):
            return found
    return None


def checkpoints(root: Path) -> dict[str, Checkpoint]:
    """By name, those that have an aim first, whether they are there or not; then the other folders. A folder within a
    folder goes by the name of its recipe. Figures that cannot be read are told and left out."""
    asked = {aim.checkpoint: root / aim.checkpoint for aim in AIMS if aim.bounded}
    others = {path.name: path for path in sorted(root.glob("*")) if path.is_dir()}
    found = {name: Checkpoint(folder, _shipped(folder)) for name, folder in (others | asked).items()}
    for path in sorted(root.glob("*/*/figures.json")):
        if (shipped := _shipped(path.parent)) is not None:
            found[shipped.recipe] = Checkpoint(path.parent, shipped)
    return {name: found[name] for name in dict.fromkeys([*asked, *sorted(found)])}


def _shipped(folder: Path) -> Figures | None:
    try:
        return read_figures(folder)
    except InputError as error:
        tell(str(error))
        return None


def chosen(every: dict[str, Checkpoint], only: list[str] | None) -> dict[str, Checkpoint]:
    """Those of `only`, or those that have an aim or that something measures.

    Raises:
        ParamsError: `only` names something else.
    """
    asked = {aim.checkpoint for aim in AIMS if aim.bounded}
    there = [name for name in every if name in asked or measuring(name) is not None]
    if unknown := sorted(set(only or ()) - set(there)):
        raise ParamsError(f"--only {' '.join(unknown)}: no such checkpoint; there are {', '.join(there)}")
    return {name: every[name] for name in there if not only or name in only}


def refuse_used(seed: int, every: dict[str, Checkpoint]) -> None:
    """Raises ParamsError for a seed whose scenes or text something was made, trained or tuned on."""
    used = {WORLD_SEED: "the demo world", RECIPE_SEED: "the vision recipes"}
    used |= dict.fromkeys(OWN_SEEDS, "the recipes' own figures")
    for name, checkpoint in every.items():
        if checkpoint.shipped is not None:
            used.setdefault(checkpoint.shipped.seed, f"the recipe of {name}")
            used.setdefault(checkpoint.shipped.figures_seed, f"the figures of {name}")
    if seed in used:
        raise ParamsError(f"--seed {seed}: used by {used[seed]}; take one that nothing used, such as {SEED}")


def measure(name: str, checkpoint: Checkpoint, seed: int, scenes: int, ewt: Path | None) -> list[Row]:
    """The rows of one checkpoint."""
    before = checkpoint.shipped.figures if checkpoint.shipped else {}
    module = measuring(name)
    try:
        if module is None:
            raise InputError(f"no {PACKAGE}.figures_{name} measures it")
        if not checkpoint.folder.is_dir():
            raise InputError(f"{checkpoint.folder} is not there: python -m {PACKAGE}.{name}")
        found = dict(module.figures(checkpoint.folder, seed, scenes))
        if ewt is not None and hasattr(module, "ewt_figures"):
            found |= module.ewt_figures(checkpoint.folder, ewt)
    except (StageError, OSError) as error:  # OSError: how transformers tells of a folder without its weights
        why = str(error).splitlines()[0]
        tell(f"{name}: {why}")
        return [Row(aim, None, aim.value(before), why) for aim in rows(name, {}) if aim.bounded]
    return [_row(aim, found, before, ewt) for aim in rows(name, found)]


def _row(aim: Aim, found: dict[str, float], before: dict[str, float], ewt: Path | None) -> Row:
    value, shipped = aim.value(found), aim.value(before)
    if value is not None:
        return Row(aim, value, shipped)
    if aim.ewt and ewt is None:
        return Row(aim, None, shipped, "give --ewt PATH", excused=True)
    return Row(aim, None, shipped, f"the recipe's figures hold no {aim.label}")


def measured(args: argparse.Namespace) -> Iterator[Row]:
    """Rows as they come, each checkpoint's when it is measured; says on stderr what is being done."""
    every = checkpoints(args.checkpoints)
    refuse_used(args.seed, every)
    wanted = chosen(every, args.only)
    for number, (name, checkpoint) in enumerate(wanted.items(), 1):
        began = time.monotonic()
        tell(f"[{number}/{len(wanted)}] {name}: {args.scenes} scenes of seed {args.seed} ...")
        yield from measure(name, checkpoint, args.seed, args.scenes, args.ewt)
        tell(f"[{number}/{len(wanted)}] {name}: {time.monotonic() - began:.0f} s")


def verdict(found: list[Row]) -> tuple[str, int]:
    """The last line and the exit code."""
    asked = [row for row in found if row.aim.bounded]
    failed = [row for row in asked if row.failed]
    excused = sum(row.value is None and row.excused for row in asked)
    line = f"{len(asked) - len(failed) - excused} of {len(asked)} aims met"
    if excused:
        line += f", {excused} not measured"
    if failed:
        line += "; NOT met: " + ", ".join(f"{row.aim.checkpoint} {row.aim.label}" for row in failed)
    return line, 1 if failed else 0


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Raises ParamsError for numbers out of range, InputError for a treebank that is not there."""
    parser = argparse.ArgumentParser(prog="python -m demo.recipes.check", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=SEED, help=f"of the scenes; one that nothing used (default {SEED})")
    parser.add_argument("--scenes", type=int, default=SCENES, help=f"how many (default {SCENES})")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these checkpoints alone")
    parser.add_argument("--ewt", type=Path, help="folder of UD English EWT: measures the parser on its dev part too")
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS, help="where they lie (default: those shipped)")
    args = parser.parse_args(given)
    if args.seed < 0 or args.scenes < 1:
        raise ParamsError(f"--seed {args.seed} --scenes {args.scenes}: a seed from 0 and at least one scene, please")
    if args.ewt is not None and not args.ewt.exists():
        raise InputError(f"--ewt {args.ewt}: nothing is there; give the folder of UD_English-EWT")
    return args


def main(given: list[str] | None = None) -> int:
    try:
        args = arguments(given)
        found: list[Row] = []
        for row in measured(args):
            if not found:
                print(_LINE.format("checkpoint", "figure", "measured", "aim", "", "shipped"))
            print(row, flush=True)
            found.append(row)
    except StageError as error:
        tell(str(error))
        return error.code
    line, code = verdict(found)
    print(line)
    return code


if __name__ == "__main__":
    sys.exit(main())
