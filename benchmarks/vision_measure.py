"""What is measured of a way to do a stage's work, how it is timed, and how it is told."""

import contextlib
import dataclasses
import multiprocessing
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import torch

from benchmarks.fresh import quietly
from benchmarks.vision_photos import Photos, write_params
from pipeline import entry
from pipeline.runner import Output, load_stage
from pipeline.runner import run_stage as run_all
from stages.common.meter import peak_bytes

T = TypeVar("T")


@dataclass(frozen=True)
class Figure:
    """One way of doing the work.

    Attributes:
        what: what was done.
        images: pictures worked on; `seconds` by the clock for all of them, warm-up and start not among them;
            `processor`: seconds of all cores together in that time.
        dtype: format of the matrix products.
        flop: floating-point operations a picture, 0 where nobody counted.
        busy: seconds the device worked on them; None: not known.
        start: seconds until the first batch: weights read, hashed, put on the device.
        warm_up: seconds of the first pass.
        peak: bytes of memory; of the device, on a CPU of the process.
        notes: other figures by name.
    """

    what: str
    images: int
    seconds: float
    processor: float
    dtype: str
    flop: float = 0.0
    busy: float | None = None
    start: float = 0.0
    warm_up: float = 0.0
    peak: int = 0
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def speed(self) -> float:
        """Pictures a second."""
        return self.images / self.seconds

    @property
    def thrift(self) -> float:
        """Pictures a second of processor time."""
        return self.images / self.processor


def apart(threads: int, function: Callable[..., T], *arguments: Any) -> T:
    """Calls a function in a fresh process, so that its memory is its own and nothing of it stays on the device."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(quietly, threads, function, arguments).result()


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass
class Clock:
    """Seconds inside `with clock:`, by the clock and of processor time, the device's work awaited at both ends."""

    device: torch.device
    seconds: float = 0.0
    processor: float = 0.0

    def __enter__(self) -> "Clock":
        wait(self.device)
        self._entered = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        wait(self.device)
        self.seconds += time.perf_counter() - self._entered[0]
        self.processor += time.process_time() - self._entered[1]

    def reset(self) -> None:
        self.seconds = self.processor = 0.0


def autocast(device: torch.device, dtype: str) -> contextlib.AbstractContextManager:
    """What `dtype` means for code that knows nothing of it: torch's autocast, or nothing for fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if dtype == "bf16" else contextlib.nullcontext()


def rate(device: str, dtype: str) -> float:
    """What large square matrix products reach on this device, FLOP/s: the best of several sizes and tries; on a CPU
    FLOP a second of processor time.
    """
    where, number = torch.device(device), {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    found = []
    for side in (1024, 2048, 4096) if where.type == "cpu" else (4096, 8192, 16384):
        a, b = (torch.randn(side, side, device=where, dtype=number) for _ in range(2))
        a @ b
        for _ in range(5):
            with Clock(where) as clock:
                a @ b
            found.append(2.0 * side**3 / (clock.processor if where.type == "cpu" else clock.seconds))
    return max(found)


def peak(device: torch.device) -> int:
    return peak_bytes(device)


def whole_stage(
    what: str, photos: Photos, stage: str, device: str, dtype: str, tables: dict[str, Path], **section: Any
) -> Figure:
    """A stage by its own runner, from verified shards to verified shards, on an empty scratch store.

    Args:
        tables: input tables that do not lie in the default place.
        section: the stage's parameters; `runtime` is a dict of runtime's.
    """
    runtime = section.pop("runtime", {})
    with contextlib.chdir(photos.folder), _empty_scratch(stage, dtype) as scratch:
        file = Path(f"params-{stage}.yaml")
        changes = {stage: section | {"dtype": dtype}, "runtime": runtime | {"devices": [device], "scratch": scratch}}
        write_params(file, photos.images, **changes)
        made = load_stage(stage)
        arguments = [f"--{name}={place}" for name, place in tables.items()]
        out = f"measured/{stage}-{dtype}"
        parser = entry.parser(stage, made.reads, out)
        context = entry.context(
            stage, made.reads, parser.parse_args([f"--params={file}", f"--out={out}", "--metrics=m.json", *arguments])
        )
        speeds: list[dict] = []
        first: list[tuple[float, float]] = []

        def process(worker: Any, task: Any, read: dict[str, pa.Table]) -> Output:
            first.append((time.perf_counter(), time.process_time()))
            output = made.process(worker, task, read)
            speeds.append(output.speed)
            return output

        began = time.perf_counter()
        run_all(dataclasses.replace(made, process=process), context)
        ended, used = time.perf_counter(), time.process_time()
    total = {key: sum(speed[key] for speed in speeds) for key in ("images", "busy_s", "flop", "warm_up_s")}
    seconds = ended - first[0][0] - total["warm_up_s"]
    return Figure(
        what,
        total["images"],
        seconds,
        used - first[0][1],
        dtype,
        total["flop"] / max(total["images"], 1),
        total["busy_s"],
        first[0][0] - began,
        total["warm_up_s"],
        max(speed["peak_bytes"] for speed in speeds),
    )


@contextlib.contextmanager
def _empty_scratch(stage: str, dtype: str) -> Iterator[str]:
    place = Path(f".scratch-{stage}-{dtype}")
    shutil.rmtree(place, ignore_errors=True)
    yield str(place)
    shutil.rmtree(place, ignore_errors=True)


def pace(figure: Figure, device: str) -> float:
    """What ratios are of: on a CPU processor time, so that other work on the machine shows little; else the clock."""
    return figure.thrift if device == "cpu" else figure.speed


def told(figures: list[Figure], against: dict[str, str], rates: dict[str, float], device: str) -> str:
    """The figures as a table; ratios and MFU are of their `pace`.

    Args:
        against: what -> what it is compared with.
        rates: FLOP/s that the device's matrix products reach, by dtype.
    """
    named = {figure.what: figure for figure in figures}
    lines = [
        f"{'':46}{'images':>7}{'img/s':>9}{'img/cpu s':>10}{'ratio':>8}{'MFU':>7}{'busy':>7}{'start':>8}{'warm-up':>9}"
        f"{'memory':>9}"
    ]
    for figure in figures:
        base = named.get(against.get(figure.what, ""))
        ratio = f"{pace(figure, device) / pace(base, device):.2f}x" if base else ""
        able = f"{figure.flop * pace(figure, device) / rates[figure.dtype]:.0%}" if figure.flop else ""
        busy = "" if figure.busy is None else f"{figure.busy / figure.seconds:.0%}"
        lines.append(
            f"{figure.what:46}{figure.images:7}{figure.speed:9.3g}{figure.thrift:10.3g}{ratio:>8}{able:>7}{busy:>7}"
            f"{figure.start:7.1f}s{figure.warm_up:8.1f}s{figure.peak / 1e9:6.2f} GB"
        )
        lines += [f"{'':6}{name}: {value}" for name, value in figure.notes.items()]
    return "\n".join(lines)
