"""Undo a common error of small parsers on captions: the verb taken for the last noun of a compound.

Captions put a verb right after its subject ("a giraffe stands by a tree", "a table eating food"); web text seldom does
so without an auxiliary, and a parser trained on it makes "giraffe stands" one compound noun. Where number or form gives
the verb away, the noun before it becomes the head again; so does the noun of "a jar full of juice".
"""

from __future__ import annotations

from stages.parse import phrase_words as wordlists
from stages.parse.phrase_tree import Tree, Word

NOUNS = ("NOUN", "PROPN")


def without_verbs_in_nouns(tree: Tree) -> Tree:
    """The same tree, or one in which verbs in noun compounds hang on the noun before them (relation acl)."""
    for head in range(1, len(tree.words)):
        verb = _verb_in_compound(tree, head)
        if verb is not None:
            tree = _cut(tree, verb, head)
    return tree


def _verb_in_compound(tree: Tree, head: int) -> int | None:
    """Index of the word in the compound that ends in `head` that must be a verb, if there is one."""
    if tree.words[head].upos == "ADJ" and tree.words[head - 1].upos in NOUNS and _compounded(tree, head - 1, head):
        return head
    if tree.words[head].upos not in NOUNS:
        return None
    for index in range(max(tree.leftmost(head) + 1, 1), head + 1):
        if tree.words[index - 1].upos not in NOUNS or not _compounded(tree, index - 1, head):
            continue
        if (
            index < head
            and _compounded(tree, index, head)
            and _is_participle(tree, index)
            and _takes_object(tree, index)
        ):
            return index
        if index == head and (_is_participle(tree, head) and _determined(tree, head) or _disagrees(tree, head)):
            return index
    return None


def _compounded(tree: Tree, index: int, head: int) -> bool:
    return tree.below(index, head) and tree.words[tree.branch(index, head)].deprel in ("compound", "amod", "nmod")


def _is_participle(tree: Tree, index: int) -> bool:
    """Whether the word, after a noun, ends in -ing and is a verb: tagged so, or none of the usual nouns in -ing."""
    text = tree.words[index].text.lower()
    tagged = tree.words[index].upos == "VERB" and tree.words[index].xpos == "VBG"
    return text.endswith("ing") and (tagged or text not in wordlists.ING_NOUNS)


def _takes_object(tree: Tree, index: int) -> bool:
    return tree.lemma(index + 1) not in wordlists.AFTER_ING


def _before(tree: Tree, head: int) -> list[int]:
    """What stands before the head in its phrase; a determiner may hang on any noun of a wrongly built compound."""
    return [i for i in range(tree.leftmost(head), head) if tree.below(i, head)]


def _determined(tree: Tree, head: int) -> bool:
    return any(tree.words[i].deprel in ("det", "nummod", "nmod:poss") for i in _before(tree, head))


def _disagrees(tree: Tree, head: int) -> bool:
    """Whether determiner and last word differ in number while determiner and the word before it agree."""
    said = {tree.words[i].text.lower() for i in _before(tree, head)}
    last, before = _plural(tree, head), _plural(tree, head - 1)
    if last and not before:
        return bool(said & wordlists.SINGULAR_DETERMINERS)
    many = "other" in said or bool(said & wordlists.PLURAL_QUANTIFIERS) or _quantity_before(tree, tree.leftmost(head))
    return before and not last and (many or any((wordlists.number_said(w) or 0) > 1 for w in said))


def _quantity_before(tree: Tree, first: int) -> bool:
    """ "a variety of" before [signs point]; "of" may or may not be counted in the subtree that starts at `first`."""
    of = first if tree.words[first].text.lower() == "of" else first - 1
    return of > 0 and tree.words[of].text.lower() == "of" and tree.lemma(of - 1) in wordlists.QUANTITIES


def _plural(tree: Tree, index: int) -> bool:
    return tree.words[index].xpos in ("NNS", "NNPS") or "Number=Plur" in (tree.words[index].feats or "")


def _cut(tree: Tree, verb: int, head: int) -> Tree:
    """Make the noun before `verb` the head of what stood before it; what stands after `verb` becomes its object."""
    noun = verb - 1
    parents = [word.head for word in tree.words]
    relations = [word.deprel for word in tree.words]
    for child in tree.children(head):
        if child < noun:
            parents[child] = noun + 1
    parents[noun], relations[noun] = tree.words[head].head, tree.words[head].deprel
    parents[verb], relations[verb] = noun + 1, "acl"
    if verb != head:
        parents[head], relations[head] = verb + 1, "obj"
    words = []
    for index, word in enumerate(tree.words):
        upos = "VERB" if index == verb else word.upos
        tags = (word.text, word.lemma, upos, word.xpos, word.feats)
        words.append(Word(word.id, *tags, parents[index], relations[index], word.start_char, word.end_char))
    return Tree(words)
