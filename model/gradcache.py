"""Forward and backward pass of one batch, whole or in chunks of rows (gradient cache; Gao et al. 2021, GradCache).

In chunks: the rows are encoded a chunk at a time without a graph, the loss is taken on the vectors of the whole batch,
and each chunk is then encoded again with the random state it had, this time with a graph into which the gradient of its
vectors is fed. Memory is that of one chunk, the batch and its negatives are whole, the price is a second forward pass.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from model.batches import Batch, Tokens
from model.distributed import Processes
from model.encoded import Encoded
from model.network import Network, losses
from model.recipes import Recipe


def backward(
    network: Network, batch: Batch, recipe: Recipe, share: float = 1.0, processes: Processes | None = None
) -> dict[str, Tensor]:
    """Adds the gradient of share x loss to the parameters' and returns detached scalars on the device.

    {"loss": weighted sum of the terms, each term by name (unweighted), "term.statistic": its statistics}.
    """
    processes = processes or Processes()
    own = processes.own(batch)
    if recipe.cache_chunk:
        return _cached(network, batch, own, recipe, share, processes)
    return _loss(network, processes.gather(network.encode(own, recipe), batch), batch, recipe, share)


def _loss(network: Network, encoded: Encoded, batch: Batch, recipe: Recipe, share: float) -> dict[str, Tensor]:
    terms = losses(network, encoded, batch, recipe)
    weight = {t.name: t.weight for t in recipe.terms}
    loss = sum(weight[name] * value for name, (value, _) in terms.items())
    (loss if share == 1 else loss * share).backward()
    values = {"loss": loss.detach()}
    for name, (value, statistics) in terms.items():
        values[name] = value.detach()
        values |= {f"{name}.{key}": statistic.detach() for key, statistic in statistics.items()}
    return values


@dataclass
class _Chunk:
    """Rows of the batch's texts or of its phrases, and the random state they were encoded with."""

    of: str  # "texts" or "phrases"
    tokens: Tokens
    random: list[Tensor]


def _cached(
    network: Network, batch: Batch, own: Batch, recipe: Recipe, share: float, processes: Processes
) -> dict[str, Tensor]:
    device, spans = own.tokens.input_ids.device, network.keeps_states(recipe)
    chunks, parts = [], []
    with torch.no_grad():
        for of, tokens in _cut(own, recipe.cache_chunk):
            chunks.append(_Chunk(of, tokens, random_state(device)))
            parts.append(network.rows(tokens, spans and of == "texts"))
    vectors = _leaves(chunks, parts, spans)
    values = _loss(network, processes.gather(vectors, batch), batch, recipe, share)
    after = random_state(device)
    _replay(network, chunks, vectors, spans)
    set_random_state(after, device)
    return values


def _leaves(chunks: list[_Chunk], parts: list[tuple[Tensor, Tensor | None]], spans: bool) -> Encoded:
    def whole(of: str, which: int) -> Tensor | None:
        found = [part[which] for chunk, part in zip(chunks, parts, strict=True) if chunk.of == of]
        return torch.cat(found).requires_grad_() if found else None

    return Encoded(whole("texts", 0), whole("texts", 1) if spans else None, whole("phrases", 0))


def _replay(network: Network, chunks: list[_Chunk], vectors: Encoded, spans: bool) -> None:
    read = {"texts": 0, "phrases": 0}
    for chunk in chunks:
        start, rows = read[chunk.of], len(chunk.tokens.input_ids)
        read[chunk.of] += rows
        of_texts = chunk.of == "texts"
        wanted = [vectors.h if of_texts else vectors.phrases, vectors.states if of_texts else None]
        gradients = [None if t is None or t.grad is None else t.grad[start : start + rows] for t in wanted]
        if all(g is None for g in gradients):
            continue
        set_random_state(chunk.random, chunk.tokens.input_ids.device)
        made = network.rows(chunk.tokens, spans and of_texts)
        pairs = [(m, g) for m, g in zip(made, gradients, strict=True) if g is not None]
        torch.autograd.backward([m for m, _ in pairs], [g for _, g in pairs])


def _cut(batch: Batch, rows: int) -> list[tuple[str, Tokens]]:
    found = [("texts", batch.tokens)]
    if batch.objects is not None and batch.objects.tokens is not None:
        found.append(("phrases", batch.objects.tokens))
    return [
        (of, tokens.cut(start, start + rows)) for of, tokens in found for start in range(0, len(tokens.input_ids), rows)
    ]


def random_state(device: torch.device | str) -> list[Tensor]:
    """The random states that a forward pass on `device` reads: of the CPU and, for CUDA, of the device."""
    device = torch.device(device)
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def set_random_state(state: list[Tensor], device: torch.device | str) -> None:
    device = torch.device(device)
    torch.set_rng_state(state[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[1], device)
