"""A command that does not outlive whoever started it: `python -m pipeline.child COMMAND...`.

`dvc repro` starts a shell, the shell a stage, the stage its workers. Killing any of them would leave the rest at work.
So the command runs in a process group of its own, and this process watches the pipe at its standard input: when the
other end is closed, on purpose or because that process died, it ends the group, with TERM first and KILL after a grace.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

GRACE_S = 10.0
_EXTRA_S = 5.0


def dvc(*arguments: str) -> list[str]:
    """The command line of this environment's DVC; it waits for DVC's lock rather than to give up."""
    return [sys.executable, "-P", "-m", "dvc", "--wait-for-lock", *arguments]


def start(command: list[str], **options: object) -> subprocess.Popen:
    """Starts a command as a guarded child; `options` go to Popen.

    The programs of this environment come first in its PATH, so that `python` in dvc.yaml is the running interpreter,
    whether or not the environment was activated.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    guarded = [sys.executable, "-P", str(Path(__file__).resolve()), *command]
    return subprocess.Popen(
        guarded,
        stdin=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"},
        **options,
    )


def stop(child: subprocess.Popen) -> int:
    """Ends a guarded child and all it started, if it still runs; returns its exit code."""
    with contextlib.suppress(OSError):
        child.stdin.close()
    try:
        return child.wait(GRACE_S + _EXTRA_S)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


def main(command: list[str]) -> int:
    """Runs the command to its end, or to that of the process that started this one.

    Returns its exit code (128 + n: it was ended by signal n).
    """
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: over.set())
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    for wait in (child.wait, sys.stdin.buffer.read):
        threading.Thread(target=lambda wait=wait: (wait(), over.set()), daemon=True).start()
    over.wait()
    _end_group(child)
    code = child.wait()
    return code if code >= 0 else 128 - code


def _end_group(child: subprocess.Popen) -> None:
    """Also after the command's own end: what it left behind must not run on."""
    deadline = time.monotonic() + GRACE_S
    number = signal.SIGTERM
    with contextlib.suppress(ProcessLookupError, PermissionError):
        while time.monotonic() < deadline:
            os.killpg(child.pid, number)
            number = 0
            child.poll()
            time.sleep(0.05)
        os.killpg(child.pid, signal.SIGKILL)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # the thread that reads standard input would hold up the ordinary end
