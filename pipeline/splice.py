"""Changing single values in the text of a YAML file and leaving every other character as it is.

Dumping a document again keeps its comments but lays long lists out anew; a person who changes one number expects one
line to change.
"""

import io
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.tokens import ScalarToken

_PLAIN = (str, int, float, bool, type(None))


def splice(text: str, document: Any, changes: dict[str, Any]) -> str | None:
    """The text with the values at dotted keys replaced, or None where one of them is not a plain value in place.

    Args:
        text: the file.
        document: the same, parsed by ruamel's round-trip loader, unchanged.
        changes: dotted key -> new value.
    """
    spans = {}
    for token in YAML().scan(text):
        if isinstance(token, ScalarToken):
            spans[token.start_mark.line, token.start_mark.column] = (token.start_mark.index, token.end_mark.index)
    edits = []
    for key, value in changes.items():
        *parents, last = key.split(".")
        place = document
        for part in parents:
            place = place[part]
        if last not in place or not isinstance(value, _PLAIN) or not isinstance(place[last], _PLAIN):
            return None
        span = spans.get(tuple(place.lc.value(last)))
        if span is None:
            return None
        edits.append((span, _scalar(value)))
    for (start, end), scalar in sorted(edits, reverse=True):
        text = text[:start] + scalar + text[end:]
    return text


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    stream = io.StringIO()
    YAML(typ="safe", pure=True).dump([value], stream)
    return stream.getvalue().strip().removeprefix("- ").removeprefix("[").removesuffix("]")
