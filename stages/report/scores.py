"""What the grid's runs left behind: training logs, what they were trained on, STS scores."""

import csv
import json
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import InputError

TASKS = ("STS12", "STS13", "STS14", "STS15", "STS16", "STS-B", "SICK-R")
FEW_SEEDS = 3


@dataclass(frozen=True)
class Log:
    """A training log. `losses`: batch kind -> (step, loss); `dev`: (step, Spearman x 100)."""

    recipe: str
    seed: int
    losses: dict[str, list[tuple[int, float]]]
    dev: list[tuple[int, float]]


@dataclass(frozen=True)
class Trained:
    """What a run was trained on and how far; `best_step` and `dev` (Spearman x 100) are None without a dev set."""

    recipe: str
    seed: int
    steps: int
    best_step: int | None
    dev: float | None
    sentences: int
    captions: int
    pairs: int
    random_vision: bool
    notes: list[str]


@dataclass(frozen=True)
class Scored:
    """STS of a run. `values`: the seven tasks and their average, in percent, None where missing or undefined.

    `pairs`: sentence pairs by task, for the tasks that are there; `model`: the content hash of the scored model.
    """

    recipe: str
    seed: int
    values: list[float | None]
    pairs: dict[str, int]
    missing: list[str]
    model: str | None


@dataclass(frozen=True)
class Row:
    """A row of the STS table; one over several seeds holds means, and their sample standard deviations in `spreads`."""

    recipe: str
    seed: str
    random_vision: bool
    values: list[float | None]
    spreads: list[float | None] | None = None


def order(recipes: list[str]) -> list[str]:
    """The grid's order with `untrained` first, what every other row is measured against."""
    return sorted(recipes, key=lambda recipe: recipe != "untrained")


def read_log(plots: Path, recipe: str, seed: int) -> Log:
    """The training log of a run.

    Raises:
        InputError: it is missing (training has not run), or a line of it is not what the trainer writes.
    """
    path = plots / f"{recipe}-{seed}.csv"

    def read() -> Log:
        losses: dict[str, list[tuple[int, float]]] = {}
        dev = []
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if lacking := {"step", "kind", "loss", "dev"} - set(reader.fieldnames or ()):
                raise ValueError(f"no column {', '.join(sorted(lacking))}")
            for row in reader:
                if row["loss"]:
                    losses.setdefault(row["kind"] or "all", []).append((int(row["step"]), _finite(row["loss"])))
                if row["dev"]:
                    dev.append((int(row["step"]), 100 * _finite(row["dev"])))
        return Log(recipe, seed, dict(sorted(losses.items(), reverse=True)), dev)

    return _told(path, "train", recipe, seed, read)


def read_trained(metrics: Path, recipe: str, seed: int) -> Trained:
    """The metrics of a run's training; raises InputError as `read_log` does."""
    path = metrics / "train" / f"{recipe}-{seed}.json"

    def read() -> Trained:
        body = _json(path)
        return Trained(
            recipe,
            seed,
            int(body["steps"]),
            body.get("best_step"),
            body.get("sts_b_dev"),
            *(int(body[key]) for key in ("sentences", "captions", "pairs")),
            bool(body["random_vision"]),
            [str(note) for note in body.get("notes", ())],
        )

    return _told(path, "train", recipe, seed, read)


def read_scored(metrics: Path, recipe: str, seed: int) -> Scored:
    """The STS scores of a run.

    Raises:
        InputError: they are missing (evaluation has not run) or not what the evaluate stage writes.
    """
    path = metrics / "evaluate" / f"{recipe}-{seed}.json"

    def read() -> Scored:
        body = _json(path)
        tasks = {name: body["tasks"].get(name) or {} for name in TASKS}
        values = [None if (value := task.get("all")) is None else 100 * float(value) for task in tasks.values()]
        # Unlike the tasks' own values, which are fractions, the average is of percents as printed.
        average = None if body["average"] is None else float(body["average"])
        pairs = {name: int(task["pairs"]) for name, task in tasks.items() if "pairs" in task}
        missing = [name for name in TASKS if "all" not in tasks[name]]
        return Scored(recipe, seed, [*values, average], pairs, missing, body.get("model"))

    return _told(path, "evaluate", recipe, seed, read)


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _told(path: Path, stage: str, recipe: str, seed: int, read: Callable[[], Any]) -> Any:
    done = {"train": "trained", "evaluate": "evaluated"}[stage]
    again = f"run `dvc repro {stage}@{recipe}-{seed}`"
    try:
        return read()
    except FileNotFoundError:
        raise InputError(f"{path}: missing, {recipe} with seed {seed} has not been {done}; {again}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise InputError(f"{path}: not what {stage} writes ({type(error).__name__}: {error}); {again}") from None


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} where a number should be")
    return value


def table(runs: list[tuple[Trained, Scored]]) -> list[Row]:
    """The STS rows, run by run, and behind those of a recipe with several seeds their mean and spread."""
    out = []
    for recipe in dict.fromkeys(trained.recipe for trained, _ in runs):
        own = [Row(recipe, str(s.seed), t.random_vision, s.values) for t, s in runs if t.recipe == recipe]
        out += own
        if len(own) > 1:
            columns = list(zip(*(row.values for row in own), strict=True))
            means, spreads = (
                [None if None in column else of(column) for column in columns]
                for of in (statistics.fmean, statistics.stdev)
            )
            out.append(Row(recipe, f"{len(own)} seeds", own[0].random_vision, means, spreads))
    return out
