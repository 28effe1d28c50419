"""Gold phrases with the ids of the objects they denote, as the demo's world has them: `phrases_*.json`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stages.common.annotations import Annotations, Thing
from stages.quality import jsonfile
from stages.quality.gold import CaptionGold, GoldPhrase, image_names


class AnnotatedPhrases:
    """Captions go by their id here, or by their id in the COCO file they came from.

    Raises:
        InputError: a file is damaged.
    """

    name = "phrases and their objects"

    def __init__(self, files: list[Path], objects: Annotations):
        self.objects = objects
        self.of_caption: dict[str, list[dict]] = {}
        expected = "caption id -> list of {start, end, objects}"
        for file in files:
            self.of_caption |= jsonfile.read(file, _phrases, expected)

    def caption(self, caption: dict, phrases: list[dict]) -> CaptionGold | None:
        identifier = caption["id"]
        found = self.of_caption.get(identifier)
        found = found if found is not None else self.of_caption.get(identifier.rsplit("#", 1)[-1])
        if found is None:
            return None
        there = {thing.id.rsplit("/", 1)[-1]: thing for thing in self.things(caption["image_id"])}
        return CaptionGold(tuple(self._phrase(item, there) for item in found), whole=True)

    def things(self, image_id: str) -> Iterable[Thing]:
        return next((found for name in image_names(image_id) if (found := self.objects.of_image.get(name))), ())

    @staticmethod
    def _phrase(item: dict, there: dict[str, Thing]) -> GoldPhrase:
        known = tuple(there[name] for name in item["objects"] if name in there)
        unknown = len(known) < len(item["objects"])
        return GoldPhrase(item["start"], item["end"], known, item["text"], item["pronoun"], unknown=unknown)


def _phrases(document: dict[str, Any]) -> dict[str, list[dict]]:
    return {str(caption): [_one(item) for item in items] for caption, items in document.items()}


def _one(item: dict[str, Any]) -> dict:
    start, end, text = int(item["start"]), int(item["end"]), item.get("text")
    if not 0 <= start < end:
        raise ValueError(f"start {start} and end {end} are no span")
    if not isinstance(item["objects"], list) or not isinstance(text, str | None):
        raise TypeError("objects must be a list of ids, text a text")
    objects = [str(name) for name in item["objects"]]
    return {"start": start, "end": end, "text": text, "objects": objects, "pronoun": item.get("role") == "pronoun"}
