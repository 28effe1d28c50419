"""The grammar of the demo world: a plan becomes an English sentence, and every noun phrase in it keeps its span.

A template is a format string; `{A}` is the first mention, `{A.v}` its verb (`.ing` participle, `.is` is/are, `.it`
it/them), `{r}` and `{s}` the relations (`{R}` in front), `{at}` the place with a space before it. `[a picture]` in
fixed words marks a noun phrase that denotes nothing one could cut out.
"""

import random
import re
import string
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from demo.lexicon import (
    ABSTRACT,
    NAMES,
    NUMBERS,
    ON_DEFAULT,
    ON_VERBS,
    PLACES,
    RELATIONS,
    SIZE_WORDS,
    VERBS,
    Verb,
)
from demo.plans import Bond, Knobs, Mention, Plan, plan_caption, turned
from demo.scenes import Scene, rng_for


@dataclass(frozen=True)
class Phrase:
    """A base noun phrase: `caption[start:end] == text`.

    `head` is the lemma of its head noun, `number` sing or plur, `count` the number it states or None, `role` one of
    object, invention (a thing the scene does not show), place, abstract (the left, a pair), pronoun. `kind` is the kind
    of thing it speaks of, `objects` the ids of what it denotes, empty but for objects and pronouns. `ambiguous`: its
    words fit other objects of the scene as well.
    """

    text: str
    head: str
    role: str
    number: str = "sing"
    count: int | None = None
    kind: str | None = None
    objects: tuple[int, ...] = ()
    ambiguous: bool = False
    start: int = 0
    end: int = 0

    def row(self) -> dict:
        """The phrase as it is stored."""
        return {**asdict(self), "objects": list(self.objects)}


@dataclass(frozen=True)
class Caption:
    text: str
    phrases: tuple[Phrase, ...]
    plan: Plan


Piece = str | Phrase

_ONE = ("{A}", "there {A.is} {A}", "[a picture] of {A}", "{A} can be seen", "[a drawing] of {A}", "[an image] of {A}")
_ONE_AT = (
    "{A}{at}",
    "{A}{at}",
    "{A} {A.v}{at}",
    "{A} {A.is} {A.ing}{at}",
    "{A} {A.ing}{at}",
    "there {A.is} {A}{at}",
    "{A} can be seen{at}",
    "{A} {A.is} shown{at}",
    "there {A.is} {A} {A.ing}{at}",
    "[a picture] of {A}{at}",
)
_PAIR = (
    "{A} and {B}{at}",
    "{A} and {B}{at}",
    "{A} and {B}{at}",
    "there {A.is} {A} and {B}{at}",
    "{A} with {B}{at}",
    "[a picture] of {A} and {B}{at}",
    "{A} together with {B}{at}",
    "{both}{A} and {B} can be seen{at}",
    "there {A.is} {A} as well as {B}{at}",
    "{A} and {B} are shown{at}",
)
_BOND = (
    "{A} {r} {B}{at}",
    "{A} {r} {B}{at}",
    "{A} {A.v} {r} {B}{at}",
    "{A} {A.v} {r} {B}{at}",
    "{A} {A.is} {A.ing} {r} {B}{at}",
    "{A} {A.is} {A.ing} {r} {B}{at}",
    "{A} {A.ing} {r} {B}{at}",
    "{A} {A.ing} {r} {B}{at}",
    "there {A.is} {A} {r} {B}{at}",
    "there {A.is} {A} {A.ing} {r} {B}{at}",
    "{A} {A.is} {r} {B}{at}",
    "{A} that {A.v} {r} {B}{at}",
    "there {A.is} {A} that {A.v} {r} {B}{at}",
    "{B} with {A} {r} {B.it}{at}",
    "{B} with {A} {A.ing} {r} {B.it}{at}",
    "{R} {B} {A.is} {A}{at}",
    "{A} can be seen {r} {B}{at}",
    "{A} {A.is} shown {r} {B}{at}",
    "[a picture] of {A} {r} {B}{at}",
    "{B} that {B.has} {A} {r} {B.it}{at}",
)
_SIDE_BY_SIDE = ("{A} and {B} are side by side{at}", "{A} and {B} right next to each other{at}")
_LIST = (
    "{A}, {B} and {C}{at}",
    "{A}, {B}, and {C}{at}",
    "there {A.is} {A}, {B} and {C}{at}",
    "{A} and {B} with {C}{at}",
    "[a picture] of {A}, {B} and {C}{at}",
    "{A}, {B} and {C} can be seen{at}",
    "{A} along with {B} and {C}{at}",
)
_BOND_AND = (
    "{A} {r} {B}, and {C}{at}",
    "{A} {A.v} {r} {B}, and there {C.is} {C}{at} too",
    "{C}, and {A} {A.ing} {r} {B}{at}",
    "there {C.is} {C}, and {A} {A.is} {A.ing} {r} {B}{at}",
    "{A} {A.is} {r} {B} while {C} can be seen{at}",
    "there {A.is} {A} {r} {B}, and also {C}{at}",
)
_CHAIN = (
    "{A} {r} {B}, which {B.is} {s} {C}{at}",
    "{A} {A.v} {r} {B} that {B.is} {s} {C}{at}",
    "{A} {A.is} {A.ing} {r} {B}, which {B.v} {s} {C}{at}",
    "there {A.is} {A} {r} {B} that {B.v} {s} {C}{at}",
)
_FORK = (
    "{A} {r} {B} and {s} {C}{at}",
    "{A} {A.v} {r} {B} and {s} {C}{at}",
    "{A} {A.is} {A.ing} {r} {B} and {s} {C}{at}",
    "there {A.is} {A} {r} {B} and {s} {C}{at}",
    "{A} that {A.is} {r} {B} and {s} {C}{at}",
)
_ANCHOR = (
    "{A} and {C} {r} {B}{at}",
    "{A} and {C} are {r} {B}{at}",
    "there {A.is} {A} and {C} {r} {B}{at}",
    "{B} with {A} and {C} {r} {B.it}{at}",
    "{both}{A} and {C} are {r} {B}{at}",
)


def _shape(plan: Plan) -> tuple[str, ...]:
    """The templates that say exactly what the plan says."""
    number, bonds = len(plan.mentions), [(b.a, b.b) for b in plan.bonds]
    if number == 1:
        return _ONE_AT if plan.place else _ONE
    if number == 2:
        close = bonds and plan.bonds[0].name == "next to"
        return (_BOND + _SIDE_BY_SIDE if close else _BOND) if bonds else _PAIR
    return {
        (): _LIST,
        ((0, 1),): _BOND_AND,
        ((0, 1), (1, 2)): _CHAIN,
        ((0, 1), (0, 2)): _FORK,
        ((0, 1), (2, 1)): _ANCHOR,
    }[tuple(bonds)]


def caption_for(seed: int, scene: Scene, *stream: str | int, knobs: Knobs | None = None) -> Caption:
    """The caption of (seed, stream...) for a scene."""
    knobs, rng = knobs or Knobs(), rng_for(seed, *stream)
    return realise(plan_caption(scene, rng, knobs), rng, knobs)


def realise(plan: Plan, rng: random.Random, knobs: Knobs | None = None) -> Caption:
    """Words for a plan; other lots give other words for the same facts."""
    knobs = knobs or Knobs()
    told = _turn(plan, rng)
    pieces = _fill(rng.choice(_shape(told)), _Words(told, rng, knobs))
    return _write(pieces, plan, rng)


def _turn(plan: Plan, rng: random.Random) -> Plan:
    """Now and then a single relation is told from its other side, or a list in another order."""
    if len(plan.mentions) == 2 and plan.bonds and plan.bonds[0].name != "on" and rng.random() < 0.4:
        return replace(plan, mentions=plan.mentions[::-1], bonds=(_renumber(turned(plan.bonds[0])),))
    if not plan.bonds and len(plan.mentions) > 1:
        return replace(plan, mentions=tuple(rng.sample(plan.mentions, len(plan.mentions))))
    return plan


def _renumber(bond: Bond) -> Bond:
    return replace(bond, a=1 - bond.a, b=1 - bond.b)


class _Words:
    """The words of one sentence: each slot of a template is looked up here and always answers alike."""

    def __init__(self, plan: Plan, rng: random.Random, knobs: Knobs) -> None:
        self._plan, self._rng, self._knobs = plan, rng, knobs
        self._anchors = {b.b for b in plan.bonds}  # what others stand by, more often "the house" than the rest
        self._riders = {b.a for b in plan.bonds if b.name == "on"}
        self._verb = [self._pick_verb(i, m) for i, m in enumerate(plan.mentions)]

    def slot(self, name: str) -> list[Piece]:
        """The pieces that stand for `{name}`."""
        if name == "at":
            return [" ", *self._place()] if self._plan.place else []
        if name in ("r", "s"):
            bond = self._plan.bonds["rs".index(name)]
            return _marked(self._rng.choice(RELATIONS[bond.name]), "abstract")
        if name == "both":
            return [] if any(m.count > 1 for m in self._plan.mentions) else ["both "]
        if name == "R":  # at the head of a sentence: the fullest form
            return _marked(RELATIONS[self._plan.bonds[0].name][0], "abstract")
        letter, _, form = name.partition(".")
        number = "ABC".index(letter)
        mention = self._plan.mentions[number]
        if not form:
            return self._noun_phrase(mention, known=number in self._anchors)
        return _FORMS[form](mention, self._verb[number])

    def _pick_verb(self, number: int, mention: Mention) -> Verb:
        if number in self._riders:
            return self._rng.choice(ON_VERBS.get(mention.kind, ON_DEFAULT))
        zones = [mention.zone] if mention.zone != "any" else sorted(z for k, z in VERBS if k == mention.kind)[-1:]
        return self._rng.choice(VERBS[mention.kind, zones[0]])

    def _place(self) -> list[Piece]:
        options, zones = PLACES[self._plan.place], {m.zone for m in self._plan.mentions}
        scope = zones.pop() if len(zones) == 1 else "any"
        return _marked(self._rng.choice(options.get(scope, options["any"])), "place")

    def _noun_phrase(self, mention: Mention, known: bool) -> list[Piece]:
        rng, knobs = self._rng, self._knobs
        names = NAMES[mention.kind]
        name = rng.choice(names) if rng.random() < knobs.synonymy else names[0]
        words = self._adjectives(mention) + (name.many if mention.count > 1 else name.one)
        role = "object" if mention.objects else "invention"
        facts = {
            "head": name.head,
            "role": role,
            "kind": mention.kind,
            "objects": mention.objects,
            "ambiguous": mention.ambiguous,
            "number": "plur" if mention.count > 1 else "sing",
        }
        if mention.count == 2 and rng.random() < 0.15:
            group = rng.choice(("a pair", "a couple"))
            return [Phrase(group, group.split()[1], "abstract"), " of ", Phrase(words, **facts)]
        if mention.count > 1:
            return [Phrase(f"{NUMBERS[mention.count]} {words}", count=mention.count, **facts)]
        chance = rng.random()
        if chance < 0.02:
            return [Phrase(f"one {words}", count=1, **facts)]
        article = "the" if chance < (0.12 if known else 0.03) else "an" if words[0] in "aeiou" else "a"
        return [Phrase(f"{article} {words}", **facts)]

    def _adjectives(self, mention: Mention) -> str:
        rng, words = self._rng, []
        if mention.size:
            plain, *others = SIZE_WORDS[mention.size]
            words.append(rng.choice(others) if rng.random() < self._knobs.synonymy else plain)
        if mention.colour:
            vivid = mention.colour not in ("white", "black", "purple") and rng.random() < 0.08
            words.append(("bright " if vivid else "") + mention.colour)
        comma = len(words) == 2 and rng.random() < 0.1
        return (", " if comma else " ").join(words) + (" " if words else "")


_FORMS: dict[str, Callable[[Mention, Verb], list[Piece]]] = {
    "is": lambda m, v: ["are" if m.count > 1 else "is"],
    "has": lambda m, v: ["have" if m.count > 1 else "has"],
    "v": lambda m, v: [v[1 if m.count > 1 else 0]],
    "ing": lambda m, v: [v[2]],
    "it": lambda m, v: [
        Phrase(
            "them" if m.count > 1 else "it",
            "they" if m.count > 1 else "it",
            "pronoun",
            kind=m.kind,
            number="plur" if m.count > 1 else "sing",
            objects=m.objects,
            ambiguous=m.ambiguous,
        )
    ],
}


def _marked(words: str, role: str) -> list[Piece]:
    """Fixed words with their bracketed noun phrases as phrases."""
    pieces: list[Piece] = []
    for i, part in enumerate(re.split(r"\[([^\]]*)\]", words)):
        if i % 2:
            head = part.split()[-1]
            pieces.append(Phrase(part, head, "abstract" if head in ABSTRACT else role))
        elif part:
            pieces.append(part)
    return pieces


def _fill(template: str, words: _Words) -> list[Piece]:
    pieces: list[Piece] = []
    for literal, slot, _, _ in string.Formatter().parse(template):
        pieces += _marked(literal, "abstract")
        if slot:
            pieces += words.slot(slot)
    return pieces


def _write(pieces: list[Piece], plan: Plan, rng: random.Random) -> Caption:
    """Pieces to text and spans; some captions start with a capital and end with a period, some do neither."""
    text, phrases = "", []
    for piece in pieces:
        if isinstance(piece, Phrase):
            phrases.append(replace(piece, start=len(text), end=len(text) + len(piece.text)))
        text += piece if isinstance(piece, str) else piece.text
    capital, period = rng.choices(((True, True), (True, False), (False, False), (False, True)), (45, 15, 32, 8))[0]
    if capital:
        text = text[0].upper() + text[1:]
    if period:
        text += "."
    phrases = tuple(replace(p, text=text[p.start : p.end]) for p in phrases)
    return Caption(text, phrases, plan)
