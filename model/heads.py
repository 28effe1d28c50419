"""Training heads: what stands between the pooled vector h (or a frozen feature) and a loss.

SimCSE head g: z = tanh(W h + b), as wide as h, fresh, dropped after training (Gao et al. 2021, section 3 and its
appendix on pooling). Grounding text head g_t, visual head g_v, object head: tanh(W x + b) divided by its L2 norm
(Zhang et al. 2022, MCSE, section 3.2). g_t reads h, not z. Sentence projector and discriminator are DiffCSE's (Chuang
et al. 2022), the two consistency heads DALR's.
"""

from __future__ import annotations

import copy
import zlib
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.errors import PARAMETERS, ModelError
from model.recipes import Recipe

if TYPE_CHECKING:
    from model.data import TrainingData
    from model.encoder import Encoder


class Head(nn.Module):
    """tanh(W x + b): [..., d_in] -> [..., d_out], divided by its L2 norm if `unit`.

    `std`: W is normal with this deviation and b zero (how BERT draws new layers); None = PyTorch's own for Linear.
    """

    def __init__(self, d_in: int, d_out: int, unit: bool = False, std: float | None = None):
        super().__init__()
        self.dense = nn.Linear(d_in, d_out)
        self.unit = unit
        if std is not None:
            nn.init.normal_(self.dense.weight, std=std)
            nn.init.zeros_(self.dense.bias)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.dense(x))
        return F.normalize(y, dim=-1) if self.unit else y


class Projector(nn.Module):
    """DiffCSE's sentence projector, [N, d] -> [N, d]: Linear to 2 d, batch norm, ReLU, Linear to d, batch norm.

    Linears without bias, the last batch norm without weights of its own. Statistics are of all rows given at once.
    """

    def __init__(self, d: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(d, 2 * d, bias=False),
            nn.BatchNorm1d(2 * d),
            nn.ReLU(),
            nn.Linear(2 * d, d, bias=False),
            nn.BatchNorm1d(d, affine=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.flatten(0, -2)).view_as(x)


class ConsistencyHead(nn.Module):
    """DALR's, one for texts and one for images: twice Linear, batch norm, ReLU: [N, d_in] -> [N, d_out]."""

    def __init__(self, d_in: int, d_hidden: int, d_out: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(d_in, d_hidden),
            nn.BatchNorm1d(d_hidden),
            nn.ReLU(),
            nn.Linear(d_hidden, d_out),
            nn.BatchNorm1d(d_out),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Discriminator(nn.Module):
    """Which tokens of a sentence were replaced, given the vector of the sentence as it was (DiffCSE).

    A second encoder that starts from the same weights (`model`, copied); the vector takes the place of what its
    embedding layer makes of position 0. Raises ModelError (2) for a model without such a layer.
    """

    def __init__(self, model: nn.Module, hidden: int):
        super().__init__()
        self.model = copy.deepcopy(model)
        self.classes = nn.Linear(hidden, 2)
        nn.init.normal_(self.classes.weight, std=0.02)
        nn.init.zeros_(self.classes.bias)
        same = getattr(model.config, "embedding_size", hidden) == hidden
        if not isinstance(getattr(self.model, "embeddings", None), nn.Module) or not same:
            raise ModelError(
                f"diffcse needs a text encoder with an embedding layer as wide as its vectors (BERT, RoBERTa, "
                f"DistilBERT ...); {type(model).__name__} has none",
                PARAMETERS,
            )

    def forward(self, ids: Tensor, mask: Tensor, sentence: Tensor) -> Tensor:
        """ids, mask: [R, L]; sentence: [R, H] -> logits [R, L, 2], class 1 = replaced."""

        def conditioned(module: nn.Module, arguments: tuple, embedded: Tensor) -> Tensor:
            return torch.cat([sentence[:, None].to(embedded.dtype), embedded[:, 1:]], dim=1)

        hook = self.model.embeddings.register_forward_hook(conditioned)
        try:
            return self.classes(self.model(input_ids=ids, attention_mask=mask).last_hidden_state)
        finally:
            hook.remove()


def heads_for(recipe: Recipe, encoder: Encoder, data: TrainingData, seed: int) -> nn.ModuleDict:
    """The heads the recipe names, for this encoder and the widths of these features.

    With pooling `cls_mlp` the encoder's own MLP is the SimCSE head, since it is part of the embedding.
    """
    if "projector" in recipe.heads and encoder.mlp is not None:
        raise ModelError(
            f"recipe {recipe.name} has a projector in place of the MLP of pooling cls_mlp, which would stay untrained; "
            f"choose pooling cls or mean",
            PARAMETERS,
        )
    return build_heads(
        tuple(h for h in recipe.heads if h != "simcse" or encoder.mlp is None),
        hidden=encoder.hidden,
        image_dim=data.image_dim,
        object_dim=data.image_dim if recipe.objects == "image" else data.object_dim,
        caption_dim=data.caption_dim,
        projection=recipe.projection,
        share_object_head=recipe.share_object_head,
        seed=seed,
        model=encoder.model,
    )


def build_heads(
    names: tuple[str, ...],
    *,
    hidden: int,
    image_dim: int | None,
    object_dim: int | None,
    projection: int,
    share_object_head: bool,
    seed: int,
    caption_dim: int | None = None,
    model: nn.Module | None = None,
) -> nn.ModuleDict:
    """The heads `names` out of simcse, grounding, visual, object, caption, span, projector, consistency_text,
    consistency_image, discriminator (a copy of `model`).

    Each head's weights follow from (seed, its name) alone, so that recipes with more heads start from the same
    shared ones. With `share_object_head` the visual head serves objects too and `object` is not built.
    """
    makers = {
        "simcse": lambda: Head(hidden, hidden, std=0.02),
        "grounding": lambda: Head(hidden, projection, unit=True),
        "visual": lambda: Head(image_dim or object_dim, projection, unit=True),
        "object": lambda: Head(object_dim, projection, unit=True),
        "caption": lambda: Head(caption_dim, projection, unit=True),
        "span": lambda: Head(hidden, projection, unit=True),
        "projector": lambda: Projector(hidden),
        "consistency_text": lambda: ConsistencyHead(hidden, hidden, projection),
        "consistency_image": lambda: ConsistencyHead(image_dim, hidden, projection),
        "discriminator": lambda: Discriminator(model, hidden),
    }
    heads = nn.ModuleDict()
    for name in names:
        if name == "object" and share_object_head:
            continue
        with torch.random.fork_rng(devices=[]):
            # the CPU's alone: torch.manual_seed would give every process the same dropout on its accelerator
            torch.default_generator.manual_seed(zlib.crc32(f"{seed}/{name}".encode()))
            heads[name] = makers[name]()
    return heads
