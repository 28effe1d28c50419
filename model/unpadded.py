"""One forward pass over rows of different lengths, laid end to end.

A batch of sentences padded to its longest is a third padding. Here the rows are sorted by length and cut into groups, a
row is padded to the longest of its group only, and all tokens pass through the encoder together as one long row. What
works token by token (embeddings, linear layers, norms: nearly all of the arithmetic) sees no border; attention is taken
group by group. The vectors are those of a padded batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface

if TYPE_CHECKING:
    from model.batches import Tokens
    from model.encoder import Encoder

# The architectures it is proven on: absolute positions, attention through transformers' interface.
_FAMILIES = ("bert", "roberta", "xlm-roberta", "electra")
_NAME = "rows_end_to_end"


def possible(model: nn.Module) -> bool:
    """Whether the model can be given rows end to end."""
    config = getattr(model, "config", None)
    absolute = getattr(config, "position_embedding_type", "absolute") == "absolute"
    return getattr(config, "model_type", None) in _FAMILIES and absolute and not getattr(config, "is_decoder", False)


@dataclass(frozen=True)
class _Group:
    """`rows` rows of `length` tokens each. `mask`: int64 [rows, length]; `keys`: bool [rows, 1, 1, length], which
    tokens may be attended to, or None where none is padding.
    """

    rows: int
    length: int
    mask: Tensor
    keys: Tensor | None


def encode(
    encoder: Encoder, blocks: Sequence[Tokens], groups: int, keep_states: bool = False
) -> list[tuple[Tensor, Tensor | None]]:
    """(h [N, V, H], states [N, V, L, H] or None) of each block's tokens [N, V, L], all in one pass.

    `groups`: how many groups of like length at most. The states of padding are zero.
    """
    device = blocks[0].input_ids.device
    lengths = np.concatenate([block.row_lengths().reshape(-1) for block in blocks])
    order = np.argsort(lengths, kind="stable")
    first, lengths = np.concatenate(_starts(blocks))[order], lengths[order]
    made, index, positions = [], [], []
    for start, end, length in _groups(lengths, groups):
        position = np.tile(np.arange(length), (end - start, 1))
        real = position < lengths[start:end, None]
        # what pads a row may be any token: nobody attends to it
        index.append(np.where(real, first[start:end, None] + position, first[start:end, None]).reshape(-1))
        positions.append(position.reshape(-1))
        made.append(_group(real, device))
    ids = torch.cat([block.input_ids.reshape(-1) for block in blocks])[_on(np.concatenate(index), device)]
    positions = np.concatenate(positions) + encoder.first_position
    with _attention_of(encoder.model, made):
        states = encoder.model(input_ids=ids[None], position_ids=_on(positions, device)[None]).last_hidden_state[0]
    return _taken_apart(encoder, blocks, states, made, _on(np.argsort(order), device), keep_states)


def _group(real: np.ndarray, device: torch.device) -> _Group:
    mask = _on(real.astype(np.int64), device)
    return _Group(*real.shape, mask, None if real.all() else mask.bool()[:, None, None, :])


def _on(values: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(values).to(device, non_blocking=True)


def _taken_apart(
    encoder: Encoder, blocks: Sequence[Tokens], states: Tensor, groups: list[_Group], back: Tensor, keep_states: bool
) -> list[tuple[Tensor, Tensor | None]]:
    of_group = [
        part.view(g.rows, g.length, -1)
        for part, g in zip(states.split([g.rows * g.length for g in groups]), groups, strict=True)
    ]
    vectors = [encoder.pool(s, g.mask) for s, g in zip(of_group, groups, strict=True)]
    rows = [block.input_ids.shape[0] * block.input_ids.shape[1] for block in blocks]
    h = torch.cat(vectors)[back].split(rows)
    shapes = [block.input_ids.shape for block in blocks]
    if not keep_states:
        return [(part.view(*shape[:2], -1), None) for part, shape in zip(h, shapes, strict=True)]
    width = max(shape[2] for shape in shapes)
    real = [s * g.mask[..., None] for s, g in zip(of_group, groups, strict=True)]
    whole = torch.cat([nn.functional.pad(s, (0, 0, 0, width - s.shape[1])) for s in real])[back].split(rows)
    return [
        (part.view(*shape[:2], -1), kept[:, : shape[2]].view(*shape, -1))
        for part, kept, shape in zip(h, whole, shapes, strict=True)
    ]


def _starts(blocks: Sequence[Tokens]) -> list[np.ndarray]:
    """Where each row's first token lies when the blocks' padded tokens are one flat run."""
    found, base = [], 0
    for block in blocks:
        n, v, width = block.input_ids.shape
        found.append(base + width * np.arange(n * v))
        base += n * v * width
    return found


def _groups(lengths: np.ndarray, most: int) -> list[tuple[int, int, int]]:
    """(first row, row after the last, length) of at most `most` groups of rows sorted by length: of all ways to cut
    them between two lengths the one with the least padding.
    """
    distinct, counts = np.unique(lengths, return_counts=True)
    rows = np.concatenate([[0], np.cumsum(counts)])
    count = len(distinct)
    most = min(most, count)
    # cost[i, j]: tokens of rows of the lengths i to j, all as long as j
    cost = (rows[1:][None, :] - rows[:-1][:, None]) * distinct[None, :]
    cost = np.where(np.tri(count, k=-1, dtype=bool), np.iinfo(np.int64).max // 4, cost)
    best, chosen = cost[0], []
    for _ in range(1, most):
        # the last group begins at length i + 1, the others end at i
        with_last = best[:-1, None] + cost[1:, :]
        at = with_last.argmin(0)
        better = with_last[at, np.arange(count)]
        chosen.append(np.where(better < best, at, -1))
        best = np.minimum(better, best)
    cuts, end = [], count - 1
    for step in reversed(chosen):
        if (at := int(step[end])) >= 0:
            cuts.append((at + 1, end))
            end = at
    cuts.append((0, end))
    return [(int(rows[i]), int(rows[j + 1]), int(distinct[j])) for i, j in reversed(cuts)]


_groups_of: list[list[_Group]] = []


@contextmanager
def _attention_of(model: nn.Module, groups: list[_Group]):
    """Inside, the model's attention goes by these groups."""
    before = model.config._attn_implementation
    model.config._attn_implementation = _NAME
    _groups_of.append(groups)
    try:
        yield
    finally:
        _groups_of.pop()
        model.config._attn_implementation = before


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, _mask, scaling=None, dropout: float = 0.0, **_
) -> tuple[Tensor, None]:
    """query, key, value: [1, heads, T, d], the rows of all groups end to end. Returns [1, T, heads, d]."""
    groups = _groups_of[-1]
    sizes = [g.rows * g.length for g in groups]
    parts = [t.transpose(1, 2)[0].split(sizes) for t in (query, key, value)]
    made = []
    for g, *qkv in zip(groups, *parts, strict=True):
        q, k, v = (t.view(g.rows, g.length, *t.shape[1:]).transpose(1, 2) for t in qkv)
        out = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=g.keys, dropout_p=dropout, scale=scaling)
        made.append(out.transpose(1, 2).reshape(g.rows * g.length, *qkv[0].shape[1:]))
    return torch.cat(made)[None], None


AttentionInterface.register(_NAME, _attention)
