"""The loop over the steps of a run, its checkpoints, and going on from the last of them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from model import checkpoint
from model.ahead import ahead
from model.batches import Batch, Batches, to_device
from model.dev import Dev
from model.distributed import Processes
from model.errors import PARAMETERS, ModelError
from model.gradcache import random_state, set_random_state
from model.log import Pending, fetch
from model.network import Network
from model.optimizer import build_optimizer, learning_rate
from model.progress import Progress
from model.recipes import Recipe
from model.speed import Clock, Flop, peak
from model.update import Guard, fault, update

if TYPE_CHECKING:
    from model.trainer import Trained

_FETCH_EVERY = 16  # steps between two fetches of the log from an accelerator
_ROWS_NAMED = 8
_LISTS = {"text": "sentences", "pair": "captions", "triplet": "triplets"}


@dataclass(frozen=True)
class _Made:
    """What a step reads, made ahead: its batches, the state of the streams after them if a checkpoint is due, and the
    arithmetic that training on them takes."""

    batches: list[Batch]
    streams: dict | None
    flop: float


class Loop:
    """One run: `run_from(restore())`."""

    def __init__(
        self,
        run: Trained,
        network: Network,
        batches: Batches,
        recipe: Recipe,
        folder: Path,
        fit: dict[str, Any],
        processes: Processes,
        progress: Callable[[Progress], None] | None,
        tell: Callable[[str], None],
    ):
        self.run, self.network, self.batches, self.recipe = run, network, batches, recipe
        self.fit, self.processes, self.tell = fit, processes, tell
        self.progress = progress if processes.first else None
        self.micro = recipe.accumulation
        self.total = recipe.steps or -(-recipe.epochs * batches.schedule.steps_per_epoch // self.micro)
        self.device = network.encoder.device
        self.optimizer = build_optimizer(network, recipe)
        self.guard = Guard(self.optimizer)
        self.keeper = _Keeper(folder, in_background=self.device.type == "cuda")
        self.dev: Dev | None = None
        self.patience, self.without_better, self.stopped = recipe.patience, 0, False
        self.flop = Flop(network.encoder, cached=recipe.cache_chunk is not None)
        self.pending: list[tuple[Pending, list[Batch]]] = []

    # ------------------------------------------------------------ start

    def start_anew(self) -> int:
        self.processes.collect(None)  # the others may still be reading
        if self.processes.first:
            checkpoint.clear(self.keeper.folder)
        return 0

    def restore(self) -> int:
        """The number of steps already done: those of the last checkpoint, if it is this run's."""
        path = self.keeper.folder / checkpoint.LAST
        if not self.processes.agree(path.exists()):
            return self.start_anew()
        tensors, record = checkpoint.load(path)
        other = [name for name, value in self.fit.items() if record.get("fit", {}).get(name) != value]
        if other:
            self._say(f"{path} is of a run with another {', '.join(other)}: training starts anew")
            return self.start_anew()
        checkpoint.set_weights(self.network, tensors, path)
        checkpoint.set_optimizer_state(self.optimizer, tensors, record["optimizer"])
        rank = self.processes.rank
        held = [n for n in tensors if n.startswith(f"random.{rank}.")]
        set_random_state([tensors[name] for name in sorted(held)], self.device)
        self.batches.load_state_dict(record["streams"])
        run = self.run
        run.log = self.keeper.read_log(record["rows"])
        run.steps, run.best_step, run.best_dev = record["step"], record["best_step"], record["best_dev"]
        run.notes = record["notes"]
        self.without_better, self.stopped = record["without_better"], record["stopped"]
        self._say(f"training goes on from step {run.steps} of {self.total} ({path})")
        return run.steps

    # ------------------------------------------------------------ steps

    def run_from(self, done: int) -> None:
        """Steps done + 1 to the last, and then the weights that are to be kept."""
        run, clock, sentences, flop = self.run, Clock(), 0, 0.0
        power = peak(self.device, self.recipe.precision) * self.processes.world if self.progress else 1.0
        self.network.train()
        steps = range(done, done if self.stopped else self.total)
        with self.keeper, closing(ahead(self._make, steps)) as made:
            for number, read in zip(steps, made, strict=True):
                self._step(number, read)
                run.steps = number + 1
                sentences += sum(map(len, read.batches))
                flop += read.flop
                due = self._due(run.steps)
                if due or len(self.pending) >= (_FETCH_EVERY if self.device.type == "cuda" else 1):
                    self._fetch()
                    if due:
                        with clock.paused():
                            self._evaluate_and_keep(read.streams)
                    if self.progress:
                        seconds = max(clock.seconds, 1e-9)
                        left = 0 if self.stopped else self.total - run.steps
                        eta = clock.total / (run.steps - done) * left
                        self._show(sentences / seconds, flop / seconds / power, eta)
                if self.stopped:
                    break
        self.processes.agree(None)  # the first has written the best by now
        self._return_best()
        self.processes.agree(None)  # all have read it: the caller may remove the folder

    def _make(self, number: int) -> _Made:
        batches = [self.batches.next(number * self.micro + i) for i in range(self.micro)]
        lengths = [t.row_lengths() for b in batches for t in _tokens(b)]
        flop = sum(map(self.flop.of, lengths)) if self.progress else 0.0
        if self.device.type == "cuda":
            batches = [_pinned(batch) for batch in batches]
        return _Made(batches, self.batches.state_dict() if self._due(number + 1) else None, flop)

    def _due(self, step: int) -> bool:
        return step % self.recipe.eval_every == 0 or step == self.total

    def _step(self, number: int, read: _Made) -> None:
        lr = learning_rate(number, self.total, self.recipe)
        batches = [to_device(batch, self.device) for batch in read.batches]
        names, values = update(self.network, batches, self.recipe, self.optimizer, lr, self.guard, self.processes)
        kind = "+".join(dict.fromkeys(b.kind for b in batches))
        self.pending.append((Pending({"step": number + 1, "kind": kind, "lr": lr}, names, values), read.batches))

    def _fetch(self) -> None:
        """Brings the measured values to the log. Raises ModelError at the first that is not finite."""
        rows, read = fetch(p for p, _ in self.pending), [batches for _, batches in self.pending]
        self.pending = []
        for row, batches in zip(rows, read, strict=True):
            if reason := fault(row, row["kind"]):
                raise ModelError(
                    f"step {row['step']} of {self.total}: {reason}{_named(batches)}. Stopped before the optimizer "
                    f"step; {self.keeper.says()}. Lower learning_rate (now {self.recipe.learning_rate:g})",
                    PARAMETERS,
                )
            self.run.log.append(row | {"dev": None})

    # ------------------------------------------------------------ checkpoints

    def _evaluate_and_keep(self, streams: dict | None) -> None:
        run, score = self.run, None
        if self.dev is not None:
            score = self.processes.agree(self.dev.score() if self.processes.first else None)
        run.log[-1]["dev"] = score
        better = score is not None and (run.best_dev is None or score > run.best_dev)
        if better:
            run.best_dev, run.best_step = score, run.steps
        self.without_better = 0 if better else self.without_better + 1
        if self.dev is not None and self.patience and self.without_better >= self.patience < self.total:
            self.stopped = run.steps < self.total
        if self.stopped:
            run.notes.append(
                f"stopped early at step {run.steps} of {self.total}: no better dev score in {self.patience} evaluations"
            )
        randoms = self.processes.collect(random_state(self.device))
        if self.processes.first:
            self._save(better, streams, randoms)

    def _save(self, better: bool, streams: dict | None, randoms: list[list[Tensor]]) -> None:
        run = self.run
        state, numbers = checkpoint.optimizer_state(self.optimizer)
        random = {f"random.{rank}.{i}": t for rank, ts in enumerate(randoms) for i, t in enumerate(ts)}
        record = {
            "fit": self.fit,
            "step": run.steps,
            "rows": len(run.log),
            "best_step": run.best_step,
            "best_dev": run.best_dev,
            "without_better": self.without_better,
            "stopped": self.stopped,
            "notes": run.notes,
            "streams": streams,
            "optimizer": numbers,
        }
        self.keeper.keep(checkpoint.weights(self.network), {**state, **random}, record, run.log, better)

    def _return_best(self) -> None:
        run = self.run
        if self.dev is None:
            return
        if run.best_step is None:
            run.notes.append("the dev correlation was undefined throughout: the last weights are kept, not the best")
        elif run.best_step != run.steps:
            checkpoint.load_weights(self.network, checkpoint.best_path(self.keeper.folder, run.best_step))

    # ------------------------------------------------------------ what a person sees

    def _show(self, sentences_per_s: float, mfu: float, eta_s: float) -> None:
        run, row = self.run, self.run.log[-1]
        self.progress(
            Progress(
                step=run.steps,
                steps=self.total,
                kind=row["kind"],
                loss=row["loss"],
                dev=row["dev"],
                best_dev=run.best_dev,
                best_step=run.best_step,
                sentences_per_s=sentences_per_s,
                mfu=mfu,
                eta_s=eta_s,
                stopped=self.stopped,
            )
        )

    def _say(self, line: str) -> None:
        if self.processes.first:
            self.tell(line)


class _Keeper:
    """Writes checkpoints; on an accelerator in a thread, while the next steps are computed."""

    def __init__(self, folder: Path, in_background: bool):
        self.folder = folder
        self.pool = ThreadPoolExecutor(1) if in_background else None
        self.writing: Future | None = None
        self.rows, self.end = 0, 0  # of the log on disk that belong to the run, and where they end
        self.step: int | None = None

    def __enter__(self) -> _Keeper:
        return self

    def __exit__(self, *exception) -> None:
        self._wait()
        if self.pool:
            self.pool.shutdown()

    def read_log(self, rows: int) -> list[dict]:
        found, self.end = checkpoint.read_log(self.folder / checkpoint.LOG, rows)
        self.rows, self.step = rows, rows
        return found

    def keep(
        self, weights: dict[str, Tensor], state: dict[str, Tensor], record: dict, log: list[dict], better: bool
    ) -> None:
        """The last checkpoint and, where it is the better one, the best; waits for one that is still being written."""
        self._wait()
        new, self.rows = log[self.rows :], len(log)
        if self.pool is None:
            self._write(weights, state, record, new, better)
        else:
            weights, state = ({n: t.detach().to("cpu", copy=True) for n, t in d.items()} for d in (weights, state))
            self.writing = self.pool.submit(self._write, weights, state, record, new, better)

    def says(self) -> str:
        self._wait()
        if self.step is None:
            return "there is no checkpoint yet"
        return f"{self.folder / checkpoint.LAST} holds the last good weights (step {self.step})"

    def _write(
        self, weights: dict[str, Tensor], state: dict[str, Tensor], record: dict, new: list[dict], better: bool
    ) -> None:
        self.end = checkpoint.append_log(self.folder / checkpoint.LOG, new, self.end)
        best = None if record["best_step"] is None else checkpoint.best_path(self.folder, record["best_step"])
        if better:
            checkpoint.save(best, weights, {"step": record["step"], "dev": record["best_dev"]})
        checkpoint.save(self.folder / checkpoint.LAST, {**weights, **state}, record)
        checkpoint.clear_best(self.folder, keep=best)
        self.step = record["step"]

    def _wait(self) -> None:
        if self.writing is not None:
            writing, self.writing = self.writing, None
            writing.result()


def _tokens(batch: Batch) -> list:
    return [t for t in (batch.tokens, None if batch.objects is None else batch.objects.tokens) if t is not None]


def _pinned(batch: Batch) -> Batch:
    """The same batch in memory that is copied to the device while the host goes on."""
    return _map(batch, lambda t: t.pin_memory() if t.device.type == "cpu" else t)


def _map(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if is_dataclass(value):
        return type(value)(**{f.name: _map(getattr(value, f.name), change) for f in fields(value)})
    if isinstance(value, tuple):
        return tuple(_map(item, change) for item in value)
    return value


def _named(batches: list[Batch]) -> str:
    """Which rows of which list a step read, counted from 0, for the message."""
    parts = []
    for batch in batches:
        more = f", ... ({len(batch.rows)} rows)" if len(batch.rows) > _ROWS_NAMED else ""
        parts.append(f"{_LISTS[batch.kind]} {', '.join(map(str, batch.rows[:_ROWS_NAMED]))}{more}")
    return f"; it read {' and '.join(parts)}"
