"""COCO instances as gold of phrases: the category that a phrase names, and its number, tell what it denotes."""

from collections.abc import Iterable

from stages.common.annotations import Annotations, Thing
from stages.common.categories import Categories
from stages.quality.gold import CaptionGold, GoldPhrase, image_names


class Instances:
    """A phrase that names a category denotes the objects of it that are annotated, if there are as many as it says:
    one for a singular, so many for a count, all for a plural that does not count. Where the number differs, or part of
    them is annotated as a crowd, nothing says which are meant; where there is none, it denotes nothing that is shown.
    Phrases are those that parse cut, so these say nothing of parse.
    """

    name = "COCO instances"

    def __init__(self, objects: Annotations, synonyms: dict[str, list[str]]):
        self.objects = objects
        self.categories = Categories(objects.categories, synonyms)

    def caption(self, caption: dict, phrases: list[dict]) -> CaptionGold | None:
        things = self.things(caption["image_id"])
        if not things:
            return None
        spans = ((row["start"], row["end"], self._denoted(row, things)) for row in phrases)
        return CaptionGold(tuple(GoldPhrase(*span) for span in spans), whole=False)

    def things(self, image_id: str) -> Iterable[Thing]:
        return next((found for name in image_names(image_id) if (found := self.objects.of_image.get(name))), ())

    def _denoted(self, row: dict, things: Iterable[Thing]) -> tuple[Thing, ...] | None:
        category = self.categories.named(row["key"], row["head"])
        if category is None:
            return None
        named = tuple(thing for thing in things if thing.category == category)
        if any(thing.crowd for thing in named):
            return None
        said = row["count"] or (1 if row["number"] == "sing" else len(named))
        return named if len(named) in (0, said) else None
