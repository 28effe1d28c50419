"""Faults on purpose: what the tests of this folder do to files, folders and processes."""

import contextlib
import ctypes
import errno
import io
import json
import os
import signal
import subprocess
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

_CAPABILITY_VERSION = 0x20080522
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1 << 1, 1 << 2


# ---- calls that fail, or that are the last thing a process does ----


class Points:
    """Counts the file operations a writer makes (open, write, flush, rename, link, remove, folder, Parquet file), and
    at the one numbered `at` brings about `kind`:

    kill: the process is killed before the call does anything; killed: after it is done; torn: in the middle of what
    it writes. full: the disk is full from there on; blink: it is full for this one call; dies: as `kill`, once.
    """

    def __init__(self, at: int | None, kind: str):
        self.at, self.kind, self.count, self.fired = at, kind, 0, []

    def __call__(self, name: str, call: Callable, half: Callable | None, *args: object, **kwargs: object) -> object:
        self.count += 1
        hit = self.at is not None and (self.count == self.at or (self.kind == "full" and self.count > self.at))
        if not hit:
            return call(*args, **kwargs)
        self.fired.append(name)
        if self.kind in ("torn", "full", "blink") and half:
            half(*args, **kwargs)
        if self.kind in ("full", "blink"):
            if name == "remove":
                return call(*args, **kwargs)
            raise OSError(errno.ENOSPC, "No space left on device", str(args[0]) if args else None)
        try:
            return call(*args, **kwargs) if self.kind == "killed" else None
        finally:
            os.kill(os.getpid(), signal.SIGKILL)


class _Written:
    """A file opened for writing, whose `write` is a point."""

    def __init__(self, points: Points, handle: io.IOBase):
        self._points, self._handle = points, handle

    def write(self, data: object) -> int:
        def half(data: object) -> None:
            self._handle.write(data[: len(data) // 2])
            self._handle.flush()

        return self._points("write", self._handle.write, half, data)

    def __getattr__(self, name: str) -> object:
        return getattr(self._handle, name)

    def __enter__(self) -> "_Written":
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()


def arm(at: int | None, kind: str) -> Points:
    """From here on this process's file operations are points. For a child that ends soon."""
    import pyarrow.parquet as pq

    points = Points(at, kind)
    names = {"fsync": "flush", "replace": "rename", "link": "link", "unlink": "remove", "mkdir": "folder"}
    for call, name in names.items():
        setattr(os, call, _point(points, name, getattr(os, call)))
    opened, write_table = io.open, pq.write_table

    def open_(file: object, mode: str = "r", *args: object, **kwargs: object) -> object:
        if not set(mode) & set("wax+"):
            return opened(file, mode, *args, **kwargs)
        return _Written(points, points("open", opened, None, file, mode, *args, **kwargs))

    def write_half(table: object, where: object, **kwargs: object) -> None:
        buffer = io.BytesIO()
        write_table(table, buffer, **kwargs)
        with opened(where, "wb") as handle:
            handle.write(buffer.getvalue()[: buffer.tell() // 2])

    io.open = open_
    pq.write_table = _point(points, "parquet", write_table, write_half)
    return points


def _point(points: Points, name: str, call: Callable, half: Callable | None = None) -> Callable:
    return lambda *args, **kwargs: points(name, call, half, *args, **kwargs)


# ---- files ----


def flip(path: Path, at: int, bit: int = 0x10) -> None:
    """Flips a bit, as a failing disk does: behind the back of permissions, links and file times."""
    mode, times = path.stat().st_mode, (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    path.chmod(0o600)
    with path.open("r+b") as handle:
        handle.seek(at)
        byte = handle.read(1)[0]
        handle.seek(at)
        handle.write(bytes([byte ^ bit]))
    path.chmod(mode)
    os.utime(path, ns=times)


@contextlib.contextmanager
def changed(path: Path, data: bytes | None) -> Iterator[None]:
    """A file (its own, not what it shares with others by hard links) with other content, or gone (None); put back
    afterwards.
    """
    aside = path.with_name(path.name + ".aside")
    path.rename(aside)
    if data is not None:
        path.write_bytes(data)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        aside.rename(path)


# ---- places ----


def bound_by_permissions(folder: Path, body: Callable[[], object], closed: tuple[Path, ...] = ()) -> None:
    """Runs `body` in a child for which permissions count even if it is root; `closed` folders are read-only to it.

    Raises:
        AssertionError: `body` raised; its traceback is the message.
    """
    told = folder / ".told"
    told.touch()
    for path in closed:
        path.chmod(0o555)
    child = os.fork()
    if child == 0:
        try:
            _give_up_override()
            body()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - it goes to the test as it is
            told.write_text(traceback.format_exc())
            os._exit(1)
    code, number = end_of(child)
    for path in closed:
        path.chmod(0o755)
    assert (code, number) == (0, 0), told.read_text() or f"the child ended with {code}, signal {number}"


def _give_up_override() -> None:
    """Takes this process the capabilities by which root may read and write whatever permissions say."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable of the first 32, then of the rest
    if libc.capget(header, sets) == 0:
        for place in (0, 1):
            sets[place] &= ~(_DAC_OVERRIDE | _DAC_READ_SEARCH)
        assert libc.capset(header, sets) == 0, os.strerror(ctypes.get_errno())


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: float) -> Iterator[bool]:
    """A disk of so many megabytes at `folder`; yields whether this machine lets us mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={int(megabytes * 1024)}k"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
    )
    try:
        yield done.returncode == 0
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", "-l", str(folder)], check=True)


# ---- processes ----


def end_of(pid: int) -> tuple[int, int]:
    """Waits for a child: (exit code, signal)."""
    _, status = os.waitpid(pid, 0)
    return (os.waitstatus_to_exitcode(status), 0) if os.WIFEXITED(status) else (0, os.WTERMSIG(status))


def told(folder: Path, cell: str) -> dict:
    return json.loads((folder / f".run/{cell}.exit.json").read_text())
