"""AdamW as older releases of transformers had it, for comparison with runs made by it; nothing else uses it."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor


class EarlyEpsAdamW(torch.optim.Optimizer):
    """AdamW whose eps is added to the root of the second moment before that root is corrected for its bias:

        p -= lr * sqrt(1 - b2^k) / (1 - b1^k) * m / (sqrt(v) + eps);  then p -= lr * weight_decay * p

    PyTorch's adds eps after the correction; with eps 1e-6 the losses of a short run drift apart by 0.01 to 0.03
    (docs/recipes.md, mcse).
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            b1, b2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state.update(step=0, first=torch.zeros_like(p), second=torch.zeros_like(p))
                state["step"] += 1
                first = state["first"].mul_(b1).add_(p.grad, alpha=1 - b1)
                second = state["second"].mul_(b2).addcmul_(p.grad, p.grad, value=1 - b2)
                rate = group["lr"] * math.sqrt(1 - b2 ** state["step"]) / (1 - b1 ** state["step"])
                p.addcdiv_(first, second.sqrt().add_(group["eps"]), value=-rate)
                if group["weight_decay"]:
                    p.add_(p, alpha=-group["lr"] * group["weight_decay"])
