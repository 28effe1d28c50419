"""Encoder and heads: from a batch to what the terms read, and to the terms that are summed.

Gradients: frozen features get none; the SimCSE head g learns from the text term alone; the encoder learns from the
image and object terms through the grounding head g_t, which reads h and not z.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from model.batches import Batch, Tokens
from model.data import TrainingData
from model.encoded import Encoded
from model.encoder import Encoder
from model.heads import heads_for
from model.recipes import Recipe
from model.terms import TERMS

if TYPE_CHECKING:
    from model.teachers import Teachers

__all__ = ["Encoded", "Network", "losses"]


class Network(nn.Module):
    """What is trained: `encoder` and `heads` (those the recipe names).

    With pooling `cls_mlp` the encoder's own MLP is the SimCSE head, since it is part of the embedding. `teachers` are
    at hand for the terms but no part of the network: not trained, not in its state, always in eval mode.
    """

    def __init__(
        self, encoder: Encoder, recipe: Recipe, data: TrainingData, seed: int, teachers: Teachers | None = None
    ):
        super().__init__()
        self._apart: dict = {"teachers": teachers}  # a plain dict, so that nothing in it is registered
        self.encoder = encoder
        self.precision = recipe.precision
        self.length_chunks = recipe.length_chunks
        self.heads = heads_for(recipe, encoder, data, seed)

    def compile(self, backend: str = "inductor") -> None:
        """Runs the encoder through torch.compile from now on; weights and their names stay what they are."""
        self._apart["compiled"] = torch.compile(self.encoder.model, dynamic=True, backend=backend)

    @property
    def teachers(self) -> Teachers | None:
        return self._apart["teachers"]

    def encode(self, batch: Batch, recipe: Recipe) -> Encoded:
        """h of all views in one forward pass of N x V rows, and the phrases in another; the whole batch, with graph."""
        h, states = self.rows(batch.tokens, self.keeps_states(recipe))
        phrases = batch.objects.tokens if batch.objects is not None else None
        return Encoded(h, states, None if phrases is None else self.rows(phrases)[0])

    @staticmethod
    def keeps_states(recipe: Recipe) -> bool:
        """Whether terms of this recipe read the token states of the texts."""
        return "spans" in recipe.needs

    def rows(self, tokens: Tokens, keep_states: bool = False) -> tuple[Tensor, Tensor | None]:
        """(h [N, V, H], states [N, V, L, H] or None) of [N, V, L] tokens; float32, or the encoder's float64.

        With `length_chunks` the rows are sorted by length and passed in so many groups, each cut to its longest, and
        scattered back: the same vectors, less padding.
        """
        n, v, length = tokens.input_ids.shape
        ids, mask = tokens.input_ids.view(n * v, length), tokens.attention_mask.view(n * v, length)
        chunks = min(self.length_chunks, n * v)
        if chunks == 1:
            h, states = self._forward(ids, mask)
        else:
            h, states = self._by_length(ids, mask, chunks)
        if not keep_states:
            return h.view(n, v, -1), None
        half = states.dtype in (torch.float16, torch.bfloat16)
        return h.view(n, v, -1), (states.float() if half else states).view(n, v, length, -1)

    def _by_length(self, ids: Tensor, mask: Tensor, chunks: int) -> tuple[Tensor, Tensor]:
        lengths = mask.sum(1)
        order = lengths.argsort(stable=True)
        groups = order.tensor_split(chunks)
        longest = torch.stack([lengths[group].max() for group in groups]).tolist()
        parts = [self._forward(ids[g, :most], mask[g, :most]) for g, most in zip(groups, longest, strict=True)]
        back = order.argsort()
        width = ids.shape[1]
        states = [nn.functional.pad(s, (0, 0, 0, width - s.shape[1])) for _, s in parts]
        return torch.cat([h for h, _ in parts])[back], torch.cat(states)[back]

    def _forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        run: Callable = self._apart.get("compiled", self.encoder.model)
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            states = run(input_ids=ids, attention_mask=mask).last_hidden_state
        return self.encoder.pool(states, mask), states

    def views(self, tokens: Tokens) -> Tensor:
        """h of all views: [N, V, H]."""
        return self.rows(tokens)[0]

    def simcse(self, h: Tensor) -> Tensor:
        return self.encoder.mlp(h) if self.encoder.mlp is not None else self.heads["simcse"](h)

    def object(self, feature: Tensor) -> Tensor:
        return self.heads["object" if "object" in self.heads else "visual"](feature)


def losses(
    network: Network, encoded: Encoded, batch: Batch, recipe: Recipe
) -> dict[str, tuple[Tensor, dict[str, Tensor]]]:
    """The recipe's terms on this batch: {name: (unweighted scalar, statistics)}; terms without anything to compare are
    left out.
    """
    found = {t.name: TERMS[t.name](network, encoded, batch, t) for t in recipe.terms if batch.kind in t.kinds}
    return {name: value for name, value in found.items() if value is not None}
