"""sts_aggregation and schedule: correlations, alignment and uniformity, and which step reads what."""

import math
import re

import numpy as np
import torch

from model import geometry, sts
from model.batches import plan
from model.errors import ModelError
from model.golden.measure import TOLERANCES, Check, deviation, mismatches
from model.golden.vectors import Case

_STEPS = re.compile(r"kind_first_\d+")


def sts_aggregation(case: Case) -> tuple[list[Check], list[str]]:
    """(checks, names of what was not checked). Computed in float64."""
    vectors = {name: tensor.double().numpy() for name, tensor in case.tensors.items()}
    values = _alignment(case, vectors) if "x" in vectors else _correlations(vectors)
    tolerance = TOLERANCES["sts"][torch.float64]
    checks, open_ = [], [name for name in case.expected if name not in values]
    for name in case.expected.keys() - set(open_):
        ours = torch.tensor(math.nan if values[name] is None else values[name], dtype=torch.float64)
        expected = torch.tensor(case.expected[name], dtype=torch.float64)
        error = deviation(ours, expected) / (expected.abs().item() or 1.0)
        checks.append(Check(case.file, case.name, "sts", torch.float64, name, error, tolerance))
    known = {"x", "y", "gold"} if "x" in vectors else {n for n in vectors if re.fullmatch(r"(system|gold)_\w+", n)}
    return checks, open_ + sorted(vectors.keys() - known)


def _correlations(vectors: dict[str, np.ndarray]) -> dict[str, float | None]:
    subsets = sorted(name.removeprefix("system_") for name in vectors if name.startswith("system_"))
    if not subsets or any(f"gold_{s}" not in vectors for s in subsets):
        raise ModelError("has neither system_i with gold_i nor x, y and gold")
    scores = sts.aggregate({s: (vectors[f"system_{s}"], vectors[f"gold_{s}"]) for s in subsets})
    return {
        f"{correlation}_{what}": value
        for correlation, of in scores.items()
        for what, value in {**of, **{f"subset_{s}": v for s, v in of["subsets"].items()}}.items()
        if what != "subsets"
    }


def _alignment(case: Case, vectors: dict[str, np.ndarray]) -> dict[str, float | None]:
    lacking = [n for n in ("y", "gold") if n not in vectors] + [
        n for n in ("gold_threshold", "alpha", "t", "batch_size") if n not in case.settings
    ]
    if lacking:
        raise ModelError(f"lacks {lacking[0]}")
    x, y, gold = geometry.unit_rows(vectors["x"]), geometry.unit_rows(vectors["y"]), vectors["gold"]
    options = (case.settings["gold_threshold"], case.settings["alpha"], case.settings["t"])
    whole = geometry.of_set(x, y, gold, *options)
    batches = geometry.of_batches(x, y, gold, case.settings["batch_size"], *options)
    return {
        "align_dataset": whole.alignment,
        "uniform_dataset_x_and_y": whole.uniformity,
        "uniform_dataset_x_only": geometry.uniformity(x, case.settings["t"]),
        "align_batch_mean": batches.alignment,
        "uniform_batch_mean": batches.uniformity,
        "spearman_cosine": sts.spearman(sts.cosines(vectors["x"], vectors["y"]), gold),
    }


def schedule(case: Case) -> tuple[list[Check], list[str]]:
    """(checks, names of what was not checked). Whole numbers, exact."""
    settings = case.settings
    lacking = [n for n in ("n_text", "n_pairs", "batch_size") if n not in settings]
    if lacking:
        raise ModelError(f"lacks the setting {lacking[0]}")
    ours = plan(settings["n_text"], settings["n_pairs"], settings["batch_size"])
    kinds = [ours.kind(step) == "pair" for step in range(ours.steps_per_epoch)]
    values = {
        "text_batches_per_pass": ours.text_batches,
        "pair_batches_per_pass": ours.pair_batches,
        "pair_every_K": ours.pair_every,
        "steps_per_epoch": ours.steps_per_epoch,
        "pair_steps_per_epoch": sum(kinds),
        "text_steps_per_epoch": len(kinds) - sum(kinds),
    }
    found = {name: float(values[name] != wanted) for name, wanted in case.expected.items() if name in values}
    for name, wanted in case.tensors.items():
        if _STEPS.fullmatch(name):
            steps = torch.tensor([int(ours.kind(step) == "pair") for step in range(len(wanted))])
            found[name] = mismatches(steps, wanted.long())
    checks = [
        Check(case.file, case.name, "schedule (exact)", torch.float64, name, error, 0.0)
        for name, error in found.items()
    ]
    return checks, sorted((case.expected.keys() | case.tensors.keys()) - found.keys())
