"""From one parsed caption to its noun phrases, as character spans.

Pure functions over dependency trees in Universal Dependencies (v2) terms; no parser is imported. A word is anything
with the attributes of `phrase_tree.Word`, so the words of a Stanza document can be passed as they are:

    kept, dropped = noun_phrases(caption, [s.words for s in document.sentences], PhraseOptions(span="base"))

Three constructions are not read off the tree as they stand, because their grammatical head is not the thing seen:

* quantity ("a group of men", "a couple of dogs", "two of the cars"): the phrase is the whole of it, its head is the
  noun after "of" ("man");
* portion ("a slice of pizza", "two heads of broccoli"): likewise, but number and count are those of the portion;
* possession ("the man's hat"): one phrase for the thing owned, and one inside it for the owner.

Containers ("a cup of coffee") are things of their own: "a cup" and "coffee" are two phrases.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from stages.parse import phrase_words as wordlists
from stages.parse.phrase_repair import without_verbs_in_nouns
from stages.parse.phrase_tree import Tree, Word, WordLike

__all__ = ["DroppedPhrase", "Phrase", "PhraseOptions", "Word", "noun_phrases"]


@dataclass(frozen=True)
class PhraseOptions:
    """`span`: "base" is the head noun with its modifiers to the left; "maximal" adds what depends on it to the right
    (prepositional phrases, participles), but for relative clauses, conjuncts and final punctuation.
    `drop_heads`: head lemmas that name no visible thing ("top", "side"). `max_words`: longest phrase, punctuation
    not counted.
    """

    span: Literal["base", "maximal"] = "base"
    drop_pronouns: bool = True
    drop_heads: frozenset[str] | tuple[str, ...] | list[str] = ()
    max_words: int = 12


@dataclass(frozen=True)
class Phrase:
    """One noun phrase; `caption[start:end] == text` in Unicode characters.

    `head`: lemma of the head, lower-case; of a compound that its last word belies ("hot dog"), the whole compound.
    `number`: "sing" or "plur". `count`: the number said ("two dogs" 2, "one dog" 1), None where none is.
    `key`: the phrase lower-case, without its leading determiner, numeral or owner, the head as lemma.
    `kind`: "noun", "name" (proper noun) or "pronoun".
    """

    start: int
    end: int
    text: str
    head: str
    number: Literal["sing", "plur"]
    count: int | None
    key: str
    kind: Literal["noun", "name", "pronoun"]


@dataclass(frozen=True)
class DroppedPhrase:
    """A phrase a rule took out; `reason` is "pronoun", "abstract_head", "too_long" or "no_letters"."""

    phrase: Phrase
    reason: str


class Span(NamedTuple):
    """Word indices within a sentence, 0-based, `last` included. `outer` is the quantity or portion word before "of"."""

    first: int
    last: int
    head: int
    outer: int | None = None


def noun_phrases(
    caption: str, sentences: Iterable[Sequence[WordLike]], options: PhraseOptions
) -> tuple[list[Phrase], list[DroppedPhrase]]:
    """All noun phrases of a parsed caption, in order of their start (the longer first), kept and dropped.

    Spans may nest (owner and thing owned; with `span="maximal"`, what a phrase contains), never repeat and never leave
    their sentence. A sentence without a noun gives none.
    """
    heads = frozenset(options.drop_heads)
    kept: list[Phrase] = []
    dropped: list[DroppedPhrase] = []
    seen: set[tuple[int, int]] = set()
    for words in sentences:
        tree = without_verbs_in_nouns(Tree(words))
        for span in _spans(tree, options.span):
            phrase = _phrase(caption, tree, span)
            if (phrase.start, phrase.end) in seen:
                continue
            seen.add((phrase.start, phrase.end))
            reason = _drop_reason(tree, span, phrase, options, heads)
            if reason:
                dropped.append(DroppedPhrase(phrase, reason))
            else:
                kept.append(phrase)
    return kept, dropped


def _drop_reason(
    tree: Tree, span: Span, phrase: Phrase, options: PhraseOptions, drop_heads: frozenset[str]
) -> str | None:
    if phrase.kind == "pronoun" and options.drop_pronouns:
        return "pronoun"
    if not any(c.isalpha() for c in phrase.head):
        return "no_letters"
    if phrase.head in drop_heads:
        return "abstract_head"
    words = sum(w.upos != "PUNCT" for w in tree.words[span.first : span.last + 1])
    return "too_long" if words > options.max_words else None


def _spans(tree: Tree, mode: str) -> list[Span]:
    bases = {head: _base(tree, head) for head in range(len(tree.words)) if _is_head(tree, head)}
    outer_of = {head: outer for head in bases if (outer := _outer_noun(tree, head, bases)) is not None}
    absorbed = set(outer_of.values())
    spans = []
    for head, (first, last) in bases.items():
        if head in absorbed or _inside_another(tree, head, bases):
            continue
        outermost = head
        while outermost in outer_of:
            outermost = outer_of[outermost]
            first = bases[outermost][0] if outermost in bases else outermost
        end = _maximal_end(tree, head, last) if mode == "maximal" else last
        spans.append(Span(first, end, head, outer_of.get(head)))
    return sorted(spans, key=lambda s: (s.first, -s.last))


def _is_head(tree: Tree, index: int) -> bool:
    word, relation = tree.words[index], tree.relation(index)
    if relation in wordlists.NOT_A_HEAD or word.upos not in wordlists.NOMINAL_TAGS:
        return False
    if word.upos == "PRON":
        return relation != "nmod:poss" and word.xpos not in wordlists.QUESTION_TAGS
    if word.upos in ("NOUN", "PROPN"):
        return True
    if word.upos == "ADJ":
        determined = any(tree.words[c].deprel in ("det", "nmod:poss") for c in tree.children(index))
        return determined and relation in wordlists.NOMINAL_RELATIONS
    return relation in wordlists.NOMINAL_RELATIONS or _of_follows(tree, index)


def _base(tree: Tree, head: int) -> tuple[int, int]:
    """First and last word of the head with its left modifiers (and names or numbers run on to the right)."""
    first = head
    for child in tree.children(head):
        if child < head and tree.words[child].deprel in wordlists.LEFT_MODIFIERS:
            first = min(first, tree.leftmost(child))
    # A word between that is no modifier ("the [is] dog", a preposition of another phrase) ends the phrase there.
    for index in range(head - 1, first - 1, -1):
        if not tree.below(index, head) or tree.words[tree.branch(index, head)].deprel in wordlists.NEVER_INSIDE:
            first = index + 1
            break
    while first < head and (tree.words[first].upos in ("PUNCT", "CCONJ", "ADP") or tree.words[first].deprel == "cc"):
        first += 1
    # "a beach flying kites": the participle after another noun is what that noun does, not what the kites are like.
    if 0 < first < head and tree.words[first].xpos == "VBG" and tree.words[first - 1].upos in ("NOUN", "PROPN"):
        first += 1
    last = head
    while last + 1 < len(tree.words) and _runs_on(tree, head, last + 1):
        last += 1
    return first, last


def _runs_on(tree: Tree, head: int, index: int) -> bool:
    if not tree.below(index, head):
        return False
    branch = tree.branch(index, head)
    relation = tree.words[branch].deprel
    return branch > head and (
        relation in ("flat", "goeswith")
        or (relation in ("nummod", "compound") and tree.words[branch].upos in ("NUM", "PROPN"))
    )


def _maximal_end(tree: Tree, head: int, last: int) -> int:
    end = last
    while end + 1 < len(tree.words) and tree.below(end + 1, head):
        branch = tree.branch(end + 1, head)
        if branch < head or tree.words[branch].deprel not in wordlists.RIGHT_MODIFIERS:
            break
        end += 1
    while end > last and tree.words[end].upos == "PUNCT":
        end -= 1
    return end


def _inside_another(tree: Tree, head: int, bases: dict[int, tuple[int, int]]) -> bool:
    """True for a noun that modifies another from the left ("[baseball] player"); owners keep their own phrase."""
    for other in tree.ancestors(head):
        if other in bases and bases[other][0] <= head <= bases[other][1]:
            return tree.words[tree.branch(head, other)].deprel != "nmod:poss"
    return False


def _of_follows(tree: Tree, index: int) -> bool:
    return index + 1 < len(tree.words) and tree.words[index + 1].text.lower() == "of"


def _outer_noun(tree: Tree, head: int, bases: dict[int, tuple[int, int]]) -> int | None:
    """The quantity or portion word X of "X of <this phrase>", if there is one. The words decide, not the
    attachment: parsers often hang the "of" on the verb.
    """
    first, _ = bases[head]
    outer = first - 2
    if outer < 0 or tree.words[first - 1].text.lower() != "of":
        return None
    word, lemma = tree.words[outer], tree.lemma(outer)
    if outer in bases and lemma in wordlists.QUANTITIES:
        return outer
    if outer in bases and lemma in wordlists.PORTIONS and tree.words[first].upos != "DET":
        return outer
    counted = word.upos in ("NUM", "DET", "PRON", "ADJ") and lemma in wordlists.PARTITIVES
    return outer if counted or (word.upos == "NUM" and wordlists.number_said(word.text) is not None) else None


def _phrase(caption: str, tree: Tree, span: Span) -> Phrase:
    words = tree.words
    start, end = words[span.first].start_char, words[span.last].end_char
    number, count = _number(tree, span)
    return Phrase(
        start,
        end,
        caption[start:end],
        _head_lemma(tree, span.head),
        number,
        count,
        _key(caption, tree, span),
        _kind(words[span.head]),
    )


def _kind(word: WordLike) -> Literal["noun", "name", "pronoun"]:
    if word.upos == "PROPN":
        return "name"
    stands_for_a_noun = word.upos == "ADJ" and word.text.lower() not in wordlists.ELLIPTIC
    return "noun" if word.upos == "NOUN" or stands_for_a_noun else "pronoun"


def _head_lemma(tree: Tree, head: int) -> str:
    lemma = tree.lemma(head)
    if head and (compound := f"{tree.words[head - 1].text.lower()} {lemma}") in wordlists.BELYING_COMPOUNDS:
        return compound
    # The parts of a name hang on its first word: "San" alone is not what "San Jose" is about.
    name = [tree.words[c].text.lower() for c in tree.children(head) if tree.words[c].deprel == "flat" and c > head]
    return " ".join([lemma, *name])


def _number(tree: Tree, span: Span) -> tuple[Literal["sing", "plur"], int | None]:
    """Grammatical number and the count said, of the quantity word where that decides."""
    if span.outer is None:
        return _number_of_noun(tree, span.head)
    lemma = tree.lemma(span.outer)
    if lemma in wordlists.PAIRS:
        if tree.lemma(span.head) in wordlists.PAIRED_ONE:
            number, count = _number_of_noun(tree, span.outer)
            return number, count
        one = _number_of_noun(tree, span.outer)[0] == "sing"
        return "plur", 2 if one else None
    if lemma in wordlists.PORTIONS:
        return _number_of_noun(tree, span.outer)
    count = wordlists.number_said(tree.words[span.outer].text)
    if count is not None:
        return ("sing" if count == 1 else "plur"), count
    number, count = _number_of_noun(tree, span.head)
    if lemma in wordlists.QUANTITIES:
        return ("plur" if lemma in wordlists.GROUPS else number), count
    return number, None


def _number_of_noun(tree: Tree, head: int) -> tuple[Literal["sing", "plur"], int | None]:
    word = tree.words[head]
    plural = "Number=Plur" in (word.feats or "") or word.xpos in ("NNS", "NNPS")
    plural = plural or word.text.lower() in wordlists.IRREGULAR_PLURALS
    if tree.lemma(head) in wordlists.PAIRED_ONE:
        plural = False
    count = None
    for child in tree.children(head):
        relation, text = tree.words[child].deprel, tree.words[child].text.lower()
        if relation == "nummod" and child < head:
            alternatives = any(tree.words[c].deprel == "conj" for c in tree.children(child))
            count = None if alternatives else wordlists.number_said(text)
        elif child < head and text in wordlists.PLURAL_QUANTIFIERS:
            plural = True
            count = 2 if text == "both" else count
    if count is not None:
        plural = count > 1
    return ("plur" if plural else "sing"), count


def _key(caption: str, tree: Tree, span: Span) -> str:
    words, head = tree.words, span.head
    first, _ = _base(tree, head)
    while first < head and (
        words[tree.branch(first, head)].deprel in wordlists.STRIPPED_FROM_KEY
        or words[first].upos in ("PUNCT", "DET")
        or words[first].text.lower() in wordlists.QUANTIFIERS
    ):
        first += 1
    before = caption[words[first].start_char : words[head].start_char]
    after = caption[words[head].end_char : words[span.last].end_char]
    return " ".join((before + tree.lemma(head) + after).lower().split())
