"""Streams, the schedule that mixes them, and the batches that come out.

Two streams, sentences and image-caption pairs, are each read for ever, reshuffled at every pass. Which of them a step
reads follows the mixing rule of MCSE (Zhang et al. 2022, released training loop; the guard is ours): with W and P the
batches in one pass over sentences and pairs, an epoch has W + P steps and step s of an epoch reads a pair batch if
s mod K = 0, K = max(1, W // P). The step counter restarts with the epoch, the streams do not.
"""

import math
import zlib
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from model.data import TrainingData, check_batch
from model.encoder import Encoder
from model.errors import ModelError
from model.recipes import Recipe

# one caption per image is drawn once for all runs: seeds must differ in training, not in data
_CAPTION_SEED = 0


@dataclass(frozen=True)
class Schedule:
    """Batches in one pass over each stream, and every how many steps a pair batch comes."""

    text_batches: int
    pair_batches: int
    pair_every: int

    @property
    def steps_per_epoch(self) -> int:
        return self.text_batches + self.pair_batches

    def kind(self, step: int) -> str:
        """What step number `step` of the run (from 0) reads: 'pair' or 'text'."""
        if not self.text_batches or not self.pair_batches:
            return "pair" if self.pair_batches else "text"
        return "pair" if (step % self.steps_per_epoch) % self.pair_every == 0 else "text"

    @property
    def warning(self) -> str | None:
        """One line if the text stream would never be read: K is 1 whenever W < 2P."""
        if self.text_batches and self.pair_batches and self.pair_every == 1:
            return (
                f"every step reads image-caption pairs and the {self.text_batches} text batches are never read: "
                f"there are {self.pair_batches} pair batches a pass. Bring at least twice as many sentences as "
                f"captions, or set pair_every"
            )
        return None


def plan(sentences: int, captions: int, batch_size: int, pair_every: int | None = None) -> Schedule:
    """The schedule of streams with that many rows; `pair_every` overrides K."""
    text, pairs = math.ceil(sentences / batch_size), math.ceil(captions / batch_size)
    return Schedule(text, pairs, pair_every or (max(1, text // pairs) if pairs else 1))


class Stream:
    """Row numbers 0..rows-1 for ever, `batch_size` at a time, in a new order each pass.

    The last batch of a pass is smaller. The order depends on (seed, name, rows, batch_size) alone.
    """

    def __init__(self, rows: int, batch_size: int, seed: int, name: str):
        self.rows, self.batch_size = rows, batch_size
        self.generator = _generator(seed, name)
        self.order = np.empty(0, dtype=np.int64)

    def next(self) -> np.ndarray:
        if not len(self.order):
            self.order = self.generator.permutation(self.rows)
        batch, self.order = self.order[: self.batch_size], self.order[self.batch_size :]
        return batch


@dataclass(frozen=True)
class Tokens:
    """Two views of N texts: input_ids and attention_mask, int64 [N, 2, L]."""

    input_ids: Tensor
    attention_mask: Tensor


@dataclass(frozen=True)
class Objects:
    """The object-phrase pairs of a batch: phrase tokens [M, 2, L], feature [M, d], key, image [M], box [M, 4]."""

    tokens: Tokens
    feature: Tensor
    key: Tensor
    image: Tensor
    box: Tensor


@dataclass(frozen=True)
class Batch:
    """`kind`: text or pair. image: [N, d] frozen features or None; objects: None if there are none."""

    kind: str
    tokens: Tokens
    image: Tensor | None = None
    objects: Objects | None = None

    def __len__(self) -> int:
        return len(self.tokens.input_ids)


class Batches:
    """The batches of a run, one per step, in the order the schedule says.

    Each stream and the sampling of objects has its own generator, so recipes that use less see the same rest.
    """

    def __init__(self, data: TrainingData, recipe: Recipe, encoder: Encoder, seed: int):
        self.data, self.recipe, self.encoder = data, recipe, encoder
        self.captions = choose_captions(data.caption_image, recipe.captions_per_image)
        check_batch(recipe, len(data.sentences), len(self.captions))
        self.schedule = plan(len(data.sentences), len(self.captions), recipe.batch_size, recipe.pair_every)
        self.text = Stream(len(data.sentences), recipe.batch_size, seed, "text")
        self.pair = Stream(len(self.captions), recipe.batch_size, seed, "pair")
        self.sampling = _generator(seed, "objects")
        if recipe.has("object") and not any(data.pairs[c] for c in self.captions):
            raise ModelError("none of the captions trained on has an object-phrase pair; set captions_per_image to all")

    def next(self, step: int) -> Batch:
        """The batch of step number `step` of the run (from 0); to be called for each step in turn."""
        if self.schedule.kind(step) == "text":
            return Batch("text", self._tokens([self.data.sentences[i] for i in self.text.next()]))
        captions = [self.captions[i] for i in self.pair.next()]
        image = objects = None
        if self.recipe.has("image"):
            image = _rows(self.data.image_features, [self.data.caption_image[c] for c in captions])
        if self.recipe.has("object"):
            objects = self._objects(captions)
        return Batch("pair", self._tokens([self.data.captions[c] for c in captions]), image, objects)

    def _tokens(self, texts: list[str]) -> Tokens:
        ids, mask = self.encoder.pad(self.encoder.token_ids(texts, self.recipe.max_length))
        return Tokens(ids.unsqueeze(1).repeat(1, 2, 1), mask.unsqueeze(1).repeat(1, 2, 1))

    def _objects(self, captions: list[int]) -> Objects | None:
        k = self.recipe.objects_per_caption
        items = []
        for caption in captions:
            own = self.data.pairs[caption]
            chosen = self.sampling.choice(len(own), min(k, len(own)), replace=False) if own else ()
            items += [own[i] for i in sorted(chosen)]
        if not items:
            return None
        return Objects(
            tokens=self._tokens([i.phrase for i in items]),
            feature=_rows(self.data.object_features, [i.object_row for i in items]),
            key=_codes(i.key for i in items),
            image=_codes(i.image_id for i in items),
            box=torch.tensor([i.box for i in items], dtype=torch.float32),
        )


def choose_captions(caption_image: list[int], captions_per_image: str) -> list[int]:
    """Caption numbers that training reads: `all`, or one of each image, drawn once and the same for every seed."""
    if captions_per_image == "all":
        return list(range(len(caption_image)))
    of_image: dict[int, list[int]] = {}
    for caption, image in enumerate(caption_image):
        of_image.setdefault(image, []).append(caption)
    generator = _generator(_CAPTION_SEED, "one_fixed")
    return [of_image[image][generator.integers(len(of_image[image]))] for image in sorted(of_image)]


def to_device(batch, device: torch.device):
    """The same batch (or part of one) with its tensors on `device`."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if batch is None or isinstance(batch, str):
        return batch
    return type(batch)(**{f.name: to_device(getattr(batch, f.name), device) for f in fields(batch)})


def _generator(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def _rows(features: np.ndarray, rows: list[int]) -> Tensor:
    return torch.from_numpy(np.asarray(features[rows], dtype=np.float32))


def _codes(values: Iterable[Hashable]) -> Tensor:
    code: dict[Hashable, int] = {}
    return torch.tensor([code.setdefault(v, len(code)) for v in values], dtype=torch.int64)
