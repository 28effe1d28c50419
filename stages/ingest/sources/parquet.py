"""Source `parquet`: the layout of Hugging Face datasets, a row with an image and its caption or captions."""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError
from stages.ingest.records import Image, Lost, Record, caption
from stages.ingest.sources.files import folders, locate, matching

# Names tried in this order where ingest.columns says nothing; a pattern may stand for several columns.
_IMAGES = ("image", "img", "jpg", "picture", "photo", "image_path", "file_name", "filename", "path")
_CAPTIONS = ("caption", "captions", "text", "texts", "sentence", "sentences", "description", "caption_[0-9]*")
_ROWS = 16
_BUFFER = 1 << 20


def read(section: Any) -> Iterator[Record]:
    """Images and captions of the Parquet files that match `captions`, row by row.

    The image column holds structs {bytes, path}, bytes, or paths; where there are no bytes, the path is looked up as
    an image file in the collection's folder and in those of `images`. A caption column holds text or lists of text.
    Columns are named by `columns` (the captions' by a name or a pattern: `caption_*`), or else found by their usual
    names. An image's uri is `<file>#<row>`, or its path; its id is the uri `<file>#<row>`, or what the column
    `columns.id` says. Files are read with page checksums and a few rows at a time.

    Raises:
        InputError: a file is missing or damaged, or has no such columns.
    """
    root, among = Path(section.path), folders(section)
    for file in matching(root, section.captions, "captions"):
        name = file.relative_to(root).as_posix()
        try:
            # Without pre-buffering, and with a small buffer, a file of a single row group takes no more memory.
            with pq.ParquetFile(file, page_checksum_verification=True, pre_buffer=False, buffer_size=_BUFFER) as opened:
                image, captions, identifier = _columns(file, opened.schema_arrow, section.columns)
                wanted = dict.fromkeys((image, *captions, *([identifier] if identifier else [])))
                number = 0
                for batch in opened.iter_batches(_ROWS, columns=list(wanted)):
                    for row in range(batch.num_rows):
                        values = {column: _value(batch.column(column)[row]) for column in wanted}
                        texts = [values[column] for column in captions]
                        own = values[identifier] if identifier else None
                        yield from _records(root, among, f"{name}#{number}", values[image], texts, own)
                        number += 1
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last: of a damaged name of a column
            why = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(f"{file}: damaged or no Parquet file ({why}); get it again or leave it out") from None


def _columns(file: Path, schema: pa.Schema, given: Any) -> tuple[str, list[str], str | None]:
    """The columns of image, captions and id: as given, or by their usual names.

    Raises:
        InputError: one is not there.
    """

    def first(wanted: str | None, usual: tuple[str, ...], holds: Any) -> list[str]:
        for pattern in [wanted] if wanted else usual:
            found = [field.name for field in schema if fnmatchcase(field.name, pattern) and holds(field.type)]
            if found:
                return sorted(found, key=_natural)
        return []

    image = first(given.image, _IMAGES, _holds_image)
    captions = first(given.caption, _CAPTIONS, _holds_text)
    for what, found, kinds in (
        ("image", image, "structs of bytes and path, bytes, or paths"),
        ("caption", captions, "text or lists of text"),
    ):
        if not found:
            there = ", ".join(f"{field.name} ({field.type})" for field in schema)
            tried = getattr(given, what) or "the usual names"
            raise InputError(
                f"{file}: no {what} column ({tried}) with {kinds}; there are {there}; set ingest.columns.{what}"
            )
    if given.id is not None and given.id not in schema.names:
        raise InputError(f"{file}: no column {given.id!r}; there are {', '.join(schema.names)}; set ingest.columns.id")
    return image[0], captions, given.id


def _natural(name: str) -> list:
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _holds_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        names = {kind.field(i).name for i in range(kind.num_fields)}
        return bool(names & {"bytes", "path"})
    return _is_bytes(kind) or _is_text(kind)


def _holds_text(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _is_text(kind.value_type)
    return _is_text(kind)


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)


def _value(scalar: pa.Scalar) -> Any:
    """A value as Python has it; text that is not UTF-8 as a UnicodeDecodeError."""
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return error


def _records(root: Path, among: list[str], place: str, image: Any, captions: list[Any], own: Any) -> Iterator[Record]:
    data, path = (image.get("bytes"), image.get("path")) if isinstance(image, dict) else (image, None)
    if isinstance(data, str):
        data, path = None, data
    identifier = place if own is None or isinstance(own, Exception) else str(own)
    if isinstance(data, bytes):
        yield Image(identifier, place, data=data)
    elif isinstance(path, str) and path:
        yield Image(identifier, locate(root, among, path))
    else:
        why = "the path is not UTF-8" if isinstance(image, Exception) else "neither bytes nor a path"
        yield Image(identifier, place, fault=("bad_record", f"{place}: {why}"))
    for value in captions:
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, Exception):
                yield Lost("caption", place, "bad_encoding", "the caption is not UTF-8")
            else:
                yield caption(identifier, None, text, place)
