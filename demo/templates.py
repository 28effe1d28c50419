"""The sentences of the demo world, and the words for its relations and places, with their trees.

The notation is that of `demo.trees`. Slots of a sentence: `{A}` is the first mention, `{A.v}` its verb ("sits"),
`{A.ing}` the participle, `{A.is}` is/are, `{A.has}` has/have; `{r B}` the first relation with its complement, `{s C}`
the second, `{R B}` the first in its fullest form, `{r B.it}` with a pronoun; `{hold}` a verb of holding; `{at}` the
place, `{both}` the word or nothing.
"""

from collections.abc import Collection
from dataclasses import replace

from demo.lexicon import TAGS
from demo.plans import Plan
from demo.trees import Item, parse

Line = tuple[Item, ...]
VERBAL = frozenset({"holding", "held by"})  # relations that are said with a verb
PASSIVES = ("seen", "shown", "pictured")


def _lines(text: str) -> tuple[Line, ...]:
    """One template a line, or two joined by a backslash; a line that starts with a number stands for so many."""
    found: list[Line] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        times, _, rest = line.partition(" ")
        found += [parse(rest)] * int(times) if times.isdigit() else [parse(line)]
    return tuple(found)


ONE = _lines("""
    {A}:root
    there:expl>A.is {A.is}:root {A}:nsubj>A.is
    [a:det>picture picture:root] of:case>A {A}:nmod>picture
    [a:det>drawing drawing:root] of:case>A {A}:nmod>drawing
    [an:det>image image:root] of:case>A {A}:nmod>image
    {A}:subj>seen can:aux>seen be:aux:pass>seen seen:root
""")
ONE_AT = _lines("""
    2 {A}:root {at}:mod>A
    {A}:subj>A.v {A.v}:root {at}:mod>A.v
    {A}:subj>A.ing {A.is}:be>A.ing {A.ing}:root {at}:mod>A.ing
    {A}:root {A.ing}:mod>A {at}:mod>A.ing
    there:expl>A.is {A.is}:root {A}:nsubj>A.is {at}:mod>A.is
    {A}:subj>seen can:aux>seen be:aux:pass>seen seen:root {at}:mod>seen
    {A}:subj>shown {A.is}:be>shown shown:root {at}:mod>shown
    there:expl>A.is {A.is}:root {A}:nsubj>A.is {A.ing}:mod>A {at}:mod>A.ing
    [a:det>picture picture:root] of:case>A {A}:nmod>picture {at}:mod>A
""")
PAIR = _lines("""
    3 {A}:root and:cc>B {B}:conj>A {at}:mod>A
    there:expl>A.is {A.is}:root {A}:nsubj>A.is and:cc>B {B}:conj>A {at}:mod>A.is
    {A}:root with:case>B {B}:nmod>A {at}:mod>A
    [a:det>picture picture:root] of:case>A {A}:nmod>picture and:cc>B {B}:conj>A {at}:mod>A
    {A}:root together:advmod>B with:case>B {B}:nmod>A {at}:mod>A
    {both}:cc:preconj>A {A}:subj>seen and:cc>B {B}:conj>A can:aux>seen be:aux:pass>seen seen:root {at}:mod>seen
    there:expl>A.is {A.is}:root {A}:nsubj>A.is as/ADV:cc>B well:fixed>as/ADV as/ADP:fixed>as/ADV {B}:conj>A \
        {at}:mod>A.is
    {A}:subj>shown and:cc>B {B}:conj>A are:be>shown shown:root {at}:mod>shown
""")
BOND = _lines("""
    2 {A}:root {r B}:mod>A {at}:mod>A
    2 {A}:subj>A.v {A.v}:root {r B}:mod>A.v {at}:mod>A.v
    2 {A}:subj>A.ing {A.is}:be>A.ing {A.ing}:root {r B}:mod>A.ing {at}:mod>A.ing
    2 {A}:root {A.ing}:mod>A {r B}:mod>A.ing {at}:mod>A.ing
    there:expl>A.is {A.is}:root {A}:nsubj>A.is {r B}:mod>A {at}:mod>A.is
    there:expl>A.is {A.is}:root {A}:nsubj>A.is {A.ing}:mod>A {r B}:mod>A.ing {at}:mod>A.ing
    {A}:subj>r {A.is}:be>r {r B}:root {at}:mod>r
    {A}:root that:subj>A.v {A.v}:acl:relcl>A {r B}:mod>A.v {at}:mod>A.v
    there:expl>A.is {A.is}:root {A}:nsubj>A.is that:subj>A.v {A.v}:acl:relcl>A {r B}:mod>A.v {at}:mod>A.v
    {A}:root that:subj>r {A.is}:be>r {r B}:acl:relcl>A {at}:mod>r
    {B}:root with/SCONJ:mark>r {A}:nsubj>r {r B.it}:acl>B {at}:mod>B
    {B}:root with/SCONJ:mark>A.ing {A}:subj>A.ing {A.ing}:acl>B {r B.it}:mod>A.ing {at}:mod>A.ing
    {R B}:root {A.is}:be>R {A}:subj>R {at}:mod>R
    {A}:subj>seen can:aux>seen be:aux:pass>seen seen:root {r B}:mod>seen {at}:mod>seen
    {A}:subj>shown {A.is}:be>shown shown:root {r B}:mod>shown {at}:mod>shown
    {A}:subj>pictured {A.is}:be>pictured pictured:root {r B}:mod>pictured {at}:mod>pictured
    [a:det>picture picture:root] of:case>A {A}:nmod>picture {r B}:mod>A {at}:mod>A
    {B}:root that:nsubj>B.has {B.has}:acl:relcl>B {A}:obj>B.has {r B.it}:mod>A {at}:mod>B.has
""")
SIDE_BY_SIDE = _lines("""
    {A}:subj>side and:cc>B {B}:conj>A are:be>side [side:root] by:case>side/NOUN [side/NOUN:nmod>side] {at}:mod>side
    {A}:root and:cc>B {B}:conj>A right/ADV:advmod>each next/ADP:case>each to:case>each [each:mod>A \
        other:fixed>each] {at}:mod>A
""")
HOLDING = _lines("""
    {A}:subj>hold {hold}:root {B}:obj>hold {at}:mod>hold
    there:expl>A.is {A.is}:root {A}:nsubj>A.is that:subj>hold {hold}:acl:relcl>A {B}:obj>hold {at}:mod>hold
    {A}:root that:subj>hold {hold}:acl:relcl>A {B}:obj>hold {at}:mod>hold
""")
LIST = _lines("""
    {A}:root ,:punct>B {B}:conj>A and:cc>C {C}:conj>A {at}:mod>A
    {A}:root ,:punct>B {B}:conj>A ,:punct>C and:cc>C {C}:conj>A {at}:mod>A
    there:expl>A.is {A.is}:root {A}:nsubj>A.is ,:punct>B {B}:conj>A and:cc>C {C}:conj>A {at}:mod>A.is
    {A}:root and:cc>B {B}:conj>A with:case>C {C}:nmod>A {at}:mod>A
    [a:det>picture picture:root] of:case>A {A}:nmod>picture ,:punct>B {B}:conj>A and:cc>C {C}:conj>A {at}:mod>A
    {A}:subj>seen ,:punct>B {B}:conj>A and:cc>C {C}:conj>A can:aux>seen be:aux:pass>seen seen:root {at}:mod>seen
    {A}:root along:case>B with:case>B {B}:nmod>A and:cc>C {C}:conj>B {at}:mod>A
""")
BOND_AND = _lines("""
    {A}:root {r B}:mod>A ,:punct>C and:cc>C {C}:conj>A {at}:mod>A
    {A}:subj>A.v {A.v}:root {r B}:mod>A.v ,:punct>C.is and:cc>C.is there:expl>C.is {C.is}:conj>A.v \
        {C}:nsubj>C.is {at}:mod>C.is too:advmod>C.is
    {C}:root ,:punct>A and:cc>A {A}:conj>C {A.ing}:mod>A {r B}:mod>A.ing {at}:mod>A.ing
    there:expl>C.is {C.is}:root {C}:nsubj>C.is ,:punct>A.ing and:cc>A.ing {A}:subj>A.ing {A.is}:be>A.ing \
        {A.ing}:conj>C.is {r B}:mod>A.ing {at}:mod>A.ing
    {A}:subj>r {A.is}:be>r {r B}:root while:mark>seen {C}:subj>seen can:aux>seen be:aux:pass>seen seen:advcl>r \
        {at}:mod>seen
    there:expl>A.is {A.is}:root {A}:nsubj>A.is {r B}:mod>A ,:punct>C and:cc>C {C}:conj>A {at}:mod>C too:advmod>C
""")
# "a bear holding a kite, and a ball" might be holding both
VERBAL_AND = _lines("""
    there:expl>C.is {C.is}:root {C}:nsubj>C.is ,:punct>r and:cc>r {A}:subj>r {A.is}:be>r {r B}:conj>C.is {at}:mod>r
    {C}:root ,:punct>A and:cc>A {A}:conj>C {r B}:mod>A {at}:mod>r
    {A}:subj>r {A.is}:be>r {r B}:root while:mark>seen {C}:subj>seen can:aux>seen be:aux:pass>seen seen:advcl>r \
        {at}:mod>seen
    {A}:subj>r {A.is}:be>r {r B}:root ,:punct>C.is and:cc>C.is there:expl>C.is {C.is}:conj>r {C}:nsubj>C.is \
        {at}:mod>C.is too:advmod>C.is
""")
HOLDING_AND = _lines("""
    2 {A}:subj>hold {hold}:root {B}:obj>hold ,:punct>C.is and:cc>C.is there:expl>C.is {C.is}:conj>hold \
        {C}:nsubj>C.is {at}:mod>C.is too:advmod>C.is
""")
CHAIN = _lines("""
    {A}:root {r B}:mod>A ,:punct>s which:subj>s {B.is}:be>s {s C}:acl:relcl>B {at}:mod>s
    {A}:subj>A.v {A.v}:root {r B}:mod>A.v that:subj>s {B.is}:be>s {s C}:acl:relcl>B {at}:mod>s
    {A}:subj>A.ing {A.is}:be>A.ing {A.ing}:root {r B}:mod>A.ing ,:punct>B.v which:subj>B.v {B.v}:acl:relcl>B \
        {s C}:mod>B.v {at}:mod>B.v
    there:expl>A.is {A.is}:root {A}:nsubj>A.is {r B}:mod>A that:subj>B.v {B.v}:acl:relcl>B {s C}:mod>B.v {at}:mod>B.v
    {A}:subj>r {A.is}:be>r {r B}:root that:subj>s {B.is}:be>s {s C}:acl:relcl>B {at}:mod>s
""")
FORK = _lines("""
    {A}:root {r B}:mod>A and:cc>s {s C}:conj>r {at}:mod>A
    {A}:subj>A.v {A.v}:root {r B}:mod>A.v and:cc>s {s C}:conj>r {at}:mod>A.v
    {A}:subj>A.ing {A.is}:be>A.ing {A.ing}:root {r B}:mod>A.ing and:cc>s {s C}:conj>r {at}:mod>A.ing
    there:expl>A.is {A.is}:root {A}:nsubj>A.is {r B}:mod>A and:cc>s {s C}:conj>r {at}:mod>A.is
    {A}:root that:subj>r {A.is}:be>r {r B}:acl:relcl>A and:cc>s {s C}:conj>r {at}:mod>r
""")
VERBAL_FORK = _lines("""
    {A}:root {s C}:mod>A ,:punct>r {r B}:acl>A {at}:mod>r
    {A}:subj>A.v {A.v}:root {s C}:mod>A.v ,:punct>r {r B}:advcl>A.v {at}:mod>r
    {A}:subj>s {A.is}:be>s {s C}:root ,:punct>r {r B}:advcl>s {at}:mod>r
    there:expl>A.is {A.is}:root {A}:nsubj>A.is {s C}:mod>A ,:punct>r {r B}:acl>A {at}:mod>r
""")
BOTH_HELD = _lines("""
    {A}:root {r B}:mod>A and:cc>C {C}:conj>B {at}:mod>A
    {A}:subj>r {A.is}:be>r {r B}:root and:cc>C {C}:conj>B {at}:mod>r
    {A}:subj>hold {hold}:root {B}:obj>hold and:cc>C {C}:conj>B {at}:mod>hold
""")
ANCHOR = _lines("""
    {A}:root and:cc>C {C}:conj>A {r B}:mod>A {at}:mod>A
    {A}:subj>r and:cc>C {C}:conj>A are:be>r {r B}:root {at}:mod>r
    there:expl>A.is {A.is}:root {A}:nsubj>A.is and:cc>C {C}:conj>A {r B}:mod>A {at}:mod>A.is
    {B}:root with/SCONJ:mark>r {A}:nsubj>r and:cc>C {C}:conj>A {r B.it}:acl>B {at}:mod>B
    {both}:cc:preconj>A {A}:subj>r and:cc>C {C}:conj>A are:be>r {r B}:root {at}:mod>r
""")
_TWO = (PAIR, BOND, SIDE_BY_SIDE, HOLDING)
_THREE = (LIST, BOND_AND, VERBAL_AND, HOLDING_AND, CHAIN, FORK, VERBAL_FORK, BOTH_HELD, ANCHOR)
SENTENCES: tuple[Line, ...] = tuple(line for lines in (ONE, ONE_AT, *_TWO, *_THREE) for line in lines)


# --- relations and places --------------------------------------------------------------------------------------------


def _words(*options: str) -> tuple[tuple[Line, Line], ...]:
    """Each way to say a relation, of a noun and after a verb; the two differ where "|" parts them."""
    return tuple((parse(o.split(" | ")[0]), parse(o.split(" | ")[-1])) for o in options)


def _side(side: str) -> tuple[tuple[Line, Line], ...]:
    noun = f"[the:det>{side}/NOUN {side}/NOUN:top] of:case>* *:nmod>{side}/NOUN"
    to, on = f"to:case>{side}/NOUN {noun}", f"on:case>{side}/NOUN {noun}"
    return _words(to, to, f"{side}/ADV:top of:case>* *:obl>{side}/ADV", on)


# The first of each is the one that may begin a sentence.
RELATIONS: dict[str, tuple[tuple[Line, Line], ...]] = {
    "left of": _side("left"),
    "right of": _side("right"),
    "above": _words("above:case>* *:top", "over:case>* *:top"),
    "below": _words("below:case>* *:top", "beneath:case>* *:top", "underneath:case>* *:top"),
    "next to": _words(
        "next/ADP:case>* to:case>* *:top | next/ADV:top to:case>* *:obl>next/ADV",
        "beside:case>* *:top",
        "near:case>* *:top",
        "close/ADJ:top to:case>* *:obl>close/ADJ | close/ADV:top to:case>* *:obl>close/ADV",
        "by:case>* *:top",
    ),
    "on": _words("on:case>* *:top", "on:case>* *:top", "on:case>top [top:top] of:case>* *:nmod>top"),
    "behind": _words("behind:case>* *:top"),
    "in front of": _words("in:case>front [front:top] of:case>* *:nmod>front"),
    "holding": _words("holding:top *:obj>holding", "holding:top *:obj>holding", "carrying:top *:obj>carrying"),
    "held by": _words(
        "held:top by:case>* *:obl:agent>held", "held:top by:case>* *:obl:agent>held",
        "carried:top by:case>* *:obl:agent>carried",
    ),
}  # fmt: skip


def _place(*options: str) -> tuple[Line, ...]:
    """From "on the beach", all of it but the first word a noun phrase that ends in its head; one word is an adverb."""
    return tuple(parse(_located(*option.split())) for option in options)


def _located(first: str, *phrase: str) -> str:
    if not phrase:
        return f"{first}:top"
    *before, noun = phrase
    kinds = {"DET": "det", "ADJ": "amod", "NOUN": "compound"}
    items = [f"{word}:{kinds[TAGS[word].upos]}>{noun}" for word in before]
    return f"{first}:case>{noun} [" + " ".join([*items, f"{noun}:top]"])


# A place is said in words that suit what is there: all of it on the ground, on the water, or anything at all.
PLACES: dict[str, dict[str, tuple[Line, ...]]] = {
    "beach": {
        "ground": _place("on the beach", "on the sand", "at the beach", "on a sandy beach"),
        "any": _place("at the beach", "at the seaside"),
    },
    "meadow": {
        "ground": _place("on the grass", "in a meadow", "in a green field", "in the grass"),
        "any": _place("in a meadow", "in the countryside"),
    },
    "night": {"any": _place("at night", "in the dark", "under a night sky")},
    "room": {
        "ground": _place("on the floor", "in a room", "inside a room"),
        "any": _place("in a room", "inside a room", "indoors"),
    },
    "sea": {"water": _place("in the water", "in the sea", "in the ocean"), "any": _place("at sea", "at the ocean")},
    "snow": {
        "ground": _place("in the snow", "on the snow", "on the snowy ground"),
        "any": _place("in the snow", "in winter"),
    },
    "street": {
        "ground": _place("on the street", "on the road", "in the street"),
        "any": _place("in a city", "in town"),
    },
}


# --- which sentence says which plan ----------------------------------------------------------------------------------


def sentences(plan: Plan, silent: Collection[str]) -> list[Line]:
    """The templates that say exactly what the plan says, in order. `silent`: letters of mentions without a verb."""
    verbal = {letter for letter, bond in zip("rs", plan.bonds, strict=False) if bond.name in VERBAL}
    return [_low(line, verbal) for line in _shape(plan) if _fits(line, silent, verbal)]


def _shape(plan: Plan) -> tuple[Line, ...]:
    number, bonds = len(plan.mentions), [(b.a, b.b) for b in plan.bonds]
    name = plan.bonds[0].name if plan.bonds else None
    if number == 1:
        return ONE_AT if plan.place else ONE
    if number == 2:
        return {None: PAIR, "next to": BOND + SIDE_BY_SIDE, "holding": BOND + HOLDING}.get(name, BOND)
    if bonds == [(0, 1)] and name in VERBAL:
        return VERBAL_AND + (HOLDING_AND if name == "holding" else ())
    if bonds == [(0, 1), (0, 2)] and name in VERBAL:
        return BOTH_HELD if plan.bonds[1].name in VERBAL else VERBAL_FORK
    shapes = {(): LIST, ((0, 1),): BOND_AND, ((0, 1), (1, 2)): CHAIN, ((0, 1), (0, 2)): FORK, ((0, 1), (2, 1)): ANCHOR}
    return shapes[tuple(bonds)]


def verb_first(plan: Plan) -> Plan:
    """A fork told with its verbal relation first, as VERBAL_FORK wants it."""
    if len(plan.bonds) != 2 or {(b.a, b.b) for b in plan.bonds} != {(0, 1), (0, 2)} or plan.bonds[1].name not in VERBAL:
        return plan
    first, second = (replace(b, b=3 - b.b) for b in plan.bonds)
    return replace(plan, mentions=(plan.mentions[0], plan.mentions[2], plan.mentions[1]), bonds=(second, first))


def after_verb(item: Item) -> bool:
    """Whether a relation hangs on a verb."""
    return item.relation == "mod" and item.head is not None and item.head.endswith((".v", ".ing", *PASSIVES))


def _fits(line: Line, silent: Collection[str], verbal: Collection[str]) -> bool:
    for item in (item for item in line if item.slot):
        letter, _, form = item.name.partition(".")
        if letter in silent and form in ("v", "ing"):
            return False
        relation = letter.split()[0].lower()
        said_with_verb = relation in verbal and relation in ("r", "s")
        if said_with_verb and (letter[0] == "R" or form == "it" or after_verb(item)):
            return False
    return True


def _low(line: Line, verbal: Collection[str]) -> Line:
    """After a verbal relation the place hangs on its verb: "a bear holding a kite at the beach"."""
    told = list(line)
    for i, (before, item) in enumerate(zip(line, line[1:], strict=False), 1):
        relation = before.name.split()[0]
        if item.name == "at" and before.relation == "mod" and before.head == item.head and relation in verbal:
            told[i] = item._replace(head=relation)
    return tuple(told)
