"""Flickr30k Entities: captions with marked phrases, and the boxes of what they denote."""

import math
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import InputError
from stages.common.annotations import Thing
from stages.common.markup import Mark, read_marked
from stages.quality.gold import CaptionGold, GoldPhrase, image_names, moved, squeezed

NOT_VISUAL = "notvisual"


class Entities:
    """The published layout: `Sentences/<image>.txt`, a marked caption a line, and `Annotations/<image>.xml`, boxes by
    chain. An image's files are read when it is asked for.

    A chain without boxes is a scene, or was not boxed: the gold does not say where it is.
    """

    name = "Flickr30k Entities"

    def __init__(self, folder: Path):
        self.folder = folder
        self._last: tuple[str, dict, dict] | None = None

    def caption(self, caption: dict, phrases: list[dict]) -> CaptionGold | None:
        marked, boxes = self._image(caption["image_id"])
        found = marked.get(squeezed(caption["text"]))
        return None if found is None else _gold(*found, caption["text"], boxes)

    def things(self, image_id: str) -> Iterable[Thing]:
        return [thing for several in self._image(image_id)[1].values() for thing in several]

    def _image(self, image_id: str) -> tuple[dict, dict]:
        if self._last is None or self._last[0] != image_id:
            self._last = image_id, *self._read(image_id)
        return self._last[1:]

    def _read(self, image_id: str) -> tuple[dict, dict]:
        for name in image_names(image_id):
            if "/" not in name and (sentences := self.folder / "Sentences" / f"{name}.txt").is_file():
                annotations = self.folder / "Annotations" / f"{name}.xml"
                boxes = read_boxes(annotations, image_id) if annotations.is_file() else {}
                return {squeezed(text): (text, marks) for text, marks in read_marked(sentences)}, boxes
        return {}, {}


class MarkedCaptions:
    """Marked captions alone, one a line: phrases of known type, of which nothing says where they are."""

    name = "marked captions"

    def __init__(self, files: list[Path]):
        self.marked = {squeezed(text): (text, marks) for file in files for text, marks in read_marked(file)}

    def caption(self, caption: dict, phrases: list[dict]) -> CaptionGold | None:
        found = self.marked.get(squeezed(caption["text"]))
        return None if found is None else _gold(*found, caption["text"], {})

    def things(self, image_id: str) -> Iterable[Thing]:
        return ()


def _gold(plain: str, marks: list[Mark], text: str, boxes: dict[str, list[Thing]]) -> CaptionGold:
    phrases = []
    for mark in marks:
        start, end = moved(mark.start, mark.end, plain, text)
        objects = () if NOT_VISUAL in mark.types else tuple(boxes[mark.chain]) if mark.chain in boxes else None
        if start < end:
            phrases.append(GoldPhrase(start, end, objects, types=mark.types))
    return CaptionGold(tuple(phrases), whole=True)


def read_boxes(file: Path, image_id: str) -> dict[str, list[Thing]]:
    """Chain -> its boxes. They count pixels from 1, the last one included: here from 0, the end excluded.

    Raises:
        InputError: it cannot be read, is not XML, or a box is not four numbers.
    """
    try:
        root = ElementTree.parse(file).getroot()
    except ElementTree.ParseError as error:
        raise InputError(f"{file}: line {error.position[0]}: not valid XML ({error})") from None
    except (OSError, LookupError, ValueError) as error:
        raise InputError(f"{file}: cannot be read ({error})") from None
    found: dict[str, list[Thing]] = defaultdict(list)
    for number, item in enumerate(root.iter("object")):
        box = item.find("bndbox")
        if box is None:
            continue
        try:
            x0, y0, x1, y1 = (float(box.findtext(side) or "") for side in ("xmin", "ymin", "xmax", "ymax"))
            if not all(map(math.isfinite, (x0, y0, x1, y1))) or x1 < x0 or y1 < y0:
                raise ValueError(f"{x0:g}, {y0:g}, {x1:g}, {y1:g}")
        except ValueError as error:
            said = " ".join(str(error).split())
            raise InputError(f"{file}: the box of object {number + 1} is no box ({said})") from None
        for chain in item.findall("name"):
            name = (chain.text or "").strip()
            found[name].append(
                Thing(f"{image_id}/{name}.{number}", image_id, name, (x0 - 1, y0 - 1, x1, y1), None, False)
            )
    return dict(found)
