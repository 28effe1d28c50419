"""Gold: what captions and images really hold, where somebody has written it down."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.files import hash_path
from stages.common import rle
from stages.common.annotations import Annotations

PHRASES, OBJECTS = "phrases_*.json", "instances_*.json"


@dataclass(frozen=True)
class GoldPhrase:
    """A phrase that denotes `objects` (annotation ids; none: it denotes nothing that is shown); `caption[start:end]`.

    `text` is there to check the span with (None: not given), `pronoun` tells one that stands for objects named before.
    """

    start: int
    end: int
    text: str | None
    objects: tuple[str, ...]
    pronoun: bool


@dataclass(frozen=True)
class Gold:
    """The phrases of every caption that has gold, the annotated objects, and one hash over both."""

    of_caption: dict[str, list[GoldPhrase]]
    objects: Annotations
    digest: str

    def phrases(self, caption_id: str) -> list[GoldPhrase] | None:
        """The gold phrases of a caption, under its id here or its id in the COCO file it came from; None: no gold."""
        found = self.of_caption.get(caption_id)
        return found if found is not None else self.of_caption.get(caption_id.rsplit("#", 1)[-1])

    def mask(self, image_id: str, objects: tuple[str, ...], height: int, width: int) -> bytes | None:
        """The mask of all these objects as compressed counts; None where one is unknown or has no such mask."""
        parts = [self.object_mask(f"{image_id}/{name}", height, width) for name in objects]
        return None if None in parts or not parts else rle.union(parts, height, width)

    def object_mask(self, identifier: str, height: int, width: int) -> bytes | None:
        thing = self.objects.of_id.get(identifier)
        try:
            return None if thing is None else rle.from_annotation(thing.segmentation, height, width)
        except InputError:
            return None


def read(path: Path) -> Gold | None:
    """The gold of a folder; None if `path` is an empty file.

    Raises:
        InputError: there is nothing at `path`, or not gold.
    """
    if path.is_file() and not path.stat().st_size:
        return None
    files = sorted(path.glob(PHRASES)) if path.is_dir() else []
    if not files:
        raise InputError(
            f"{path}: no gold here; report.gold_path is a folder with {PHRASES} and {OBJECTS}, or an empty file "
            "(presets/no_gold.json) where there is none"
        )
    of_caption: dict[str, list[GoldPhrase]] = {}
    for file in files:
        of_caption |= _read(file)
    return Gold(of_caption, Annotations(path, OBJECTS), hash_path(path))


def _read(file: Path) -> dict[str, list[GoldPhrase]]:
    try:
        document = json.loads(file.read_text(encoding="utf-8-sig"))
        return {str(caption): [_phrase(item) for item in items] for caption, items in document.items()}
    except json.JSONDecodeError as error:
        raise InputError(f"{file}: line {error.lineno}: not valid JSON ({error.msg})") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read ({error})") from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{file}: not gold phrases ({type(error).__name__}: {error}); it maps a caption id to a list of "
            "{start, end, objects}"
        ) from None


def _phrase(item: dict[str, Any]) -> GoldPhrase:
    start, end = int(item["start"]), int(item["end"])
    objects = tuple(str(name) for name in item["objects"])
    return GoldPhrase(start, end, item.get("text"), objects, item.get("role") == "pronoun")
