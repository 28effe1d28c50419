"""One optimizer step: forward, backward, clipping, update, and the guard against what is not finite."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model import gradcache
from model.batches import Batch
from model.distributed import Processes
from model.network import Network
from model.optimizer import set_learning_rate
from model.recipes import Recipe


class NotFinite(ArithmeticError):
    """Loss or gradient is NaN or infinite."""


class Guard:
    """Keeps the optimizer from stepping, from the first loss or gradient on that is not finite.

    The fused optimizer reads the flag on the device and leaves weights and state as they are: the host need not wait
    for each step to know, and learns of it when it fetches the log. Other optimizers wait for the flag.
    """

    def __init__(self, optimizer: torch.optim.Optimizer):
        group = optimizer.param_groups[0]
        self.flag = torch.zeros((), device=group["params"][0].device)
        self.waits = not group.get("fused")
        if not self.waits:
            optimizer.found_inf = self.flag

    def admits(self, loss: Tensor, norm: Tensor) -> bool:
        """Whether the optimizer may be called: always, where it reads the flag itself."""
        finite = torch.isfinite(loss) & torch.isfinite(norm)
        self.flag.copy_(torch.maximum(self.flag, (~finite).to(self.flag.dtype)))
        return not self.waits or not self.flag.item()


def update(
    network: Network,
    batches: Sequence[Batch],
    recipe: Recipe,
    optimizer: torch.optim.Optimizer,
    lr: float,
    guard: Guard,
    processes: Processes | None = None,
) -> tuple[tuple[str, ...], Tensor]:
    """One step on the mean loss of the batches (more than one: accumulation).

    Returns names and values, float64 [k] still on the device: `loss`, each term (unweighted), its statistics, and
    `grad_norm` before clipping. A term's value is its mean over the batches that have it.
    """
    processes = processes or Processes()
    set_learning_rate(optimizer, lr)
    optimizer.zero_grad(set_to_none=True)
    found: dict[str, list[Tensor]] = {}
    for batch in batches:
        for name, value in gradcache.backward(network, batch, recipe, 1 / len(batches), processes).items():
            found.setdefault(name, []).append(value.double())
    processes.mean_gradients(network.parameters())
    norm = nn.utils.clip_grad_norm_(network.parameters(), recipe.grad_clip)
    values = {name: v[0] if len(v) == 1 else torch.stack(v).mean() for name, v in found.items()}
    if guard.admits(values["loss"], norm):
        optimizer.step()
    values["grad_norm"] = norm.double()
    return tuple(values), torch.stack(list(values.values()))


def step(network: Network, batch: Batch, recipe: Recipe, optimizer: torch.optim.Optimizer, lr: float) -> dict:
    """`update` on one batch, waited for: floats by name. Raises NotFinite where no step was taken."""
    names, values = update(network, [batch], recipe, optimizer, lr, Guard(optimizer))
    row = dict(zip(names, values.tolist(), strict=True))
    if reason := fault(row, batch.kind):
        raise NotFinite(reason)
    return row


def fault(row: dict, kind: str) -> str | None:
    """What is not finite in a step's values, or None."""
    if not math.isfinite(row["loss"]):
        other = ("loss", "lr", "grad_norm")
        terms = {n: v for n, v in row.items() if n not in other and "." not in n and isinstance(v, float)}
        each = ", ".join(f"{name} {value:g}" for name, value in terms.items())
        return f"the loss is not finite on a {kind} batch ({each})"
    if not math.isfinite(row["grad_norm"]):
        return f"the gradient is not finite on a {kind} batch (loss {row['loss']:g})"
    return None
