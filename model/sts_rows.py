"""Rows of (sentence1, sentence2, score) out of Parquet and JSON lines, each with the place it stands at; and what
readers of such files check besides: that no file of several is missing, that a text is one.
"""

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from model.errors import ModelError

COLUMNS = ("sentence1", "sentence2", "score")
Row = tuple[str, str, float | None]
_SHARD = re.compile(r"(?P<before>.*?)(?P<number>\d+)-of-(?P<count>\d+)", re.ASCII)
_LISTED = 5  # missing files that a message names


def parquet_rows(file: Path) -> Iterator[tuple[str, Row]]:
    """(place, row) of a Parquet file; a score is None where there is none. Raises ModelError."""
    try:
        names = pq.read_schema(file).names
        if lost := [name for name in COLUMNS if name not in names]:
            raise ModelError(f"{file}: no column {', '.join(lost)}; it has {', '.join(names) or 'none'}")
        table = pq.read_table(file, columns=list(COLUMNS), partitioning=None)
        values = [table.column(name).to_pylist() for name in COLUMNS]
    except ModelError:
        raise
    except (OSError, pa.ArrowException, ValueError, KeyError, OverflowError) as error:
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
    if not (encodes(one) and encodes(two)):
        raise ModelError(f"{place}: a sentence has half of a surrogate pair, which is no text; mend or remove it")
    if isinstance(score, bool) or not isinstance(score, (int, float)):
        raise ModelError(f"{place}: gold score {score!r} is not a number")
    try:
        return one, two, float(score)
    except OverflowError as error:
        raise ModelError(f"{place}: gold score is not a number (too large)") from error


def encodes(text: str) -> bool:
    """Whether a text can be UTF-8: JSON's escapes may write half of a surrogate pair, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_shards(files: Iterable[Path]) -> None:
    """Where names say `-of-N` all N must be there, counted from 0 or from 1. Raises ModelError naming the others."""
    groups: dict[tuple[Path, str, str], dict[int, int]] = {}
    for file in files:
        if named := _SHARD.match(file.name):
            numbers = groups.setdefault((file.parent, named["before"], named["count"]), {})
            numbers[int(named["number"])] = len(named["number"])
    for (folder, before, count), numbers in groups.items():
        wanted = int(count)
        first = int(wanted in numbers and 0 not in numbers)
        missing = wanted - sum(first <= number < first + wanted for number in numbers)
        if missing:
            width = next(iter(numbers.values()))
            lost = islice((n for n in range(first, first + wanted) if n not in numbers), _LISTED)
            listed = ", ".join(f"{before}{n:0{width}}-of-{count}" for n in lost)
            more = f" and {missing - _LISTED} more" if missing > _LISTED else ""
            raise ModelError(f"{folder}: {missing} of {wanted} files are not there: {listed}{more}; get the others too")
