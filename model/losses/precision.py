"""Losses are computed in float32 at least, whatever the encoder computes in."""

from collections.abc import Callable
from functools import reduce, wraps
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def full_precision(function: Callable[..., Any]) -> Callable[..., Any]:
    """Floating-point tensors among the arguments are brought to their common type, float32 at least (bfloat16 and
    float16 are widened, float64 stays), and autocast is off inside. Gradients come back in each input's own type.
    """

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
        dtype = reduce(torch.promote_types, (t.dtype for t in tensors if t.is_floating_point()), torch.float32)

        def wide(value: Any) -> Any:
            return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

        with torch.autocast(tensors[0].device.type, enabled=False):
            return function(*map(wide, args), **{name: wide(value) for name, value in kwargs.items()})

    return run


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)) to the precision of x's type. PyTorch's own is x itself from 20 on, 2e-9 off: float32 does not
    see it, float64 does.
    """
    return F.softplus(x, threshold=20.0 if x.dtype == torch.float32 else 40.0)
