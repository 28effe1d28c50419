"""Gold: what captions and images really hold, where somebody has written it down."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from stages.common.annotations import Thing

# A COCO image's file: 000000000139.jpg, COCO_val2014_000000000139.jpg.
_COCO = re.compile(r"(?:.*_)?(\d{12})")


@dataclass(frozen=True)
class GoldPhrase:
    """A phrase of a caption: `caption[start:end]`.

    `objects` are those it denotes: (), it denotes nothing that is shown; None, the gold does not say which. `text` is
    there to check the span with (None: not given), `pronoun` tells one that stands for objects named before, `types`
    are those of Flickr30k Entities. `unknown`: it names objects that are not annotated, so gold and collection do not
    fit.
    """

    start: int
    end: int
    objects: tuple[Thing, ...] | None
    text: str | None = None
    pronoun: bool = False
    types: tuple[str, ...] = ()
    unknown: bool = False


@dataclass(frozen=True)
class CaptionGold:
    """The gold phrases of a caption. `whole`: they are all its phrases, so what parse cut can be measured by them."""

    phrases: tuple[GoldPhrase, ...]
    whole: bool


class Source(Protocol):
    """One kind of gold.

    `caption` gives what it knows of a caption (a row of `captions`), None if nothing; `phrases` are the rows that parse
    made of it. `things` are the objects it has in an image.
    """

    name: str

    def caption(self, caption: dict, phrases: list[dict]) -> CaptionGold | None: ...

    def things(self, image_id: str) -> Iterable[Thing]: ...


@dataclass(frozen=True)
class Gold:
    """The sources of a path, and the hash of what lies there."""

    sources: tuple[Source, ...]
    digest: str

    @property
    def names(self) -> list[str]:
        return [source.name for source in self.sources]

    def caption(self, caption: dict, phrases: list[dict]) -> CaptionGold | None:
        found = (source.caption(caption, phrases) for source in self.sources)
        return next((one for one in found if one is not None), None)

    def things(self, image_id: str) -> list[Thing]:
        """Every annotated object of an image, once."""
        return list({thing.id: thing for source in self.sources for thing in source.things(image_id)}.values())


def image_names(image_id: str) -> list[str]:
    """What an image of the collection may be called in gold: its id, the file's name, its stem, COCO's number."""
    name = image_id.replace("\\", "/").rsplit("/", 1)[-1]
    stem = name.rsplit(".", 1)[0]
    coco = _COCO.fullmatch(stem)
    return list(dict.fromkeys([image_id, name, stem, *([str(int(coco[1]))] if coco else [])]))


def squeezed(text: str) -> str:
    """Text without its white space: gold is often tokenised ("a man 's hat ."), captions are not."""
    return "".join(text.split())


def moved(start: int, end: int, gold: str, text: str) -> tuple[int, int]:
    """A span of `gold` as the span of `text`, which is equal to it but for white space."""
    before, inside = len(squeezed(gold[:start])), len(squeezed(gold[start:end]))
    places = [place for place, character in enumerate(text) if not character.isspace()]
    return (places[before], places[before + inside - 1] + 1) if inside else (start, start)
