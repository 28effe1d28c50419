"""Rows of (sentence1, sentence2, score) out of Parquet and JSON lines, each with the place it stands at."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from model.errors import ModelError

COLUMNS = ("sentence1", "sentence2", "score")
Row = tuple[str, str, float | None]


def parquet_rows(file: Path) -> Iterator[tuple[str, Row]]:
    """(place, row) of a Parquet file; a score is None where there is none. Raises ModelError."""
    try:
        names = pq.read_schema(file).names
        if lost := [name for name in COLUMNS if name not in names]:
            raise ModelError(f"{file}: no column {', '.join(lost)}; it has {', '.join(names) or 'none'}")
        table = pq.read_table(file, columns=list(COLUMNS), partitioning=None)
        values = [table.column(name).to_pylist() for name in COLUMNS]
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{file}: not readable as Parquet ({said})") from error
    for number, row in enumerate(zip(*values, strict=True), 1):
        place = f"{file}:{number}"
        yield place, _checked(place, row)


def json_rows(file: Path) -> Iterator[tuple[str, Row]]:
    """(place, row) of a file of JSON lines, packed by gzip or not; raises ModelError."""
    try:
        data = file.read_bytes()
        data = gzip.decompress(data) if file.name.endswith(".gz") else data
    except (OSError, EOFError, zlib.error) as error:
        raise ModelError(f"{file}: cannot be read ({error})") from error
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    for number, line in enumerate(lines, 1):
        place = f"{file}:{number}"
        if not line.strip():
            if number < len(lines):
                raise ModelError(f"{place}: an empty line where a JSON object should be")
            continue
        try:
            value = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise ModelError(f"{place}: not UTF-8; convert the file (iconv -f latin1 -t utf-8)") from error
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{place}: not JSON ({error})") from error
        if not isinstance(value, dict) or set(COLUMNS[:2]) - set(value):
            raise ModelError(f"{place}: a JSON object with {', '.join(COLUMNS)} is needed")
        yield place, _checked(place, tuple(value.get(name) for name in COLUMNS))


def _checked(place: str, row: tuple) -> Row:
    one, two, score = row
    if score is None:  # not scored, so its text is not looked at either
        return "", "", None
    if not (isinstance(one, str) and isinstance(two, str)):
        raise ModelError(f"{place}: a sentence is missing or no text")
    if isinstance(score, bool) or not isinstance(score, (int, float)):
        raise ModelError(f"{place}: gold score {score!r} is not a number")
    try:
        return one, two, float(score)
    except OverflowError as error:
        raise ModelError(f"{place}: gold score is not a number (too large)") from error
