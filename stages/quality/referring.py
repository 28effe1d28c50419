"""Referring expressions: captions that speak of one object as a whole.

Two layouts: a list of {image, normal_caption, solution: [x0, y0, x1, y1] or null} (null: nothing is meant), or of
RefCOCO's records {image_id or file_name, ann_id, sentences: [{sent}]} with COCO instances beside them.
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stages.common.annotations import Annotations, Thing
from stages.common.text import clean
from stages.quality import jsonfile
from stages.quality.gold import CaptionGold, GoldPhrase, image_names, squeezed

_TEXTS = ("normal_caption", "caption", "expression")
_IMAGES = ("image", "image_id", "file_name")


class Referring:
    """What an expression denotes is the gold of its first phrase, which is where English has the head; of the other
    phrases nothing is said. An expression that stands twice, for different objects, says nothing either.

    Raises:
        InputError: a file is damaged.
    """

    name = "referring expressions"

    def __init__(self, files: list[Path], objects: Annotations | None):
        self.of_image: dict[str, dict[str, tuple[Thing, ...] | None]] = {}
        expected = "a list of {image, normal_caption, solution: [x0, y0, x1, y1]} or {image_id, ann_id, sentences}"
        for file in files:
            jsonfile.read(file, lambda document: self._take(document, objects), expected)

    def caption(self, caption: dict, phrases: list[dict]) -> CaptionGold | None:
        said = next((found for name in image_names(caption["image_id"]) if (found := self.of_image.get(name))), {})
        key = squeezed(caption["text"])
        if key not in said:
            return None
        first = min(phrases, key=lambda row: (row["start"], -row["end"]), default=None)
        if first is None:
            return CaptionGold((GoldPhrase(0, len(caption["text"]), said[key]),), whole=False)
        spans = ((row["start"], row["end"], said[key] if row is first else None) for row in phrases)
        return CaptionGold(tuple(GoldPhrase(*span) for span in spans), whole=False)

    def things(self, image_id: str) -> Iterable[Thing]:
        said = next((found for name in image_names(image_id) if (found := self.of_image.get(name))), {})
        return [thing for several in said.values() if several for thing in several]

    def _take(self, document: Any, objects: Annotations | None) -> None:
        if not isinstance(document, list):
            raise TypeError("not a list")
        for number, item in enumerate(document):
            image = next((str(item[key]) for key in _IMAGES if item.get(key) is not None), None)
            if image is None:
                raise ValueError(f"record {number + 1} names no image")
            if "sentences" in item:
                texts = [sentence.get("sent", sentence.get("raw")) for sentence in item["sentences"]]
                denoted = self._annotated(item, objects)
            else:
                texts = [next((item[key] for key in _TEXTS if key in item), None)]
                denoted = self._boxed(item, image)
            said = self.of_image.setdefault(image_names(image)[-1], {})
            for text in texts:
                if not isinstance(text, str):
                    raise TypeError(f"record {number + 1} has no text")
                key = squeezed(clean(text))
                said[key] = denoted if said.get(key, denoted) == denoted else None

    @staticmethod
    def _boxed(item: dict, image: str) -> tuple[Thing, ...]:
        if item["solution"] is None:
            return ()
        x0, y0, x1, y1 = (float(value) for value in item["solution"])
        if not all(map(math.isfinite, (x0, y0, x1, y1))) or not (x0 < x1 and y0 < y1):
            raise ValueError(f"solution {item['solution']} is no box")
        box = (x0, y0, x1, y1)
        # by its box: an expression that stands twice for the same box is no contradiction
        return (Thing(f"{image}/{','.join(f'{value:g}' for value in box)}", image, "", box, None, False),)

    @staticmethod
    def _annotated(item: dict, objects: Annotations | None) -> tuple[Thing, ...]:
        identifier = f"{item['image_id']}/{item['ann_id']}"
        thing = objects.of_id.get(identifier) if objects else None
        if thing is None:
            raise ValueError(f"no instances_*.json beside it has the object {identifier}")
        return (thing,)
