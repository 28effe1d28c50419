"""Floating-point operations of a Grounding DINO with a Swin backbone, as stages/detect/network.py computes it.

A multiply-add counts as two. Only matrix products and convolutions count: what is left is memory traffic.
"""

import math
from collections.abc import Sequence

from transformers import GroundingDinoConfig

Shapes = Sequence[tuple[int, int]]


def look_flop(config: GroundingDinoConfig, height: int, width: int) -> float:
    """Of `Network.look` for one image of the size the model sees; 0 for a backbone that is not Swin."""
    swin = config.backbone_config
    if swin.model_type != "swin":
        return 0.0
    window, mlp, dim = swin.window_size, swin.mlp_ratio, swin.embed_dim
    rows, columns = math.ceil(height / swin.patch_size), math.ceil(width / swin.patch_size)
    total = 2.0 * rows * columns * dim * swin.num_channels * swin.patch_size**2
    levels = []
    for stage, depth in enumerate(swin.depths):
        padded = math.ceil(rows / window) * math.ceil(columns / window) * window**2
        attention = padded * (4 * dim**2 + 2 * window**2 * dim)
        total += 2.0 * depth * (attention + rows * columns * 2 * mlp * dim**2)
        if stage + 1 in swin.out_indices:
            levels.append((rows, columns, dim))
        if stage + 1 < len(swin.depths):
            rows, columns = math.ceil(rows / 2), math.ceil(columns / 2)
            total += 2.0 * rows * columns * 4 * dim * 2 * dim
            dim *= 2
    total += sum(2.0 * h * w * d * config.d_model for h, w, d in levels)
    rows, columns, dim = levels[-1]
    for _ in range(config.num_feature_levels - len(levels)):
        rows, columns = math.ceil(rows / 2), math.ceil(columns / 2)
        total += 2.0 * rows * columns * 9 * dim * config.d_model
        dim = config.d_model
    return total


def read_flop(config: GroundingDinoConfig, shapes: Shapes, tokens: int) -> float:
    """Of `Network.read` for one prompt of so many tokens (padding included), for resolutions (height, width)."""
    places = sum(h * w for h, w in shapes)
    dim, queries = config.d_model, config.num_queries
    text = config.text_config
    per_layer = tokens * (4 * text.hidden_size**2 + 2 * text.hidden_size * text.intermediate_size)
    total = text.num_hidden_layers * (per_layer + 2 * tokens**2 * text.hidden_size)
    total += tokens * text.hidden_size * dim

    heads, wide = config.encoder_attention_heads // 2, config.encoder_ffn_dim // 2
    fusion = 3 * places * heads * tokens * dim + 6 * tokens * wide * dim + tokens * wide
    enhancer = tokens * (4 * dim**2 + 2 * tokens * dim + 2 * dim * wide)
    places_feed = places * 2 * dim * config.encoder_ffn_dim
    total += config.encoder_layers * (
        fusion + enhancer + places_feed + _sampling(config.encoder_attention_heads, config, dim, places, places)
    )
    total += places * (dim**2 + tokens * dim) + queries * (2 * dim**2 + 4 * dim)

    own = queries * (4 * dim**2 + 2 * queries * dim)
    across = queries * 2 * dim**2 + tokens * 2 * dim**2 + 2 * queries * tokens * dim
    heads_of = queries * (2 * dim**2 + 4 * dim) + queries * (2 * dim * dim + dim**2)
    feed = queries * 2 * dim * config.decoder_ffn_dim
    total += config.decoder_layers * (
        own + across + heads_of + feed + _sampling(config.decoder_attention_heads, config, dim, queries, places)
    )
    return 2.0 * (total + queries * tokens * dim)


def _sampling(heads: int, config: GroundingDinoConfig, dim: int, queries: int, places: int) -> float:
    """Multiply-adds of one deformable attention's projections."""
    points = config.encoder_n_points if queries == places else config.decoder_n_points
    return places * dim**2 + queries * (dim**2 + 3 * dim * heads * config.num_feature_levels * points)
