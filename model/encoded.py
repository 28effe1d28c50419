"""What the encoder made of a batch: all that the terms of a loss may read of it."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Encoded:
    """Pooled vectors before any head, of the V views of each text.

    h: [N, V, H], of the batch's texts. states: [N, V, L, H], their token states, only for recipes that read spans.
    phrases: [M, V, H], of the batch's phrases where these are encoded alone.

    The terms read the encoder's work from here and nowhere else: so it can be cut into chunks (gradient cache) or
    spread over processes, and the loss still sees the whole batch.
    """

    h: Tensor
    states: Tensor | None = None
    phrases: Tensor | None = None
