"""A folder that lives as long as the work that needs it."""

import contextlib
import fcntl
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import ResourceError


class Scratch:
    """A new folder under `parent`, removed when nothing refers to this object any more, at the latest when the process
    ends.

    What a killed process left there is removed by the next one; that a process is alive is seen by the lock it holds.
    A copy in another process (pickled) only knows the path.

    Raises:
        ResourceError: the folder cannot be made.
    """

    def __init__(self, parent: Path):
        try:
            parent.mkdir(parents=True, exist_ok=True)
            with _locked(parent):
                for other in parent.iterdir():
                    _remove_if_left(other)
                self.path = Path(tempfile.mkdtemp(prefix="index-", dir=parent))
                held = os.open(self.path, os.O_RDONLY)
                fcntl.flock(held, fcntl.LOCK_EX)
        except OSError as error:
            raise ResourceError(
                f"{parent}: cannot be written ({error.strerror}); set runtime.scratch to a writable folder with space"
            ) from None
        weakref.finalize(self, _drop, self.path, held)

    def __getstate__(self) -> dict:
        return {"path": self.path}


def _drop(path: Path, held: int) -> None:
    shutil.rmtree(path, ignore_errors=True)
    os.close(held)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove_if_left(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)
