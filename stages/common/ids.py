"""Ids that are made of a caption and a span, and how a few of many are drawn."""

import hashlib
import re

# The id of a phrase, and the ids of boxes and candidates that are made from it: <caption id>@<start>-<end>[/...].
_SPAN = re.compile(r"(?P<caption>.+)@(?P<start>\d+)-(?P<end>\d+)(?:/\w+)?", re.DOTALL)


def place_of(identifier: str) -> tuple[str, int, int] | None:
    """Caption id, start and end that the id of a phrase, box or candidate is made from; None for any other id."""
    match = _SPAN.fullmatch(identifier)
    return (match["caption"], int(match["start"]), int(match["end"])) if match else None


def draw_key(seed: int, identifier: str) -> str:
    """Orders ids as if at random: the smallest keys are a sample, and a grown collection changes only little of it."""
    return hashlib.sha256(f"{seed}:{identifier}".encode()).hexdigest()
