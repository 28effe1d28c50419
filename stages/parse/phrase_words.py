"""The word lists and dependency relations (Universal Dependencies v2, English) that noun-phrase extraction goes by."""

from __future__ import annotations

NOMINAL_TAGS = frozenset(["NOUN", "PROPN", "PRON", "NUM", "DET", "ADJ"])
# Relative and interrogative pronouns (Penn tags): "a dog that barks", "what it eats".
QUESTION_TAGS = frozenset(["WDT", "WP", "WP$", "WRB"])
# Where an adjective, numeral or determiner stands for a noun ("the elderly", "two are red").
NOMINAL_RELATIONS = frozenset(["nsubj", "nsubj:pass", "obj", "iobj", "obl", "nmod"])
# Nouns in these relations are a part of another phrase, or of no phrase.
NOT_A_HEAD = frozenset(
    [
        "compound", "flat", "fixed", "goeswith", "expl", "case", "mark", "cc", "advmod", "amod", "det", "nummod",
        "discourse", "compound:prt", "det:predet", "cc:preconj", "reparandum",
    ]
)  # fmt: skip
LEFT_MODIFIERS = frozenset(
    [
        "det", "det:predet", "amod", "compound", "nummod", "nmod:poss", "nmod:desc", "nmod:unmarked", "nmod", "flat",
        "goeswith", "advmod", "acl", "obl:unmarked", "cc:preconj",
    ]
)  # fmt: skip
RIGHT_MODIFIERS = frozenset(
    [
        "punct", "nmod", "acl", "nmod:unmarked", "nmod:desc", "flat", "goeswith", "nummod", "amod", "compound",
        "advmod", "obl", "det",
    ]
)  # fmt: skip
# Left of the head and below it, yet outside its phrase (the head may be a predicate: "this is the dog").
NEVER_INSIDE = frozenset(
    ["case", "mark", "cop", "aux", "nsubj", "csubj", "expl", "advcl", "parataxis", "discourse", "vocative", "obl",
     "ccomp", "dislocated", "nsubj:outer", "cc", "list", "orphan", "dep", "conj"]
)  # fmt: skip
STRIPPED_FROM_KEY = frozenset(["det", "det:predet", "nummod", "nmod:poss", "cc:preconj"])

# "a QUANTITY of men" shows men.
QUANTITIES = frozenset(
    [
        "group", "bunch", "couple", "pair", "number", "lot", "variety", "assortment", "collection", "handful", "dozen",
        "crowd", "herd", "flock", "pack", "series", "set", "ton", "plenty", "multitude", "array", "cluster", "team",
        "gang", "swarm", "litter", "majority", "rest", "most", "trio", "duo", "hundred", "thousand", "score", "load",
        "abundance", "row", "line", "stack", "pile", "bundle", "string", "mix", "mixture",
        "selection", "gathering", "flurry", "host",
    ]
)  # fmt: skip
# Those of them that are always of several, whatever the form of the noun ("a herd of sheep"; but "a lot of luggage").
GROUPS = frozenset(
    ["group", "bunch", "couple", "pair", "handful", "dozen", "crowd", "herd", "flock", "team", "gang", "swarm",
     "litter", "trio", "duo", "pack"]
)  # fmt: skip
# "a PORTION of pizza" shows pizza, and is counted by the portion. Not before a determiner: "the head of a giraffe".
PORTIONS = frozenset(
    [
        "slice", "piece", "bit", "portion", "chunk", "loaf", "scoop", "stalk", "sheet", "kind", "type", "sort", "breed",
        "species", "head", "wedge", "lump", "ear", "floret", "strip", "pat", "helping", "serving", "style", "variation",
    ]
)  # fmt: skip
PAIRS = frozenset(["pair", "couple"])
# Plural in form, one thing in the picture.
PAIRED_ONE = frozenset(
    [
        "scissors", "scissor", "glasses", "sunglasses", "goggles", "pants", "jeans", "shorts", "trousers", "tweezers",
        "pliers", "binoculars", "headphones", "tongs", "sunglass", "goggle", "pant", "jean", "short", "trouser",
        "tweezer", "plier", "binocular", "headphone", "tong", "eyeglasses", "spectacles", "overalls", "leggings",
        "tights", "pajamas", "pyjamas", "underpants", "shears", "clippers",
    ]
)  # fmt: skip
PARTITIVES = frozenset(
    ["one", "some", "many", "several", "all", "both", "most", "each", "few", "any", "none", "half", "another", "either"]
)
PLURAL_QUANTIFIERS = frozenset(["these", "those", "several", "many", "few", "both", "various", "numerous", "multiple"])
QUANTIFIERS = PLURAL_QUANTIFIERS | {"some", "all", "any", "no", "each", "every", "another", "more", "most", "half"}
# Adjectives that point back to something said ("each other", "the same").
ELLIPTIC = frozenset(["other", "same", "next", "former", "latter", "many", "several", "few", "more", "most", "such"])
SINGULAR_DETERMINERS = frozenset(["a", "an", "one", "another", "each", "every", "this"])
# The usual nouns in -ing ("brick building", "oil painting"); any other after a noun is a verb.
ING_NOUNS = frozenset(
    [
        "building", "painting", "ceiling", "clothing", "wedding", "railing", "topping", "landing", "swing",
        "ring", "king",
        "string", "wing", "thing", "evening", "morning", "crossing", "awning", "siding", "opening", "drawing",
        "frosting",
        "icing", "dressing", "bedding", "seating", "lighting", "flooring", "parking", "stuffing", "pudding", "covering",
        "lettering", "wiring", "sibling", "duckling", "ending", "meeting", "gathering", "outing", "housing", "plumbing",
        "roofing", "carving", "setting", "being", "dumpling", "lining", "coating", "filling", "serving", "fencing",
        "paneling", "molding", "scaffolding", "legging", "stocking", "earring", "marking", "racing", "training",
        "spring",
        "skiing", "surfing", "boating", "fishing", "bowling", "shopping", "boarding", "sling", "living", "dining",
    ]
)  # fmt: skip
# What comes after such a noun when the two are a compound ("outdoor eating area").
AFTER_ING = frozenset(
    [
        "area", "room", "lot", "path", "pool", "table", "machine", "trail", "station", "equipment", "board", "chair",
        "glass", "sign", "ground", "place", "hall", "gear", "suit", "pond", "cabinet", "implement", "utensil", "hole",
    ]
)  # fmt: skip
# Plurals that taggers take for names at the start of a caption, and lemmatizers then leave alone.
IRREGULAR_PLURALS = {"men": "man", "women": "woman", "children": "child"}
# Compounds whose last word names something else.
BELYING_COMPOUNDS = frozenset(
    [
        "hot dog", "corn dog", "chili dog", "prairie dog", "teddy bear", "stuffed bear", "gummy bear", "toy bear",
        "sea lion", "guinea pig", "rocking horse", "sea horse", "dragon fly", "butter fly", "stuffed animal",
        "stuffed dog", "toy dog", "toy car", "toy train", "computer mouse", "cat fish", "star fish", "jelly fish",
        "pine apple", "french fry", "egg plant", "high chair", "home plate",
    ]
)  # fmt: skip
_SAID = [
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
]  # fmt: skip
_NUMBERS = {word: value for value, word in enumerate(_SAID, 1)} | {"dozen": 12, "thirty": 30, "forty": 40, "fifty": 50}


def number_said(text: str) -> int | None:
    """The whole number >= 1 that a word says ("two", "Dozen", "17"), or None."""
    text = text.lower()
    if text in _NUMBERS:
        return _NUMBERS[text]
    return int(text) if text.isascii() and text.isdigit() and 1 <= int(text) <= 9999 else None
