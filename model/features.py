"""Where frozen features lie while a run reads them."""

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.data import TrainingData

_SHARE = 4  # of the free memory of an accelerator, one part may be taken


def at_hand(data: TrainingData, device: torch.device) -> TrainingData:
    """The data with its features on the accelerator, where they take a quarter of its free memory at most; otherwise
    as it is, memory maps included, of which each batch reads its rows.
    """
    if device.type != "cuda":
        return data
    free, _ = torch.cuda.mem_get_info(device)
    return on_device(data, device, free // _SHARE)


def on_device(data: TrainingData, device: torch.device, budget: int) -> TrainingData:
    """The data with its arrays as tensors on `device`, each in its type, if they take `budget` bytes at most."""
    if sum(array.nbytes for array in _arrays(data)) > budget:
        return data
    moved = {f.name: _moved(getattr(data, f.name), device) for f in fields(data)}
    return replace(data, **{name: value for name, value in moved.items() if value is not getattr(data, name)})


def _arrays(data: TrainingData) -> Iterator[np.ndarray]:
    for field in fields(data):
        value = getattr(data, field.name)
        for item in value.values() if isinstance(value, dict) else (value,):
            if isinstance(item, np.ndarray):
                yield item


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, np.ndarray):
        return _tensor(value, device)
    if isinstance(value, dict) and any(isinstance(item, np.ndarray) for item in value.values()):
        return {name: _tensor(item, device) for name, item in value.items()}
    return value


def _tensor(array: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.array(array)).to(device)  # a copy: memory maps are read-only
