"""Tensor names of Grounding DINO: as its authors published it, and as Hugging Face files hold it.

The two differ in names, in queries, keys and values (fused in one tensor there, three tensors here), and in what is
written more than once: the box head, which every decoder layer shares, stands in an official checkpoint twice a layer,
in a Hugging Face file once.
"""

import re
from collections.abc import Iterator

import torch
from torch import Tensor

from pipeline.errors import InputError

_SWIN = "model.backbone.conv_encoder.model"
_BLOCK = ("backbone.0.layers.#.blocks.#", f"{_SWIN}.encoder.layers.#.blocks.#")
_DEFORMABLE = ("transformer.encoder.layers.#", "model.encoder.layers.#.deformable_layer")
_TEXT = ("transformer.encoder.text_layers.#", "model.encoder.layers.#.text_enhancer_layer")
_FUSION = ("transformer.encoder.fusion_layers.#", "model.encoder.layers.#.fusion_layer")
_DECODER = ("transformer.decoder.layers.#", "model.decoder.layers.#")


def _below(prefixes: tuple[str, str], names: dict[str, str]) -> dict[str, str]:
    return {f"{prefixes[0]}.{official}": f"{prefixes[1]}.{other}" for official, other in names.items()}


# Official name -> Hugging Face name of a module or tensor; # stands for a number, and .weight and .bias follow.
_SAME = {
    "backbone.0.patch_embed.proj": f"{_SWIN}.embeddings.patch_embeddings.projection",
    "backbone.0.patch_embed.norm": f"{_SWIN}.embeddings.norm",
    **_below(
        _BLOCK,
        {
            "norm1": "layernorm_before",
            "norm2": "layernorm_after",
            "attn.relative_position_bias_table": "attention.self.relative_position_bias_table",
            "attn.proj": "attention.output.dense",
            "mlp.fc1": "intermediate.dense",
            "mlp.fc2": "output.dense",
        },
    ),
    "backbone.0.layers.#.downsample.reduction": f"{_SWIN}.encoder.layers.#.downsample.reduction",
    "backbone.0.layers.#.downsample.norm": f"{_SWIN}.encoder.layers.#.downsample.norm",
    **{f"backbone.0.norm{n}": f"{_SWIN}.hidden_states_norms.stage{n + 1}" for n in range(4)},
    "feat_map": "model.text_projection",
    "input_proj.#.#": "model.input_proj_vision.#.#",
    "transformer.level_embed": "model.level_embed",
    "transformer.tgt_embed": "model.query_position_embeddings",
    "transformer.enc_output": "model.enc_output",
    "transformer.enc_output_norm": "model.enc_output_norm",
    "transformer.enc_out_bbox_embed.layers.#": "model.encoder_output_bbox_embed.layers.#",
    "transformer.decoder.norm": "model.decoder.layer_norm",
    "transformer.decoder.ref_point_head.layers.#": "model.decoder.reference_points_head.layers.#",
    **_below(
        _DEFORMABLE,
        {
            "self_attn.sampling_offsets": "self_attn.sampling_offsets",
            "self_attn.attention_weights": "self_attn.attention_weights",
            "self_attn.value_proj": "self_attn.value_proj",
            "self_attn.output_proj": "self_attn.output_proj",
            "norm1": "self_attn_layer_norm",
            "linear1": "fc1",
            "linear2": "fc2",
            "norm2": "final_layer_norm",
        },
    ),
    **_below(
        _TEXT,
        {
            "self_attn.out_proj": "self_attn.out_proj",
            "linear1": "fc1",
            "linear2": "fc2",
            "norm1": "layer_norm_before",
            "norm2": "layer_norm_after",
        },
    ),
    **_below(
        _FUSION,
        {
            "gamma_v": "vision_param",
            "gamma_l": "text_param",
            "layer_norm_v": "layer_norm_vision",
            "layer_norm_l": "layer_norm_text",
            "attn.v_proj": "attn.vision_proj",
            "attn.l_proj": "attn.text_proj",
            "attn.values_v_proj": "attn.values_vision_proj",
            "attn.values_l_proj": "attn.values_text_proj",
            "attn.out_v_proj": "attn.out_vision_proj",
            "attn.out_l_proj": "attn.out_text_proj",
        },
    ),
    **_below(
        _DECODER,
        {
            "cross_attn.sampling_offsets": "encoder_attn.sampling_offsets",
            "cross_attn.attention_weights": "encoder_attn.attention_weights",
            "cross_attn.value_proj": "encoder_attn.value_proj",
            "cross_attn.output_proj": "encoder_attn.output_proj",
            "norm1": "encoder_attn_layer_norm",
            "ca_text.out_proj": "encoder_attn_text.out_proj",
            "catext_norm": "encoder_attn_text_layer_norm",
            "self_attn.out_proj": "self_attn.out_proj",
            "norm2": "self_attn_layer_norm",
            "linear1": "fc1",
            "linear2": "fc2",
            "norm3": "final_layer_norm",
        },
    ),
}
# Official name of a fused tensor -> Hugging Face name with * for query, key, value.
_FUSED = {
    **{f"{_BLOCK[0]}.attn.qkv.{kind}": f"{_BLOCK[1]}.attention.self.*.{kind}" for kind in ("weight", "bias")},
    **{
        f"{official}.in_proj_{kind}": f"{other}.*.{kind}"
        for kind in ("weight", "bias")
        for official, other in (
            (f"{_TEXT[0]}.self_attn", f"{_TEXT[1]}.self_attn"),
            (f"{_DECODER[0]}.ca_text", f"{_DECODER[1]}.encoder_attn_text"),
            (f"{_DECODER[0]}.self_attn", f"{_DECODER[1]}.self_attn"),
        )
    },
}
_PARTS = ("query", "key", "value")
# What a checkpoint may hold and no forward pass reads: training's label embedding, BERT's pooler, the norm after Swin's
# last stage, tables of indices.
_UNREAD = re.compile(
    r"label_enc\.weight|bert\.pooler\..*|model\.text_backbone\.pooler\..*|.*\.embeddings\.position_ids"
    r"|.*\.relative_position_index|" + re.escape(_SWIN) + r"\.(swin\.)?layernorm\..*"
)
_HEAD = re.compile(r"(?:transformer\.decoder\.|model\.decoder\.)?bbox_embed\.(\d+)\.layers\.(.*)")
_INDEX = "backbone.0.layers.#.blocks.#.attn.relative_position_index"


def to_transformers(state: dict[str, Tensor], where: object = "checkpoint") -> dict[str, Tensor]:
    """The tensors of an official checkpoint under the names Hugging Face files have (`save_pretrained`'s).

    Tensors that no forward pass reads are left out, and the copies of the box head but one.

    Raises:
        InputError: a tensor that Grounding DINO does not have, or box heads that differ from layer to layer.
    """
    made, unknown = _box_heads(state, where, "bbox_embed.0.layers."), []
    for key, value in state.items():
        if _HEAD.fullmatch(key) or _UNREAD.fullmatch(key):
            continue
        if name := _renamed(key, _SAME):
            made[name] = value
        elif name := _renamed(key, _FUSED):
            made |= {name.replace("*", part): rows for part, rows in zip(_PARTS, value.chunk(3), strict=True)}
        elif key.startswith("bert."):
            made["model.text_backbone." + key.removeprefix("bert.")] = value
        else:
            unknown.append(key)
    return _known(made, unknown, where)


def to_official(state: dict[str, Tensor], where: object = "checkpoint") -> dict[str, Tensor]:
    """The tensors of a Hugging Face file under the names of the authors' code, its tables of indices included.

    BERT's pooler and training's label embedding, which no forward pass reads, are not made up.

    Raises:
        InputError: a tensor that Grounding DINO does not have, a part of a fused tensor is missing, or box heads that
            differ from layer to layer.
    """
    layers = {int(found[1]) for key in state if (found := re.match(r"model\.decoder\.layers\.(\d+)\.", key))}
    head = _box_heads(state, where, "")
    made = {
        f"{place}bbox_embed.{layer}.layers.{name}": value
        for place in ("", "transformer.decoder.")
        for layer in sorted(layers)
        for name, value in head.items()
    }
    fused: dict[str, dict[str, Tensor]] = {}
    unknown = []
    for key, value in state.items():
        if _HEAD.fullmatch(key) or _UNREAD.fullmatch(key):
            continue
        starred, part = _starred(key)
        if name := _renamed(key, _SAME_BACK):
            made[name] = value
        elif part and (name := _renamed(starred, _FUSED_BACK)):
            fused.setdefault(name, {})[part] = value
        elif key.startswith("model.text_backbone."):
            made["bert." + key.removeprefix("model.text_backbone.")] = value
        else:
            unknown.append(key)
    for name, parts in fused.items():
        if missing := [part for part in _PARTS if part not in parts]:
            raise InputError(f"{where}: {name} lacks its {missing[0]}; get the checkpoint again")
        made[name] = torch.cat([parts[part] for part in _PARTS])
    return _known(made | dict(_index_tables(made)), unknown, where)


def _back(table: dict[str, str]) -> dict[str, str]:
    return {other: official for official, other in table.items()}


_SAME_BACK, _FUSED_BACK = _back(_SAME), _back(_FUSED)
_NUMBER = re.compile(r"(?<=\.)(?<!^backbone\.)\d+(?=\.)")


def _renamed(key: str, table: dict[str, str]) -> str | None:
    """A key's other name; None if the table does not have it."""
    for suffix in ("", ".weight", ".bias"):
        if key.endswith(suffix):
            stem = key.removesuffix(suffix) + "."
            if name := table.get(_NUMBER.sub("#", stem).removesuffix(".")):
                numbers = iter(_NUMBER.findall(stem))
                return re.sub("#", lambda _, numbers=numbers: next(numbers), name) + suffix
    return None


def _starred(key: str) -> tuple[str, str | None]:
    """The name of a query, key or value tensor with * in that place, and which of them it is."""
    stem, _, kind = key.rpartition(".")
    place, _, part = stem.rpartition(".")
    return (f"{place}.*.{kind}", part) if part in _PARTS else (key, None)


def _box_heads(state: dict[str, Tensor], where: object, prefix: str) -> dict[str, Tensor]:
    """The one box head that all decoder layers share, under `prefix` + its own names."""
    one: dict[str, Tensor] = {}
    for key, value in state.items():
        if found := _HEAD.fullmatch(key):
            first = one.setdefault(prefix + found[2], value)
            if first is not value and not (first.shape == value.shape and torch.equal(first, value)):
                raise InputError(f"{where}: {key} differs between decoder layers; only a shared box head is supported")
    return one


def _index_tables(official: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """relative_position_index of every Swin block, int64 [window ** 2, window ** 2].

    Row q, column k: the row of the bias table for a query at place q and a key at place k of a window (row-major),
    (dy + window - 1) * (2 * window - 1) + dx + window - 1.
    """
    for key, table in official.items():
        if key.endswith("attn.relative_position_bias_table"):
            span = round(table.shape[0] ** 0.5)
            window = (span + 1) // 2
            place = torch.arange(window * window)
            y, x = place // window, place % window
            index = (y[:, None] - y + window - 1) * span + x[:, None] - x + window - 1
            yield key.replace("relative_position_bias_table", "relative_position_index"), index


def _known(made: dict[str, Tensor], unknown: list[str], where: object) -> dict[str, Tensor]:
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise InputError(
            f"{where}: tensors that Grounding DINO does not have: {', '.join(sorted(unknown)[:3])}{more}; "
            "is this another model's checkpoint?"
        )
    return made
