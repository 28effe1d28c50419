"""A phrase as its caption has it: the mean of the token states of its span (variant B of the object-phrase loss)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from model.losses.precision import full_precision


@full_precision
def span_mean(states: Tensor, row: Tensor, first: Tensor, end: Tensor) -> Tensor:
    """[M, H]: phrase m is the mean of states[row_m, first_m : end_m].

    states: [N, L, H], the captions' last hidden states of one view; row, first, end: [M] int, first < end <= L.
    The result goes through a head of its own, tanh(W_s x + b_s) divided by its norm, and into object_phrase.

    Source: variant B of docs/recipes.md (this project's; no code of MCSEO is published).
    """
    position = torch.arange(states.shape[1], device=states.device)
    inside = (position >= first[:, None]) & (position < end[:, None])
    weight = inside.to(states.dtype)
    return torch.einsum("ml,mlh->mh", weight, states[row]) / weight.sum(1, keepdim=True)


def token_span(offsets: Sequence[tuple[int, int]], start: int, end: int) -> tuple[int, int] | None:
    """Tokens [first, last) that overlap the characters [start, end) of the text; None if the span is cut off.

    offsets: character ranges of the tokens, as a fast tokenizer gives them (`return_offsets_mapping`); special tokens
    and padding have an empty one, (0, 0). A span is cut off when its last characters belong to no token, because the
    text was truncated: such a phrase has to be left out.
    """
    touched = [i for i, (a, b) in enumerate(offsets) if a < end and b > start and a < b]
    if not touched or max(offsets[i][1] for i in touched) < end:
        return None
    return touched[0], touched[-1] + 1
