"""A function in a process of its own that has the libraries loaded already."""

import multiprocessing
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")


def fresh(threads: int, function: Callable[..., T], *arguments: object) -> T:
    """Calls a function of a module in a new process, so that its memory is its own and nothing of it stays on the
    device. The process is forked from a server that has imported the function's module and done nothing else: on a
    busy machine the imports take longer than what is measured.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([function.__module__])
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(quietly, threads, function, arguments).result()


def quietly(threads: int, function: Callable[..., T], arguments: tuple) -> T:
    """In the new process: the call, without the libraries' warnings."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning)
    torch.set_num_threads(threads)
    return function(*arguments)
