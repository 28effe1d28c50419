"""Linear layers laid out for the processor, for as long as something is encoded: the same numbers, sooner.

On a CPU a matrix product of PyTorch goes through a BLAS that lays the weights out anew at every call. Here oneDNN
does it once, in float32 (a third faster; rounding differs in the last bit), or in bfloat16 for processors that have
its instructions (twice as fast and more; products in bfloat16, sums in float32).
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn


class Packed(nn.Module):
    """A linear layer [.., I] -> [.., O] whose weight lies as oneDNN wants it; for inference on a CPU only."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype
        weight = linear.weight.detach().to(dtype).contiguous()
        self.bias_ = None if linear.bias is None else linear.bias.detach().to(dtype)
        self.weight_ = torch.ops.mkldnn._reorder_linear_weight(weight)

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x.to(self.dtype), self.weight_, self.bias_, "none", [], "")


@contextmanager
def packed(model: nn.Module, device: torch.device, dtype: torch.dtype = torch.float32) -> Iterator[None]:
    """While it lasts, the linear layers of `model` compute in `dtype` (float32 or bfloat16), packed on a CPU that
    can; afterwards they are the layers they were. Off the CPU, bfloat16 is autocast's. One thread at a time: the layers
    are swapped in the model itself.
    """
    half = dtype == torch.bfloat16
    places = _linears(model) if device.type == "cpu" and packs(dtype) else []
    try:
        for parent, name, linear in places:
            parent._modules[name] = Packed(linear, dtype)
        with torch.autocast(device.type, torch.bfloat16) if half else nullcontext():
            yield
    finally:
        for parent, name, linear in places:
            parent._modules[name] = linear


def _linears(model: nn.Module) -> list[tuple[nn.Module, str, nn.Linear]]:
    """(parent, name, layer) of each plain float32 linear layer."""
    return [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent._modules.items()
        if type(child) is nn.Linear and child.weight.dtype == torch.float32
    ]


@functools.cache
def packs(dtype: torch.dtype) -> bool:
    """Whether this build of PyTorch has the operators, and they give a linear layer's numbers."""
    made = torch.Generator().manual_seed(0)
    linear = nn.utils.skip_init(nn.Linear, 16, 16)  # nothing is drawn: training's random numbers stay what they are
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        for parameter in linear.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=made))
        x = torch.randn(4, 16, generator=made)
        try:
            found = Packed(linear, dtype)(x).float()
        except (AttributeError, RuntimeError):
            return False
        return bool(torch.allclose(found, linear(x), atol=1e-4 if dtype == torch.float32 else 0.3))
