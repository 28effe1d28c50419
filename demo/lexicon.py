"""The words of the demo world: names, adjectives, verbs, and the grammar's small words with their tags.

Tags are those of Universal Dependencies v2 and the Penn treebank, as UD English EWT uses them. The first name of a
kind, and the first word for an attribute, is the plain one.
"""

from dataclasses import dataclass
from typing import NamedTuple


class Tag(NamedTuple):
    """What a treebank says of a word beside its form."""

    lemma: str
    upos: str
    xpos: str
    feats: str = "_"


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
    "bear": _names("bear", "teddy bear", "teddy/teddies"),
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
    "robot": _names("robot", "android"),
    "star": _names("star"),
    "table": _names("table"),
    "tree": _names("tree"),
    "umbrella": _names("umbrella", "parasol"),
}
SIZE_WORDS = {"small": ("small", "little", "tiny"), "large": ("large", "big")}
PATTERN_WORDS = {
    "striped": ("striped", "stripy"),
    "spotted": ("spotted", "dotted"),
    "checked": ("checked", "checkered"),
}
NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}
GROUPS_OF_TWO = ("pair", "couple")


@dataclass(frozen=True)
class Verb:
    """Third person singular, plural and participle; `passive`: said with is/are and a past participle ("parked")."""

    lemma: str
    one: str
    many: str
    participle: str
    passive: bool = False


def _verb(lemma: str, one: str = "", participle: str = "") -> Verb:
    return Verb(lemma, one or lemma + "s", lemma, participle or lemma + "ing")


_SIT, _STAND, _REST = _verb("sit", participle="sitting"), _verb("stand"), _verb("rest")
_LIE, _FLY = _verb("lie", participle="lying"), _verb("fly", "flies")
_FLOAT, _HANG, _GROW = _verb("float"), _verb("hang"), _verb("grow")
_PARK = Verb("park", "parked", "parked", "parked", passive=True)
VERBS: dict[tuple[str, str], tuple[Verb, ...]] = {  # by kind and zone
    ("ball", "ground"): (_LIE, _REST),
    ("balloon", "air"): (_FLOAT, _HANG),
    ("bear", "ground"): (_SIT,),
    ("bird", "air"): (_FLY,),
    ("bird", "ground"): (_STAND, _SIT),
    ("boat", "water"): (_FLOAT, _verb("sail")),
    ("car", "ground"): (_PARK, _STAND),
    ("cat", "ground"): (_SIT,),
    ("cup", "ground"): (_STAND, _SIT),
    ("dog", "ground"): (_STAND,),
    ("fish", "water"): (_verb("swim", participle="swimming"),),
    ("flower", "ground"): (_GROW, _STAND),
    ("hat", "ground"): (_LIE, _REST),
    ("house", "ground"): (_STAND,),
    ("kite", "air"): (_FLY,),
    ("robot", "ground"): (_STAND,),
    ("star", "air"): (_verb("shine", participle="shining"), _HANG),
    ("table", "ground"): (_STAND,),
    ("tree", "ground"): (_GROW, _STAND),
    ("umbrella", "ground"): (_STAND,),
}
ON_VERBS: dict[str, tuple[Verb, ...]] = {  # of what stands on something
    "bird": (_verb("perch", "perches"), _SIT),
    "cat": (_SIT,),
    "dog": (_STAND,),
    "flower": (_STAND,),
}
ON_DEFAULT: tuple[Verb, ...] = (_REST, _SIT)
HOLD_VERBS: tuple[Verb, ...] = (_verb("hold"), _verb("hold"), _verb("carry", "carries"))

# --- tags ------------------------------------------------------------------------------------------------------------

_BY_XPOS = {  # part of speech and features that go with a Penn tag
    "NN": ("NOUN", "Number=Sing"),
    "NNS": ("NOUN", "Number=Plur"),
    "JJ": ("ADJ", "Degree=Pos"),
    "RB": ("ADV", "_"),
    "IN": ("ADP", "_"),
    "CC": ("CCONJ", "_"),
    "CD": ("NUM", "NumForm=Word|NumType=Card"),
    "WDT": ("PRON", "PronType=Rel"),
    "EX": ("PRON", "_"),
    "VBZ": ("VERB", "Mood=Ind|Number=Sing|Person=3|Tense=Pres|VerbForm=Fin"),
    "VBP": ("VERB", "Mood=Ind|Number=Plur|Person=3|Tense=Pres|VerbForm=Fin"),
    "VBG": ("VERB", "Tense=Pres|VerbForm=Part"),
    "VBN": ("VERB", "Tense=Past|VerbForm=Part|Voice=Pass"),
    ",": ("PUNCT", "_"),
    ".": ("PUNCT", "_"),
}


def tagged(lemma: str, xpos: str) -> Tag:
    """The tag of a word by its Penn tag."""
    upos, feats = _BY_XPOS[xpos]
    return Tag(lemma, upos, xpos, feats)


def _listed(**words: str) -> dict[str, Tag]:
    return {word: tagged(word.split("/")[0], xpos) for xpos, line in words.items() for word in line.split()}


_ADJECTIVES = (
    "red orange yellow green blue purple white black bright sandy snowy "
    + " ".join(word for table in (SIZE_WORDS, PATTERN_WORDS) for words in table.values() for word in words)
)  # fmt: skip
# Every word that templates and fixed phrases use. "left/NOUN" is the word "left" where it is a noun.
TAGS: dict[str, Tag] = _listed(
    IN="above at behind below beneath beside by in inside near next/ADP of on over to under underneath with along",
    NN="beach city countryside couple dark drawing field floor front grass ground image left/NOUN meadow night ocean "
    "pair picture right/NOUN road room sand sea seaside side side/NOUN sky snow street top town water winter",
    RB="also indoors left/ADV next/ADV right/ADV together too",
    JJ=_ADJECTIVES + " close/ADJ other",
    CC="and both",
    CD=" ".join(NUMBERS.values()),
    EX="there",
    WDT="that which",
    **{",": ",", ".": "."},
)
TAGS |= {
    "a": Tag("a", "DET", "DT", "Definite=Ind|PronType=Art"),
    "an": Tag("a", "DET", "DT", "Definite=Ind|PronType=Art"),
    "the": Tag("the", "DET", "DT", "Definite=Def|PronType=Art"),
    "each": Tag("each", "DET", "DT", "ExtPos=PRON|PronType=Rcp"),
    "it": Tag("it", "PRON", "PRP", "Case=Acc|Gender=Neut|Number=Sing|Person=3|PronType=Prs"),
    "them": Tag("they", "PRON", "PRP", "Case=Acc|Number=Plur|Person=3|PronType=Prs"),
    "as/ADV": Tag("as", "ADV", "RB", "ExtPos=CCONJ"),
    "well": Tag("well", "ADV", "RB", "Degree=Pos"),
    "as/ADP": Tag("as", "ADP", "IN"),
    "close/ADV": Tag("close", "ADV", "RB", "Degree=Pos"),
    "while": Tag("while", "SCONJ", "IN"),
    "with/SCONJ": Tag("with", "SCONJ", "IN"),
    "can": Tag("can", "AUX", "MD", "VerbForm=Fin"),
    "be": Tag("be", "AUX", "VB", "VerbForm=Inf"),
    "is": tagged("be", "VBZ"),
    "are": tagged("be", "VBP"),
    "has": tagged("have", "VBZ"),
    "have": tagged("have", "VBP"),
    "holding": tagged("hold", "VBG"),
    "carrying": tagged("carry", "VBG"),
    "held": tagged("hold", "VBN"),
    "carried": tagged("carry", "VBN"),
    "seen": tagged("see", "VBN"),
    "shown": tagged("show", "VBN"),
    "pictured": tagged("picture", "VBN"),
}
ABSTRACT = frozenset(
    ["left", "right", "top", "front", "side", "picture", "drawing", "image", "night", "dark", "winter", "each other"]
)
