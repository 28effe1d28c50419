"""Groups that quality is told by: the size of what a gold phrase denotes, its length, what kind of phrase it is."""

from collections.abc import Iterable

ONE, SEVERAL, PRONOUN, NOTHING, UNKNOWN = "one object", "several objects", "pronoun", "nothing shown", "not located"
# The types of Flickr30k Entities; a phrase may have several, and stands in one of those above too.
ENTITIES = ("people", "clothing", "bodyparts", "animals", "vehicles", "instruments", "scene", "other", "notvisual")
_SIZES = ((1.0, "smaller than 1 % of the image"), (10.0, "1 to 10 % of the image"), (float("inf"), "larger than 10 %"))
_LENGTHS = ((1, "1 word"), (2, "2 words"), (3, "3 words"), (5, "4 or 5 words"), (float("inf"), "6 words or more"))
# Every group of a family, in the order in which they are shown.
ORDER = {
    "kind": (ONE, SEVERAL, PRONOUN, NOTHING, UNKNOWN, *ENTITIES),
    "area": tuple(name for _, name in _SIZES),
    "length": tuple(name for _, name in _LENGTHS),
}
Group = tuple[str, str]  # family and name


def of_area(pixels: float, height: int, width: int) -> Group:
    """The group of an object by its share of the image."""
    percent = 100 * pixels / (height * width)
    return "area", next((name for most, name in _SIZES if percent <= most), _SIZES[-1][1])


def of_length(text: str) -> Group:
    """The group of a phrase by its words."""
    words = len(text.split())
    return "length", next(name for most, name in _LENGTHS if words <= most)


def of_kind(names: Iterable[str]) -> list[Group]:
    return [("kind", name) for name in names]
