"""The batches of a run: token ids, frozen features and object-phrase pairs of the rows a step reads."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.data import PairItem, TrainingData, check_batch
from model.encoder import Encoder
from model.errors import ModelError
from model.losses.span_mean import token_span
from model.recipes import Recipe
from model.streams import Schedule, Stream, choose_captions, generator, plan
from model.tokens import TokenTable

__all__ = ["Batch", "Batches", "Objects", "Schedule", "Stream", "Tokens", "choose_captions", "plan", "to_device"]

_ROLL = 5  # how far images are moved to be another caption's, as in the released code of DALR
_SPANS_AT_ONCE = 4096


@dataclass(frozen=True)
class Tokens:
    """V views of N texts (of a triplet: its three texts): input_ids and attention_mask, int64 [N, V, L].

    lengths: int64 [N, V], an array of the host wherever the rest lies, so that nobody waits for a device to know them;
    None: they are in the mask.
    """

    input_ids: Tensor
    attention_mask: Tensor
    lengths: np.ndarray | None = None

    def row_lengths(self) -> np.ndarray:
        """How many tokens each text has, at least 1: int64 [N, V]."""
        found = self.attention_mask.sum(-1).cpu().numpy() if self.lengths is None else self.lengths
        return np.maximum(found, 1)

    def cut(self, start: int, end: int) -> "Tokens":
        """Texts start to end - 1."""
        lengths = None if self.lengths is None else self.lengths[start:end]
        return Tokens(self.input_ids[start:end], self.attention_mask[start:end], lengths)


@dataclass(frozen=True)
class Objects:
    """The object-phrase pairs of a batch.

    tokens: the phrases, [M, 2, L], or None where they are not encoded alone; feature: [M, d] or None; key, image: [M];
    box: [M, 4]; row: [M], the row of the batch whose caption they are of; first, end: [M], the phrase's tokens
    [first, end) in its caption, or None; phrase_text: [M, d_p] or None.
    """

    tokens: Tokens | None
    feature: Tensor | None
    key: Tensor
    image: Tensor
    box: Tensor
    row: Tensor | None = None
    first: Tensor | None = None
    end: Tensor | None = None
    phrase_text: Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """`kind`: text, pair or triplet. What the recipe does not use is None.

    image: [N, d] frozen features; caption_text: [N, d_c]; teacher_text: [N, d_k] a teacher, in the recipe's order;
    image_id: [N], equal for captions of the same image; masked: [N, V, L] the token ids with some masked, for a
    generator to fill; mismatched: [2, K] rows of a text and of another's image; rows: which rows of sentences, captions
    or triplets these are.
    """

    kind: str
    tokens: Tokens
    image: Tensor | None = None
    objects: Objects | None = None
    caption_text: Tensor | None = None
    teacher_text: tuple[Tensor, ...] = ()
    image_id: Tensor | None = None
    masked: Tensor | None = None
    mismatched: Tensor | None = None
    rows: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.tokens.input_ids)


class Batches:
    """The batches of a run, one per step, in the order the schedule says.

    Each stream, the sampling of objects, the masking of tokens and the mismatching of images has its own generator, so
    recipes that use less see the same rest. PyTorch's random state is not touched. `notes`: what the user should know.
    Raises ModelError for streams of less than a batch (2), and where nothing can be made of the pairs (3).
    """

    def __init__(self, data: TrainingData, recipe: Recipe, encoder: Encoder, seed: int, drop_last: bool = False):
        self.data, self.recipe, self.encoder, self.seed = data, recipe, encoder, seed
        three = "triplets" in recipe.needs
        self._chosen: tuple[int, list[int]] = (1, choose_captions(data.caption_image, self._per_image, seed, 1))
        captions, size = self._chosen[1], recipe.batch_size
        if three:
            check_batch(recipe, triplets=len(data.triplets))
        else:
            check_batch(recipe, sentences=len(data.sentences), captions=len(captions))
        rows = (len(data.sentences), len(captions), size, recipe.pair_every, len(data.triplets) * three)
        self.schedule = plan(*rows, drop_last)
        self.text = Stream(len(data.sentences), size, seed, "text", drop_last)
        self.pair = Stream(len(captions), size, seed, "pair", drop_last)
        self.triplet = Stream(len(data.triplets), size, seed, "triplet", drop_last)
        self.generators = {name: generator(seed, name) for name in ("objects", "mask", "mismatched")}
        self.notes = [self.schedule.warning] if self.schedule.warning else []
        if recipe.pooling not in (None, encoder.pooling):
            self.notes.append(
                f"recipe {recipe.name} is meant for pooling {recipe.pooling}, whose layer is part of the embedding; "
                f"the text encoder has {encoder.pooling}"
            )
        if "teachers" in recipe.needs and data.teacher_text is None:
            raise ModelError(f"recipe {recipe.name} needs vectors of its text teachers ({', '.join(recipe.teachers)})")
        self._tables: dict[str, TokenTable] = {}
        self._phrase_row: dict[str, int] = {}
        self.pairs: Sequence[Sequence[PairItem]] = ()
        if "objects" in recipe.needs or "phrases" in recipe.needs:
            self._prepare_pairs(captions)

    def next(self, step: int) -> Batch:
        """The batch of step number `step` of the run (from 0); to be called for each step in turn."""
        kind = self.schedule.kind(step)
        if kind == "triplet":
            return self._triplets()
        if kind == "pair":
            return self._pairs()
        rows = self.text.next()
        tokens = self._tokens("sentences", rows)
        return Batch("text", tokens, masked=self._masked(tokens), rows=_numbers(rows))

    def state_dict(self) -> dict[str, Any]:
        """Where every stream and generator stands, JSON-able; with it the batches go on as if never interrupted."""
        streams = {name: getattr(self, name).state_dict() for name in ("text", "pair", "triplet")}
        return streams | {"generators": {name: g.bit_generator.state for name, g in self.generators.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("text", "pair", "triplet"):
            getattr(self, name).load_state_dict(state[name])
        for name, own in self.generators.items():
            own.bit_generator.state = state["generators"][name]

    # ------------------------------------------------------------ kinds

    def _triplets(self) -> Batch:
        rows = self.triplet.next()
        ids, mask = self._table("triplets").batch((3 * rows[:, None] + np.arange(3)).reshape(-1))
        tokens = _tokens_of(ids.view(len(rows), 3, -1), mask.view(len(rows), 3, -1))
        return Batch("triplet", tokens, rows=_numbers(rows))

    def _pairs(self) -> Batch:
        data, needs = self.data, self.recipe.needs
        positions = self.pair.next()
        chosen = self._captions()
        captions = [chosen[i] for i in positions]
        tokens = self._tokens("captions", captions)
        images = [data.caption_image[c] for c in captions]
        return Batch(
            "pair",
            tokens,
            image=_rows(data.image_features, images) if "images" in needs else None,
            objects=self._objects(captions) if len(self.pairs) else None,
            caption_text=_rows(data.caption_text, captions) if "caption_text" in needs else None,
            teacher_text=tuple(_rows(data.teacher_text[name], captions) for name in self.recipe.teachers),
            image_id=torch.tensor(images, dtype=torch.int64),
            masked=self._masked(tokens),
            mismatched=self._mismatched(np.asarray(images)),
            rows=_numbers(captions),
        )

    # ------------------------------------------------------------ captions and tokens

    @property
    def _per_image(self) -> str:
        return self.recipe.captions_per_image

    def _captions(self) -> list[int]:
        """The captions of the pass that the pair stream is in."""
        number = self.pair.passes
        if self._per_image == "one_per_epoch" and number != self._chosen[0]:
            self._chosen = (number, choose_captions(self.data.caption_image, self._per_image, self.seed, number))
        return self._chosen[1]

    def _table(self, name: str) -> TokenTable:
        if name not in self._tables:
            texts = list(self._phrase_row) if name == "phrases" else getattr(self.data, name)
            if name == "triplets":
                texts = [text for triplet in texts for text in triplet]
            self._tables[name] = TokenTable(self.encoder, texts, self.recipe.max_length)
        return self._tables[name]

    def _tokens(self, table: str, rows: Sequence[int] | np.ndarray) -> Tokens:
        ids, mask = self._table(table).batch(rows)
        return _tokens_of(ids.unsqueeze(1).repeat(1, 2, 1), mask.unsqueeze(1).repeat(1, 2, 1))

    def _masked(self, tokens: Tokens) -> Tensor | None:
        """Of the tokens that are not special, `mask_share` is chosen; 80 % of these become the mask token, 10 % any
        token, 10 % stay; each view its own.
        """
        if "generator" not in self.recipe.needs:
            return None
        draw, tokenizer = self.generators["mask"], self.encoder.tokenizer
        ids = tokens.input_ids.numpy().copy()
        usual = ~np.isin(ids, tokenizer.all_special_ids) & (tokens.attention_mask.numpy() == 1)
        chosen = usual & (draw.random(ids.shape) < self.recipe.mask_share)
        which, other = draw.random(ids.shape), draw.integers(len(tokenizer), size=ids.shape)
        ids[chosen & (which < 0.8)] = tokenizer.mask_token_id
        replaced = chosen & (which >= 0.8) & (which < 0.9)
        ids[replaced] = other[replaced]
        return torch.from_numpy(ids)

    def _mismatched(self, image: np.ndarray) -> Tensor | None:
        options = next((t.options for t in self.recipe.terms if t.name == "consistency"), None)
        if options is None:
            return None
        text, n = np.arange(len(image)), len(image)
        if options["mismatched"] == "shuffle":  # along one cycle through all: nobody gets the own image
            order = self.generators["mismatched"].permutation(n)
            other = np.empty(n, dtype=np.int64)
            other[order] = np.roll(order, 1)
        else:
            other = np.roll(text, _ROLL if _ROLL % n else 1)
        right = other != text
        if options["same_image"]:
            right &= image[other] != image
        return torch.from_numpy(np.stack([text[right], other[right]]))

    # ------------------------------------------------------------ objects

    def _prepare_pairs(self, captions: list[int]) -> None:
        data, recipe = self.data, self.recipe
        self.pairs = data.pairs
        self.spans: dict[int, list[tuple[int, int]]] = {}
        if "spans" in recipe.needs:
            self._find_spans()
        read = range(len(self.pairs)) if self._per_image == "one_per_epoch" else captions
        if not any(self.pairs[c] for c in read):
            raise ModelError("none of the captions trained on has an object-phrase pair; set captions_per_image to all")
        if "spans" not in recipe.needs and not recipe.has("bag"):
            self._phrase_row = {
                text: row for row, text in enumerate(dict.fromkeys(i.phrase for own in self.pairs for i in own))
            }
        if recipe.objects == "shuffled":
            self.object_row = generator(self.seed, "shuffled").permutation(len(data.object_features))

    def _find_spans(self) -> None:
        """Drops the pairs whose phrase truncation cuts off, and keeps the tokens of the others."""
        pairs, dropped = list(self.pairs), 0
        with_pairs = [c for c, own in enumerate(pairs) if own]
        for start in range(0, len(with_pairs), _SPANS_AT_ONCE):
            part = with_pairs[start : start + _SPANS_AT_ONCE]
            offsets = self.encoder.token_offsets([self.data.captions[c] for c in part], self.recipe.max_length)
            for caption, offset in zip(part, offsets, strict=True):
                found = [(item, token_span(offset, item.start, item.end)) for item in pairs[caption]]
                kept = [(item, span) for item, span in found if span is not None]
                dropped += len(found) - len(kept)
                pairs[caption] = [item for item, _ in kept]
                self.spans[caption] = [span for _, span in kept]
        self.pairs = pairs
        if dropped:
            total = dropped + sum(map(len, pairs))
            self.notes.append(
                f"{dropped} of {total} object-phrase pairs are left out: max_length {self.recipe.max_length} cuts "
                f"their phrases off"
            )

    def _objects(self, captions: list[int]) -> Objects | None:
        k, recipe, data = self.recipe.objects_per_caption, self.recipe, self.data
        items, owner, spans = [], [], []
        for row, caption in enumerate(captions):
            own = self.pairs[caption]
            chosen = self.generators["objects"].choice(len(own), min(k, len(own)), replace=False) if own else ()
            for i in sorted(chosen):
                items.append(own[i])
                owner.append(row)
                if self.spans:
                    spans.append(self.spans[caption][i])
        if not items:
            return None
        first, end = torch.tensor(spans, dtype=torch.int64).T if spans else (None, None)
        phrase_rows = [self._phrase_row[i.phrase] for i in items] if self._phrase_row else None
        return Objects(
            tokens=None if phrase_rows is None else self._tokens("phrases", phrase_rows),
            feature=self._features(items, [data.caption_image[captions[row]] for row in owner]),
            key=_codes(i.key for i in items),
            image=_codes(i.image_id for i in items),
            box=torch.tensor([i.box for i in items], dtype=torch.float32),
            row=torch.tensor(owner, dtype=torch.int64),
            first=first,
            end=end,
            phrase_text=_rows(data.phrase_text, [i.phrase_row for i in items])
            if "phrase_text" in recipe.needs
            else None,
        )

    def _features(self, items: list[PairItem], images: list[int]) -> Tensor | None:
        if self.recipe.objects == "image":
            return _rows(self.data.image_features, images)
        if "objects" not in self.recipe.needs:
            return None
        rows = [i.object_row for i in items]
        return _rows(self.data.object_features, self.object_row[rows] if self.recipe.objects == "shuffled" else rows)


def _tokens_of(ids: Tensor, mask: Tensor) -> Tokens:
    return Tokens(ids, mask, mask.sum(-1).numpy())


def to_device(batch: Any, device: torch.device) -> Any:
    """The same batch (or part of one) with its tensors on `device`."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if is_dataclass(batch):
        return type(batch)(**{f.name: to_device(getattr(batch, f.name), device) for f in fields(batch)})
    if isinstance(batch, tuple) and batch and isinstance(batch[0], Tensor):
        return tuple(to_device(part, device) for part in batch)
    return batch


def _rows(features: np.ndarray | Tensor, rows: Sequence[int] | np.ndarray) -> Tensor:
    """float32; from an array or memory map on the CPU, from a tensor on its own device."""
    if isinstance(features, Tensor):
        return features[torch.as_tensor(rows, device=features.device)].float()
    return torch.from_numpy(np.asarray(features[rows], dtype=np.float32))


def _numbers(rows: Iterable[int]) -> tuple[int, ...]:
    return tuple(int(row) for row in rows)


def _codes(values: Iterable[Hashable]) -> Tensor:
    code: dict[Hashable, int] = {}
    return torch.tensor([code.setdefault(v, len(code)) for v in values], dtype=torch.int64)
