"""The log of a run: one row a step, fetched from the device a few steps at a time, and its CSV."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

FIRST = ("step", "kind", "loss")
LAST = ("lr", "grad_norm", "dev")


@dataclass
class Pending:
    """A row whose measured values are still on the device: `values` [k] belongs to `names`."""

    row: dict
    names: tuple[str, ...]
    values: Tensor


def fetch(pending: Iterable[Pending]) -> list[dict]:
    """The rows with their values, in one copy from the device."""
    pending = list(pending)
    if not pending:
        return []
    numbers = iter(torch.cat([p.values for p in pending]).tolist())
    return [p.row | {name: next(numbers) for name in p.names} for p in pending]


def columns(rows: Iterable[dict]) -> list[str]:
    """Columns of these rows: step, kind, loss; each term; each statistic, by its term's name; lr, grad_norm, dev."""
    found = dict.fromkeys(name for row in rows for name in row if name not in (*FIRST, *LAST))
    return [*FIRST, *(n for n in found if "." not in n), *sorted(n for n in found if "." in n), *LAST]


def write_log(rows: list[dict], path: str | Path) -> None:
    """Log rows as CSV, nine significant digits; empty where a value does not exist. No times in it."""
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns(rows), restval="", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.9g}" if isinstance(v, float) else v for k, v in row.items()})
