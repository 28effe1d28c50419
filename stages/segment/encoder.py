"""SAM's image encoder over the official weights: the same numbers as segment-anything's own forward, batched.

Two things differ from the published code. Attention adds its relative positions as attention.py says. And tokens are
sorted into windows after the layer that makes queries, keys and values, and taken out before the projection: the
zeros that fill the windows at the edges become that layer's bias, so nothing is computed for them but attention,
where they take part as in the original.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from stages.segment.attention import Attention, fastest


def windows(grid: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """How the tokens of a grid are sorted into windows, row after row, the grid filled up to a multiple of `side`.

    Returns:
        into: for every place in the windows, its token (any where there is none); filler: the places without one;
        back: for every token, its place in the windows.
    """
    count = -(-grid // side)
    y, x = torch.meshgrid(torch.arange(count * side), torch.arange(count * side), indexing="ij")
    token = torch.where((y < grid) & (x < grid), y * grid + x, -1)
    token = token.view(count, side, count, side).transpose(1, 2).flatten()
    back = torch.empty(grid * grid, dtype=torch.long)
    places = torch.nonzero(token >= 0)[:, 0]
    back[token[places]] = places
    return token.clamp(min=0), torch.nonzero(token < 0)[:, 0], back


class Block(nn.Module):
    """A block of the encoder with the weights of an official one; the window's side is 0 for global attention."""

    def __init__(self, official: nn.Module, grid: int, way: Callable[..., Tensor]):
        super().__init__()
        self.norm1, self.norm2, self.mlp = official.norm1, official.norm2, official.mlp
        self.attn = Attention(official.attn, way)
        self.side = official.window_size
        if self.side:
            for name, places in zip(("into", "filler", "back"), windows(grid, self.side), strict=True):
                self.register_buffer(name, places)

    def forward(self, x: Tensor) -> Tensor:
        """[B, grid * grid, dim] -> the same."""
        qkv = self.attn.qkv(self.norm1(x))
        if self.side:
            qkv = qkv.index_select(1, self.into)
            qkv[:, self.filler] = self.attn.qkv.bias
            seen = self.attn(qkv.unflatten(1, (-1, self.side**2)).flatten(0, 1))
            seen = seen.unflatten(0, (len(x), -1)).flatten(1, 2).index_select(1, self.back)
        else:
            seen = self.attn(qkv)
        x = x + self.attn.proj(seen)
        return x + self.mlp(self.norm2(x))


class Encoder(nn.Module):
    """The image encoder.

    Args:
        official: segment-anything's ImageEncoderViT with its weights.
        device: where it will run; decides how attention is computed.
        compiled: whether it will be compiled.
        way: the way of attention whatever the device says, for comparisons.
    """

    def __init__(
        self, official: nn.Module, device: torch.device, compiled: bool, way: Callable[..., Tensor] | None = None
    ):
        super().__init__()
        self.patches, self.places, self.neck = official.patch_embed.proj, official.pos_embed, official.neck
        self.grid = self.places.shape[1]
        self.blocks = nn.ModuleList(
            Block(b, self.grid, way or fastest(device, (b.window_size or self.grid) ** 2, compiled))
            for b in official.blocks
        )

    def cast(self, dtype: torch.dtype) -> "Encoder":
        """All but the neck to a number format: the neck is 1 % of the work and, in fp32, takes a third off what bf16
        changes in the masks.
        """
        self.patches.to(dtype)
        self.blocks.to(dtype)
        self.places = nn.Parameter(self.places.to(dtype), requires_grad=False)
        return self

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised pixels [B, 3, side, side] -> image embeddings, fp32 [B, prompt_dim, grid, grid]."""
        x = self.patches(pixels).flatten(2).transpose(1, 2) + self.places.flatten(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.neck(x.float().unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2))
