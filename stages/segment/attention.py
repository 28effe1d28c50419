"""Attention with SAM's decomposed relative positions: score(q, k) = q.k / sqrt(c) + q.rows[yq, yk] + q.columns[xq, xk].

Three ways to the same numbers, none of which builds the scores as the published code does:

- `folded`: the two terms become features of the query, one for each row and each column of the grid, and a key has a
  one where its own row and column are. The bias is then part of q.k, exactly, and the fused kernels for long sequences
  (flash attention takes 256 features; SAM needs 192 or 208 for a grid of 64, 92 or 108 for a window of 14) run without
  a mask in memory. For CUDA, where memory traffic and the missing mask support of flash attention decide.
- `masked`: the bias is built, and scaled_dot_product_attention adds it. Fastest on a CPU for windows, and for any
  device nothing is known of.
- `blocked`: some rows of queries at a time, so that their scores stay in the cache. Fastest on a CPU for whole grids.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BLOCK = 256  # queries whose scores `blocked` holds at a time
_LONG = 1024  # tokens from which on `blocked` wins over `masked` on a CPU


def relative(table: Tensor) -> Tensor:
    """What a query at place i adds for a key at place j: the table [2 side - 1, c] of distances as [side, side, c]."""
    places = torch.arange((table.shape[0] + 1) // 2, device=table.device)
    return table[places[:, None] - places[None, :] + len(places) - 1]


def terms(q: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """The two terms of every query for every row and for every column of keys.

    Args:
        q: [B, heads, side * side, c]. rows, columns: [side, side, c], by `relative`.

    Returns:
        Two of [B, heads, side * side, side].
    """
    side = rows.shape[0]
    grid = q.unflatten(2, (side, side))
    by_row = torch.einsum("bhyxc,ykc->bhyxk", grid, rows)
    by_column = torch.einsum("bhyxc,xkc->bhyxk", grid, columns)
    return by_row.flatten(2, 3), by_column.flatten(2, 3)


def masked(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """[B, heads, n, c] of each -> [B, n, heads * c]; memory grows with n * n."""
    by_row, by_column = terms(q, rows, columns)
    bias = (by_row[..., :, None] + by_column[..., None, :]).flatten(3)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2)


def folded(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """As `masked`, without the mask. The terms are multiplied by sqrt(c), since the kernel divides all it adds up."""
    c, side = q.shape[-1], rows.shape[0]
    root = c**0.5
    by_row, by_column = terms(q, rows * root, columns * root)
    filler = q.new_zeros(1).expand(*q.shape[:3], -(c + 2 * side) % 8)  # fused kernels want multiples of 8
    wide_q = torch.cat([q, by_row, by_column, filler], -1)
    own = torch.eye(side, dtype=k.dtype, device=k.device)
    place = torch.cat([own.repeat_interleave(side, 0), own.repeat(side, 1)], 1)
    wide_k = torch.cat([k, place.expand(*k.shape[:3], -1), filler], -1)
    wide_v = F.pad(v, (0, wide_k.shape[-1] - c))  # flash attention knows one width only
    out = F.scaled_dot_product_attention(wide_q, wide_k, wide_v, scale=1.0 / root)
    return out[..., :c].transpose(1, 2).flatten(2)


def blocked(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """As `masked`, block by block of queries."""
    batch, heads, n, c = q.shape
    side = rows.shape[0]
    by_row, by_column = (term.flatten(0, 1) for term in terms(q, rows, columns))  # [B * heads, n, side]
    scaled = (q * c**-0.5).flatten(0, 1)
    keys, values = k.flatten(0, 1).transpose(1, 2).contiguous(), v.flatten(0, 1).contiguous()
    out = q.new_empty(batch, n, heads, c)
    step = min(max(1, _BLOCK // side) * side, n)
    scores = q.new_empty(step, n)
    for index in range(batch * heads):
        for first in range(0, n, step):
            part = slice(first, min(first + step, n))
            block = scores[: part.stop - first]
            bias = block.view(-1, side, side)
            torch.add(by_row[index, part, :, None], by_column[index, part, None, :], out=bias)
            block.addmm_(scaled[index, part], keys[index])
            torch.softmax(block, -1, out=block)
            out[index // heads, part, index % heads] = block @ values[index]
    return out.flatten(2)


def fastest(device: torch.device, tokens: int, compiled: bool) -> Callable[..., Tensor]:
    """The way for so many tokens on a device; a compiler would unroll the loops of `blocked`."""
    if device.type == "cuda":
        return folded
    return blocked if device.type == "cpu" and tokens >= _LONG and not compiled else masked


class Attention(nn.Module):
    """Attention over a square of tokens, with the weights of an official attention layer.

    Args:
        official: segment-anything's layer.
        way: `masked`, `folded` or `blocked`.
    """

    def __init__(self, official: nn.Module, way: Callable[..., Tensor]):
        super().__init__()
        self.qkv, self.proj, self.heads, self.way = official.qkv, official.proj, official.num_heads, way
        self.register_buffer("rows", relative(official.rel_pos_h.detach()))
        self.register_buffer("columns", relative(official.rel_pos_w.detach()))

    def forward(self, qkv: Tensor) -> Tensor:
        """Queries, keys and values [B, side * side, 3 dim] -> [B, side * side, dim], before the projection."""
        q, k, v = qkv.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return self.way(q, k, v, self.rows, self.columns)
