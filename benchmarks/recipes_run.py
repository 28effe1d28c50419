"""One recipe trained on the photos' captions, and what its log says."""

import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.trainer_data import SEED, Setting, encoder, recipe
from benchmarks.vision_measure import peak
from model.data import TrainingData
from model.log import write_log
from model.teachers import load_teachers
from model.trainer import train

ENDS = 20  # steps at either end of which a mean is told


@dataclass(frozen=True)
class Outcome:
    """A recipe's run: means of its loss and terms over the first and the last steps, {name: (first, last)}."""

    recipe: str
    steps: int
    terms: dict[str, tuple[float, float]]
    notes: list[str]
    seconds: float
    peak: int
    before: int  # bytes that the process held before training began


def trained(name: str, setting: Setting, data: TrainingData, teachers: Path, steps: int, log: Path) -> Outcome:
    """Trains and writes the log. Raises if a value is not finite or a term is nowhere in the log."""
    began, made = time.perf_counter(), recipe(name, setting, steps)
    student, companions, before = encoder(setting), load_teachers(teachers, made), peak(torch.device(setting.device))
    with tempfile.TemporaryDirectory() as folder:
        run = train(
            student,
            data,
            made,
            seed=SEED,
            work_dir=folder,
            device=setting.device,
            teachers=companions,
            resume=False,
            tell=lambda line: None,
        )
    write_log(run.log, log)
    terms = ends(run.log, ["loss", *(term.name for term in made.terms), "grad_norm"])
    seconds = time.perf_counter() - began
    return Outcome(name, run.steps, terms, run.notes, seconds, peak(torch.device(setting.device)), before)


def ends(log: list[dict], names: list[str], rows: int = ENDS) -> dict[str, tuple[float, float]]:
    """Means of each column over the first and the last `rows` rows that have it. Raises ValueError for a column that no
    row has or that is not finite.
    """
    found = {}
    for name in names:
        values = [row[name] for row in log if row.get(name) is not None]
        if not values or not all(map(math.isfinite, values)):
            raise ValueError(f"{name}: " + ("no row of the log has it" if not values else "not finite"))
        found[name] = float(np.mean(values[:rows])), float(np.mean(values[-rows:]))
    return found
