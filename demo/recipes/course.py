"""A training that can be stopped at any moment and goes on where it was: the loop of every vision recipe.

AdamW, linear warm-up, cosine to zero, clipped gradients, an exponential moving average of the weights (what ships).
A batch is a function of its step number alone, and so are torch's random numbers in a step (dropout, noise): a resumed
run gives bit for bit what an uninterrupted one would have given.
"""

import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from pipeline.errors import InputError, ParamsError
from pipeline.process import lock

SAVE_EVERY_S = 60


@dataclass(frozen=True)
class Schedule:
    """`steps` in all, `rate` the peak learning rate, `warmup` steps up to it; `average` is how much of the averaged
    weights a step keeps (less in the first steps, so that a short run's average is not that of its start)."""

    steps: int
    rate: float
    warmup: int = 100
    decay: float = 0.02
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    average: float = 0.998

    def factor(self, step: int) -> float:
        """Share of the peak rate at a step."""
        up = min(1.0, (step + 1) / max(1, self.warmup))
        return up * 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps)))

    def kept(self, step: int) -> float:
        """Share of the averaged weights that stays at a step."""
        return min(self.average, (1 + step) / (10 + step))


class Course:
    """Trains `network` and keeps its state in `state` (a file), written every minute and at the end.

    A state that is not finished may go on with another number of steps; a finished one only with its own.

    Raises:
        InputError: `state` is no state of this network.
        ParamsError: `state` is of another schedule.
    """

    def __init__(self, network: nn.Module, schedule: Schedule, state: Path, device: torch.device) -> None:
        self.network, self.schedule, self.path, self.device = network.to(device), schedule, state, device
        self.average = AveragedModel(self.network, multi_avg_fn=self._blend)
        self.optimizer = torch.optim.AdamW(_groups(network, schedule.decay), lr=schedule.rate, betas=schedule.betas)
        self.step, self.seconds = 0, 0.0
        if state.exists():
            self._load()

    def _load(self) -> None:
        try:
            kept = torch.load(self.path, map_location=self.device, weights_only=True)
            self._fit(Schedule(**kept["schedule"]), kept["step"])
            self.network.load_state_dict(kept["network"])
            self.average.load_state_dict(kept["average"])
            self.optimizer.load_state_dict(kept["optimizer"])
            self.step, self.seconds = kept["step"], kept["seconds"]
        except ParamsError:
            raise
        except Exception as error:  # a damaged file raises what it likes
            about = (str(error).splitlines() or [repr(error)])[0]
            raise InputError(f"{self.path}: no state of this training ({about}); delete it to start anew") from error

    def _fit(self, kept: Schedule, step: int) -> None:
        """Refuses a state of another schedule."""
        now = asdict(self.schedule)
        other = [f"{name} {now[name]}, there {value}" for name, value in asdict(kept).items() if now[name] != value]
        if other and (step >= kept.steps or replace(kept, steps=self.schedule.steps) != self.schedule):
            how = "finished" if step >= kept.steps else "begun"
            raise ParamsError(
                f"{self.path}: {how} with another schedule ({'; '.join(other)}); delete it to start anew, or ask for "
                "that schedule"
            )

    def _blend(self, averaged: list[Tensor], current: list[Tensor], number: Tensor) -> None:
        get_ema_multi_avg_fn(self.schedule.kept(self.step))(averaged, current, number)

    @property
    def minutes(self) -> float:
        """Wall time of all steps so far, stops left out."""
        return self.seconds / 60

    def run(
        self,
        draw: Callable[[int], Any],
        loss: Callable[[nn.Module, Any], dict[str, Tensor]],
        until: int | None = None,
        watch: Callable[[nn.Module], dict[str, float]] | None = None,
        watch_every: int = 2000,
    ) -> nn.Module:
        """The averaged network after the last step. `until` stops early; `watch` prints figures now and then.

        Args:
            draw: step number -> batch; called in another thread, one step ahead, so it takes its random numbers from
                generators of its own.
            loss: (network, batch) -> named losses, scalars; their sum is minimised.

        Raises:
            FloatingPointError: a loss or its gradient is not finite; the last good state stays on disk.
            ResourceError: another process trains with the same state.
        """
        with lock(self.path.with_suffix(".lock"), f"the training of {self.path.stem}"):
            self._run(draw, loss, self.schedule.steps if until is None else until, watch, watch_every)
        return self.average.module.eval()

    def _run(self, draw: Callable, loss: Callable, until: int, watch: Callable | None, watch_every: int) -> None:
        last = min(until, self.schedule.steps)
        means: dict[str, float] = {}
        saved = began = time.monotonic()
        spent = self.seconds
        with ThreadPoolExecutor(1) as ahead, tqdm(total=self.schedule.steps, initial=self.step, mininterval=5) as bar:
            coming = ahead.submit(draw, self.step)
            while self.step < last:
                batch, coming = coming.result(), ahead.submit(draw, self.step + 1)
                for name, value in self._update(loss, batch).items():
                    means[name] = 0.98 * means.get(name, value) + 0.02 * value
                bar.update()
                bar.set_postfix({k: f"{v:.3f}" for k, v in means.items()}, refresh=False)
                self.seconds = spent + time.monotonic() - began
                if time.monotonic() - saved > SAVE_EVERY_S:
                    self.save()
                    saved = time.monotonic()
                if watch is not None and self.step % watch_every == 0:
                    bar.write(f"step {self.step}: " + _line(watch(self.average.module.eval())))
        self.save()

    def _update(self, loss: Callable[[nn.Module, Any], dict[str, Tensor]], batch: Any) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate * self.schedule.factor(self.step)
        self.network.train()
        torch.manual_seed(self.step)
        losses = loss(self.network, batch)
        total = sum(losses.values())
        if not torch.isfinite(total):
            self._stop(f"loss {_line({k: float(v.detach()) for k, v in losses.items()})}")
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        if not torch.isfinite(nn.utils.clip_grad_norm_(self.network.parameters(), self.schedule.clip)):
            self._stop("the gradient is not finite")
        self.optimizer.step()
        self.average.update_parameters(self.network)
        self.step += 1
        return {name: float(value.detach()) for name, value in losses.items()}

    def _stop(self, why: str) -> NoReturn:
        """Ends the training; what is on disk is from before this step, whose pass may have spoilt running means."""
        raise FloatingPointError(f"step {self.step}: {why}; the last good state, if any, is in {self.path}")

    def save(self) -> None:
        """The state to disk, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(f".{os.getpid()}.draft")
        kept = {"network": self.network, "average": self.average, "optimizer": self.optimizer}
        counts = {"schedule": asdict(self.schedule), "step": self.step, "seconds": self.seconds}
        torch.save({name: part.state_dict() for name, part in kept.items()} | counts, draft)
        draft.replace(self.path)


def _groups(network: nn.Module, decay: float) -> list[dict]:
    """Weight decay for matrices only."""
    used = [p for p in network.parameters() if p.requires_grad]
    matrices = [p for p in used if p.ndim > 1]
    rest = [p for p in used if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]


def _line(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in values.items())
