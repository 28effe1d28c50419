"""One sentence as a tree of 0-based word indices; safe on any input, cyclic heads included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from stages.parse.phrase_words import IRREGULAR_PLURALS


class WordLike(Protocol):
    """What is read of a word: `id` and `head` are 1-based within the sentence (head 0 = root); `start_char` and
    `end_char` are character offsets into the caption, end exclusive; `feats` is "Number=Plur|..." or None.
    """

    id: int
    text: str
    lemma: str | None
    upos: str
    xpos: str | None
    feats: str | None
    head: int
    deprel: str
    start_char: int
    end_char: int


class Word(NamedTuple):
    """A plain word, for callers that have no Stanza document."""

    id: int
    text: str
    lemma: str | None
    upos: str
    xpos: str | None
    feats: str | None
    head: int
    deprel: str
    start_char: int
    end_char: int


class Tree:
    """`words`: the words of one sentence in order, with `head` 1-based (0 = root), as Stanza gives them."""

    def __init__(self, words: Sequence[WordLike]) -> None:
        self.words = words
        self._parent = [word.head - 1 if 0 < word.head <= len(words) else -1 for word in words]
        self._children: list[list[int]] = [[] for _ in words]
        for index, parent in enumerate(self._parent):
            if parent >= 0:
                self._children[parent].append(index)
        self._chains = [self._chain(index) for index in range(len(words))]
        self._leftmost = list(range(len(words)))
        for index, chain in enumerate(self._chains):
            for ancestor in chain:
                self._leftmost[ancestor] = min(self._leftmost[ancestor], index)

    def _chain(self, index: int) -> list[int]:
        chain = [index]
        while (parent := self._parent[chain[-1]]) >= 0 and parent not in chain:
            chain.append(parent)
        return chain

    def children(self, index: int) -> list[int]:
        return self._children[index]

    def ancestors(self, index: int) -> list[int]:
        """Governor, its governor, and so on to the root."""
        return self._chains[index][1:]

    def below(self, index: int, ancestor: int) -> bool:
        """Whether `index` depends on `ancestor`, however far down (not on itself)."""
        return index != ancestor and ancestor in self._chains[index]

    def branch(self, index: int, ancestor: int) -> int:
        """The direct child of `ancestor` that `index` is, or is below; `below(index, ancestor)` must hold."""
        chain = self._chains[index]
        return chain[chain.index(ancestor) - 1]

    def leftmost(self, index: int) -> int:
        """The first word of the subtree of `index`."""
        return self._leftmost[index]

    def relation(self, index: int) -> str:
        """The word's relation; of a conjunct, that of the first of the coordinated words."""
        for step in self._chains[index]:
            if self.words[step].deprel != "conj":
                return self.words[step].deprel
        return "conj"

    def lemma(self, index: int) -> str:
        word = self.words[index]
        lemma = (word.lemma if word.lemma and word.lemma != "_" else word.text).lower()
        return IRREGULAR_PLURALS.get(lemma, lemma)
