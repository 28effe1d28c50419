"""The files of a collection: which ones match, their lines, and where a named image lies."""

import gzip
import os
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.errors import InputError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}


def matching(root: Path, pattern: str, parameter: str) -> list[Path]:
    """The files in a collection that match a name or glob, in order of their names.

    Raises:
        InputError: there are none, which `ingest.<parameter>` must mend.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; set ingest.path to the collection's folder")
    try:
        found = sorted(path for path in root.glob(pattern) if path.is_file())
    except (ValueError, NotImplementedError, OSError):
        found = []
    if not found:
        raise InputError(
            f"{root}: no {parameter} file matches {pattern!r}; set ingest.{parameter} to its name or glob inside this "
            "folder"
        )
    return found


def read_lines(file: Path) -> Iterator[tuple[int, str | None]]:
    """Lines of a text file (plain, or gzip if it ends in .gz) with their numbers; a line that is not UTF-8 comes as
    None. CRLF and a BOM are taken off.

    Raises:
        InputError: the file cannot be read to its end.
    """
    try:
        with gzip.open(file, "rb") if file.suffix.lower() == ".gz" else file.open("rb") as handle:
            for number, raw in enumerate(handle, 1):
                try:
                    yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                except UnicodeDecodeError:
                    yield number, None
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{file}: cannot be read ({why})") from None


def folders(section: Any) -> list[str]:
    """The folders of `ingest.images` as they stand in a uri.

    Raises:
        InputError: one lies outside the collection.
    """
    plain = [PurePosixPath(folder) for folder in section.images]
    for folder in plain:
        if folder.is_absolute() or ".." in folder.parts:
            raise InputError(f"ingest.images: {str(folder)!r} must be a folder inside ingest.path ({section.path})")
    return ["" if folder == PurePosixPath() else folder.as_posix() for folder in plain]


def locate(root: Path, among: list[str], name: str) -> str:
    """The uri of an image file: its name under the first folder that has it, else as given (to be reported missing)."""
    if name.startswith(("/", "\\")):
        return name
    for folder in ("", *among):
        uri = f"{folder}/{name}" if folder else name
        try:
            if (root / uri).is_file():
                return uri
        except OSError:  # a name too long for a file
            break
    return f"{among[0]}/{name}" if among and among[0] else name


def image_files(root: Path, folder: str) -> Iterator[str]:
    """The uris of the image files anywhere under a folder of the collection, in no order; linked folders are left out.

    Raises:
        InputError: a folder cannot be listed.
    """
    waiting = [folder]
    while waiting:
        inside = waiting.pop()
        try:
            with os.scandir(root / inside) as entries:
                for entry in entries:
                    uri = f"{inside}/{entry.name}" if inside else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(uri)
                    elif PurePosixPath(entry.name).suffix.lower() in IMAGE_SUFFIXES:
                        yield uri
        except FileNotFoundError:
            if inside != folder:
                raise InputError(f"{root / inside}: vanished while it was read; run again") from None
        except OSError as error:
            raise InputError(f"{root / inside}: cannot be listed ({error.strerror}); make it readable") from None
