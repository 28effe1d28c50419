"""`python -m stages.evaluate compare RUN... [--out DIR] [--baseline RECIPE] [--task ...]`."""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from pipeline.errors import ParamsError, StageError, tell
from pipeline.files import write_text
from stages.evaluate.compare.claims import LEVEL, UNTRAINED, Comparison, compare
from stages.evaluate.compare.pages import as_csv, markdown, page, print_page
from stages.evaluate.compare.plot import svg
from stages.evaluate.compare.runs import Arm, Board, arms_of, board

RESAMPLES = 2000
_WIDTH = 150  # columns where the output is no terminal


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command; a mistake ends it with one line on stderr and its exit code."""
    args = _parser().parse_intermixed_args(arguments)  # runs may stand before and after options
    try:
        _run(args)
    except StageError as error:
        tell(f"compare: {error}")
        sys.exit(error.code)


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m stages.evaluate compare",
        description="What evaluated runs say of their recipes: means over seeds, differences with intervals and p.",
        allow_abbrev=False,
    )
    made.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="folder of scores, or metrics file, of a run")
    made.add_argument(
        "--arm",
        action="append",
        default=[],
        type=_arm,
        metavar="NAME=RUN,RUN",
        help="runs that are an arm under this name, whatever recipe they tell; may be given several times",
    )
    made.add_argument(
        "--baseline", help=f"the arm that the others are compared with (default: {UNTRAINED}, or the first)"
    )
    made.add_argument("--task", action="append", default=[], type=_names, help="these tasks alone (STS12,STS-B)")
    made.add_argument("--out", type=Path, default=Path("compare"), help="folder of the results (default: %(default)s)")
    made.add_argument(
        "--resamples", type=_positive, help=f"draws of the bootstrap (default: {RESAMPLES}, more for very many tests)"
    )
    made.add_argument("--bootstrap-seed", type=_natural, default=0, help="its seed (default: %(default)s)")
    return made


def _arm(text: str) -> tuple[str, list[Path]]:
    name, _, runs = text.partition("=")
    paths = [Path(run) for run in runs.split(",") if run]
    if not (name and paths):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=RUN,RUN")
    return name, paths


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def _run(args: argparse.Namespace) -> None:
    arms = arms_of(args.runs, args.arm)
    if not arms:
        raise ParamsError("no run given; name folders of scores: data/<dataset>/scores/<recipe>-<seed> ...")
    baseline = _baseline(arms, args.baseline)
    scores = board(arms, [name for names in args.task for name in names])
    resamples = _resamples(args.resamples, len(scores.gold) * (len(arms) - 1))
    comparisons = compare(scores, baseline, resamples, args.bootstrap_seed)
    told = page(scores, comparisons)
    write(args.out, scores, comparisons, told, _how(resamples, args.bootstrap_seed))
    print_page(told, Console(width=None if sys.stdout.isatty() else _WIDTH))
    tell(f"compare: {sum(len(arm.runs) for arm in arms)} runs in {len(arms)} arms -> {args.out}")


def _baseline(arms: Sequence[Arm], wanted: str | None) -> str:
    names = [arm.name for arm in arms]
    if wanted is None:
        return UNTRAINED if UNTRAINED in names else names[0]
    if wanted not in names:
        raise ParamsError(f"--baseline {wanted}: no such arm; there are {', '.join(names)}")
    return wanted


def _resamples(wanted: int | None, tests: int) -> int:
    """How many draws: a p is at best 2 / (draws + 1), and Holm multiplies it by the number of tests."""
    enough = math.ceil(4 * tests / LEVEL)
    if wanted is None:
        return max(RESAMPLES, enough)
    if 2 * tests / (wanted + 1) >= LEVEL:
        raise ParamsError(
            f"--resamples {wanted}: too few for {tests} tests, none could ever show a difference; give {enough} or more"
        )
    return wanted


def _how(resamples: int, seed: int) -> str:
    return (
        f"{resamples:,} draws, bootstrap seed {seed}. Intervals are of one test each, at 95 %; the "
        "correction is in the p values. Avg is the mean of the seven tasks, not rounded before."
    )


def write(out: Path, scores: Board, comparisons: Sequence[Comparison], told: list, how: str) -> None:
    """compare.md, compare.csv and, if there is a comparison, compare.svg."""
    picture = "compare.svg" if comparisons else None
    if picture:
        write_text(out / picture, svg(comparisons))
    else:
        (out / "compare.svg").unlink(missing_ok=True)
    runs = [f"{arm.name}: {run.path.as_posix()}" for arm in scores.arms for run in arm.runs]
    write_text(out / "compare.md", markdown(told, runs, how, picture))
    write_text(out / "compare.csv", as_csv(scores, comparisons))
