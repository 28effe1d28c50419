"""Encoder, heads and the terms of a recipe: from a batch to the scalars that are summed.

Gradients: frozen features get none; the SimCSE head g learns from the text term alone; the encoder learns from the
image and object terms through the grounding head g_t, which reads h and not z.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from model.batches import Batch, Tokens
from model.data import TrainingData
from model.encoder import Encoder
from model.heads import build_heads
from model.losses.info_nce import info_nce
from model.losses.object_phrase import object_phrase
from model.recipes import Recipe, Term


class Network(nn.Module):
    """What is trained: `encoder` and `heads` (simcse, grounding, visual, object; those the recipe names).

    With pooling `cls_mlp` the encoder's own MLP is the SimCSE head, since it is part of the embedding.
    """

    def __init__(self, encoder: Encoder, recipe: Recipe, data: TrainingData, seed: int):
        super().__init__()
        self.encoder = encoder
        self.precision = recipe.precision
        self.heads = build_heads(
            tuple(h for h in recipe.heads if h != "simcse" or encoder.mlp is None),
            hidden=encoder.hidden,
            image_dim=data.image_dim,
            object_dim=data.object_dim,
            projection=recipe.projection,
            share_object_head=recipe.share_object_head,
            seed=seed,
        )

    def views(self, tokens: Tokens) -> Tensor:
        """h of both views, in one forward pass of 2N rows: [N, 2, H], float32 (or the encoder's float64)."""
        n, v, length = tokens.input_ids.shape
        device = tokens.input_ids.device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.precision == "bf16"):
            h = self.encoder(tokens.input_ids.view(n * v, length), tokens.attention_mask.view(n * v, length))
        return h.view(n, v, -1)

    def simcse(self, h: Tensor) -> Tensor:
        return self.encoder.mlp(h) if self.encoder.mlp is not None else self.heads["simcse"](h)

    def object(self, feature: Tensor) -> Tensor:
        return self.heads["object" if "object" in self.heads else "visual"](feature)


def text_term(network: Network, h: Tensor, batch: Batch, term: Term) -> Tensor:
    z = network.simcse(h)
    return info_nce(z[:, 0], z[:, 1], term.temperature)


def image_term(network: Network, h: Tensor, batch: Batch, term: Term) -> Tensor:
    text, image = network.heads["grounding"](h), network.heads["visual"](batch.image.to(h.dtype))
    return torch.stack([info_nce(view, image, term.temperature) for view in text.unbind(1)]).mean()


def object_term(network: Network, h: Tensor, batch: Batch, term: Term) -> Tensor | None:
    """None for a batch without object-phrase pairs."""
    objects = batch.objects
    if objects is None:
        return None
    phrases = network.heads["grounding"](network.views(objects.tokens)).transpose(0, 1)
    seen = network.object(objects.feature.to(h.dtype))
    return object_phrase(phrases, seen, objects.key, objects.image, objects.box, term.temperature, **term.options)


TERMS: dict[str, Callable[[Network, Tensor, Batch, Term], Tensor | None]] = {
    "text": text_term,
    "image": image_term,
    "object": object_term,
}


def losses(network: Network, batch: Batch, recipe: Recipe) -> dict[str, Tensor]:
    """The recipe's terms on this batch, unweighted scalars by name; terms without anything to compare are left out."""
    h = network.views(batch.tokens)
    values = {t.name: TERMS[t.name](network, h, batch, t) for t in recipe.terms if batch.kind in t.kinds}
    return {name: value for name, value in values.items() if value is not None}
