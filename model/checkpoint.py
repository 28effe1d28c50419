"""The state of a run on disk: whole or not there, and refused when damaged.

`last.safetensors` holds everything a run goes on from: weights and optimizer, streams, random states, the step.
`best-STEP.safetensors` holds the weights with the best dev score. `log.jsonl` holds the log rows; `last` says how many
of them are its own. Each file is written beside its place, brought to the disk and renamed, the best before the last
that names it: whenever the process is killed, the previous last is there, with the best and the rows it speaks of.
"""

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from model.errors import ModelError

LAST = "last.safetensors"
LOG = "log.jsonl"
_WEIGHTS = "network."


def save(path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Writes tensors and a JSON-able record as one safetensors file, atomically and to the disk."""
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # one entry: several would be written in an order that differs from run to run
    metadata = {"record": json.dumps({"checksum": _checksum(held), **record})}
    temporary = path.with_name(f".{path.name}.tmp")
    save_file(held, temporary, metadata=metadata)
    _to_disk(temporary)
    temporary.replace(path)
    _to_disk(path.parent)


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, record) of a file made by `save`. Raises ModelError in one line if it is damaged or something else."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        record = json.loads(metadata["record"])
        whole = record.pop("checksum") == _checksum(tensors)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{path}: not a checkpoint, or damaged ({reason}); {_CURE}") from error
    if not whole:
        raise ModelError(f"{path}: damaged, its content is not what was written; {_CURE}")
    return tensors, record


_CURE = "delete it to train from the start"


def weights(network: nn.Module) -> dict[str, Tensor]:
    return {_WEIGHTS + name: tensor for name, tensor in network.state_dict().items()}


def set_weights(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Loads the weights among `tensors`. Raises ModelError if they are another model's."""
    own = {name.removeprefix(_WEIGHTS): t for name, t in tensors.items() if name.startswith(_WEIGHTS)}
    try:
        network.load_state_dict(own)
    except RuntimeError as error:
        reason = " ".join(line.strip() for line in str(error).splitlines()[:2])
        raise ModelError(f"{path}: not a checkpoint of this model ({reason[:200]}); {_CURE}") from error


def load_weights(network: nn.Module, path: Path) -> None:
    """Loads encoder and heads from a checkpoint, best or last. Raises ModelError if damaged or another model's."""
    set_weights(network, load(path)[0], path)


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors by name, plain numbers by name) of the optimizer's state; settings are the recipe's."""
    tensors, numbers = {}, {}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            (tensors if isinstance(value, Tensor) else numbers)[f"optimizer.{index}.{key}"] = value
    return tensors, numbers


def set_optimizer_state(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]
) -> None:
    state: dict[int, dict[str, Any]] = {}
    for name, value in {**tensors, **numbers}.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def append_log(path: Path, rows: list[dict], end: int) -> int:
    """Writes rows after the first `end` bytes, which are the rows already known to be there; returns the new end."""
    with path.open("r+b" if end else "wb") as file:
        file.seek(end)
        file.truncate()
        file.write(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
        end = file.tell()
        file.flush()
        os.fsync(file.fileno())
    return end


def read_log(path: Path, count: int) -> tuple[list[dict], int]:
    """(the first `count` rows, where they end in bytes). Raises ModelError if they are not there."""
    try:
        lines = path.read_bytes().split(b"\n")[:count] if count else []
        rows = [json.loads(line) for line in lines]
        if len(rows) != count:
            raise ValueError(f"{len(rows)} rows")
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: {count} log rows of the checkpoint are not there ({error}); {_CURE}") from error
    return rows, sum(len(line) + 1 for line in lines)


def best_path(folder: Path, step: int) -> Path:
    return folder / f"best-{step}.safetensors"


def clear_best(folder: Path, keep: Path | None) -> None:
    """Deletes the best checkpoints but `keep`."""
    for path in folder.glob("best-*.safetensors"):
        if path != keep:
            path.unlink()


def clear(folder: Path) -> None:
    """Deletes the state of a run, the last checkpoint first."""
    (folder / LAST).unlink(missing_ok=True)
    (folder / LOG).unlink(missing_ok=True)
    clear_best(folder, keep=None)
    for path in folder.glob(".*.safetensors.tmp"):
        path.unlink()


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    value = 0
    for name in sorted(tensors):
        value = zlib.crc32(name.encode(), value)
        value = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy(), value)
    return value


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
