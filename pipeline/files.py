"""Files that are either whole or not there: atomic writes, content hashes, links."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import InputError, ResourceError

_CHUNK = 1 << 20


def sha256_file(path: Path) -> str:
    """The sha256 of a file's bytes, hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_json(value: object) -> str:
    """The sha256 of a value's canonical JSON (sorted keys, no spaces)."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def canonical_json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def hash_path(path: Path) -> str:
    """The content hash of a file, or of a folder (its files' names and contents; hidden files and caches left out).

    Raises:
        InputError: nothing is there.
    """
    if path.is_file():
        return sha256_file(path)
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder; check the `path` of this stage's backend in the parameters")
    listing = {
        str(file.relative_to(path)): sha256_file(file)
        for file in sorted(path.rglob("*"))
        if file.is_file() and not any(part.startswith((".", "__pycache__")) for part in file.relative_to(path).parts)
    }
    return sha256_json(listing)


def write_atomic(target: Path, write: Callable[[Path], None], check: Callable[[Path], None] | None = None) -> None:
    """Calls `write(temporary)`, flushes it to disk, lets `check(temporary)` look at it, and renames it into place.

    The temporary file lies beside the target; it is removed when anything fails, so the target is whole or untouched.

    Raises:
        ResourceError: the disk is full or the folder cannot be written.
    """
    temporary = target.parent / f".{target.name}.{os.getpid()}.tmp"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        if check:
            check(temporary)
        temporary.replace(target)
        _sync_folder(target.parent)
    except OSError as error:
        raise _resource_error(error, target) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Writes a UTF-8 text file atomically."""
    write_atomic(target, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(target: Path, value: object) -> None:
    """Writes JSON atomically, indented, keys sorted, no NaN."""
    write_text(target, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def link(source: Path, target: Path) -> None:
    """Puts `source` at `target` atomically: a hard link where the file system allows one, else a copy.

    Not flushed: the source was, and a name lost with the power is found missing and linked again.

    Raises:
        ResourceError: the disk is full or the folder cannot be written.
    """
    temporary = target.parent / f".{target.name}.{os.getpid()}.tmp"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, temporary)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.ENOENT):
                raise
            shutil.copyfile(source, temporary)
        temporary.replace(target)
    except OSError as error:
        raise _resource_error(error, target) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _resource_error(error: OSError, target: Path) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceError(f"{target}: no space left on the disk; free some and run again, finished shards are kept")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ResourceError(f"{target}: cannot be written ({error.strerror}); make the folder writable and run again")
    return error
