"""Work done in a thread ahead of where it is needed, in its order."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
N = TypeVar("N")


def ahead(make: Callable[[N], T], numbers: Iterable[N], depth: int = 2) -> Iterator[T]:
    """make(n) for each n in turn, computed in one thread while the caller works, `depth` results ahead at most.

    An exception of `make` is raised where its result would have come. The thread ends with the iterator.
    """
    results: queue.Queue = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: tuple) -> bool:
        while not stopped.is_set():
            try:
                results.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for number in numbers:
                if not put(("made", make(number))):
                    return
            put(("end", None))
        except BaseException as error:  # noqa: BLE001 (whatever it is, it belongs to the caller)
            put(("failed", error))

    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    try:
        while True:
            what, value = results.get()
            if what == "failed":
                raise value
            if what == "end":
                return
            yield value
    finally:
        stopped.set()
        thread.join()
