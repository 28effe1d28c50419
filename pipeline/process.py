"""A stage as a process: its exit code, the file that tells it, its lock, and what happens on a signal.

DVC hides a stage's exit code, so it is also written to `.run/<stage>.exit.json` ({"code", "message"}); no file, not
retryable.
"""

import contextlib
import errno
import fcntl
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.errors import Interrupted, ResourceError, StageError, Terminated, TransientError, tell
from pipeline.files import write_json

RUN_DIR = Path(".run")

# What a network file system or a busy device says of itself and may not say a minute later.
_PASSING = {errno.EAGAIN, errno.EBUSY, errno.ECONNRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN,
            errno.ENETUNREACH, errno.ESTALE, errno.ETIMEDOUT}  # fmt: skip


def exit_file(cell: str) -> Path:
    """Where the exit of a stage, or of a cell of its matrix (`train@mcse-0`), is told."""
    return RUN_DIR / f"{cell}.exit.json"


def read_exit(cell: str) -> dict | None:
    """The last told exit of a stage, or None if it told none."""
    try:
        told = json.loads(exit_file(cell).read_text(encoding="utf-8"))
        return told if isinstance(told.get("code"), int) else None
    except (OSError, ValueError, AttributeError):
        return None


def run(cell: str, body: Callable[[], None]) -> None:
    """Runs a stage's body and ends the process with the code that fits what happened; never returns."""
    signal.signal(signal.SIGTERM, _raised(Terminated))
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # in the background of a shell it is ignored
        signal.signal(signal.SIGINT, _raised(Interrupted))

    def whole() -> None:
        exit_file(cell).unlink(missing_ok=True)
        body()

    code, message = _outcome(cell, whole)
    if message:
        tell(f"{cell}: {message}")
    with contextlib.suppress(Exception):
        write_json(exit_file(cell), {"code": code, "message": message})
    sys.stdout.flush()
    sys.exit(code)


def _outcome(cell: str, body: Callable[[], None]) -> tuple[int, str]:
    try:
        body()
        return 0, ""
    except StageError as error:
        return error.code, str(error)
    except Terminated:
        return 143, "ended by SIGTERM; finished shards are kept, run again to go on"
    except KeyboardInterrupt:
        return 130, "interrupted; finished shards are kept, run again to go on"
    except MemoryError:
        return 5, "out of memory; lower runtime.workers or runtime.batch_rows, or raise ingest.shards"
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return 5, f"no space left on the disk ({error.filename}); free some and run again, finished shards are kept"
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return 5, f"{error.filename}: {error.strerror}; make it readable and writable and run again"
        if error.errno in _PASSING:
            return TransientError.code, f"{error.strerror} ({error.filename}); this may pass, run again"
        traceback.print_exc()
        return 1, f"unexpected {type(error).__name__}: {error}; this is a bug, please report it with the lines above"
    except Exception as error:  # noqa: BLE001 - the one boundary where everything is told
        if type(error).__name__ == "OutOfMemoryError":  # torch's, and this package does without torch
            return 5, (
                "out of memory on the device, before a batch could be halved; lower runtime.batch_images or "
                "runtime.batch_rows, take a smaller model, or use a device with more memory"
            )
        traceback.print_exc()
        return 1, f"unexpected {type(error).__name__}: {error}; this is a bug, please report it with the lines above"


_asked: type[KeyboardInterrupt] | None = None


def _raised(kind: type[KeyboardInterrupt]) -> Callable[[int, object], None]:
    def handler(number: int, frame: object) -> None:
        global _asked
        _asked = kind
        raise kind

    return handler


def heed() -> None:
    """Raises again what a signal raised in this process, which code that was then running may have swallowed."""
    if _asked:
        raise _asked


@contextlib.contextmanager
def lock(path: Path, what: str) -> Iterator[None]:
    """Holds an exclusive lock while the body runs; the kernel frees it however the process ends.

    Raises:
        ResourceError: another process holds it; its PID is named.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("a+", encoding="utf-8")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceError(f"{path}: no space left on the disk; free some and run again") from None
        raise ResourceError(
            f"{path}: cannot be written ({error.strerror}); set runtime.scratch to a writable folder"
        ) from None
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.seek(0)
            holder = handle.read().strip() or "unknown"
            raise ResourceError(
                f"{what} is already running as PID {holder}; wait for it or end it, then run again"
            ) from None
        # On a full disk the PID stays untold; what is written next says in full that there is no space.
        with contextlib.suppress(OSError):
            os.ftruncate(handle.fileno(), 0)
            os.write(handle.fileno(), str(os.getpid()).encode())
        yield


def die_with_parent() -> None:
    """In a worker: ends it soon after its parent is gone, so that a killed stage leaves no second copy at work."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
