"""Encoder and heads: from a batch to what the terms read, and to the terms that are summed.

Gradients: frozen features get none; the SimCSE head g learns from the text term alone; the encoder learns from the
image and object terms through the grounding head g_t, which reads h and not z.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from model import unpadded
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
        """h of all views, N x V rows, and of the phrases; the whole batch, with graph."""
        states = self.keeps_states(recipe)
        phrases = batch.objects.tokens if batch.objects is not None else None
        if phrases is not None and self.end_to_end and not states:
            (h, _), (of_phrases, _) = self._end_to_end([batch.tokens, phrases], False)
            return Encoded(h, None, of_phrases)
        h, kept = self.rows(batch.tokens, states)
        return Encoded(h, kept, None if phrases is None else self.rows(phrases)[0])

    @staticmethod
    def keeps_states(recipe: Recipe) -> bool:
        """Whether terms of this recipe read the token states of the texts."""
        return "spans" in recipe.needs

    @property
    def end_to_end(self) -> bool:
        """Whether texts are passed without padding (model.unpadded), which a compiled encoder has no graph for."""
        return self.length_chunks > 1 and "compiled" not in self._apart and unpadded.possible(self.encoder.model)

    def rows(self, tokens: Tokens, keep_states: bool = False) -> tuple[Tensor, Tensor | None]:
        """(h [N, V, H], states [N, V, L, H] or None) of [N, V, L] tokens; float32, or the encoder's float64."""
        if self.end_to_end:
            return self._end_to_end([tokens], keep_states)[0]
        n, v, length = tokens.input_ids.shape
        ids, mask = tokens.input_ids.view(n * v, length), tokens.attention_mask.view(n * v, length)
        run: Callable = self._apart.get("compiled", self.encoder.model)
        with self._autocast(ids.device):
            states = run(input_ids=ids, attention_mask=mask).last_hidden_state
        h = self.encoder.pool(states, mask)
        return h.view(n, v, -1), _full(states).view(n, v, length, -1) if keep_states else None

    def _end_to_end(self, blocks: list[Tokens], keep_states: bool) -> list[tuple[Tensor, Tensor | None]]:
        with self._autocast(blocks[0].input_ids.device):
            made = unpadded.encode(self.encoder, blocks, self.length_chunks, keep_states)
        return [(h, None if states is None else _full(states)) for h, states in made]

    def _autocast(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def views(self, tokens: Tokens) -> Tensor:
        """h of all views: [N, V, H]."""
        return self.rows(tokens)[0]

    def simcse(self, h: Tensor) -> Tensor:
        return self.encoder.mlp(h) if self.encoder.mlp is not None else self.heads["simcse"](h)

    def object(self, feature: Tensor) -> Tensor:
        return self.heads["object" if "object" in self.heads else "visual"](feature)


def _full(states: Tensor) -> Tensor:
    return states.float() if states.dtype in (torch.float16, torch.bfloat16) else states


def losses(
    network: Network, encoded: Encoded, batch: Batch, recipe: Recipe
) -> dict[str, tuple[Tensor, dict[str, Tensor]]]:
    """The recipe's terms on this batch: {name: (unweighted scalar, statistics)}; terms without anything to compare are
    left out.
    """
    found = {t.name: TERMS[t.name](network, encoded, batch, t) for t in recipe.terms if batch.kind in t.kinds}
    return {name: value for name, value in found.items() if value is not None}
