"""A stage as a process: what happened becomes an exit code, one line, and a file that tells both."""

import errno
import json
import signal
import subprocess
import sys

import pytest
from small import environment

CASES = [
    ("pass", 0, ""),
    ("raise ParamsError('a.b: wrong')", 2, "a.b: wrong"),
    ("raise InputError('x: missing')", 3, "x: missing"),
    ("raise RejectError('too many')", 4, "too many"),
    ("raise ResourceError('full')", 5, "full"),
    (f"raise OSError({errno.ENOSPC}, 'no', 'file')", 5, "no space left on the disk (file)"),
    (f"raise PermissionError({errno.EACCES}, 'Permission denied', 'file')", 5, "file: Permission denied; make it"),
    ("raise MemoryError", 5, "out of memory"),
    ("import torch; raise torch.OutOfMemoryError('CUDA out of memory')", 5, "out of memory on the device"),
    ("raise TransientError('blink')", 75, "blink"),
    (f"raise OSError({errno.ESTALE}, 'Stale file handle', 'file')", 75, "Stale file handle (file); this may pass"),
    ("raise KeyboardInterrupt", 130, "interrupted"),
    ("raise Interrupted", 130, "interrupted"),
    ("raise Terminated", 143, "ended by SIGTERM"),
    ("raise ZeroDivisionError('oops')", 1, "unexpected ZeroDivisionError: oops; this is a bug"),
]


@pytest.mark.parametrize(("body", "code", "says"), CASES)
def test_what_happened_is_told(tmp_path, body, code, says):
    script = (
        f"from pipeline.errors import *\nfrom pipeline import process\ndef body():\n    {body}\nprocess.run('x', body)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == code
    told = json.loads((tmp_path / ".run/x.exit.json").read_text())
    assert told["code"] == code and says in told["message"] and says in done.stderr
    assert ("Traceback" in done.stderr) == (code == 1)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("place", ["signal.raise_signal({0})", "exec('signal.raise_signal({0})')"])
def test_a_signal_is_heeded_where_other_code_swallows_it(tmp_path, number, code, place):
    body = f"""
import contextlib, signal
from pipeline import process
signal.signal(signal.SIGINT, signal.default_int_handler)
def body():
    with contextlib.suppress(BaseException):
        {place.format(int(number))}
    process.heed()
    print("went on")
process.run("x", body)
"""
    done = subprocess.run([sys.executable, "-c", body], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (code, "")
