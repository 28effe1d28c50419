"""CoNLL-U treebanks: reading, flattening, and the copies that make a parser robust to captions.

Captions differ from treebank text in three ways: they are often all lower-case, they often have no final
full stop, and many are a bare noun phrase ("a man riding a wave"). The functions here make such copies out of
the treebank's own sentences; nothing is added that an annotator did not write.
"""

from __future__ import annotations

import gzip
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from demo.captions import Caption

NOMINAL_RELATIONS = frozenset(
    ["nsubj", "obj", "obl", "nmod", "nsubj:pass", "iobj", "appos", "conj", "obl:unmarked", "root", "obl:agent"]
)
FRAGMENT_WORDS = (2, 16)


@dataclass(frozen=True)
class Word:
    """One syntactic word; `head` is 0 for the root, else the 1-based index of the governor in its sentence."""

    form: str
    lemma: str
    upos: str
    xpos: str
    feats: str
    head: int
    deprel: str
    space_after: bool = True


@dataclass(frozen=True)
class Sentence:
    words: tuple[Word, ...]
    new_paragraph: bool = False

    @property
    def text(self) -> str:
        return "".join(w.form + (" " if w.space_after else "") for w in self.words).rstrip(" ")


def read_conllu(path: Path) -> list[Sentence]:
    """Read a treebank file (plain or .gz). Empty nodes are dropped; a multi-word token ("don't") becomes its words,
    written without a space between them, so that a pipeline without a word expander learns to split it itself.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    sentences: list[Sentence] = []
    rows: list[list[str]] = []
    new_paragraph = False
    with opener(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            line = line.rstrip("\n")
            if line.startswith(("# newpar", "# newdoc")):
                new_paragraph = True
            elif line and not line.startswith("#"):
                rows.append(line.split("\t"))
            elif not line and rows:
                sentences.append(Sentence(tuple(_words(rows)), new_paragraph))
                rows, new_paragraph = [], False
    if rows:
        sentences.append(Sentence(tuple(_words(rows)), new_paragraph))
    return sentences


def _words(rows: Iterable[list[str]]) -> Iterator[Word]:
    token_end, token_spaced = 0, True
    for row in rows:
        index, form, lemma, upos, xpos, feats, head, deprel, _, misc = row
        spaced = "SpaceAfter=No" not in misc
        if "-" in index:
            token_end, token_spaced = int(index.split("-")[1]), spaced
        elif "." not in index:
            if int(index) < token_end:
                spaced = False
            elif int(index) == token_end:
                spaced = token_spaced
            # Some lemmas of typos are "_": the pipeline must always give a lemma, so the form stands in.
            yield Word(
                form, form if lemma == "_" and form != "_" else lemma, upos, xpos, feats, int(head), deprel, spaced
            )


def of_caption(caption: Caption) -> Sentence:
    """The tree that the demo world's grammar gives a caption, a paragraph of its own."""
    tokens = caption.tree
    after = [*(token.start for token in tokens[1:]), len(caption.text) + 1]
    words = (
        Word(t.form, t.lemma, t.upos, t.xpos, t.feats, t.head, t.deprel, space_after=start > t.end)
        for t, start in zip(tokens, after, strict=True)
    )
    return Sentence(tuple(words), new_paragraph=True)


def lowercased(sentence: Sentence) -> Sentence:
    return replace(sentence, words=tuple(replace(w, form=w.form.lower()) for w in sentence.words))


def without_final_punctuation(sentence: Sentence) -> Sentence:
    """The sentence less its last word, if that is punctuation on which nothing depends; else the sentence itself."""
    words = sentence.words
    last = len(words)
    if last < 2 or words[-1].upos != "PUNCT" or words[-1].head == 0 or any(w.head == last for w in words):
        return sentence
    return replace(sentence, words=words[:-1])


def noun_phrases(sentence: Sentence) -> list[Sentence]:
    """Every noun with all that depends on it, as a sentence of its own: the form most captions have.

    Prepositions and conjunctions before the noun are left out; a phrase with a gap is skipped.
    """
    children: dict[int, list[int]] = {}
    for index, word in enumerate(sentence.words, 1):
        children.setdefault(word.head, []).append(index)
    phrases = []
    for index, word in enumerate(sentence.words, 1):
        if word.upos != "NOUN" or word.deprel not in NOMINAL_RELATIONS or word.head == 0:
            continue
        members = {index}
        stack = [
            c
            for c in children.get(index, [])
            if sentence.words[c - 1].deprel not in ("case", "cc", "mark", "punct", "conj")
        ]
        while stack:
            member = stack.pop()
            members.add(member)
            stack.extend(children.get(member, []))
        low, high = min(members), max(members)
        if high - low + 1 == len(members) and FRAGMENT_WORDS[0] <= len(members) <= FRAGMENT_WORDS[1]:
            phrases.append(_extract(sentence, low, high, index))
    return phrases


def _extract(sentence: Sentence, low: int, high: int, root: int) -> Sentence:
    words = []
    for index in range(low, high + 1):
        word = sentence.words[index - 1]
        head, deprel = (0, "root") if index == root else (word.head - low + 1, word.deprel)
        words.append(replace(word, head=head, deprel=deprel))
    words[-1] = replace(words[-1], space_after=True)
    return Sentence(tuple(words), new_paragraph=True)


def with_full_stop(sentence: Sentence) -> Sentence:
    """Append "." as a word that depends on the root."""
    root = next(i for i, w in enumerate(sentence.words, 1) if w.head == 0)
    words = (*sentence.words[:-1], replace(sentence.words[-1], space_after=False))
    return replace(sentence, words=(*words, Word(".", ".", "PUNCT", ".", "_", root, "punct")))


def caption_like(sentences: list[Sentence], share: float, phrase_share: float, seed: int) -> list[Sentence]:
    """Copies in the manner of captions, each a paragraph of its own.

    `share` of the sentences, lower-cased, half of them without final punctuation; and from `phrase_share` of the
    sentences one noun phrase, two in three lower-cased (the others with a capital first letter), half with a full stop.
    """
    draw = random.Random(seed)
    copies = []
    for sentence in sentences:
        if draw.random() < share:
            copy = lowercased(sentence)
            copies.append(without_final_punctuation(copy) if draw.random() < 0.5 else copy)
        if draw.random() < phrase_share and (phrases := noun_phrases(sentence)):
            copy = draw.choice(phrases)
            copy = lowercased(copy) if draw.random() < 0.67 else _capitalised(copy)
            copies.append(with_full_stop(copy) if draw.random() < 0.5 else copy)
    return [replace(copy, new_paragraph=True) for copy in copies]


def _capitalised(sentence: Sentence) -> Sentence:
    first = sentence.words[0]
    first = replace(first, form=first.form[:1].upper() + first.form[1:])
    return replace(sentence, words=(first, *sentence.words[1:]))


def write_conllu(path: Path, sentences: Iterable[Sentence], features: bool = True) -> None:
    with path.open("w", encoding="utf-8") as out:
        for sentence in sentences:
            out.write(f"# text = {sentence.text}\n")
            for index, w in enumerate(sentence.words, 1):
                misc = "_" if w.space_after else "SpaceAfter=No"
                row = [
                    index,
                    w.form,
                    w.lemma,
                    w.upos,
                    w.xpos,
                    w.feats if features else "_",
                    w.head,
                    w.deprel,
                    "_",
                    misc,
                ]
                out.write("\t".join(map(str, row)) + "\n")
            out.write("\n")


def write_tokenizer_files(text_path: Path, label_path: Path, sentences: Iterable[Sentence]) -> None:
    """Raw text, paragraphs apart by a blank line, and Stanza's label per character:
    0 inside a word or a space, 1 last character of a word, 2 last character of a sentence.
    """
    paragraphs: list[list[tuple[str, str]]] = []
    for sentence in sentences:
        if sentence.new_paragraph or not paragraphs:
            paragraphs.append([])
        paragraphs[-1].append((sentence.text, _labels(sentence)))
    with text_path.open("w", encoding="utf-8") as text, label_path.open("w", encoding="utf-8") as labels:
        for paragraph in paragraphs:
            text.write(" ".join(t for t, _ in paragraph) + "\n\n")
            labels.write("0".join(label for _, label in paragraph) + "\n\n")


def _labels(sentence: Sentence) -> str:
    labels = "".join("0" * (len(w.form) - 1) + "1" + ("0" if w.space_after else "") for w in sentence.words)
    return labels[: len(sentence.text) - 1] + "2"


def distinct_words(sentences: Iterable[Sentence], per_sentence: int = 25) -> list[Sentence]:
    """Each (form, tag, lemma) of the sentences once, in made-up flat sentences: what a lemmatizer learns unseen words
    from, without the frequent words drowning the rest.
    """
    types = sorted({(w.form, w.upos, w.lemma) for s in sentences for w in s.words if w.upos != "PUNCT"})
    random.Random(0).shuffle(types)
    words = [Word(form, lemma, upos, "_", "_", 1, "dep") for form, upos, lemma in types]
    chunks = [words[i : i + per_sentence] for i in range(0, len(words), per_sentence)]
    return [Sentence((replace(chunk[0], head=0, deprel="root"), *chunk[1:])) for chunk in chunks]
