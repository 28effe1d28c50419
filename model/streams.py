"""Streams of rows and the schedule that mixes them.

Sentences and image-caption pairs are each read for ever, reshuffled at every pass. Which of them a step reads follows
the mixing rule of MCSE (Zhang et al. 2022, released training loop; the guard is ours): with W and P the batches in one
pass over sentences and pairs, an epoch has W + P steps and step s of an epoch reads a pair batch if s mod K = 0,
K = max(1, W // P). The step counter restarts with the epoch, the streams do not. Triplets are read alone.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# one caption per image is drawn once for all runs: seeds must differ in training, not in data
_CAPTION_SEED = 0


@dataclass(frozen=True)
class Schedule:
    """Batches in one pass over each stream, and every how many steps a pair batch comes."""

    text_batches: int
    pair_batches: int
    pair_every: int
    triplet_batches: int = 0

    @property
    def steps_per_epoch(self) -> int:
        return self.triplet_batches or self.text_batches + self.pair_batches

    def kind(self, step: int) -> str:
        """What step number `step` of the run (from 0) reads: 'pair', 'text' or 'triplet'."""
        if self.triplet_batches:
            return "triplet"
        if not self.text_batches or not self.pair_batches:
            return "pair" if self.pair_batches else "text"
        return "pair" if (step % self.steps_per_epoch) % self.pair_every == 0 else "text"

    @property
    def warning(self) -> str | None:
        """One line if the text stream would never be read: K is 1 whenever W < 2P."""
        if self.text_batches and self.pair_batches and self.pair_every == 1 and not self.triplet_batches:
            return (
                f"every step reads image-caption pairs and the {self.text_batches} text batches are never read: "
                f"there are {self.pair_batches} pair batches a pass. Bring at least twice as many sentences as "
                f"captions, or set pair_every"
            )
        return None


def plan(
    sentences: int,
    captions: int,
    batch_size: int,
    pair_every: int | None = None,
    triplets: int = 0,
    drop_last: bool = False,
) -> Schedule:
    """The schedule of streams with that many rows; `pair_every` overrides K; `triplets` > 0: nothing else is read.

    drop_last: what does not fill a batch at the end of a pass is left out.
    """
    text, pairs, three = (
        rows // batch_size if drop_last else math.ceil(rows / batch_size) for rows in (sentences, captions, triplets)
    )
    return Schedule(text, pairs, pair_every or (max(1, text // pairs) if pairs else 1), three)


class Stream:
    """Row numbers 0..rows-1 for ever, `batch_size` at a time, in a new order each pass.

    The last batch of a pass is smaller, or left out (`drop_last`). The order depends on (seed, name, rows, batch_size)
    alone. `passes` counts those begun.
    """

    def __init__(self, rows: int, batch_size: int, seed: int, name: str, drop_last: bool = False):
        self.rows, self.batch_size, self.drop_last = rows, batch_size, drop_last
        self.generator = generator(seed, name)
        self.passes = self.position = 0
        self._order = np.empty(0, dtype=np.int64)
        self._before = self.generator.bit_generator.state  # of this pass's permutation

    def next(self) -> np.ndarray:
        left = len(self._order) - self.position
        if left < (self.batch_size if self.drop_last else 1):
            self._before = self.generator.bit_generator.state
            self._order, self.position = self.generator.permutation(self.rows), 0
            self.passes += 1
        batch = self._order[self.position : self.position + self.batch_size]
        self.position += len(batch)
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Where it stands, JSON-able and small: the order itself is drawn again."""
        return {"passes": self.passes, "position": self.position, "generator": self._before}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.passes, self.position, self._before = state["passes"], state["position"], state["generator"]
        self.generator.bit_generator.state = self._before
        self._order = self.generator.permutation(self.rows) if self.passes else self._order[:0]


def choose_captions(caption_image: Sequence[int], captions_per_image: str, seed: int = 0, number: int = 0) -> list[int]:
    """Caption numbers that a pass reads: `all`; `one_fixed` of each image, drawn once and the same for every seed; or
    `one_per_epoch`, drawn anew by (seed, number of the pass).
    """
    if captions_per_image == "all":
        return list(range(len(caption_image)))
    of_image: dict[int, list[int]] = {}
    for caption, image in enumerate(caption_image):
        of_image.setdefault(image, []).append(caption)
    if captions_per_image == "one_fixed":
        draw = generator(_CAPTION_SEED, "one_fixed")
    else:
        draw = generator(seed, f"one_per_epoch/{number}")
    return [of_image[image][draw.integers(len(of_image[image]))] for image in sorted(of_image)]


def generator(seed: int, name: str) -> np.random.Generator:
    """A random generator of its own for each use, so that recipes that use less see the same rest."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])
