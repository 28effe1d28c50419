"""The phrase markup of Flickr30k Entities: `[/EN#283585/people A man] sits on [/EN#283586/other a chair] .`"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import InputError
from stages.common.text import clean

_OPEN = re.compile(r"\[/EN#(\d+)((?:/[a-z]+)+) ")


class Mark(NamedTuple):
    """A marked phrase: `plain[start:end]`, the chain of phrases for the same thing it belongs to, its types."""

    start: int
    end: int
    chain: str
    types: tuple[str, ...]


def unmark(line: str) -> tuple[str, list[Mark]]:
    """A marked line -> its plain text (as `clean` stores it) and the phrases in it.

    Raises:
        ValueError: the bracket of a phrase is not closed.
    """
    plain, marks, position = "", [], 0
    while match := _OPEN.search(line, position):
        close = _close(line, match.end())
        if close < 0:
            raise ValueError(f"the bracket of phrase #{match[1]} is not closed")
        plain += line[position : match.start()]
        types = tuple(match[2].split("/")[1:])
        marks.append(Mark(len(plain), len(plain) + close - match.end(), match[1], types))
        plain += line[match.end() : close]
        position = close + 1
    plain += line[position:]
    stored = clean(plain)
    return stored, marks if stored == plain else []


def read_marked(file: Path) -> Iterator[tuple[str, list[Mark]]]:
    """The captions of a file, without markup, and their phrases; empty lines are left out.

    Raises:
        InputError: it cannot be read, or a bracket is not closed (file and line are named).
    """
    try:
        # A line ends where the file says so, not at every separator that Unicode knows: captions hold those too.
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read ({error})") from None
    for number, line in enumerate(lines, 1):
        try:
            text, marks = unmark(clean(line))
        except ValueError as error:
            raise InputError(f"{file}: line {number}: {error}") from None
        if text:
            yield text, marks


def _close(line: str, start: int) -> int:
    """Where the bracket of a phrase closes: a phrase may hold brackets ("a [SEP] token"); if they do not pair up, the
    first one closes it.
    """
    depth = 1
    for index in range(start, len(line)):
        depth += (line[index] == "[") - (line[index] == "]")
        if not depth:
            return index
    return line.find("]", start)
