"""How far a value is from the reference, and how far it may be."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

# relative to the largest absolute entry of the expected tensor, unless said otherwise; None = not to be checked
TOLERANCES: dict[str, dict[torch.dtype, float | None]] = {
    "losses, logits": {torch.float64: 1e-10, torch.float32: 1e-5},
    "gradients": {torch.float64: 1e-9, torch.float32: 5e-5},
    "numeric gradients": {torch.float64: 1e-7, torch.float32: 1e-5},
    "trajectory losses (absolute)": {torch.float64: 1e-8, torch.float32: 1e-4},
    "trajectory norms": {torch.float64: 1e-8, torch.float32: 1e-3},
    "norms of key biases": {torch.float64: 1e-8, torch.float32: None},
    "sts": {torch.float64: 1e-10, torch.float32: None},
    "schedule (exact)": {torch.float64: 0.0, torch.float32: None},
    "integers (exact)": {torch.float64: 0.0, torch.float32: 0.0},
}
DTYPES = (torch.float64, torch.float32)
_MASKED = -1e4  # a logit below this stands for an entry that has left the denominator


@dataclass(frozen=True)
class Check:
    """One comparison: `name` of the class `group` of tolerances, in `dtype`. It fails when error > tolerance."""

    file: str
    case: str
    group: str
    dtype: torch.dtype
    name: str
    error: float
    tolerance: float

    @property
    def failed(self) -> bool:
        return not self.error <= self.tolerance


@dataclass(frozen=True)
class Computed:
    """What our code returns for a case, in one precision.

    values: scalars by the name of the expected value; matrices: by the name of the tensor; gradients: group of
    gradients ("grad_intra") -> the name of the scalar it belongs to; alone: tensor -> (scalar, name of the input) for
    gradients outside a group. `aliases`: input as the gradients call it -> as the tensors call it. `partial`: groups
    that list some of their gradients only; elsewhere a missing one means that the scalar does not depend on the input.
    """

    values: dict[str, Tensor] = field(default_factory=dict)
    matrices: dict[str, Tensor] = field(default_factory=dict)
    gradients: dict[str, str] = field(default_factory=dict)
    alone: dict[str, tuple[Tensor, str]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    partial: tuple[str, ...] = ()


def relative(ours: Tensor, expected: Tensor) -> float:
    """Largest deviation over the largest absolute expected entry (over 1 if all are zero); inf where a shape or a NaN
    differs. Masked logits must be masked in both and are compared no further.
    """
    if ours.shape != expected.shape:
        return math.inf
    ours, expected = ours.detach().double(), expected.double()
    gone = expected < _MASKED
    if not torch.equal(gone, ours < _MASKED):
        return math.inf
    ours, expected = ours.masked_fill(gone, 0.0), expected.masked_fill(gone, 0.0)
    if expected.numel() == 0:
        return 0.0
    return deviation(ours, expected) / (expected.abs().nan_to_num().max().item() or 1.0)


def deviation(ours: Tensor, expected: Tensor) -> float:
    """Largest absolute deviation; NaN equals NaN, and nothing else."""
    if ours.shape != expected.shape:
        return math.inf
    ours, expected = ours.detach().double(), expected.double()
    both = ours.isnan() & expected.isnan()
    difference = torch.where(both | (ours == expected), 0.0, (ours - expected).abs())
    return difference.nan_to_num(nan=math.inf, posinf=math.inf).max().item() if difference.numel() else 0.0


def mismatches(ours: Tensor, expected: Tensor) -> float:
    """How many entries differ; inf if the shape does."""
    if ours.shape != expected.shape:
        return math.inf
    return float((ours.cpu() != expected.cpu()).sum())
