"""Reading a directory of reference vectors into cases."""

import json
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from model.errors import ModelError

_MISSING = object()
# what the format's own page takes where a case does not say; kdmcse has no usual margin
_TAU = dict.fromkeys(("tau", "tau_vl", "tau_o", "tau_teacher_list"), 0.05)
_USUAL: dict[str, dict[str, Any]] = {
    "diffcse_rtd": {"lambda_rtd": 0.005, "cls_id": 101},
    "mcseo": {"iou_threshold": 0.5},
    "dalr": {
        "alpha_first_teacher": 0.33,
        "gamma": 1.0,
        "margin_intra": 0.18,
        "margin_adaptive": 0.18,
        "kl_student_divisor": 0.45,
        "kl_teacher_divisor": 0.5,
        "cons_margin": 0.2,
        "listmle_eps": 1e-7,
        "eps": 1e-7,
        "weights": {"info": 1.0, "cross": 0.1, "intra": 0.2, "cons_inside_cross": 0.01},
        "paper_lambda": 0.1,
        "paper_mu": 0.2,
    },
    "trajectory": {
        "lambda_": 0.05,
        "betas": (0.9, 0.999),
        "eps": 1e-6,
        "weight_decay": 0.0,
        "clip_grad_norm": 1.0,
    },
}


@dataclass(frozen=True)
class Case:
    """One case of one file. `tensors`: its own, by name without the case's; `shared`: those of its inputs group."""

    file: str
    name: str
    settings: dict[str, Any]
    expected: dict[str, float]
    tensors: dict[str, Tensor]
    shared: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Unchecked:
    """Something in the directory that was not checked, and why: one line."""

    file: str
    case: str
    why: str


class Given:
    """The inputs of a case in one precision. What is taken is remembered: the rest of its tensors must be checked.

    `leaves`: inputs that gradients are asked of. A tensor or setting that is not there is a ModelError.
    """

    def __init__(self, case: Case, dtype: torch.dtype, kind: str):
        self.case, self.dtype, self.usual = case, dtype, _TAU | _USUAL.get(kind, {})
        self.leaves: dict[str, Tensor] = {}
        self.taken: set[str] = set()

    def has(self, name: str) -> bool:
        return name in self.case.tensors or name in self.case.shared

    def fixed(self, name: str) -> Tensor:
        """A tensor as it is, floating-point ones in this precision."""
        if not self.has(name):
            raise ModelError(f"lacks the tensor {name}")
        self.taken.add(name)
        found = self.case.tensors.get(name, self.case.shared.get(name))
        return found.to(self.dtype) if found.is_floating_point() else found.long()

    def leaf(self, name: str) -> Tensor:
        """The same, as an input that gradients are asked of."""
        if name not in self.leaves:
            self.leaves[name] = self.fixed(name).clone().requires_grad_()
        return self.leaves[name]

    def setting(self, name: str) -> Any:
        """A hyper-parameter of the case, or what the format takes where a case does not say."""
        found = self.case.settings.get(name, self.usual.get(name, _MISSING))
        if found is _MISSING:
            raise ModelError(f"lacks the setting {name}")
        return found


def read(folder: Path) -> tuple[list[Case], list[Unchecked]]:
    """The cases of all pairs NAME.json + NAME.safetensors of `folder`, and what could not be read.

    Raises ModelError if `folder` is no folder or holds no such pair at all.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder; give one with pairs NAME.json and NAME.safetensors")
    names = sorted({p.stem for p in folder.iterdir() if p.suffix in (".json", ".safetensors") and p.is_file()})
    cases: list[Case] = []
    unread: list[Unchecked] = []
    for name in names:
        try:
            found = list(_read_pair(folder, name))
        except ModelError as error:
            unread.append(Unchecked(name, "-", str(error)))
            continue
        cases += [f for f in found if isinstance(f, Case)]
        unread += [f for f in found if isinstance(f, Unchecked)]
    if not cases:
        why = f": {unread[0].file}: {unread[0].why}" if unread else ""
        raise ModelError(f"{folder} holds no reference vectors (pairs NAME.json and NAME.safetensors with cases){why}")
    return cases, unread


def _read_pair(folder: Path, name: str) -> Iterator[Case | Unchecked]:
    for suffix in (".json", ".safetensors"):
        if not (folder / f"{name}{suffix}").is_file():
            raise ModelError(f"there is no {name}{suffix} beside it")
    try:
        table = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{name}.json is no JSON ({error})") from error
    try:
        tensors = load_file(folder / f"{name}.safetensors")
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{name}.safetensors cannot be read ({error})") from error
    cases = table.get("cases") if isinstance(table, dict) else None
    if not isinstance(cases, dict) or not cases:
        raise ModelError(f"{name}.json has no table of cases")
    groups = {e["settings"]["inputs_group"] for e in cases.values() if _group_of(e)}
    owners = {key: _owner(key, cases.keys() | groups) for key in tensors}
    for case, entry in cases.items():
        entry = entry if isinstance(entry, dict) else {}
        settings, expected = entry.get("settings"), entry.get("expected")
        if not isinstance(settings, dict) or not isinstance(expected, dict):
            yield Unchecked(name, case, "has no settings and expected values")
            continue
        wrong = [k for k, v in expected.items() if type(v) not in (int, float)]
        if wrong:
            yield Unchecked(name, case, f"the expected value {wrong[0]} is no number")
            continue
        shared = _of(tensors, owners, _group_of(entry)) if _group_of(entry) else {}
        yield Case(name, case, settings, expected, _of(tensors, owners, case), shared)
    lost = sorted(key for key, owner in owners.items() if owner is None)
    if lost:
        yield Unchecked(name, "-", f"{len(lost)} tensors belong to no case, the first {lost[0]}")


def _group_of(entry: Any) -> str | None:
    settings = entry.get("settings") if isinstance(entry, dict) else None
    group = settings.get("inputs_group") if isinstance(settings, dict) else None
    return group if isinstance(group, str) else None


def _owner(key: str, names: Set[str]) -> str | None:
    """The case or inputs group that a tensor belongs to: the longest name that its key begins with."""
    return max((name for name in names if key.startswith(f"{name}/")), key=len, default=None)


def _of(tensors: dict[str, Tensor], owners: dict[str, str | None], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}/"): tensor for key, tensor in tensors.items() if owners[key] == name}
