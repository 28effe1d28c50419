"""What every source yields: images, captions, and records that are lost before they could be either."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Image:
    """An image of the collection.

    Attributes:
        id: unique in the collection; decides shard and split.
        uri: where a person finds it, relative to the collection's folder.
        path: the file that holds its bytes, relative to the collection's folder; None: the uri is that file.
        offset, length: where in `path` the bytes lie, for an archive; length None: the whole file.
        data: the bytes themselves, where they cannot be looked up again.
        fault: why it cannot be used, as (reason, detail); it is counted as rejected.
        stated: the sha256 its bytes must have, in hexadecimal, where the collection says.
        mention: the record only names the image, and may do so again; otherwise a second record of an id is an error.
    """

    id: str
    uri: str
    path: str | None = None
    offset: int = 0
    length: int | None = None
    data: bytes | None = None
    fault: tuple[str, str] | None = None
    stated: str | None = None
    mention: bool = False


@dataclass(frozen=True, slots=True)
class Caption:
    """A caption of an image, which may be listed before or after it. `id` None: the image's id and a running number."""

    image_id: str
    id: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Lost:
    """A record that belongs to no image: it counts as one `unit` seen and rejected."""

    unit: str
    id: str
    reason: str
    detail: str


Record = Image | Caption | Lost


def caption(image_id: str, identifier: str | None, text: Any, place: str) -> Caption | Lost:
    """A caption, or its loss if it is not text; `place` (file and line) then stands for an id that is not given."""
    if isinstance(text, str):
        return Caption(image_id, identifier, text)
    kind = "null" if text is None else type(text).__name__
    return Lost("caption", identifier or place, "bad_record", f"the caption is {kind}, not text")
