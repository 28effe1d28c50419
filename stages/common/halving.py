"""Out of memory: half the batch, and on."""

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from pipeline.errors import ResourceError, tell

T = TypeVar("T")
R = TypeVar("R")

# What allocators that raise no class of their own say.
_SAID = ("out of memory", "not enough memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or this machine, has no memory left."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _SAID)


class Halving:
    """Runs a computation over batches that shrink when memory runs out, and stay shrunk.

    Args:
        what: what a batch consists of, in the plural, for the lines that are told: "images", "box prompts".
        say: where a line goes that tells of a halving.
    """

    def __init__(self, what: str, say: Callable[[str], None] = tell):
        self.what, self.say = what, say
        self.limit: int | None = None  # items that fit, once it is known that not all do

    def run(self, compute: Callable[[list[T]], list[R]], items: list[T]) -> list[R]:
        """`compute` over all the items, in order: in one batch, or in several where memory asks for it.

        `compute` must not depend on how the items are batched, and returns one result an item.

        Raises:
            ResourceError: a single item does not fit.
        """
        results: list[R] = []
        while len(results) < len(items):
            count = min(self.limit or len(items), len(items) - len(results))
            made = self._attempt(compute, items[len(results) : len(results) + count])
            if made is not None:
                results += made
                continue
            # Only here, where the error and the frames it kept alive are gone, is their memory free.
            _release()
            if count == 1:
                raise ResourceError(
                    f"out of memory with one of the {self.what} at a time; use a device with more memory, a smaller "
                    "model, or dtype bf16"
                )
            self.limit = count // 2
            self.say(f"out of memory with {count} {self.what} at a time; going on with {self.limit}")
        return results

    def _attempt(self, compute: Callable[[list[T]], list[R]], batch: list[T]) -> list[R] | None:
        try:
            made = compute(batch)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            return None
        if len(made) != len(batch):
            raise ValueError(f"{len(made)} results of {len(batch)} {self.what}; this is a bug")
        return made


def _release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
