"""The words of the demo world: names, verbs, sizes, relations and places. The first name of a kind is the plain one."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Name:
    """A noun for a kind: its words, their plural, and the lemma of its head."""

    one: str
    many: str
    head: str


def _names(*forms: str) -> tuple[Name, ...]:
    """From "mug" (plural in s), "puppy/puppies" or "coffee cup" (head: the last word)."""
    split = [(form.split("/")[0], form.split("/")[-1] if "/" in form else form + "s") for form in forms]
    return tuple(Name(one, many, one.split()[-1]) for one, many in split)


NAMES: dict[str, tuple[Name, ...]] = {
    "ball": _names("ball", "beach ball"),
    "balloon": _names("balloon", "party balloon"),
    "bird": _names("bird", "songbird"),
    "boat": _names("boat", "sailboat", "ship"),
    "car": _names("car", "automobile"),
    "cat": _names("cat", "kitten", "kitty/kitties"),
    "cup": _names("cup", "mug", "coffee cup"),
    "dog": _names("dog", "puppy/puppies"),
    "fish": _names("fish/fish"),
    "flower": _names("flower", "blossom"),
    "hat": _names("hat", "top hat"),
    "house": _names("house", "cottage"),
    "kite": _names("kite"),
    "star": _names("star"),
    "table": _names("table"),
    "tree": _names("tree"),
    "umbrella": _names("umbrella", "parasol"),
}
SIZE_WORDS = {"small": ("small", "little", "tiny"), "large": ("large", "big")}
NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}

# verb: third person singular, plural, participle
Verb = tuple[str, str, str]
_SIT, _STAND, _LIE, _REST = (
    ("sits", "sit", "sitting"),
    ("stands", "stand", "standing"),
    ("lies", "lie", "lying"),
    ("rests", "rest", "resting"),
)
_FLY, _FLOAT, _HANG = ("flies", "fly", "flying"), ("floats", "float", "floating"), ("hangs", "hang", "hanging")
_GROW, _PARK = ("grows", "grow", "growing"), ("is parked", "are parked", "parked")
VERBS: dict[tuple[str, str], tuple[Verb, ...]] = {  # by kind and zone
    ("ball", "ground"): (_LIE, _REST),
    ("balloon", "air"): (_FLOAT, _HANG),
    ("bird", "air"): (_FLY,),
    ("bird", "ground"): (_STAND, _SIT),
    ("boat", "water"): (_FLOAT, ("sails", "sail", "sailing")),
    ("car", "ground"): (_PARK, _STAND),
    ("cat", "ground"): (_SIT,),
    ("cup", "ground"): (_STAND, _SIT),
    ("dog", "ground"): (_STAND,),
    ("fish", "water"): (("swims", "swim", "swimming"),),
    ("flower", "ground"): (_GROW, _STAND),
    ("hat", "ground"): (_LIE, _REST),
    ("house", "ground"): (_STAND,),
    ("kite", "air"): (_FLY,),
    ("star", "air"): (("shines", "shine", "shining"), _HANG),
    ("table", "ground"): (_STAND,),
    ("tree", "ground"): (_GROW, _STAND),
    ("umbrella", "ground"): (_STAND,),
}
ON_VERBS: dict[str, tuple[Verb, ...]] = {  # of what stands on something
    "bird": (("perches", "perch", "perching"), _SIT),
    "cat": (_SIT,),
    "dog": (_STAND,),
    "flower": (_STAND,),
}
ON_DEFAULT: tuple[Verb, ...] = (_REST, _SIT)

# [square brackets] mark noun phrases inside fixed words
RELATIONS: dict[str, tuple[str, ...]] = {
    "left of": ("to [the left] of", "to [the left] of", "left of", "on [the left] of"),
    "right of": ("to [the right] of", "to [the right] of", "right of", "on [the right] of"),
    "above": ("above", "over"),
    "below": ("below", "beneath", "underneath"),
    "next to": ("next to", "beside", "near", "close to", "by"),
    "on": ("on", "on top of"),
}

# A place is said in words that suit what is there: all of it on the ground, on the water, or anything at all.
PLACES: dict[str, dict[str, tuple[str, ...]]] = {
    "beach": {
        "ground": ("on [the beach]", "on [the sand]", "at [the beach]", "on [a sandy beach]"),
        "any": ("at [the beach]", "at [the seaside]"),
    },
    "meadow": {
        "ground": ("on [the grass]", "in [a meadow]", "in [a green field]", "in [the grass]"),
        "any": ("in [a meadow]", "in [the countryside]"),
    },
    "night": {"any": ("at [night]", "in [the dark]", "under [a night sky]")},
    "room": {
        "ground": ("on [the floor]", "in [a room]", "inside [a room]"),
        "any": ("in [a room]", "inside [a room]", "indoors"),
    },
    "sea": {"water": ("in [the water]", "in [the sea]", "in [the ocean]"), "any": ("at [sea]", "at [the ocean]")},
    "snow": {
        "ground": ("in [the snow]", "on [the snow]", "on [the snowy ground]"),
        "any": ("in [the snow]", "in [winter]"),
    },
    "street": {"ground": ("on [the street]", "on [the road]", "in [the street]"), "any": ("in [a city]", "in [town]")},
}
ABSTRACT = frozenset({"left", "right", "pair", "couple", "picture", "drawing", "image", "night", "dark", "winter"})
