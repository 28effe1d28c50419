"""The grammar of the demo world: a plan becomes an English sentence with its dependency tree, and every noun phrase in
it keeps its span. The sentences themselves are in `demo.templates`, the words in `demo.lexicon`.
"""

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from demo import trees
from demo.lexicon import (
    ABSTRACT,
    GROUPS_OF_TWO,
    HOLD_VERBS,
    NAMES,
    NUMBERS,
    ON_DEFAULT,
    ON_VERBS,
    PATTERN_WORDS,
    SIZE_WORDS,
    VERBS,
    Name,
    Verb,
    tagged,
)
from demo.plans import Bond, Knobs, Mention, Plan, plan_caption, turned
from demo.scenes import Scene, rng_for
from demo.templates import PASSIVES, PLACES, RELATIONS, after_verb, sentences, verb_first
from demo.trees import Item, Node, Part, Token, single, word


@dataclass(frozen=True)
class Phrase:
    """A base noun phrase: `caption[start:end] == text`.

    `head` is the lemma of its head noun, `number` sing or plur, `count` the number it states or None, `role` one of
    object, invention (a thing the scene does not show), place, abstract (the left, a picture, each other), pronoun.
    `kind` is the kind of thing it speaks of, `objects` the ids of what it denotes, empty but for objects and pronouns.
    `ambiguous`: its words fit other objects of the scene as well.
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
    """A sentence, its noun phrases in order, and its tree (one token a word or punctuation mark)."""

    text: str
    phrases: tuple[Phrase, ...]
    plan: Plan
    tree: tuple[Token, ...]


def caption_for(seed: int, scene: Scene, *stream: str | int, knobs: Knobs | None = None) -> Caption:
    """The caption of (seed, stream...) for a scene."""
    knobs, rng = knobs or Knobs(), rng_for(seed, *stream)
    return realise(plan_caption(scene, rng, knobs), rng, knobs)


def realise(plan: Plan, rng: random.Random, knobs: Knobs | None = None) -> Caption:
    """Words for a plan; other lots give other words for the same facts."""
    knobs = knobs or Knobs()
    told = verb_first(_turn(plan, rng))
    words = _Words(told, rng, knobs)
    line = rng.choice(sentences(told, words.silent))
    return _finish(trees.assemble(line, words.slot, _fixed("abstract")), plan, rng)


def noun_phrase(mention: Mention, rng: random.Random, knobs: Knobs, known: bool = False) -> Phrase:
    """The phrase alone, as captions say it. `known`: what others stand by, which is more often "the house"."""
    part = _noun_phrase(mention, rng, knobs, known)
    text = trees.spelled(part.nodes)
    return replace(part.marks[0][0], text=text, end=len(text))


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
    """The words of one sentence: each slot of a template is looked up here and always answers alike. `silent` are the
    letters of things of which nobody says that they sit or stand: those held, or in several zones."""

    def __init__(self, plan: Plan, rng: random.Random, knobs: Knobs) -> None:
        self._plan, self._rng, self._knobs = plan, rng, knobs
        self._anchors = {b.b for b in plan.bonds}
        riders = {b.a for b in plan.bonds if b.name == "on"}
        held = {b.a for b in plan.bonds if b.name == "held by"} | {b.b for b in plan.bonds if b.name == "holding"}
        self._verbs: dict[str, Verb] = {}
        for number, (letter, mention) in enumerate(zip("ABC", plan.mentions, strict=False)):
            if number in riders:
                self._verbs[letter] = rng.choice(ON_VERBS.get(mention.kind, ON_DEFAULT))
            elif number not in held and (mention.kind, mention.zone) in VERBS:
                self._verbs[letter] = rng.choice(VERBS[mention.kind, mention.zone])
        self.silent = set("ABC") - set(self._verbs)

    def slot(self, item: Item) -> Part | None:
        """The words that stand for a slot, or None for none."""
        name, *complement = item.name.split()
        if name == "at":
            return self._place() if self._plan.place else None
        if name == "both":
            return None if any(m.count > 1 for m in self._plan.mentions) else single(word("both"))
        if name == "hold":
            return _finite(self._rng.choice(HOLD_VERBS), self._plan.mentions[0])
        if complement:
            return self._relation(item, name, complement[0])
        letter, _, form = name.partition(".")
        mention = self._plan.mentions["ABC".index(letter)]
        if not form:
            return _noun_phrase(mention, self._rng, self._knobs, "ABC".index(letter) in self._anchors)
        if form == "v":
            return _finite(self._verbs[letter], mention)
        if form == "ing":
            return _participle(self._verbs[letter])
        return _FORMS[form](mention)

    def _relation(self, item: Item, name: str, complement: str) -> Part:
        """ "to the left of" with its complement, which answers to its letter."""
        options = RELATIONS[self._plan.bonds["rs".index(name.lower())].name]
        if item.head in PASSIVES:  # "is shown by a house" would say who shows it
            options = tuple(option for option in options if option[0][0].name != "by")
        chosen = options[0] if name == "R" else self._rng.choice(options)
        letter, _, form = complement.partition(".")
        thing = self.slot(item._replace(name=complement))
        part = trees.assemble(chosen[after_verb(item)], lambda _: thing, _fixed("abstract"))
        part.labels = {} if form or thing is None else {letter: thing.top}
        return part

    def _place(self) -> Part:
        options, zones = PLACES[self._plan.place], {m.zone for m in self._plan.mentions}
        scope = zones.pop() if len(zones) == 1 else "any"
        line = self._rng.choice(options.get(scope, options["any"]))
        return trees.assemble(line, lambda _: None, _fixed("place"))


def _fixed(role: str) -> Callable[[str], Phrase]:
    """What is known of a noun phrase in fixed words."""

    def phrase(text: str) -> Phrase:
        head = next((head for head in (text, text.split()[-1]) if head in ABSTRACT), None)
        return Phrase(text, head or text.split()[-1], "abstract" if head else role)

    return phrase


# --- noun phrases ----------------------------------------------------------------------------------------------------


def _noun_phrase(mention: Mention, rng: random.Random, knobs: Knobs, known: bool) -> Part:
    """ "a small striped red ball", "two red balls", "a pair of red balls": one phrase each."""
    many, names = mention.count > 1, NAMES[mention.kind]
    name = rng.choice(names) if rng.random() < knobs.synonymy else names[0]
    phrase = Phrase(
        "",
        name.head,
        "object" if mention.objects else "invention",
        "plur" if many else "sing",
        mention.count if many else None,
        mention.kind,
        mention.objects,
        mention.ambiguous,
    )
    noun = _noun(name, many)
    top = noun[-1]
    nodes = [*_adjectives(mention, rng, knobs, top), *noun]
    chance = rng.random()
    if mention.count == 2 and chance < 0.15:
        group = word(rng.choice(GROUPS_OF_TWO))
        top.head, top.relation = group, "nmod"
        nodes = [word("a", "det", group), group, word("of", "case", top), *nodes]
        top = group
    elif many or chance < 0.02:
        nodes = [word(NUMBERS[mention.count], "nummod", top), *nodes]
        phrase = replace(phrase, count=mention.count)
    else:
        article = "the" if chance < (0.12 if known else 0.03) else "an" if nodes[0].form[0] in "aeiou" else "a"
        nodes = [word(article, "det", top), *nodes]
    return Part(nodes, top, [(phrase, nodes[0], nodes[-1])])


def _noun(name: Name, many: bool) -> list[Node]:
    *first, last = (name.many if many else name.one).split()
    top = Node(last, tagged(name.head, "NNS" if many else "NN"))
    return [*(Node(w, tagged(w, "NN"), "compound", top) for w in first), top]


def _adjectives(mention: Mention, rng: random.Random, knobs: Knobs, top: Node) -> list[Node]:
    """Size first, then pattern and colour in either order; now and then a comma after the first of them."""
    said = []
    for value, words in ((mention.colour, None), (mention.pattern, PATTERN_WORDS)):
        if value and words:
            plain, *others = words[value]
            said.append([rng.choice(others) if rng.random() < knobs.synonymy else plain])
        elif value:
            vivid = value not in ("white", "black", "purple") and rng.random() < 0.08
            said.append(["bright", value] if vivid else [value])
    if rng.random() < 0.5:
        said.reverse()
    if mention.size:
        plain, *others = SIZE_WORDS[mention.size]
        said.insert(0, [rng.choice(others) if rng.random() < knobs.synonymy else plain])
    nodes = [word(w, "amod", top) for group in said for w in group]
    if len(said) > 1 and rng.random() < 0.1:
        nodes.insert(len(said[0]), word(",", "punct", nodes[len(said[0]) - 1]))
    return nodes


# --- verbs and pronouns ----------------------------------------------------------------------------------------------


def _finite(verb: Verb, mention: Mention) -> Part:
    """ "sits", "sit", "is parked"."""
    many = mention.count > 1
    if verb.passive:
        part = _participle(verb)
        be = word("are" if many else "is", "aux:pass", part.top)
        return Part([replace(be, tag=be.tag._replace(upos="AUX")), part.top], part.top)
    return single(Node(verb.many if many else verb.one, tagged(verb.lemma, "VBP" if many else "VBZ")))


def _participle(verb: Verb) -> Part:
    """ "sitting", "parked"."""
    return single(Node(verb.participle, tagged(verb.lemma, "VBN" if verb.passive else "VBG")))


def _pronoun(mention: Mention) -> Part:
    many = mention.count > 1
    node = word("them" if many else "it")
    phrase = Phrase(
        node.form,
        node.tag.lemma,
        "pronoun",
        "plur" if many else "sing",
        kind=mention.kind,
        objects=mention.objects,
        ambiguous=mention.ambiguous,
    )
    return Part([node], node, [(phrase, node, node)])


_FORMS: dict[str, Callable[[Mention], Part]] = {
    "is": lambda m: single(word("are" if m.count > 1 else "is")),
    "has": lambda m: single(word("have" if m.count > 1 else "has")),
    "it": _pronoun,
}


def _finish(part: Part, plan: Plan, rng: random.Random) -> Caption:
    """Words to text and spans; some captions start with a capital and end with a period, some do neither."""
    capital, period = rng.choices(((True, True), (True, False), (False, False), (False, True)), (45, 15, 32, 8))[0]
    if capital:
        part.nodes[0].form = part.nodes[0].form[0].upper() + part.nodes[0].form[1:]
    if period:
        part.nodes.append(word(".", "punct", part.top))
    text, tree = trees.spelled(part.nodes), trees.tokens(part)
    place = {id(node): token for node, token in zip(part.nodes, tree, strict=True)}
    spans = [(phrase, place[id(first)].start, place[id(last)].end) for phrase, first, last in part.marks]
    phrases = (replace(phrase, text=text[a:b], start=a, end=b) for phrase, a, b in spans)
    return Caption(text, tuple(sorted(phrases, key=lambda phrase: phrase.start)), plan, tree)
