"""Reading an image's bytes where they lie: in a file of the collection, a slice of an archive, the spill file."""

import hashlib
from pathlib import Path
from typing import BinaryIO

_CHUNK = 1 << 20


class Places:
    """Opens what the images of a collection lie in; archives stay open between reads. Close it after use."""

    def __init__(self, root: Path, spill: Path):
        self.root, self._spill = root, spill
        self._inside = root.resolve()
        self._judged: tuple[str, tuple[str, str] | None] | None = None
        self._path: str | None = None
        self._handle: BinaryIO | None = None

    def __enter__(self) -> "Places":
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle:
            self._handle.close()
            self._handle = None

    def fault(self, path: str | None) -> tuple[str, str] | None:
        """Why a file of the collection must not be opened, as (reason, detail); the spill file (None) always may."""
        if path is None:
            return None
        if self._judged is None or self._judged[0] != path:
            self._judged = path, path_fault(self.root, path, self._inside)
        return self._judged[1]

    def read(self, path: str | None, offset: int, length: int | None) -> bytes:
        """The bytes of an image; raises OSError."""
        if length is None:
            return (self.root / path).read_bytes()
        handle = self._open(path)
        handle.seek(offset)
        return handle.read(length)

    def sha256(self, path: str | None, offset: int, length: int | None) -> str:
        """The hash of an image's bytes, read piece by piece; raises OSError."""
        if length is None:
            with (self.root / path).open("rb") as handle:
                return hashlib.file_digest(handle, "sha256").hexdigest()
        handle, digest = self._open(path), hashlib.sha256()
        handle.seek(offset)
        while length and (piece := handle.read(min(length, _CHUNK))):
            digest.update(piece)
            length -= len(piece)
        return digest.hexdigest()

    def _open(self, path: str | None) -> BinaryIO:
        name = path or ""
        if self._handle is None or self._path != name:
            self.__exit__()
            self._handle = (self._spill if path is None else self.root / path).open("rb")
            self._path = name
        return self._handle


def path_fault(root: Path, uri: str, inside: Path) -> tuple[str, str] | None:
    """Why a path from a manifest must not be opened, as (reason, detail), or None; `inside` is the resolved root."""
    parts = uri.replace("\\", "/").split("/")
    if any(ord(c) < 32 for c in uri) or uri.startswith(("/", "\\")) or ".." in parts or uri[1:2] == ":":
        return "outside_root", f"{uri!r}: absolute, with '..', or with control characters"
    path = root / uri
    try:
        if not path.exists():
            return "missing_file", f"{uri}: no such file"
        if not path.resolve().is_relative_to(inside):
            return "outside_root", f"{uri}: a link that leaves the collection's folder"
    except OSError as error:
        return "unreadable", f"{uri}: {error.strerror}"
    return None
