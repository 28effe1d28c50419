"""The optimizer and the learning rate of each step."""

import math

import torch
from torch import nn

from model.golden.early_adamw import EarlyEpsAdamW
from model.recipes import Recipe


def build_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW over all trainable parameters, betas 0.9 and 0.999; every step sets the learning rate.

    In PyTorch's fused form: one pass over the weights, and on an accelerator it can leave the weights as they are when
    a flag there says so, without the host waiting for it. `adamw_early_eps` is the form of older transformers
    releases, for comparison with runs made by it.
    """
    trained = [p for p in network.parameters() if p.requires_grad]
    if recipe.optimizer == "adamw_early_eps":
        return EarlyEpsAdamW(trained, recipe.learning_rate, eps=recipe.adam_eps, weight_decay=recipe.weight_decay)
    return torch.optim.AdamW(
        trained, lr=recipe.learning_rate, eps=recipe.adam_eps, weight_decay=recipe.weight_decay, fused=True
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def learning_rate(step: int, total: int, recipe: Recipe) -> float:
    """From 0 over the warm-up share of the steps, then to 0: linearly (lr * (1 - step / total) without warm-up), or
    for `cosine` along half a cosine.
    """
    rise = round(recipe.warmup * total)
    if step < rise:
        return recipe.learning_rate * (step + 1) / rise
    done = (step - rise) / (total - rise)
    if recipe.schedule == "cosine":
        return recipe.learning_rate * (1 + math.cos(math.pi * done)) / 2
    return recipe.learning_rate * (1 - done)
