"""Training heads: what stands between the pooled vector h (or a frozen feature) and a loss.

SimCSE head g: z = tanh(W h + b), as wide as h, fresh, dropped after training (Gao et al. 2021, section 3 and its
appendix on pooling). Grounding text head g_t, visual head g_v, object head: tanh(W x + b) divided by its L2 norm
(Zhang et al. 2022, MCSE, section 3.2). g_t reads h, not z.
"""

import zlib

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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


def build_heads(
    names: tuple[str, ...],
    *,
    hidden: int,
    image_dim: int | None,
    object_dim: int | None,
    projection: int,
    share_object_head: bool,
    seed: int,
) -> nn.ModuleDict:
    """The heads `names` out of simcse, grounding, visual, object.

    Each head's weights follow from (seed, its name) alone, so that recipes with more heads start from the same
    shared ones. With `share_object_head` the visual head serves objects too and `object` is not built.
    """
    shapes = {
        "simcse": (hidden, hidden, False, 0.02),
        "grounding": (hidden, projection, True, None),
        "visual": (image_dim or object_dim, projection, True, None),
        "object": (object_dim, projection, True, None),
    }
    heads = nn.ModuleDict()
    for name in names:
        if name == "object" and share_object_head:
            continue
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(zlib.crc32(f"{seed}/{name}".encode()))
            d_in, d_out, unit, std = shapes[name]
            heads[name] = Head(d_in, d_out, unit, std)
    return heads
