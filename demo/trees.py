"""Words and dependency trees from one source: the notation that templates are written in, and CoNLL-U.

A template is a line of items, each with its relation and its head (Universal Dependencies v2, as in UD English EWT):

    {A}:subj>A.ing {A.is}:be>A.ing {A.ing}:root {r B}:mod>A.ing {at}:mod>A.ing
    to:case>right/NOUN [the:det>right/NOUN right/NOUN:top] of:case>* *:nmod>right/NOUN

`word:relation>head` is a word of `demo.lexicon.TAGS`, `{slot}:relation>head` stands for words filled in later; a head
is named by its own word or slot. One item of a line is its top: `root` in a sentence, `top` in a part of one. `*` is
the complement of a relation ("to the right of *"); in `{r B}` the relation's top answers to `r`, its complement to `B`.
[Brackets] mark a noun phrase.

Three relations depend on the words that fill the slots and are settled once these are known:

    subj   nsubj, or nsubj:pass of a past participle
    be     cop, or before a verb aux, or aux:pass
    mod    of a noun: nmod, acl, amod or advmod; of a verb or a predicate: obl, advcl or advmod
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from demo.lexicon import TAGS, Tag

NOMINAL = frozenset({"NOUN", "PROPN", "PRON", "NUM", "DET"})
BARE = frozenset({"root", "top"})  # the relations without a head
OPEN = frozenset({"subj", "be", "mod"})  # the relations that are settled late
RELATIONS = frozenset(
    [
        "acl", "acl:relcl", "advcl", "advmod", "amod", "aux", "aux:pass", "case", "cc", "cc:preconj", "compound",
        "conj", "cop", "det", "expl", "fixed", "mark", "nmod", "nsubj", "nsubj:pass", "nummod", "obj", "obl",
        "obl:agent", "punct", "root",
    ]
)  # fmt: skip
_ITEM = re.compile(r"(\[?)(\{[^}]+\}|[^\s:\[\]{}]+):([a-z]+(?::[a-z]+)?)(?:>([^\s\]]+))?(\]?)(?:\s+|$)")


class TemplateError(ValueError):
    """A line of the notation that cannot be read: what is wrong, and the line."""


class Item(NamedTuple):
    """One item of a line. `name` is a word of TAGS, or what stands in braces if `slot`; `head` is another's name."""

    name: str
    slot: bool
    relation: str
    head: str | None
    opens: bool
    closes: bool

    @property
    def labels(self) -> list[str]:
        """What others call it: its name; of "r B" both letters."""
        return self.name.split()


@dataclass(eq=False)
class Node:
    """A word in the making; `glued`: no space before it."""

    form: str
    tag: Tag
    relation: str = "top"
    head: "Node | None" = None
    glued: bool = False


@dataclass
class Part:
    """Words in order with one top; `marks` are noun phrases: (what is known of it, first word, last word)."""

    nodes: list[Node]
    top: Node
    marks: list[tuple[Any, Node, Node]] = field(default_factory=list)
    labels: dict[str, Node] = field(default_factory=dict)


class Token(NamedTuple):
    """A word of a caption: `caption[start:end] == form`; `head` is the id of its governor, 0 for the root."""

    id: int
    form: str
    lemma: str
    upos: str
    xpos: str
    feats: str
    head: int
    deprel: str
    start: int
    end: int


class Parsed(Protocol):
    """What `conllu` needs of a caption."""

    text: str
    tree: tuple[Token, ...]


def word(name: str, relation: str = "top", head: Node | None = None) -> Node:
    """A word of TAGS."""
    form = name.split("/")[0]
    return Node(form, TAGS[name], relation, head, glued=form in (",", "."))


def single(node: Node) -> Part:
    """A part of one word."""
    return Part([node], node)


def parse(line: str) -> tuple[Item, ...]:
    """The items of a line. Raises TemplateError for an unknown word, relation or head, or for not exactly one top."""
    items, position = [], 0
    while position < len(line):
        match = _ITEM.match(line, position)
        if match is None:
            raise TemplateError(f"cannot read {line[position:]!r} in {line!r}")
        opens, name, relation, head, closes = match.groups()
        slot = name.startswith("{") or name == "*"
        items.append(Item(name.strip("{}"), slot, relation, head, bool(opens), bool(closes)))
        position = match.end()
    labels = [label for item in items for label in item.labels]
    depth = 0
    for item in items:
        if not item.slot and item.name not in TAGS:
            raise TemplateError(f"{item.name!r} has no tag in demo.lexicon.TAGS: {line!r}")
        if item.relation not in RELATIONS | OPEN | BARE:
            raise TemplateError(f"unknown relation {item.relation!r} in {line!r}")
        if (item.head is None) != (item.relation in BARE):
            raise TemplateError(f"{item.name!r} must have a head, or be the root or top, in {line!r}")
        if item.head is not None and labels.count(item.head) != 1:
            raise TemplateError(f"head {item.head!r} is there {labels.count(item.head)} times, not once, in {line!r}")
        depth += item.opens
        if depth > 1:
            raise TemplateError(f"brackets within brackets in {line!r}")
        depth -= item.closes
    if depth or sum(item.relation in BARE for item in items) != 1:
        raise TemplateError(f"one root or top, and every bracket closed, please: {line!r}")
    return tuple(items)


def assemble(items: Iterable[Item], fill: Callable[[Item], Part | None], mark: Callable[[str], Any]) -> Part:
    """The words of a line. `fill` gives the words of a slot, or None where it stays empty; `mark` what is known of a
    bracketed noun phrase, by its text."""
    parts: list[tuple[Item, Part]] = []
    for item in items:
        part = fill(item) if item.slot else single(word(item.name))
        if part is not None:
            parts.append((item, part))
    labels = {}
    for item, part in parts:
        labels |= {item.labels[0]: part.top} | part.labels
    predicates = {item.head for item, _ in parts if item.relation in ("subj", "be", "nsubj")}
    whole = Part([], next(part.top for item, part in parts if item.relation in BARE), labels=labels)
    first: Node | None = None
    for item, part in parts:
        if item.head is not None:
            part.top.head = labels[item.head]
            part.top.relation = _settled(item.relation, part.top, part.top.head, item.head in predicates)
        if part.top.tag.lemma == "be" and part.top.relation in ("cop", "aux", "aux:pass"):
            part.top.tag = part.top.tag._replace(upos="AUX")
        whole.nodes += part.nodes
        whole.marks += part.marks
        first = part.nodes[0] if item.opens else first
        if item.closes and first is not None:
            span = whole.nodes[whole.nodes.index(first) :]
            whole.marks.append((mark(spelled(span)), first, part.nodes[-1]))
    return whole


def _settled(relation: str, node: Node, head: Node, predicate: bool) -> str:
    """`relation`, or what an open one comes to between these two words."""
    if relation == "subj":
        return "nsubj:pass" if head.tag.xpos == "VBN" else "nsubj"
    if relation == "be":
        if head.tag.upos != "VERB":
            return "cop"
        return "aux:pass" if head.tag.xpos == "VBN" else "aux"
    if relation == "mod":
        of_noun = head.tag.upos in NOMINAL and not predicate
        if node.tag.upos in NOMINAL:
            return "nmod" if of_noun else "obl"
        return {"VERB": "acl" if of_noun else "advcl", "ADJ": "amod" if of_noun else "advmod"}.get(
            node.tag.upos, "advmod"
        )
    return relation


def spelled(nodes: Iterable[Node]) -> str:
    """Their text."""
    return "".join(n.form if n.glued else " " + n.form for n in nodes).lstrip(" ")


def tokens(part: Part) -> tuple[Token, ...]:
    """The finished sentence, `part.top` its root, with offsets into `spelled(part.nodes)`."""
    number = {id(node): i for i, node in enumerate(part.nodes, 1)}
    found, end = [], 0
    for i, node in enumerate(part.nodes, 1):
        start = end + (i > 1 and not node.glued)
        end = start + len(node.form)
        head, relation = (0, "root") if node is part.top else (number[id(node.head)], node.relation)
        found.append(Token(i, node.form, *node.tag, head, relation, start, end))
    return tuple(found)


def conllu(caption: Parsed, sent_id: str | int) -> str:
    """The caption's tree as a CoNLL-U block, with a blank line after it."""
    lines = [f"# sent_id = {sent_id}", f"# text = {caption.text}"]
    for token, after in zip(caption.tree, [*caption.tree[1:], None], strict=True):
        glued = after is not None and after.start == token.end
        fields = (*token[:8], "_", "SpaceAfter=No" if glued else "_")
        lines.append("\t".join(map(str, fields)))
    return "\n".join(lines) + "\n\n"
