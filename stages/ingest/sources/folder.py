"""Source `folder`: images in folders, and a captions file in CSV, TSV or JSONL."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from stages.ingest.records import Image, Lost, Record, caption
from stages.ingest.sources.files import folders, image_files, locate, matching, read_lines


def read(section: Any) -> Iterator[Record]:
    """Images anywhere under the folders of `images`, and captions files with the columns (or keys) image and caption.

    CSV needs a header line; JSONL holds one object a line with `image` and `caption` or a list `captions`. An
    optional `id` names a caption, an optional `sha256` the bytes that the image file must have. Image names are looked
    up in `path` itself and then in the folders of `images`. An image's id is its uri.

    Raises:
        InputError: the captions file is missing, or has not these columns.
    """
    root, among = Path(section.path), folders(section)
    for file in matching(root, section.captions, "captions"):
        rows = _csv_rows if file.suffix.lower() in (".csv", ".tsv") else _jsonl_rows
        for line, row in rows(file):
            if isinstance(row, Lost):
                yield row
            else:
                yield from _records(root, among, f"{file.name}:{line}", row)
    for folder in among:
        for uri in image_files(root, folder):
            yield Image(uri, uri, mention=True)


def _csv_rows(file: Path) -> Iterator[tuple[int, dict | Lost]]:
    undecoded: list[int] = []
    at = 0

    def text() -> Iterator[str]:
        nonlocal at
        for at, line in read_lines(file):
            if line is None:
                undecoded.append(at)
            else:
                yield line.replace("\0", " ") + "\n"

    rows = csv.DictReader(text(), delimiter="\t" if file.suffix.lower() == ".tsv" else ",")
    try:
        header = rows.fieldnames or ()
    except csv.Error as error:
        header = f"a line that is no CSV ({error})"
    if not {"image", "caption"} <= set(header):
        raise InputError(f"{file}: line 1: the header must name the columns image and caption, not {header}")
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            row = Lost("caption", f"{file.name}:{at}", "bad_record", str(error))
        for number in undecoded:
            yield number, Lost("caption", f"{file.name}:{number}", "bad_encoding", "the line is not UTF-8")
        undecoded.clear()
        if row is None:
            return
        if isinstance(row, dict) and any(row.get(None) or ()):
            row = Lost(
                "caption",
                f"{file.name}:{at}",
                "bad_record",
                f"{len(row[None])} fields more than the header has; a caption with a {rows.reader.dialect.delimiter!r} "
                "in it needs quotes around it",
            )
        yield at, row


def _jsonl_rows(file: Path) -> Iterator[tuple[int, dict | Lost]]:
    for number, line in read_lines(file):
        place = f"{file.name}:{number}"
        if line is None:
            yield number, Lost("caption", place, "bad_encoding", "the line is not UTF-8")
        elif line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, Lost("caption", place, "bad_record", f"not JSON: {error}")
                continue
            if isinstance(row, dict) and "image" in row and ("caption" in row or "captions" in row):
                yield number, row
            else:
                detail = "needs the keys image and caption (or captions)"
                yield number, Lost("caption", place, "bad_record", detail)


def _records(root: Path, among: list[str], place: str, row: dict) -> Iterator[Record]:
    name, several, given = row.get("image"), row.get("captions"), row.get("id")
    texts = several if isinstance(several, list) else [row.get("caption")]
    if not isinstance(name, str) or not name.strip():
        for text in texts:
            yield Lost("caption", place, "bad_record", f"no image name beside {str(text)[:60]!r}")
        return
    uri = locate(root, among, name.strip())
    stated = row.get("sha256")
    yield Image(uri, uri, stated=stated.strip().lower() or None if isinstance(stated, str) else None, mention=True)
    for text in texts:
        yield caption(uri, None if given in (None, "") else str(given), text, place)
