"""Content hashes of what a run starts from, so that a checkpoint is never taken for another run's."""

import hashlib
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

_ITEMS = 65536  # of a list or rows of an array hashed at once


def fingerprint(value: Any) -> str:
    """Equal for equal content: plain values, arrays (memory maps in blocks), lists, dicts and dataclasses of them."""
    digest = hashlib.blake2b(digest_size=16)
    _feed(digest, value)
    return digest.hexdigest()


def of_weights(module: nn.Module) -> str:
    return fingerprint(dict(module.state_dict()))


def _feed(digest, value: Any) -> None:
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        digest.update(f"array {value.dtype} {value.shape};".encode())
        for start in range(0, len(value), _ITEMS) if value.ndim else ():
            digest.update(np.ascontiguousarray(value[start : start + _ITEMS]).data)
        if not value.ndim:
            digest.update(value.tobytes())
    elif isinstance(value, dict):
        for key, item in value.items():
            digest.update(f"{key!r}:".encode())
            _feed(digest, item)
    elif is_dataclass(value):
        _feed(digest, {f.name: getattr(value, f.name) for f in fields(value)})
    elif isinstance(value, list | tuple):
        digest.update(f"{len(value)} items;".encode())
        if any(isinstance(item, np.ndarray | Tensor | dict) for item in value[:1]):
            for item in value:
                _feed(digest, item)
        else:  # texts, numbers and records of them: their printed form says all
            for start in range(0, len(value), _ITEMS):
                digest.update(repr(list(value[start : start + _ITEMS])).encode("utf-8", "surrogatepass"))
    else:
        digest.update(repr(value).encode("utf-8", "surrogatepass"))
    digest.update(b"|")
