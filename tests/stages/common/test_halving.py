"""A batch that does not fit is halved, and the result is the same."""

import weakref

import pytest
import torch

from pipeline.errors import ResourceError
from stages.common.halving import Halving, out_of_memory

SHORTAGES = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"),
]


def computing(most: int, batches: list[int], error: Exception):
    """Squares, as long as a batch has at most so many items."""

    def compute(items: list[int]) -> list[int]:
        batches.append(len(items))
        if len(items) > most:
            raise error
        return [item * item for item in items]

    return compute


@pytest.mark.fault("F47")
@pytest.mark.parametrize("error", SHORTAGES, ids=lambda error: type(error).__name__)
def test_a_batch_is_halved_until_it_fits_and_stays_so(error):
    told: list[str] = []
    halving, batches = Halving("images", told.append), []
    items = list(range(21))
    assert halving.run(computing(3, batches, error), items) == [item * item for item in items]
    assert batches == [21, 10, 5, *[2] * 10, 1]
    assert told == [
        "out of memory with 21 images at a time; going on with 10",
        "out of memory with 10 images at a time; going on with 5",
        "out of memory with 5 images at a time; going on with 2",
    ]
    batches.clear()
    assert halving.run(computing(3, batches, error), items[:5]) == [0, 1, 4, 9, 16]
    assert batches == [2, 2, 1], "later batches start with what fitted"


@pytest.mark.fault("F47")
def test_memory_that_runs_out_in_a_later_batch_costs_only_that_batch():
    calls = []

    def compute(items: list[int]) -> list[int]:
        calls.append(list(items))
        if len(calls) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [-item for item in items]

    halving = Halving("images", lambda line: None)
    made = [result for start in range(0, 16, 4) for result in halving.run(compute, list(range(start, start + 4)))]
    assert made == [-item for item in range(16)]
    assert calls[2:5] == [[8, 9, 10, 11], [8, 9], [10, 11]]


def test_one_item_that_does_not_fit_ends_in_one_line():
    halving = Halving("box prompts", lambda line: None)
    with pytest.raises(ResourceError, match="out of memory with one of the box prompts at a time") as caught:
        halving.run(computing(0, [], MemoryError()), [1, 2, 3])
    assert caught.value.code == 5 and "\n" not in str(caught.value)


def test_what_the_failed_batch_held_is_free_before_the_next_attempt():
    held: list[weakref.ref] = []

    def compute(items: list[int]) -> list[int]:
        assert all(reference() is None for reference in held), "the error keeps the batch alive"
        large = torch.zeros(len(items))
        held.append(weakref.ref(large))
        if len(items) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return items

    assert Halving("images", lambda line: None).run(compute, [1, 2, 3]) == [1, 2, 3]


def test_other_errors_pass_through():
    halving = Halving("images")
    for error in (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("no")):
        assert not out_of_memory(error)
        with pytest.raises(type(error)):
            halving.run(computing(0, [], error), [1, 2])
    with pytest.raises(ValueError, match="1 results of 2 images"):
        halving.run(lambda items: items[:1], [1, 2])
    assert halving.run(computing(0, [], MemoryError()), []) == []
