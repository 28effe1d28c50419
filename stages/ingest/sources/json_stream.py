"""Reads the arrays of a JSON object item by item, so that a file of any length takes little memory."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from pipeline.errors import InputError

_CHUNK = 1 << 16
_PENDING = 3  # a number seems to end before ".", "e" or "e-" while its next digit is not in the window
_SPACE = re.compile(r"[ \t\n\r]*")


class NotSuchJson(Exception):
    """The document is JSON, but no object with arrays where they are wanted; the message says what it is."""


def items(file: Path, wanted: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Every item of the arrays under the `wanted` keys of the file's object, as (key, item); other keys are read over.

    Raises:
        InputError: the file cannot be read, or is not JSON; the line is named.
        NotSuchJson: it is no object, a wanted value is no array, or a wanted key is missing.
    """
    try:
        with file.open(encoding="utf-8-sig") as handle:
            yield from _items(_Text(file, handle), wanted)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read ({error})") from None


def _items(text: "_Text", wanted: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if text.peek() not in ("{", ""):
        raise NotSuchJson("it is no object")
    missing = dict.fromkeys(wanted)
    for key in _members(text):
        if key not in wanted:
            text.value()
            continue
        missing.pop(key, None)
        if text.peek() not in ("[", ""):
            raise NotSuchJson(f"{key!r} is no list")
        for _ in _entries(text, "[", "]"):
            yield key, text.value()
    if text.peek():
        raise text.fault("Extra data")
    if missing:
        raise NotSuchJson(f"missing {next(iter(missing))!r}")


def _members(text: "_Text") -> Iterator[str]:
    """The keys of an object; the caller reads the value of each before it asks for the next."""
    for _ in _entries(text, "{", "}"):
        if text.peek() != '"':
            raise text.fault("Expecting property name enclosed in double quotes")
        key = text.value()
        text.take(":")
        yield key


def _entries(text: "_Text", opening: str, closing: str) -> Iterator[None]:
    """Stops once before every entry of a list or object."""
    text.take(opening)
    if text.peek() == closing:
        text.take(closing)
        return
    while True:
        yield
        if text.take(f",{closing}") == closing:
            return


class _Text:
    """A window that slides over a text file: what was read over is forgotten."""

    def __init__(self, file: Path, handle: TextIO):
        self._file, self._handle = file, handle
        self._text, self._at, self._lines_before = "", 0, 0
        self._decoder = json.JSONDecoder()

    def peek(self) -> str:
        """The next character that is no space; '' at the end."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def take(self, any_of: str) -> str:
        """Reads over the next character, which must be one of these."""
        found = self.peek()
        if not found or found not in any_of:
            raise self.fault(f"Expecting {' or '.join(repr(c) for c in any_of)}")
        self._at += 1
        return found

    def value(self) -> Any:
        """The next value, whole."""
        self.peek()
        while True:
            try:
                found, end = self._decoder.raw_decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                if self._more():  # it may only be cut off here
                    continue
                raise self.fault(getattr(error, "msg", str(error)), getattr(error, "pos", self._at)) from None
            if len(self._text) - end < _PENDING and self._more():
                continue
            self._at = end
            return found

    def fault(self, why: str, at: int | None = None) -> InputError:
        line = self._lines_before + self._text.count("\n", 0, self._at if at is None else at) + 1
        return InputError(f"{self._file}: line {line}: not valid JSON ({why})")

    def _more(self) -> bool:
        # As much again as is held, so that a long value is not looked at over and over.
        piece = self._handle.read(max(_CHUNK, len(self._text) - self._at))
        if not piece:
            return False
        self._lines_before += self._text.count("\n", 0, self._at)
        self._text, self._at = self._text[self._at :] + piece, 0
        return True
