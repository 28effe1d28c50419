"""Grounding DINO's forward pass over the modules and weights of transformers' GroundingDinoForObjectDetection.

In two halves, so that an image that is asked several prompts is looked at once: `look` makes of images what no prompt
changes, `read` asks. Images are never padded; texts are, which changes nothing (stages/detect/prompts.py).

Boxes are refined as in the published code, which keeps a box's sides 1e-3 away from 0 and 1 before it takes their
logit, and with which checkpoints were trained; transformers' own pass keeps them 1e-5 away.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import GroundingDinoForObjectDetection
from transformers.models.grounding_dino.modeling_grounding_dino import encode_sinusoidal_position_embedding

from stages.common.device import send
from stages.detect.attention import Attention, Fusion, Geometry, Sampling, geometry
from stages.detect.prompts import Prompt

Shapes = tuple[tuple[int, int], ...]  # height and width of each resolution, finest first


class Network(nn.Module):
    """The detector. With a `dtype` other than fp32, matrix products of the image and text encoders and of their fusion
    are computed in it (autocast); the choice of queries, the decoder and the boxes always in fp32.
    """

    def __init__(self, model: GroundingDinoForObjectDetection, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.parts, self.box_heads, self.config, self.dtype = model.model, model.bbox_embed, model.config, dtype
        for layer in self.parts.encoder.layers:
            layer.fusion_layer.attn = Fusion(layer.fusion_layer.attn)
            layer.text_enhancer_layer.self_attn = Attention(layer.text_enhancer_layer.self_attn)
            layer.deformable_layer.self_attn = Sampling(layer.deformable_layer.self_attn)
        for layer in self.parts.decoder.layers:
            layer.self_attn = Attention(layer.self_attn)
            layer.encoder_attn_text = Attention(layer.encoder_attn_text)
            layer.encoder_attn = Sampling(layer.encoder_attn)
        for module in self.parts.modules():
            if isinstance(getattr(module, "activation_fn", None), nn.ReLU):
                module.activation_fn = nn.ReLU(inplace=True)  # what it gets is read by nothing else
        self.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        return self.parts.level_embed.device

    def blocks(self) -> list[nn.Module]:
        """The repeated layers, where nearly all time is spent."""
        swin = [m for m in self.parts.backbone.modules() if type(m).__name__ in ("SwinLayer", "ConvNextLayer")]
        texts = getattr(getattr(self.parts.text_backbone, "encoder", None), "layer", [])
        return [*swin, *texts, *self.parts.encoder.layers, *self.parts.decoder.layers]

    def half(self, enabled: bool = True) -> torch.autocast:
        """Matrix products in `dtype`; not `enabled`: in fp32, whatever is around."""
        return torch.autocast(self.device.type, self.dtype, enabled=enabled and self.dtype != torch.float32)

    @torch.inference_mode()
    def look(self, pixels: Tensor) -> tuple[Tensor, Shapes]:
        """What no prompt changes.

        Args:
            pixels: fp32 [B, 3, h, w], normalised.

        Returns:
            fp32 [B, S, D]: the image at all resolutions, row by row, finest first; and their shapes.
        """
        with self.half():
            maps = list(self.parts.backbone.conv_encoder.model(pixels).feature_maps)
            projected: list[Tensor] = []
            for level, project in enumerate(self.parts.input_proj_vision):
                coarser = maps[-1] if level == len(maps) else projected[-1] if level > len(maps) else maps[level]
                projected.append(project(coarser))
        states = torch.cat([level.flatten(2).mT.float() for level in projected], 1)
        return states, tuple(tuple(level.shape[2:]) for level in projected)

    @torch.inference_mode()
    def read(self, states: Tensor, shapes: Shapes, texts: "Texts") -> tuple[Tensor, Tensor]:
        """Asks each image one prompt.

        Args:
            states, shapes: by `look`, [B, S, D].
            texts: of B prompts.

        Returns:
            Logits fp32 [B, Q, T], -inf beyond a prompt's own tokens; boxes fp32 [B, Q, 4], centre x, y, width, height
            in shares of the image.
        """
        config, device = self.config, states.device
        tables = [
            geometry(shapes, points, len(states) * heads, device)
            for heads, points in (
                (config.encoder_attention_heads, config.encoder_n_points),
                (config.decoder_attention_heads, config.decoder_n_points),
            )
        ]
        with self.half():
            text = self.parts.text_backbone(
                texts.tokens, texts.blocks[:, None], torch.zeros_like(texts.tokens), texts.positions
            ).last_hidden_state
            text = self.parts.text_projection(text)
            states, text = self._fuse(states, shapes, text, texts, tables[0])
        with self.half(False):
            return self._decode(states, shapes, text.float(), texts.padding, tables[1])

    def _fuse(
        self, states: Tensor, shapes: Shapes, text: Tensor, texts: "Texts", table: Geometry
    ) -> tuple[Tensor, Tensor]:
        """Image and text, each having seen the other: [B, S, D], [B, T, D]."""
        centres = _centres(shapes, states.device)[None, :, None].expand(1, -1, len(shapes), -1)
        unmasked = torch.zeros(1, dtype=torch.bool, device=states.device)
        positions = self._positions(shapes, states)
        for layer in self.parts.encoder.layers:
            (states, text), _ = layer(
                vision_features=states,
                vision_position_embedding=positions,
                spatial_shapes=table,
                spatial_shapes_list=shapes,
                level_start_index=None,
                key_padding_mask=unmasked,
                reference_points=centres,
                text_features=text,
                text_attention_mask=texts.padding,
                text_self_attention_masks=~texts.blocks,
                text_position_ids=texts.positions,
            )
        return states, text

    def _positions(self, shapes: Shapes, states: Tensor) -> Tensor:
        """[1, S, D]: where a state is in its image, and at which resolution."""
        whole = [torch.ones((1, *shape), dtype=torch.bool, device=states.device) for shape in shapes]
        sines = [self.parts.backbone.position_embedding(mask[:, None], mask).flatten(2).mT for mask in whole]
        return torch.cat([sine + level for sine, level in zip(sines, self.parts.level_embed, strict=True)], 1)

    def _decode(
        self, states: Tensor, shapes: Shapes, text: Tensor, padding: Tensor, table: Geometry
    ) -> tuple[Tensor, Tensor]:
        """The best places of the image as queries, refined layer by layer: logits [B, Q, T], boxes [B, Q, 4]."""
        boxes = self._queries(states, shapes, text, padding)
        queries = self.parts.query_position_embeddings.weight.expand(len(states), -1, -1)
        hidden = torch.zeros_like(padding, dtype=text.dtype).masked_fill(padding, torch.finfo(text.dtype).min)
        decoder = self.parts.decoder
        for number, layer in enumerate(decoder.layers, 1):
            sines = encode_sinusoidal_position_embedding(boxes, num_pos_feats=self.config.d_model // 2)
            queries = layer(
                hidden_states=queries,
                position_embeddings=decoder.reference_points_head(sines),
                reference_points=boxes[:, :, None].expand(-1, -1, len(shapes), -1),
                spatial_shapes=table,
                spatial_shapes_list=shapes,
                vision_encoder_hidden_states=states,
                text_encoder_hidden_states=text,
                text_encoder_attention_mask=hidden[:, None, None],
            )[0]
            last = number == len(decoder.layers)
            seen = decoder.layer_norm(queries) if last else queries
            boxes = (self.box_heads[number - 1](seen) + _logit(boxes)).sigmoid()
        return _match(seen, text, padding), boxes

    def _queries(self, states: Tensor, shapes: Shapes, text: Tensor, padding: Tensor) -> Tensor:
        """The boxes [B, Q, 4] proposed by the places that match the text best."""
        centres = _centres(shapes, states.device)
        sides = torch.cat([centres.new_full((h * w, 2), 0.05 * 2.0**n) for n, (h, w) in enumerate(shapes)])
        proposals = torch.cat([centres, sides], 1)
        inside = ((proposals > 0.01) & (proposals < 0.99)).all(1, keepdim=True)
        proposals = torch.logit(proposals).masked_fill(~inside, torch.inf)
        states = self.parts.enc_output_norm(self.parts.enc_output(states * inside))
        best = _match(states, text, padding).amax(2).topk(self.config.num_queries, 1).indices
        chosen = states.gather(1, best[..., None].expand(-1, -1, states.shape[2]))
        return (self.parts.encoder_output_bbox_embed(chosen) + proposals[best]).sigmoid()


class Texts:
    """Prompts as tensors on a device.

    tokens [B, T]; positions [B, T], from 0 in every phrase; blocks [B, T, T], True where a token sees another: those
    of its own phrase, the stop that ends it included; padding [B, T].
    """

    def __init__(self, prompts: Sequence[Prompt], length: int, device: torch.device):
        tokens = torch.zeros(len(prompts), length, dtype=torch.long)
        positions, phrase = torch.zeros_like(tokens), torch.arange(length).repeat(len(prompts), 1)
        padding = torch.ones_like(tokens, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            tokens[row, : len(prompt.tokens)] = torch.tensor(prompt.tokens)
            padding[row, : len(prompt.tokens)] = False
            for asked in prompt.asked:
                phrase[row, asked.start : asked.end + 1] = asked.start
                positions[row, asked.start : asked.end + 1] = torch.arange(asked.end + 1 - asked.start)
        together = phrase[:, :, None] == phrase[:, None]
        self.tokens, self.positions, self.blocks, self.padding = (
            send(made, device) for made in (tokens, positions, together, padding)
        )


def _centres(shapes: Shapes, device: torch.device) -> Tensor:
    """fp32 [S, 2]: x and y of every place, in shares of the image."""
    made = []
    for height, width in shapes:
        y = (torch.arange(height, dtype=torch.float32, device=device) + 0.5) / height
        x = (torch.arange(width, dtype=torch.float32, device=device) + 0.5) / width
        made.append(torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], -1).flatten(0, 1))
    return torch.cat(made)


def _match(states: Tensor, text: Tensor, padding: Tensor) -> Tensor:
    """[B, N, D] and [B, T, D] -> their products [B, N, T], -inf for padding."""
    return (states @ text.mT).masked_fill(padding[:, None], -torch.inf)


def _logit(share: Tensor) -> Tensor:
    """The logit of shares, as the published code takes it: neither it nor its complement counts as less than 1e-3."""
    return torch.log(share.clamp(min=1e-3) / (1 - share).clamp(min=1e-3))
