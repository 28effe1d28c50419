"""What a Segment Anything checkpoint is: its shape, as a config.json states it and as the tensors show it."""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import InputError

MODEL_TYPE = "segment-anything"
# Of the pixels, RGB, on the scale 0 to 255.
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_DECODER_HEADS = 8  # no tensor shows it; all official checkpoints have it


@dataclass(frozen=True)
class Architecture:
    """The shape of a SAM.

    Attributes:
        image_side: pixels along a side of the square the encoder sees.
        patch: pixels along a side of a token.
        prompt_dim: channels of the image embedding and of prompts.
        dim, depth, heads: width, blocks and attention heads of the image encoder.
        global_attention: blocks in which every token attends to all; in the others only to its own window.
        window: tokens along a side of a window.
        decoder_depth, decoder_mlp: blocks of the mask decoder and the width of their MLP.
        iou_hidden: width of the head that predicts IoU.
        mask_channels: width of the layers that would take a mask as a prompt.
    """

    image_side: int
    patch: int
    prompt_dim: int
    dim: int
    depth: int
    heads: int
    global_attention: tuple[int, ...]
    window: int
    decoder_depth: int = 2
    decoder_mlp: int = 2048
    iou_hidden: int = 256
    mask_channels: int = 16

    @property
    def grid(self) -> int:
        """Tokens along a side of the image."""
        return self.image_side // self.patch


OFFICIAL = {
    "vit_b": Architecture(1024, 16, 256, 768, 12, 12, (2, 5, 8, 11), 14),
    "vit_l": Architecture(1024, 16, 256, 1024, 24, 16, (5, 11, 17, 23), 14),
    "vit_h": Architecture(1024, 16, 256, 1280, 32, 16, (7, 15, 23, 31), 14),
}
_ENCODER = ("dim", "depth", "heads", "global_attention", "window")
_DECODER = ("decoder_depth", "decoder_mlp", "iou_hidden", "mask_channels")


def to_config(made: Architecture, name: str, source_sha256: str) -> dict[str, Any]:
    """config.json of a weights folder."""
    values = asdict(made)
    return {
        "model_type": MODEL_TYPE,
        "architecture": name,
        **{key: value for key, value in values.items() if key not in (*_ENCODER, *_DECODER)},
        "encoder": {key: values[key] for key in _ENCODER},
        "decoder": {key: values[key] for key in _DECODER},
        "source_sha256": source_sha256,
    }


def of_config(config: dict[str, Any], folder: Path) -> Architecture:
    """The shape that a weights folder's config.json states.

    Raises:
        InputError: it is of another model, or a value is missing or no shape.
    """
    file = folder / "config.json"
    if config.get("model_type") != MODEL_TYPE:
        raise InputError(
            f"{file}: is of {config.get('model_type', 'an unnamed model')}, not of {MODEL_TYPE}; set segment.path to "
            "a Segment Anything folder (`python -m pipeline weights list` names them)"
        )
    try:
        values = {**config, **config["encoder"], **config.get("decoder", {})}
        made = Architecture(
            global_attention=tuple(_count(index, 0) for index in values["global_attention"]),
            window=_count(values["window"], 0),
            **{
                key: _count(values[key])
                for key in ("image_side", "patch", "prompt_dim", "dim", "depth", "heads", *_DECODER)
                if key in values or key not in _DECODER
            },
        )
        _check(made)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{file}: not a shape of {MODEL_TYPE} ({type(error).__name__}: {error}); make the folder again with "
            "`python -m pipeline weights convert`"
        ) from None
    return made


def _count(value: Any, least: int = 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{value!r} is no count")
    return value


def _check(made: Architecture) -> None:
    if made.image_side % made.patch or made.dim % made.heads or made.prompt_dim % (2 * _DECODER_HEADS):
        raise ValueError("image_side, dim or prompt_dim cannot be divided as the network needs it")
    if not made.window and len(made.global_attention) < made.depth:
        raise ValueError("blocks without global attention need a window")


def of_state(state: dict[str, Tensor], path: Path) -> Architecture:
    """The shape that the tensors of an official checkpoint show.

    Raises:
        InputError: they are not those of a Segment Anything model.
    """
    try:
        patches, places = state["image_encoder.patch_embed.proj.weight"], state["image_encoder.pos_embed"]
        dim, _, patch, _ = patches.shape
        grid = places.shape[1]
        depth = _blocks(state, "image_encoder.blocks")
        spans = [state[f"image_encoder.blocks.{i}.attn.rel_pos_h"].shape for i in range(depth)]
        sides = [(length + 1) // 2 for length, _ in spans]
        windows = {side for side in sides if side != grid}
        if len(windows) > 1:
            raise ValueError("windows of several sizes")
        made = Architecture(
            image_side=grid * patch,
            patch=patch,
            prompt_dim=state["image_encoder.neck.0.weight"].shape[0],
            dim=dim,
            depth=depth,
            heads=dim // spans[0][1],
            global_attention=tuple(i for i, side in enumerate(sides) if side == grid),
            window=windows.pop() if windows else 0,
            decoder_depth=_blocks(state, "mask_decoder.transformer.layers"),
            decoder_mlp=state["mask_decoder.transformer.layers.0.mlp.lin1.weight"].shape[0],
            iou_hidden=state["mask_decoder.iou_prediction_head.layers.0.weight"].shape[0],
            mask_channels=state["prompt_encoder.mask_downscaling.3.weight"].shape[0],
        )
        _check(made)
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        said = "it has no " + str(error).strip("'") if isinstance(error, KeyError) else str(error)
        if any(key.startswith("vision_encoder.") for key in state):
            said = "it is in the layout of transformers; take the official .pth"
        raise InputError(f"{path}: is not an official checkpoint of {MODEL_TYPE}: {said}") from None
    return made


def _blocks(state: dict[str, Tensor], prefix: str) -> int:
    numbers = {int(found[1]) for key in state if (found := re.match(rf"{re.escape(prefix)}\.(\d+)\.", key))}
    return max(numbers, default=-1) + 1


def build(made: Architecture) -> nn.Module:
    """segment-anything's own `Sam` of this shape, on the meta device: it gets its numbers from a checkpoint."""
    from functools import partial

    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    with torch.device("meta"):
        return Sam(
            ImageEncoderViT(
                img_size=made.image_side,
                patch_size=made.patch,
                embed_dim=made.dim,
                depth=made.depth,
                num_heads=made.heads,
                out_chans=made.prompt_dim,
                norm_layer=partial(nn.LayerNorm, eps=1e-6),
                use_rel_pos=True,
                window_size=made.window,
                global_attn_indexes=made.global_attention,
            ),
            PromptEncoder(
                embed_dim=made.prompt_dim,
                image_embedding_size=(made.grid, made.grid),
                input_image_size=(made.image_side, made.image_side),
                mask_in_chans=made.mask_channels,
            ),
            MaskDecoder(
                transformer_dim=made.prompt_dim,
                transformer=TwoWayTransformer(made.decoder_depth, made.prompt_dim, _DECODER_HEADS, made.decoder_mlp),
                iou_head_hidden_dim=made.iou_hidden,
            ),
            MEAN,
            STD,
        ).eval()


def encoder_flop(made: Architecture) -> float:
    """Floating-point operations of the image encoder for one image, a multiply-add counted as two.

    Counted as the published network does them, padded windows included: 5.96e12 for ViT-H, 0.97e12 for ViT-B.
    """
    tokens = made.grid**2
    products = tokens * made.dim * 3 * made.patch**2
    products += tokens * (made.dim * made.prompt_dim + 9 * made.prompt_dim**2)
    for block in range(made.depth):
        side = made.grid if block in made.global_attention else made.window
        padded = (-(-made.grid // side) * side) ** 2
        products += 8 * tokens * made.dim**2  # MLP
        products += 4 * padded * made.dim**2  # queries, keys, values, projection
        products += 2 * padded * made.dim * side**2  # attention
        products += 2 * padded * made.dim * side  # relative positions
    return 2.0 * products
