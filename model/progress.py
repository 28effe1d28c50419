"""What a person sees of a training run."""

import sys
import time
from dataclasses import dataclass
from typing import TextIO


@dataclass(frozen=True)
class Progress:
    """The state after a step. `dev`, `best_dev`: STS-B dev Spearman as a fraction; `dev` only where it was taken.

    Rates are means since the start, evaluations and checkpoints left out; `mfu`: model.speed.Flop, as a fraction.
    """

    step: int
    steps: int
    kind: str
    loss: float
    dev: float | None
    best_dev: float | None
    best_step: int | None
    sentences_per_s: float
    eta_s: float
    mfu: float | None = None
    stopped: bool = False

    def __str__(self) -> str:
        parts = [f"step {self.step}/{self.steps}", f"loss {self.loss:.4f} ({self.kind})"]
        if self.dev is not None:
            parts.append(f"STS-B dev {100 * self.dev:.2f}")
        if self.best_dev is not None:
            parts.append(f"best {100 * self.best_dev:.2f} at step {self.best_step}")
        parts.append(f"{self.sentences_per_s:.0f} sentences/s")
        if self.mfu is not None:
            parts.append(f"MFU {100 * self.mfu:.1f} %")
        parts.append("done" if self.step == self.steps or self.stopped else f"{_duration(self.eta_s)} left")
        return "  ".join(parts)


class ProgressLines:
    """A `progress` callback that writes plain lines: one every `every_s` seconds, one a dev score, and the last."""

    def __init__(self, every_s: float = 5.0, stream: TextIO | None = None):
        self.every_s, self.stream, self.last = every_s, stream or sys.stderr, time.monotonic()

    def __call__(self, progress: Progress) -> None:
        due = time.monotonic() - self.last >= self.every_s
        if due or progress.dev is not None or progress.step == progress.steps or progress.stopped:
            self.last = time.monotonic()
            self.stream.write(f"{progress}\n")
            self.stream.flush()


def _duration(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}h{m:02d}m" if hours else f"{m}m{s:02d}s" if m else f"{s}s"
