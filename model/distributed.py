"""Several processes that train one model: one global batch, each process encoding its own rows of it.

Every process builds the same global batch. It encodes its slice, the vectors of all slices are gathered, and every
process computes the loss of the whole batch, so that each row has all the others as negatives. The gradient that comes
back through the gathering is that of the own slice times the number of processes; averaging the gradients of all
processes then gives the encoder the sum of its slices' parts and the heads, whose gradient is the same everywhere, that
one. Without dropout this is one process with the whole batch.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from model.batches import Batch, Tokens
from model.encoded import Encoded

_BUCKET = 32 * 1024 * 1024  # numbers reduced at once


@dataclass(frozen=True)
class Processes:
    """This process among `world`; alone by default."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that evaluates, writes and speaks."""
        return self.rank == 0

    def own(self, batch: Batch) -> Batch:
        """The batch with the texts and phrases that this process encodes; all else is the whole batch's."""
        if self.world == 1:
            return batch
        objects = batch.objects
        if objects is not None and objects.tokens is not None:
            objects = replace(objects, tokens=self._slice(objects.tokens))
        return replace(batch, tokens=self._slice(batch.tokens), objects=objects)

    def gather(self, encoded: Encoded, batch: Batch) -> Encoded:
        """The whole batch's vectors from those of `own(batch)`, in the order of its rows, differentiable."""
        if self.world == 1:
            return encoded
        texts = len(batch.tokens.input_ids)
        phrases = encoded.phrases
        return Encoded(
            self._gather(encoded.h, texts),
            None if encoded.states is None else self._gather(encoded.states, texts),
            None if phrases is None else self._gather(phrases, len(batch.objects.tokens.input_ids)),
        )

    def same_weights(self, module: nn.Module) -> None:
        """The first process's weights and buffers, in every process."""
        if self.world > 1:
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, src=0)

    def mean_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replaces every gradient by its mean over the processes; all have gradients on the same parameters."""
        if self.world == 1:
            return
        bucket, size = [], 0
        for gradient in (p.grad for p in parameters if p.grad is not None):
            if bucket and (size + gradient.numel() > _BUCKET or gradient.dtype != bucket[0].dtype):
                self._mean(bucket)
                bucket, size = [], 0
            bucket.append(gradient)
            size += gradient.numel()
        if bucket:
            self._mean(bucket)

    def agree(self, value: Any) -> Any:
        """The first process's value, in every process. A small Python value."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def collect(self, value: Any) -> list[Any]:
        """The values of all processes, by rank."""
        if self.world == 1:
            return [value]
        box: list[Any] = [None] * self.world
        dist.all_gather_object(box, value)
        return box

    def bounds(self, rows: int) -> list[int]:
        """Where the slices of `rows` rows start, and the end: world + 1 numbers. Sizes differ by one at most."""
        return [rows * rank // self.world for rank in range(self.world + 1)]

    def _slice(self, tokens: Tokens) -> Tokens:
        # fewer rows than processes: every process encodes all of them, and their gradients are averaged
        if (rows := len(tokens.input_ids)) < self.world:
            return tokens
        start, end = self.bounds(rows)[self.rank : self.rank + 2]
        return tokens.cut(start, end)

    def _gather(self, part: Tensor, rows: int) -> Tensor:
        if rows < self.world:
            return part
        bounds = self.bounds(rows)
        return _Gather.apply(part, self.rank, [b - a for a, b in zip(bounds, bounds[1:], strict=False)])

    def _mean(self, gradients: list[Tensor]) -> None:
        flat = torch.cat([g.reshape(-1) for g in gradients])
        dist.all_reduce(flat)
        flat /= self.world
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))


class _Gather(torch.autograd.Function):
    """Slices [sizes[rank], ...] of all processes, one after the other."""

    @staticmethod
    def forward(ctx, part: Tensor, rank: int, sizes: list[int]) -> Tensor:
        ctx.rank, ctx.sizes = rank, sizes
        padded = part.new_zeros((max(sizes), *part.shape[1:]))
        padded[: len(part)] = part
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([p[:size] for p, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        start = sum(ctx.sizes[: ctx.rank])
        return gradient[start : start + ctx.sizes[ctx.rank]] * len(ctx.sizes), None, None


def join(device: str) -> Processes:
    """This process among those that torchrun started (alone without it): gloo on the CPU, nccl on CUDA."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Processes()
    if not dist.is_initialized():
        dist.init_process_group("nccl" if torch.device(device).type == "cuda" else "gloo")
    return Processes(dist.get_rank(), dist.get_world_size())


def own_device(device: str) -> str:
    """`cuda` under torchrun: the accelerator of this process's number on its machine."""
    if device == "cuda" and (local := os.environ.get("LOCAL_RANK")):
        torch.cuda.set_device(int(local))
        return f"cuda:{local}"
    return device
