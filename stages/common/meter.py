"""What a stage's device did: images, seconds it was busy, floating-point operations, memory."""

import contextlib
import functools
import resource
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch


class Meter:
    """Counts the work of one worker on its device.

    Args:
        device: where the work is done.
        dtype: the format of its matrix products; their rate on this device is measured once.
        what: what is counted, in the plural.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype = torch.float32, what: str = "images"):
        self.device, self.dtype, self.what = device, dtype, what
        self._since: float | None = None
        self._peak = 0
        self._clear()

    def _clear(self) -> None:
        self._images, self._flop, self._busy, self._warm_up = 0, 0.0, 0.0, 0.0
        self._events: list[tuple[Any, Any]] = []

    def begin(self) -> None:
        """Starts the clock, where it does not run yet."""
        if self._since is None:
            self._since = time.perf_counter()

    @contextlib.contextmanager
    def busy(self, images: int = 0, flop: float = 0.0) -> Iterator[None]:
        """Around the device's work on so many images and so many floating-point operations (a multiply-add is two).

        On CUDA the device's own clock is read, between the first and the last kernel that the body starts; nothing
        waits. Elsewhere the time inside the body counts. Bodies must not be nested.
        """
        self.begin()
        if self.device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            stream = torch.cuda.current_stream(self.device)
            start.record(stream)
            yield
            end.record(stream)
            self._events.append((start, end))
        else:
            entered = time.perf_counter()
            yield
            self._busy += time.perf_counter() - entered
        self._images += images
        self._flop += flop

    @contextlib.contextmanager
    def warm_up(self) -> Iterator[None]:
        """Around the first pass of a network (compilation, tuning): its time is told apart and in no other figure."""
        _wait(self.device)
        entered = time.perf_counter()
        yield
        _wait(self.device)
        took = time.perf_counter() - entered
        self._warm_up += took
        if self._since is not None:
            self._since += took

    def speed(self) -> dict[str, Any]:
        """What was counted since this was last asked, so that the figures of several shards add up.

        Returns:
            what; images; busy_s, wall_s, warm_up_s: seconds; flop; able_flop: what the device's matrix products do in
            the wall time (0 where no FLOP were counted); peak_bytes: the most memory held so far (the device's, on a
            CPU the process's).
        """
        _wait(self.device)
        now = time.perf_counter()
        self._peak = max(self._peak, peak_bytes(self.device))
        wall = 0.0 if self._since is None else now - self._since
        busy = self._busy + sum(start.elapsed_time(end) for start, end in self._events) / 1000
        counted = {
            "what": self.what,
            "images": self._images,
            "busy_s": busy,
            "wall_s": wall,
            "warm_up_s": self._warm_up,
            "flop": self._flop,
            "able_flop": wall * matmul_rate(self.device, self.dtype) if self._flop else 0.0,
            "peak_bytes": self._peak,
        }
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)  # the timed products are not the stage's
        self._clear()
        self._since = time.perf_counter()
        return counted


@functools.cache
def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second that large matrix products reach here: the best of a few, timed once."""
    side, rounds = (8192, 10) if device.type == "cuda" else (1024, 1)
    if device.type == "cpu" and dtype == torch.float16:
        side = 128  # which CPUs do a hundred times slower
    while True:
        try:
            return _timed_products(device, dtype, side, rounds)
        except torch.OutOfMemoryError:  # beside the model there is little room
            if side <= 512:
                raise
            side //= 2


def _timed_products(device: torch.device, dtype: torch.dtype, side: int, rounds: int) -> float:
    a, b, product = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(3))
    torch.mm(a, b, out=product)
    best = float("inf")
    for _ in range(3):
        _wait(device)
        started = time.perf_counter()
        for _ in range(rounds):
            torch.mm(a, b, out=product)
        _wait(device)
        best = min(best, (time.perf_counter() - started) / rounds)
    return 2.0 * side**3 / best


def peak_bytes(device: torch.device) -> int:
    """The most memory that was held at once: by torch on a CUDA device, else by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held if sys.platform == "darwin" else held * 1024


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
