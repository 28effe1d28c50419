"""Who works on a dataset just now: the locks of its stages, looked at or held all together."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.process import RUN_DIR, lock
from pipeline.shards import SHARDED

_RUN = RUN_DIR / "flow.lock"


def running(scratch: Path) -> dict[str, int]:
    """What runs now and its PID: stages and cells by name, `run` for a whole run. Changes nothing.

    A lock file stays when its holder is gone, and the kernel has freed the lock; so both are looked at.
    """
    found = {path.stem: _holder(path) for path in sorted(scratch.glob("*.lock"))} | {"run": _holder(_RUN)}
    return {name: pid for name, pid in found.items() if pid is not None}


def _holder(path: Path) -> int | None:
    try:
        with path.open(encoding="utf-8") as handle:
            pid = int(handle.read())
            if not alive(pid):
                return None
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return pid
            return None
    except (OSError, ValueError):
        return None


def alive(pid: int) -> bool:
    """Whether a process of this machine has this PID."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


@contextlib.contextmanager
def hold_all(scratch: Path) -> Iterator[None]:
    """Holds every lock of a dataset, so that no stage of it starts meanwhile.

    Raises:
        ResourceError: one of them is held; its PID is named.
    """
    with contextlib.ExitStack() as held:
        held.enter_context(lock(_RUN, "a run in this checkout"))
        names = {path.stem for path in scratch.glob("*.lock")} | set(SHARDED)
        for name in sorted(names):
            held.enter_context(lock(scratch / f"{name}.lock", f"stage {name}"))
        yield
