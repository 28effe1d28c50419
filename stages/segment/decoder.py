"""SAM's mask decoder over the official weights, for prompts of many images at once.

The published decoder takes one image and repeats its embedding for every prompt. Here every prompt names its image,
and what the first block makes of an image alone is made once an image. In fp32, whatever the encoder's format.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Kept = Literal["single", "best", "all"]


def _attend(layer: nn.Module, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of projected queries [P, n, d] to projected keys and values [P, m, d], and the output projection."""
    q, k, v = (t.unflatten(2, (layer.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
    return layer.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def _attend_all(layer: nn.Module, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return _attend(layer, layer.q_proj(q), layer.k_proj(k), layer.v_proj(v))


class Decoder(nn.Module):
    """Masks of prompts.

    Args:
        sam: segment-anything's model with its weights, on its device.
    """

    def __init__(self, sam: nn.Module):
        super().__init__()
        self.prompts, self.official = sam.prompt_encoder, sam.mask_decoder
        self.register_buffer("places", self.prompts.get_dense_pe().flatten(2).transpose(1, 2))  # [1, n, C]

    def embed_boxes(self, boxes: Tensor) -> Tensor:
        """Boxes [P, 4], x0, y0, x1, y1 in the encoder's frame -> [P, 2, C]."""
        return self.prompts(points=None, boxes=boxes, masks=None)[0]

    def embed_points(self, points: Tensor) -> Tensor:
        """Points inside an object [P, 2], x, y in the encoder's frame -> [P, 2, C]."""
        labels = torch.ones((len(points), 1), dtype=torch.int, device=points.device)
        return self.prompts(points=(points[:, None], labels), boxes=None, masks=None)[0]

    def forward(self, embeddings: Tensor, owner: Tensor, prompts: Tensor, kept: Kept) -> tuple[Tensor, Tensor]:
        """The masks of prompts.

        Args:
            embeddings: of the images, [N, C, grid, grid].
            owner: the image of every prompt, [P].
            prompts: embedded prompts, [P, t, C].
            kept: `single` mask, the `best` of three by predicted IoU, or `all` three.

        Returns:
            logits [P, m, 4 grid, 4 grid]; predicted IoU [P, m].
        """
        own = torch.cat([self.official.iou_token.weight, self.official.mask_tokens.weight])
        tokens = torch.cat([own.expand(len(prompts), -1, -1), prompts], 1)
        tokens, pixels = self._transform(embeddings, owner, tokens)
        place = slice(0, 1) if kept == "single" else slice(1, None)
        iou = self.official.iou_prediction_head(tokens[:, 0])[:, place]
        heads = self.official.output_hypernetworks_mlps[place]
        mixers = torch.stack([head(tokens[:, 1 + place.start + i]) for i, head in enumerate(heads)], 1)  # [P, m, c]
        if kept == "best":
            best = iou.argmax(1, keepdim=True)
            iou = iou.gather(1, best)
            mixers = mixers.gather(1, best[..., None].expand(-1, -1, mixers.shape[2]))
        fine = self.official.output_upscaling(pixels.transpose(1, 2).unflatten(2, embeddings.shape[2:]))
        return (mixers @ fine.flatten(2)).unflatten(2, fine.shape[2:]), iou

    def _transform(self, embeddings: Tensor, owner: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The two-way transformer: tokens [P, t, C] and the pixels of their images -> both, [P, t, C], [P, n, C]."""
        transformer = self.official.transformer
        empty = self.prompts.no_mask_embed.weight.view(1, -1, 1, 1)
        pixels = (embeddings + empty).flatten(2).transpose(1, 2)  # [N, n, C] until the first block has changed them
        queries = tokens
        for number, layer in enumerate(transformer.layers):
            own = queries if layer.skip_first_layer_pe else queries + tokens
            seen = _attend_all(layer.self_attn, own, own, queries)
            queries = layer.norm1(seen if layer.skip_first_layer_pe else queries + seen)

            to_image, to_tokens = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
            placed = pixels + self.places
            keys, values, asks = to_image.k_proj(placed), to_image.v_proj(pixels), to_tokens.q_proj(placed)
            if number == 0:
                keys, values, asks, pixels = (_of_prompts(t, owner) for t in (keys, values, asks, pixels))
            queries = layer.norm2(queries + _attend(to_image, to_image.q_proj(queries + tokens), keys, values))
            queries = layer.norm3(queries + layer.mlp(queries))
            answers = to_tokens.k_proj(queries + tokens), to_tokens.v_proj(queries)
            pixels = layer.norm4(pixels + _attend(to_tokens, asks, *answers))
        last = transformer.final_attn_token_to_image
        seen = _attend_all(last, queries + tokens, pixels + self.places, pixels)
        return transformer.norm_final_attn(queries + seen), pixels


def _of_prompts(images: Tensor, owner: Tensor) -> Tensor:
    """[N, ...] -> [P, ...]; no copy where all prompts have one image."""
    return images.expand(len(owner), -1, -1) if len(images) == 1 else images[owner]
