"""Children to be killed: `python -m faults.nursery` loads the project once and forks a child a job.

A job is a line of JSON: {"call": "module:function", "args": [...], "at": number or null, "kind": fault, "delay":
seconds or null}. The child calls the function with its file operations armed (inject.arm) and, if there is a delay, is
killed after it. The answer is a line of JSON: {"code", "signal", "points", "fired", "said"}.
"""

import contextlib
import importlib
import io
import json
import os
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator

from faults import inject
from small import ROOT, environment


class Nursery:
    """The parent's side of it."""

    def __init__(self, process: subprocess.Popen):
        self.process = process

    def run(
        self, call: str, *args: object, at: int | None = None, kind: str = "kill", delay: float | None = None
    ) -> dict:
        job = {"call": call, "args": [str(a) for a in args], "at": at, "kind": kind, "delay": delay}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the nursery died"
        return json.loads(answer)


@contextlib.contextmanager
def nursery(*preload: str) -> Iterator[Nursery]:
    """Starts the process that forks the children, with these modules loaded; of `module:function` the function is
    also called once, so that what it imports late is there.
    """
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    process = subprocess.Popen(
        [sys.executable, "-m", "faults.nursery", *preload],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment({"PYTHONPATH": path}),
    )
    try:
        yield Nursery(process)
    finally:
        process.stdin.close()
        process.wait(60)


def _child(job: dict, report: int) -> None:
    module, name = job["call"].split(":")
    call = getattr(importlib.import_module(module), name)
    said = io.StringIO()
    code = 0
    points = inject.arm(job["at"], job["kind"])
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            call(*job["args"])
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:  # noqa: BLE001 - a traceback is what the tests look for
        code = 1
        said.write(traceback.format_exc())
    text = json.dumps({"points": points.count, "fired": points.fired, "said": said.getvalue()})
    os.write(report, text.encode())
    os._exit(code)


def main() -> None:
    for name in sys.argv[1:]:
        module, _, function = name.partition(":")
        loaded = importlib.import_module(module)
        if function:
            getattr(loaded, function)()
    for line in sys.stdin:
        job = json.loads(line)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _child(job, writing)
        os.close(writing)
        if job["delay"] is not None and not select.select([reading], [], [], job["delay"])[0]:
            os.kill(child, signal.SIGKILL)
        with os.fdopen(reading) as handle:
            text = handle.read()
        code, number = inject.end_of(child)
        answer = {"points": None, "fired": [], "said": ""} | (json.loads(text) if text else {})
        sys.stdout.write(json.dumps(answer | {"code": code, "signal": number}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
