"""Maps a stage over its shards on this machine.

A stage describes itself by a `Stage`: what it reads and writes, how to open its model (once a worker), and one
function from a shard's input tables to its output tables. The runner does the rest: fingerprints, resume, workers,
devices, ledger, sidecars, progress. `Stage.process` over `Task`s is the seam: another engine may map the same function
on many machines.
"""

import concurrent.futures as futures
import contextlib
import functools
import importlib
import importlib.metadata
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import tables
from pipeline.clean import remove_litter
from pipeline.errors import InputError, ResourceError
from pipeline.files import hash_path, sha256_json, write_json
from pipeline.ledger import Drop, count, judge, total
from pipeline.process import die_with_parent, heed, lock
from pipeline.progress import Progress
from pipeline.sections import Params
from pipeline.shards import Record, Sidecar, Store, read_table, shard_name, shard_numbers, verified_hash


@dataclass
class Output:
    """What a stage makes of one shard: rows (or ready tables) by table name, units seen, units that did not come
    through (or a ready table `drops` of them).

    `speed` is what the worker's meter counted for this shard (`stages.common.meter.Meter.speed`); it is told in the
    last line and stored nowhere.
    """

    tables: dict[str, list[dict] | pa.Table]
    seen: dict[str, int]
    drops: list[Drop] | pa.Table = field(default_factory=list)
    schemas: dict[str, pa.Schema] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    speed: dict[str, Any] | None = None


@dataclass(frozen=True)
class Task:
    """One shard's work: its number, the input files, the hashes that go into its fingerprint, and what else the stage
    needs.
    """

    shard: int
    inputs: dict[str, str]
    hashes: dict[str, str]
    payload: Any = None


@dataclass(frozen=True)
class Context:
    """What a stage may know: its parameters (`section`), all parameters, where its inputs and outputs lie, and the
    device of the worker that it opens.
    """

    params: Params
    section: Any
    inputs: dict[str, Path]
    out: Path
    metrics: Path
    device: str = "cpu"


@dataclass(frozen=True)
class Stage:
    """A sharded stage.

    Attributes:
        name: as in dvc.yaml, params.yaml and stages/.
        version: raised whenever a change of code changes what is written.
        reads, writes: tables; `drops` is written by every stage.
        units: ledger unit -> (written table, id column) whose distinct ids came through.
        open: builds the worker (a model, an index), once a worker process.
        process: (worker, task, input tables) -> Output.
        libraries: distributions whose version changes what is written.
        tasks: the shards; None: one for each shard of the input tables.
        path_hash: context -> (task -> content hash of what the shard needs of the stage's `path`); None: the whole
            path.
        columns: section -> the columns a table is read with, for tables that are not read whole.
        devices: context -> the devices its model runs on, one worker each (`context.device`); None or none: it runs
            no model, and `runtime.workers` processes share the shards.
        advice: what to do when nothing at all came through.
    """

    name: str
    version: int
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    units: dict[str, tuple[str, str]]
    open: Callable[[Context], Any]
    process: Callable[[Any, Task, dict[str, pa.Table]], Output]
    libraries: tuple[str, ...] = ()
    tasks: Callable[[Context], list[Task]] | None = None
    path_hash: Callable[[Context], Callable[[Task], str]] | None = None
    columns: Callable[[Any], dict[str, list[str]]] = lambda section: {}
    devices: Callable[[Context], list[str]] | None = None
    advice: str = ""


def load_stage(name: str) -> Stage:
    """The `STAGE` of stages/<name>/stage.py."""
    return importlib.import_module(f"stages.{name}.stage").STAGE


def fingerprints(stage: Stage, context: Context) -> Iterator[tuple[Task, str, str | None]]:
    """Every shard with its fingerprint and path hash. Reads (and so verifies) all inputs.

    A fingerprint holds the stage's VERSION and schemas, its parameters, the content hash of its path, those of its
    input shards, and the versions of the libraries that shape its output. Nothing of time, host or `runtime`.
    """
    tasks = (stage.tasks or table_tasks(stage))(context)
    hash_of = stage.path_hash(context) if stage.path_hash else _whole_path(context)
    common = {
        "stage": stage.name,
        "version": stage.version,
        "schema": tables.schema_hash((*stage.writes, "drops")),
        "params": effective(context),
        "libraries": {name: importlib.metadata.version(name) for name in ("pyarrow", *stage.libraries)},
    }
    for task in tasks:
        path_hash = hash_of(task)
        yield task, sha256_json({**common, "path": path_hash, "inputs": task.hashes}), path_hash


def effective(context: Context) -> dict:
    """The stage's parameters but for places: what lies at a path counts by its content hash, wherever it lies."""
    return {key: value for key, value in context.section.model_dump().items() if not key.endswith("path")}


def table_tasks(stage: Stage) -> Callable[[Context], list[Task]]:
    """Tasks for a stage that reads tables: shard n of each."""

    def tasks(context: Context) -> list[Task]:
        numbers = {name: shard_numbers(context.inputs[name]) for name in stage.reads}
        first = next(iter(numbers))
        for name, found in numbers.items():
            if found != numbers[first]:
                raise InputError(
                    f"{context.inputs[name]}: {len(found)} shards but {context.inputs[first]} has "
                    f"{len(numbers[first])}; they come from different runs: `dvc repro` makes them agree"
                )
        return [
            Task(
                number,
                {name: str(context.inputs[name] / f"{shard_name(number)}.parquet") for name in stage.reads},
                {name: verified_hash(context.inputs[name], number) for name in stage.reads},
            )
            for number in numbers[first]
        ]

    return tasks


def _whole_path(context: Context) -> Callable[[Task], str | None]:
    path = getattr(context.section, "path", None)
    digest = hash_path(Path(path)) if path is not None else None
    return lambda task: digest


def run_stage(stage: Stage, context: Context) -> None:
    """Runs a sharded stage to its end: every shard done, linked into `context.out`, ledger added up, metrics written.

    Raises:
        InputError, RejectError, ResourceError: see docs/exit-codes.md.
    """
    scratch = Path(context.params.runtime.scratch) / context.params.dataset
    with lock(scratch / f"{stage.name}.lock", f"stage {stage.name}"):
        store = Store(scratch, stage.name)
        started = time.monotonic()
        todo, done = [], {}
        sidecars = {}
        for task, fingerprint, path_hash in fingerprints(stage, context):
            sidecars[task.shard] = (task, path_hash)
            record = store.get(fingerprint)
            if record:
                done[task.shard] = record
            else:
                todo.append((task, fingerprint))
        kept, speeds = len(done), []
        # Closed here, not when the garbage is collected: an interrupted stage ends with its workers gone.
        with (
            Progress(stage.name, len(sidecars), kept) as progress,
            contextlib.closing(_compute(stage, context, todo)) as computed,
        ):
            for number, record, speed in computed:
                done[number] = record
                speeds += [speed] if speed else []
                progress.advance(sum(unit["in"] for unit in record.ledger.values()))
                heed()
        _clear(context.out, stage, set(sidecars))
        for number, record in sorted(done.items()):
            store.link_into(record, context.out, number)
            task, path_hash = sidecars[number]
            _sidecar(stage, context, task, path_hash, record).write(
                context.out / "sidecars" / f"{shard_name(number)}.json"
            )
        ledger = total(stage.units, (record.ledger for record in done.values()))
        _write_metrics(stage, context, ledger, done)
        judge(stage.name, ledger, context.section.max_reject_rate, context.out / "drops", stage.advice)
        progress.close(ledger, kept, len(todo), time.monotonic() - started, context.out, speeds)


@dataclass(frozen=True)
class _Made:
    """A computed shard that is not written yet, and its speed."""

    tables: dict[str, pa.Table]
    ledger: dict
    facts: dict
    speed: dict | None


_Todo = list[tuple[Task, str]]
_Done = Iterator[tuple[int, Record, dict | None]]


def _compute(stage: Stage, context: Context, todo: _Todo) -> _Done:
    devices = stage.devices(context) if stage.devices and todo else []
    workers = min(len(devices) or context.params.runtime.workers, len(todo))
    if workers > 1:
        yield from _in_workers(stage, context, todo, workers, devices)
    elif devices:
        yield from _overlapped(stage, replace(context, device=devices[0]), todo)
    elif todo:
        worker = stage.open(context)
        for task, fingerprint in todo:
            yield task.shard, *_one(stage, context, worker, task, fingerprint)


def _overlapped(stage: Stage, context: Context, todo: _Todo) -> _Done:
    """In this process, with a thread at its side for the disk: the device computes a shard while the one before it is
    written and the next one is read.
    """
    worker = stage.open(context)
    with futures.ThreadPoolExecutor(1, "disk") as disk:
        ahead = disk.submit(_read, stage, context, todo[0][0])
        writing = None
        for index, (task, fingerprint) in enumerate(todo):
            read = ahead.result()
            if index + 1 < len(todo):
                ahead = disk.submit(_read, stage, context, todo[index + 1][0])
            made = _make(stage, worker, task, read)
            del read
            if writing:
                yield writing[0].shard, writing[1].result(), writing[2]
            writing = task, disk.submit(_put, stage, context, fingerprint, made), made.speed
            del made
        yield writing[0].shard, writing[1].result(), writing[2]


def _in_workers(stage: Stage, context: Context, todo: _Todo, workers: int, devices: list[str]) -> _Done:
    # A worker that dies (killed for memory, say) breaks the pool; its shards are tried once more in a new one.
    left = dict(enumerate(todo))
    spawn = multiprocessing.get_context("spawn")
    for attempt in (1, 2):
        handed_out = spawn.SimpleQueue()
        for device in devices[:workers] or [context.device] * workers:
            handed_out.put(device)
        with futures.ProcessPoolExecutor(workers, spawn, _begin_worker, (stage.name, context, handed_out)) as pool:
            running = {pool.submit(_in_worker, *todo[index]): index for index in left}
            try:
                for future in futures.as_completed(running):
                    number, record, speed = future.result()
                    del left[running[future]]
                    yield number, record, speed
            except BrokenProcessPool:
                if attempt == 2:
                    fewer = "use fewer runtime.devices" if devices else "lower runtime.workers"
                    raise ResourceError(
                        f"a worker process died twice (out of memory?); {fewer} or raise ingest.shards"
                    ) from None
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                _end_workers(_store(stage, context))
                raise
        if not left:
            return


def _end_workers(store: Store) -> None:
    """Ends them where they are and removes what they were writing, which a worker that is ended cannot do itself."""
    workers = multiprocessing.active_children()
    for process in workers:
        process.terminate()
    for process in workers:
        process.join()
    remove_litter(store.objects)
    remove_litter(store.records)


_mine: tuple[str, Context] | None = None


def _begin_worker(name: str, context: Context, handed_out: Any) -> None:
    """In a new process: takes one of the devices."""
    global _mine
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _mine = name, replace(context, device=handed_out.get())


@functools.cache
def _opened() -> tuple[Stage, Context, Any]:
    """In a worker process: the stage's worker. Opened with the first shard, so that what is wrong with its model is
    told as an error and does not look like a death.
    """
    name, context = _mine
    stage = load_stage(name)
    return stage, context, stage.open(context)


def _in_worker(task: Task, fingerprint: str) -> tuple[int, Record, dict | None]:
    stage, context, worker = _opened()
    return task.shard, *_one(stage, context, worker, task, fingerprint)


def _one(stage: Stage, context: Context, worker: Any, task: Task, fingerprint: str) -> tuple[Record, dict | None]:
    made = _make(stage, worker, task, _read(stage, context, task))
    return _put(stage, context, fingerprint, made), made.speed


def _read(stage: Stage, context: Context, task: Task) -> dict[str, pa.Table]:
    columns = stage.columns(context.section)
    return {name: read_table(Path(path), name, columns.get(name)) for name, path in task.inputs.items()}


def _make(stage: Stage, worker: Any, task: Task, read: dict[str, pa.Table]) -> _Made:
    output = stage.process(worker, task, read)
    drops = output.drops if isinstance(output.drops, pa.Table) else [drop.__dict__ for drop in output.drops]
    written = {
        name: rows if isinstance(rows, pa.Table) else tables.build(name, rows, output.schemas.get(name))
        for name, rows in {**output.tables, "drops": drops}.items()
    }
    speed = output.speed and {**output.speed, "worker": os.getpid()}
    return _Made(written, count(stage.units, output.seen, written), output.facts, speed)


def _store(stage: Stage, context: Context) -> Store:
    return Store(Path(context.params.runtime.scratch) / context.params.dataset, stage.name)


def _put(stage: Stage, context: Context, fingerprint: str, made: _Made) -> Record:
    store = _store(stage, context)
    if slow := os.environ.get("MCSEO_TEST_SHARD_SECONDS"):
        time.sleep(float(slow))  # lets the fault tests end a stage in the middle of a shard
    return store.put(fingerprint, made.tables, made.ledger, made.facts)


def _sidecar(stage: Stage, context: Context, task: Task, path_hash: str | None, record: Record) -> Sidecar:
    return Sidecar(
        shard=task.shard,
        stage=stage.name,
        version=stage.version,
        tables={name: {"sha256": digest, "rows": record.rows[name]} for name, digest in record.files.items()},
        inputs=task.hashes,
        ledger=record.ledger,
        path_hash=path_hash,
        params=effective(context),
        facts=record.facts,
    )


def _clear(out: Path, stage: Stage, numbers: set[int]) -> None:
    """Removes what an earlier, differently cut run left in the output folder."""
    for name in (*stage.writes, "drops", "sidecars"):
        (out / name).mkdir(parents=True, exist_ok=True)
        for path in (out / name).iterdir():
            if path.name.endswith(".tmp") or not (path.stem.isdigit() and int(path.stem) in numbers):
                path.unlink()


def _write_metrics(stage: Stage, context: Context, ledger: dict, done: dict[int, Record]) -> None:
    rows: Counter = Counter()
    facts: dict = {}
    for _, record in sorted(done.items()):
        rows.update(record.rows)
        facts.update(record.facts)
    write_json(
        context.metrics,
        {"stage": stage.name, "shards": len(done), "rows": dict(rows), "ledger": ledger, "facts": facts},
    )
