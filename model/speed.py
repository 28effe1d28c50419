"""How fast a run is: sentences a second, and the share of the device's arithmetic that the encoder uses (MFU)."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from model.encoder import Encoder

# what the makers state for dense matrix products, FLOP/s: (bf16, fp32 as PyTorch runs it by default)
_STATED = {"H200": (989e12, 67e12), "H100": (989e12, 67e12), "A100": (312e12, 19.5e12)}
_SIDE = 1024


class Flop:
    """Arithmetic of training the encoder on rows of given lengths.

    A token's forward pass costs 2 FLOP for every weight of the linear layers it passes (embeddings and pooler are
    none) and, in each layer, 4 x length x hidden for attention's two products; the backward pass costs twice the
    forward pass, and a gradient cache a second forward pass:

        FLOP = (3 or 4) x sum over rows of length x (2 W + 4 x layers x length x hidden)

    Padding counts as nothing: it is work done, but no work needed.
    """

    def __init__(self, encoder: Encoder, cached: bool = False):
        pooler = getattr(encoder.model, "pooler", None)
        apart = set(pooler.modules()) if pooler is not None else set()
        linear = [m for m in encoder.model.modules() if isinstance(m, nn.Linear) and m not in apart]
        config = encoder.model.config
        self.weights = sum(m.in_features * m.out_features for m in linear)
        self.attention = 4 * getattr(config, "num_hidden_layers", 0) * encoder.hidden
        self.passes = 4 if cached else 3

    def of(self, lengths: np.ndarray) -> float:
        """lengths: number of tokens of each row that is encoded, any shape."""
        lengths = np.asarray(lengths, np.float64)
        return self.passes * float((lengths * (2 * self.weights + self.attention * lengths)).sum())


def peak(device: torch.device, precision: str) -> float:
    """FLOP/s that the device can do: as stated for known accelerators, else those of a matrix product, measured."""
    if device.type == "cuda":
        for name, stated in _STATED.items():
            if name in torch.cuda.get_device_name(device):
                return stated[precision != "bf16"]
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a = torch.ones(_SIDE, _SIDE, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(3):
        _wait(device)
        start = time.perf_counter()
        a @ a
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * _SIDE**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Clock:
    """Seconds since the start, `total`, and without the parts paused, `seconds`."""

    def __init__(self) -> None:
        self.start, self.out = time.perf_counter(), 0.0

    @property
    def total(self) -> float:
        return time.perf_counter() - self.start

    @property
    def seconds(self) -> float:
        return self.total - self.out

    @contextmanager
    def paused(self) -> Iterator[None]:
        since = time.perf_counter()
        yield
        self.out += time.perf_counter() - since
