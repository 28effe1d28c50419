"""Source `webdataset`: tar files in which the files of an image stand together, `000123.jpg`, `000123.txt`,
`000123.json`.

Nothing is ever extracted: a member's name is only a name, and its bytes are read where they lie in the tar. That
needs plain tars; a compressed one is refused. So is one that is cut off or damaged, since what it lost cannot be
counted: half a tar must not pass for a whole one.
"""

import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from stages.ingest.records import Caption, Image, Lost, Record, caption
from stages.ingest.sources.files import IMAGE_SUFFIXES, matching

# The key ends at the first dot of the last part of the name; hidden files (`._x.jpg`) have none.
_NAME = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)", re.DOTALL)
_MOST_TEXT = 1 << 20
_BLOCK = 512


def read(section: Any) -> Iterator[Record]:
    """Images and captions of the tar files that match `captions`.

    Members are grouped by their name up to the first dot. An image member's id is `<tar>/<key>`, its uri
    `<tar>/<name>`; its captions are the lines of `.txt` and, where these do not hold them yet, `caption` or `captions`
    of `.json`. Members of other kinds are left aside.

    Raises:
        InputError: there is no tar; or one is compressed, cut off, damaged, or followed by something.
    """
    root = Path(section.path)
    for file in matching(root, section.captions, "captions"):
        name = file.relative_to(root).as_posix()
        try:
            with file.open("rb") as handle:
                if handle.read(2) == b"\x1f\x8b":
                    raise InputError(f"{file}: compressed; `gunzip` it first, so that its images can be read in place")
                handle.seek(0)
                yield from _samples(name, handle)
        except tarfile.TarError as error:
            raise InputError(f"{file}: damaged or no tar ({error}); get it again or leave it out") from None
        except OSError as error:
            raise InputError(f"{file}: cannot be read ({error.strerror})") from None


def _samples(tar: str, handle: Any) -> Iterator[Record]:
    key, texts, described = None, [], []
    for member in _members(handle):
        if not (parts := _NAME.fullmatch(member.name)) or not _is_ours(extension := parts[2].lower()):
            continue
        if parts[1] != key:
            yield from _captions(f"{tar}/{key}", texts, described)
            key, texts, described = parts[1], [], []
        place = f"{tar}/{member.name}"
        plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.sparse
        if extension not in ("txt", "json"):
            fault = None if plain else ("bad_record", f"{place}: a link or a sparse file inside the tar")
            yield Image(f"{tar}/{key}", place, tar, member.offset_data, member.size, fault=fault)
        elif not plain or member.size > _MOST_TEXT:
            why = f"{member.size} bytes of text" if plain else "a link or a sparse file inside the tar"
            yield Lost("caption", place, "bad_record", why)
        else:
            data = _slice(handle, member)
            (texts if extension == "txt" else described).extend((_lines if extension == "txt" else _json)(data, place))
    yield from _captions(f"{tar}/{key}", texts, described)


def _is_ours(extension: str) -> bool:
    return extension in ("txt", "json") or f".{extension.rsplit('.', 1)[-1]}" in IMAGE_SUFFIXES


def _members(handle: Any) -> Iterator[tarfile.TarInfo]:
    """The members of a tar, to its proper end.

    Raises:
        tarfile.TarError: it is cut off or damaged, or does not end where its members do.
    """
    with tarfile.open(fileobj=handle, mode="r:") as tar:
        while (member := tar.next()) is not None:
            tar.members.clear()  # it would keep every member it has seen
            if member.isfile() or member.issym() or member.islnk():
                yield member
        # Python's reader takes a damaged header, or no header at all, for the end.
        handle.seek(tar.offset)
        end = handle.read(_BLOCK)
        if end != bytes(_BLOCK):
            what = "it is cut off" if len(end) < _BLOCK else "its header is damaged"
            raise tarfile.ReadError(f"no member and no end at byte {tar.offset}: {what}")
        while rest := handle.read(1 << 20):
            if rest.strip(b"\0"):
                raise tarfile.ReadError(f"something follows its end, after byte {tar.offset}; two tars joined?")


def _slice(handle: Any, member: tarfile.TarInfo) -> bytes:
    handle.seek(member.offset_data)
    data = handle.read(member.size)
    if len(data) < member.size:
        raise tarfile.ReadError(f"cut off within {member.name}")
    return data


def _lines(data: bytes, place: str) -> Iterator[str | Lost]:
    for number, raw in enumerate(data.splitlines(), 1):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            yield Lost("caption", f"{place}:{number}", "bad_encoding", "the line is not UTF-8")
            continue
        if line.strip():
            yield line


def _json(data: bytes, place: str) -> Iterator[str | Lost]:
    try:
        found = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        yield Lost("caption", place, "bad_encoding", "the text is not UTF-8")
    except (ValueError, RecursionError) as error:
        yield Lost("caption", place, "bad_record", f"not JSON: {error}")
    else:
        if isinstance(found, dict):
            several = found.get("captions", found.get("caption"))
            for text in several if isinstance(several, list) else [several] if "caption" in found else []:
                made = caption(place, None, text, place)
                yield made.text if isinstance(made, Caption) else made
        else:
            yield Lost("caption", place, "bad_record", f"a JSON {type(found).__name__}, not an object with `caption`")


def _captions(image_id: str, texts: list[str | Lost], described: list[str | Lost]) -> Iterator[Record]:
    """What one image's .txt says, and what its .json says besides (tools write the same caption to both)."""
    known = {text.strip() for text in texts if isinstance(text, str)}
    for found in (*texts, *(text for text in described if isinstance(text, Lost) or text.strip() not in known)):
        yield found if isinstance(found, Lost) else Caption(image_id, None, found)
