"""Cosines: what every similarity here is."""

import torch
from torch import Tensor

from model.losses.precision import full_precision


@full_precision
def cosine_matrix(rows: Tensor, columns: Tensor) -> Tensor:
    """Cosine of every row with every column: [N, D], [M, D] of any norm -> [N, M]."""
    return unit(rows) @ unit(columns).T


@full_precision
def unit(x: Tensor) -> Tensor:
    """x [..., D] divided by its L2 norm. A zero row has no direction: it stays zero and gets no gradient, where a
    division by a small number would send a huge one (a head that ends in ReLU does give zero rows).
    """
    square = x.square().sum(-1, keepdim=True)
    dead = square <= torch.finfo(x.dtype).tiny  # false for NaN, which has to stay visible
    return torch.where(dead, 0.0, x * torch.where(dead, 1.0, square).rsqrt())
