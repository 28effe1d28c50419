"""The small Grounding DINO that the recipe trains: its shape, its start, and its forward pass with gradients.

The pass is the pipeline's own (stages/detect/network.py: which tokens see each other, how boxes are refined), with what
training needs of it besides: scores and boxes of every place of the image, and of every layer of the decoder.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig, ConvNextConfig, GroundingDinoConfig, GroundingDinoForObjectDetection
from transformers.models.grounding_dino.modeling_grounding_dino import encode_sinusoidal_position_embedding

from stages.detect.attention import Attention, Fusion
from stages.detect.network import Shapes, Texts, _centres, _logit


@dataclass(frozen=True)
class Shape:
    """How large the network is. `side`: pixels of the image it sees."""

    side: int = 128
    widths: tuple[int, ...] = (32, 64, 128)
    depths: tuple[int, ...] = (2, 2, 3)
    patch: int = 4
    levels: tuple[int, ...] = (2, 3)  # stages of the backbone that the detector looks at
    d_model: int = 64
    encoder: int = 1
    decoder: int = 2
    ffn: int = 256
    heads: int = 4
    points: int = 2
    queries: int = 40
    text_width: int = 64
    text_layers: int = 2
    longest: int = 128  # tokens of a prompt


def configure(shape: Shape, entries: int) -> GroundingDinoConfig:
    """The config of this shape, with a vocabulary of `entries`."""
    stages = [f"stage{n}" for n in shape.levels]
    return GroundingDinoConfig(
        backbone_config=ConvNextConfig(
            hidden_sizes=list(shape.widths),
            depths=list(shape.depths),
            num_stages=len(shape.widths),
            patch_size=shape.patch,
            image_size=shape.side,
            out_features=stages,
            layer_scale_init_value=0.1,
        ),
        text_config=BertConfig(
            vocab_size=entries,
            hidden_size=shape.text_width,
            num_hidden_layers=shape.text_layers,
            num_attention_heads=shape.heads,
            intermediate_size=4 * shape.text_width,
            max_position_embeddings=shape.longest,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        ),
        num_queries=shape.queries,
        encoder_layers=shape.encoder,
        decoder_layers=shape.decoder,
        encoder_ffn_dim=shape.ffn,
        decoder_ffn_dim=shape.ffn,
        encoder_attention_heads=shape.heads,
        decoder_attention_heads=shape.heads,
        encoder_n_points=shape.points,
        decoder_n_points=shape.points,
        d_model=shape.d_model,
        num_feature_levels=len(shape.levels) + 1,
        max_text_len=shape.longest,
        dropout=0.0,
        fusion_droppath=0.0,
        architectures=["GroundingDinoForObjectDetection"],
    )


@dataclass(frozen=True)
class Seen:
    """What the network says. `places`: logits [B, S, T], boxes [B, S, 4] of every place that may become a query;
    `layers`: logits [B, Q, T], boxes [B, Q, 4] of each layer of the decoder. Logits of padding are 0."""

    places: tuple[Tensor, Tensor]
    layers: list[tuple[Tensor, Tensor]]
    shapes: Shapes


class Trainee(nn.Module):
    """transformers' detector, trained through the pipeline's arithmetic; `detector` is what is saved."""

    def __init__(self, config: GroundingDinoConfig, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.detector = GroundingDinoForObjectDetection(config)
        self.config = config
        parts = self.detector.model
        for layer in parts.encoder.layers:
            layer.fusion_layer.attn = Fusion(layer.fusion_layer.attn)
            layer.text_enhancer_layer.self_attn = Attention(layer.text_enhancer_layer.self_attn)
            layer.deformable_layer.self_attn.attn = _Sampled()
        for layer in parts.decoder.layers:
            layer.encoder_attn.attn = _Sampled()
            layer.self_attn = Attention(layer.self_attn)
            layer.encoder_attn_text = Attention(layer.encoder_attn_text)
        parts.decoder.bbox_embed = self.detector.bbox_embed
        _start(self.detector)

    def forward(self, pixels: Tensor, texts: Texts) -> Seen:
        """Images [B, 3, h, w], normalised, and a prompt for each."""
        states, shapes = self.look(pixels)
        states, text = self.fuse(states, shapes, self.read_text(texts), texts)
        return self.decode(states, shapes, text, texts.padding)

    def look(self, pixels: Tensor) -> tuple[Tensor, Shapes]:
        """The image at all resolutions, [B, S, D], row by row, finest first; and their shapes."""
        parts = self.detector.model
        maps = list(parts.backbone.conv_encoder.model(pixels).feature_maps)
        projected: list[Tensor] = []
        for level, project in enumerate(parts.input_proj_vision):
            coarser = maps[-1] if level == len(maps) else projected[-1] if level > len(maps) else maps[level]
            projected.append(project(coarser))
        return torch.cat([level.flatten(2).mT for level in projected], 1), tuple(tuple(p.shape[2:]) for p in projected)

    def read_text(self, texts: Texts) -> Tensor:
        """[N, T, D]."""
        parts = self.detector.model
        kinds = torch.zeros_like(texts.tokens)
        text = parts.text_backbone(texts.tokens, texts.blocks[:, None], kinds, texts.positions).last_hidden_state
        return parts.text_projection(text)

    def fuse(self, states: Tensor, shapes: Shapes, text: Tensor, texts: Texts) -> tuple[Tensor, Tensor]:
        """Image and text, each having seen the other: [B, S, D], [B, T, D]."""
        for layer in self.detector.model.encoder.layers:
            (states, text), _ = layer(
                vision_features=states,
                text_features=text,
                text_attention_mask=texts.padding,
                text_self_attention_masks=~texts.blocks,
                text_position_ids=texts.positions,
                vision_position_embedding=self._positions(states, shapes),
                key_padding_mask=torch.zeros(states.shape[:2], dtype=torch.bool, device=states.device),
                reference_points=self._references(states, shapes),
                **_sides(shapes, states.device),
            )
        return states, text

    def alone(self, states: Tensor, shapes: Shapes, text: Tensor, texts: Texts) -> tuple[Tensor, Tensor]:
        """What `fuse` makes of image and text where neither takes anything from the other, in the first layer."""
        layer = self.detector.model.encoder.layers[0]
        positions = layer.get_text_position_embeddings(text, None, texts.positions)
        text, _ = layer.text_enhancer_layer(layer.fusion_layer.layer_norm_text(text), texts.blocks, positions)
        states, _ = layer.deformable_layer(
            layer.fusion_layer.layer_norm_vision(states),
            None,
            position_embeddings=self._positions(states, shapes),
            reference_points=self._references(states, shapes),
            **_sides(shapes, states.device),
        )
        return states, text

    def _positions(self, states: Tensor, shapes: Shapes) -> Tensor:
        """[B, S, D]: where a state is in its image, and at which resolution."""
        parts = self.detector.model
        whole = [torch.ones((1, *shape), dtype=torch.bool, device=states.device) for shape in shapes]
        sines = [parts.backbone.position_embedding(mask[:, None], mask).flatten(2).mT for mask in whole]
        levels = [sine + level for sine, level in zip(sines, parts.level_embed, strict=True)]
        return torch.cat(levels, 1).expand(len(states), -1, -1)

    def _references(self, states: Tensor, shapes: Shapes) -> Tensor:
        """[B, S, L, 2]: x and y of every place."""
        return _centres(shapes, states.device)[None, :, None].expand(len(states), -1, len(shapes), -1)

    def propose(self, states: Tensor, shapes: Shapes, text: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of tokens [B, S, T] and boxes [B, S, 4] of every place. text: [B, T, D]."""
        parts = self.detector.model
        centres = _centres(shapes, states.device)
        sides = torch.cat([centres.new_full((h * w, 2), 0.05 * 2.0**n) for n, (h, w) in enumerate(shapes)])
        states = parts.enc_output_norm(parts.enc_output(states))
        starts = torch.logit(torch.cat([centres, sides], 1))
        return states @ text.mT, (parts.encoder_output_bbox_embed(states) + starts).sigmoid()

    def decode(self, states: Tensor, shapes: Shapes, text: Tensor, padding: Tensor) -> Seen:
        """The best places as queries, refined layer by layer; each layer learns from where the one before it ended."""
        parts, decoder = self.detector.model, self.detector.model.decoder
        places = self.propose(states, shapes, text)
        best = places[0].detach().masked_fill(padding[:, None], -torch.inf).amax(2)
        best = best.topk(self.config.num_queries, 1).indices
        boxes = places[1].detach().gather(1, best[..., None].expand(-1, -1, 4))
        queries = parts.query_position_embeddings.weight.expand(len(states), -1, -1)
        hidden = torch.zeros_like(padding, dtype=text.dtype).masked_fill(padding, torch.finfo(text.dtype).min)
        layers = []
        for layer, head in zip(decoder.layers, self.detector.bbox_embed, strict=True):
            sines = encode_sinusoidal_position_embedding(boxes, num_pos_feats=self.config.d_model // 2)
            queries = layer(
                hidden_states=queries,
                position_embeddings=decoder.reference_points_head(sines),
                reference_points=boxes[:, :, None].expand(-1, -1, len(shapes), -1),
                vision_encoder_hidden_states=states,
                text_encoder_hidden_states=text,
                text_encoder_attention_mask=hidden[:, None, None],
                **_sides(shapes, states.device),
            )[0]
            normed = decoder.layer_norm(queries)
            last = layer is decoder.layers[-1]
            boxes = (head(normed if last else queries) + _logit(boxes)).sigmoid()
            layers.append((normed @ text.mT, boxes))
            boxes = boxes.detach()
        return Seen(places, layers, shapes)


class _Sampled(nn.Module):
    """transformers' MultiScaleDeformableAttention with queries last in memory, so that weighing is quick on a CPU."""

    def forward(
        self,
        value: Tensor,
        value_spatial_shapes: Tensor,
        value_spatial_shapes_list: list[tuple[int, int]],
        level_start_index: Tensor | None,
        sampling_locations: Tensor,
        attention_weights: Tensor,
        im2col_step: int,
    ) -> Tensor:
        """value [B, S, heads, d], places [B, Q, heads, L, P, 2], weights [B, Q, heads, L, P] -> [B, Q, heads d]."""
        batch, _, heads, size = value.shape
        values = value.permute(0, 2, 3, 1).flatten(0, 1)  # [B heads, d, S]
        places = (2 * sampling_locations - 1).permute(0, 2, 3, 4, 1, 5).flatten(0, 1)  # [B heads, L, P, Q, 2]
        weights = attention_weights.permute(0, 2, 3, 4, 1).flatten(0, 1)  # [B heads, L, P, Q]
        taken = value.new_zeros(())
        levels = values.split([height * width for height, width in value_spatial_shapes_list], 2)
        for number, (level, shape) in enumerate(zip(levels, value_spatial_shapes_list, strict=True)):
            some = F.grid_sample(level.unflatten(2, shape), places[:, number], align_corners=False)  # [., d, P, Q]
            taken = taken + (some * weights[:, number, None]).sum(2)
        return taken.view(batch, heads * size, -1).mT


def _sides(shapes: Shapes, device: torch.device) -> dict[str, object]:
    """The resolutions as transformers' layers want them told."""
    tensor = torch.tensor(shapes, device=device)
    return {"spatial_shapes": tensor, "spatial_shapes_list": list(shapes), "level_start_index": None}


def _start(detector: GroundingDinoForObjectDetection) -> None:
    """Weights that tell things apart from the first step on, and scores that begin near 0.02.

    A score is a product of two states and has neither scale nor bias of its own: a small gain of the norm before it is
    the scale, one channel that is constant on both sides the bias.
    """
    parts = detector.model
    for module in (*parts.backbone.modules(), *parts.text_backbone.modules(), *parts.input_proj_vision.modules()):
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    for layer in parts.encoder.layers:
        nn.init.constant_(layer.fusion_layer.vision_param, 0.1)
        nn.init.constant_(layer.fusion_layer.text_param, 0.1)
    told = parts.encoder.layers[-1].text_enhancer_layer.layer_norm_after
    with torch.no_grad():
        told.weight[0], told.bias[0] = 0.0, 1.0
        for norm in (parts.enc_output_norm, parts.decoder.layer_norm):
            norm.weight.fill_(0.15)
            norm.weight[0], norm.bias[0] = 0.0, -4.0
        for layer in parts.decoder.layers[:-1]:  # its states go to the same box head without `decoder.layer_norm`
            layer.final_layer_norm.weight.fill_(0.15)
