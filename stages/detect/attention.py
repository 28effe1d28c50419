"""The three costly attentions of transformers' Grounding DINO, computed faster over the same weights.

Each class takes the module it stands in for, holds its parameters (under the same names) and has its signature. None
of them changes what is computed beyond rounding; none waits for the device.

What is left out because it never happens here: images are not padded, so no image token is masked; logits are not
clamped to +-50,000, beyond which a softmax is 0 in any case.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Fusion(nn.Module):
    """Attention between image and text in both directions (GroundingDinoBiMultiHeadAttention).

    A text has some tens of tokens and an image some ten thousand, so projections of the image are moved to the text: an
    image token's query times a text token's key is the token itself times (query weights' transpose times key), and
    likewise for the two values. That is 3 * 4 * T * 256 multiply-adds an image token for T text tokens in place of
    3 * 1024 * 256 and more, and nothing of image size is 1024 wide.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self.heads, self.scale = module.num_heads, module.scale
        for name, child in module.named_children():
            self.add_module(name, child)

    def forward(
        self,
        vision_features: Tensor,
        text_features: Tensor,
        vision_attention_mask: Tensor | None = None,
        text_attention_mask: Tensor | None = None,
    ) -> tuple[tuple[Tensor, None], tuple[Tensor, None]]:
        """What the image takes from the text, and the text from the image.

        Args:
            vision_features: [B, S, D].
            text_features: [B, T, D].
            vision_attention_mask: not looked at.
            text_attention_mask: bool [B, T], True for padding.

        Returns:
            ([B, S, D], None), ([B, T, D], None).
        """
        heads, size = self.heads, text_features.shape[1]
        keys = self._split(self.text_proj(text_features)) * self.scale  # [B, heads, T, d]
        queries_at = keys @ self._rows(self.vision_proj.weight, keys)  # [B, heads, T, D]
        constant = keys @ self.vision_proj.bias.view(heads, -1, 1).to(keys.dtype)  # [B, heads, T, 1]
        image = vision_features.to(keys.dtype)
        logits = queries_at.flatten(1, 2) @ image.mT  # [B, heads T, S]
        to_text = logits.unflatten(1, (heads, size)) + constant
        if text_attention_mask is not None:
            to_text = to_text.masked_fill(text_attention_mask[:, None, :, None], -torch.inf)

        values = self._split(self.values_text_proj(text_features))  # [B, heads, T, d]
        columns = self.out_vision_proj.weight.to(values.dtype).unflatten(1, (heads, -1)).permute(1, 2, 0)
        given = (values @ columns).flatten(1, 2)  # [B, heads T, D]
        to_text = to_text.softmax(2).flatten(1, 2).to(values.dtype)
        vision = to_text.mT @ given + self.out_vision_proj.bias

        seen = logits.softmax(2).to(image.dtype) @ image  # [B, heads T, D]
        seen = seen.unflatten(1, (heads, size)) @ self._rows(self.values_vision_proj.weight, seen).mT
        seen = seen + self.values_vision_proj.bias.view(heads, 1, -1).to(seen.dtype)
        return (vision, None), (self.out_text_proj(seen.transpose(1, 2).flatten(2)), None)

    def _split(self, states: Tensor) -> Tensor:
        return states.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def _rows(self, weight: Tensor, like: Tensor) -> Tensor:
        """[heads d, D] -> [heads, d, D] in the number format of `like`."""
        return weight.unflatten(0, (self.heads, -1)).to(like.dtype)


@dataclass(frozen=True)
class Geometry:
    """Where things stand in a table of framed resolutions; the last side is levels * points everywhere.

    sides: [2, 1, .] width and height. stride: [.] from a pixel to the one below. first: int32 [B heads, .] the first
    row of a level. steps: int32 [2, 2, .] from a pixel to its neighbours (this and the next y, this and the next x).
    """

    sides: Tensor
    stride: Tensor
    first: Tensor
    steps: Tensor


# Rows of zeros below a resolution. Reading one step past the right column reads the left one of the next row, and past
# the first row below, the second.
_BELOW = 3


@functools.lru_cache(maxsize=64)
def geometry(shapes: tuple[tuple[int, int], ...], points: int, images: int, device: torch.device) -> Geometry:
    """For resolutions (height, width) and `images` tables one after the other, B * heads of them."""
    heights, widths = (torch.tensor(side) for side in zip(*shapes, strict=True))
    stride = widths + 2
    pixels = (heights + 1 + _BELOW) * stride
    first = (pixels.cumsum(0) - pixels) + torch.arange(images)[:, None] * pixels.sum()
    steps = torch.stack([torch.zeros_like(stride), torch.ones_like(stride), stride, stride + 1]).view(2, 2, -1)
    made = (
        torch.stack([widths, heights])[:, None].float(),
        stride.float(),
        first.to(torch.int32),
        steps.to(torch.int32),
    )
    return Geometry(*(part.repeat_interleave(points, -1).to(device) for part in made))


class Sampling(nn.Module):
    """Deformable attention over several resolutions (GroundingDinoMultiscaleDeformableAttention).

    A query takes, for each head, a weighted sum of some places between pixels: of 4 pixels each. Done as one
    `embedding_bag` over a table of pixels it needs no sampled values in memory. Every resolution stands in the table
    with a frame of zeros, so that places outside an image need no case of their own. Places and shares are always
    computed in fp32: a place between pixels does not bear less.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self.heads, self.levels, self.points = module.n_heads, module.n_levels, module.n_points
        self.value_proj, self.output_proj = module.value_proj, module.output_proj
        # One product for all that is asked of a query: x offsets, y offsets, logits; each [heads, levels, points].
        offsets, logits = module.sampling_offsets, module.attention_weights
        self.asked = nn.Linear(offsets.in_features, offsets.out_features + logits.out_features)
        with torch.no_grad():
            for mine, axes, last in (
                (self.asked.weight, offsets.weight, logits.weight),
                (self.asked.bias, offsets.bias, logits.bias),
            ):
                mine.copy_(torch.cat([axes[0::2], axes[1::2], last]))

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        position_embeddings: Tensor | None = None,
        reference_points: Tensor | None = None,
        spatial_shapes: Geometry | None = None,
        spatial_shapes_list: Sequence[tuple[int, int]] = (),
        level_start_index: Tensor | None = None,
        output_attentions: bool = False,
    ) -> tuple[Tensor, None]:
        """What each query takes from the image.

        Args:
            hidden_states, position_embeddings: [B, Q, D]; their sum asks.
            encoder_hidden_states: [B, S, D], the pixels of all resolutions.
            reference_points: [B, Q, levels, 2] x, y, or 4 with width and height, in shares of the image.
            spatial_shapes: by `geometry`, for the resolutions of `spatial_shapes_list` (height, width), this module's
                points, and B * heads tables.

        Returns:
            [B, Q, D], None.
        """
        table = spatial_shapes
        batch, count, _ = hidden_states.shape
        asking = hidden_states if position_embeddings is None else hidden_states + position_embeddings
        asked = self.asked(asking).float().view(batch, count, 3, self.heads, -1)  # last: levels * points
        points = reference_points.float().repeat_interleave(self.points, 2).mT[:, :, :, None]  # [B, Q, 2 or 4, 1, .]
        # In pixels from the frame's outer corner: the middle of pixel 0 is at 1.
        at = points[:, :, :2] * table.sides + 0.5
        if points.shape[2] == 2:
            at = at + asked[:, :, :2]
        else:
            at = torch.addcmul(at, asked[:, :, :2], points[:, :, 2:] * table.sides * (0.5 / self.points))
        at = torch.clamp(at, torch.zeros_like(table.sides), table.sides + 1)
        corner = at.floor()
        beyond = at - corner
        near = torch.stack([1 - beyond, beyond], 4)  # [B, Q, x or y, heads, this pixel or the next, .]
        place = torch.addcmul(corner[:, :, 0], corner[:, :, 1], table.stride).to(torch.int32)
        place = place + table.first.view(batch, 1, self.heads, -1)
        rows = place[:, :, :, None, None] + table.steps  # [B, Q, heads, 2, 2, .]
        shares = asked[:, :, 2].softmax(-1)[:, :, :, None]
        weights = (near[:, :, 1] * shares)[:, :, :, :, None] * near[:, :, 0, :, None]
        taken = F.embedding_bag(
            rows.view(-1, 4 * asked.shape[-1]),
            self._table(self.value_proj(encoder_hidden_states).float(), spatial_shapes_list),
            per_sample_weights=weights.view(-1, 4 * asked.shape[-1]),
            mode="sum",
        )
        return self.output_proj(taken.view(batch, count, -1)), None

    def _table(self, values: Tensor, shapes: Sequence[tuple[int, int]]) -> Tensor:
        """[B, S, D] -> [B heads pixels, D / heads], every resolution in its frame."""
        split = values.unflatten(2, (self.heads, -1)).transpose(1, 2)  # [B, heads, S, d]
        framed = [
            F.pad(level.unflatten(2, shape), (0, 0, 1, 1, 1, _BELOW)).flatten(2, 3)
            for level, shape in zip(split.split([h * w for h, w in shapes], 2), shapes, strict=True)
        ]
        return torch.cat(framed, 2).flatten(0, 2)


class Attention(nn.Module):
    """Attention over queries or text (GroundingDinoMultiheadAttention) by torch's fused kernel."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.heads = module.num_attention_heads
        for name in ("query", "key", "value", "out_proj"):
            self.add_module(name, getattr(module, name))

    def forward(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        attention_mask: Tensor | None = None,
        output_attentions: bool = False,
    ) -> tuple[Tensor, None]:
        """[B, Q, D], [B, K, D], [B, K, D] and what is added to the logits, [B, heads, Q, K] -> [B, Q, D], None."""
        asked, known, given = (
            project(states).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for project, states in ((self.query, queries), (self.key, keys), (self.value, values))
        )
        if attention_mask is not None:
            attention_mask = attention_mask.to(asked.dtype)
        mixed = F.scaled_dot_product_attention(
            asked, known, given, attention_mask, scale=1 / math.sqrt(asked.shape[-1])
        )
        return self.out_proj(mixed.transpose(1, 2).flatten(2)), None
