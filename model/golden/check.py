"""A directory of reference vectors against `model/`."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model.errors import ModelError
from model.golden import contrastive, dalr, kdmcse, numbers, object_phrase, trajectory
from model.golden.measure import DTYPES, TOLERANCES, Check, Computed, mismatches, relative
from model.golden.vectors import Case, Given, Unchecked, read

# kinds of files: what is computed in each precision and compared here, and what compares for itself
COMPUTED: dict[str, Callable[[Given], Computed]] = {
    "simcse_unsup": contrastive.simcse_unsup,
    "simcse_sup": contrastive.simcse_sup,
    "mcse": contrastive.mcse,
    "kdmcse": kdmcse.kdmcse,
    "dalr": dalr.dalr,
    "diffcse_rtd": contrastive.diffcse_rtd,
    "mcseo": object_phrase.mcseo,
}
COMPARED: dict[str, Callable[[Case], tuple[list[Check], list[str]]]] = {
    "sts_aggregation": numbers.sts_aggregation,
    "schedule": numbers.schedule,
    "trajectory": trajectory.trajectory,
}
KINDS = (*COMPUTED, *COMPARED)
# what a case with numbers of another shape or kind than the format says can raise on its way through the losses
_MALFORMED = (ModelError, ValueError, TypeError, KeyError, IndexError, RuntimeError, ArithmeticError, AttributeError)
_GRADIENT = re.compile(r"((?:num)?grad(?:_[^/]+)?)/d_(.+)")


@dataclass(frozen=True)
class Outcome:
    """All comparisons made, and all that was in the directory and could not be compared."""

    checks: list[Check]
    unchecked: list[Unchecked]

    @property
    def failed(self) -> list[Check]:
        return [check for check in self.checks if check.failed]

    @property
    def good(self) -> bool:
        return bool(self.checks) and not self.failed and not self.unchecked


def check_directory(folder: str | Path) -> Outcome:
    """Every case of every pair of files in `folder`. Raises ModelError if it holds no reference vectors."""
    cases, unchecked = read(Path(folder))
    checks: list[Check] = []
    for case in cases:
        found, missed = check_case(case)
        checks += found
        unchecked += missed
    return Outcome(checks, unchecked)


def kind_of(file: str) -> str | None:
    """The kind a file's name says: itself, or what stands before a suffix after `_` or `-`."""
    fitting = [kind for kind in KINDS if file == kind or file.startswith((f"{kind}_", f"{kind}-"))]
    return max(fitting, key=len, default=None)


def check_case(case: Case) -> tuple[list[Check], list[Unchecked]]:
    """All of one case: the comparisons, and what could not be compared."""
    kind = kind_of(case.file)
    if kind is None:
        return [], [Unchecked(case.file, case.name, f"kind {case.file!r} is unknown; known: {', '.join(KINDS)}")]
    try:
        if kind in COMPARED:
            checks, open_ = COMPARED[kind](case)
        else:
            checks, open_ = [], []
            for dtype in DTYPES:
                found, open_ = _compare(case, dtype, kind)
                checks += found
    except _MALFORMED as error:
        why = str(error) if isinstance(error, ModelError) else f"{type(error).__name__}: {error}"
        return [], [Unchecked(case.file, case.name, " ".join(why.split())[:300])]
    if not checks and not open_:
        open_ = ["(the case holds nothing to compare)"]
    return checks, [Unchecked(case.file, case.name, f"nothing here computes {name}") for name in open_]


def _compare(case: Case, dtype: torch.dtype, kind: str) -> tuple[list[Check], list[str]]:
    given = Given(case, dtype, kind)
    computed = COMPUTED[kind](given)
    checks: list[Check] = []

    def add(group: str, name: str, error: float) -> None:
        checks.append(Check(case.file, case.name, group, dtype, name, error, TOLERANCES[group][dtype]))

    open_ = [name for name in case.expected if name not in computed.values]
    for name in case.expected.keys() - set(open_):
        wanted = torch.tensor(case.expected[name], dtype=torch.float64)
        add("losses, logits", name, relative(computed.values[name], wanted))

    wanted_gradients: dict[str, dict[str, str]] = {}  # group -> input -> tensor of the case
    for name, tensor in case.tensors.items():
        if name in computed.matrices:
            ours = computed.matrices[name]
            if tensor.is_floating_point():
                add("losses, logits", name, relative(ours, tensor))
            else:
                add("integers (exact)", name, mismatches(ours, tensor.long()))
        elif name in computed.alone:
            scalar, of = computed.alone[name]
            add("gradients", name, relative(_gradient(scalar, given.leaves[of]), tensor))
        elif (found := _GRADIENT.fullmatch(name)) and found[1] in computed.gradients:
            wanted_gradients.setdefault(found[1], {})[computed.aliases.get(found[2], found[2])] = name
        elif name not in given.taken:
            open_.append(name)

    for group, wanted in wanted_gradients.items():
        scalar = computed.values[computed.gradients[group]]
        tolerance = "numeric gradients" if group.startswith("numgrad") else "gradients"
        for name, leaf in given.leaves.items():
            if name in wanted:
                add(tolerance, wanted[name], relative(_gradient(scalar, leaf), case.tensors[wanted[name]]))
            elif group not in computed.partial:
                gradient = _gradient(scalar, leaf)
                add(tolerance, f"{group}/d_{name} (none)", gradient.abs().max().item() if gradient.numel() else 0.0)
        open_ += [key for name, key in wanted.items() if name not in given.leaves]
    return checks, open_


def _gradient(scalar: Tensor, leaf: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(scalar, leaf, retain_graph=True, allow_unused=True)
    return torch.zeros_like(leaf) if gradient is None else gradient
