"""Phrases from captions that are already marked, in the style of Flickr30k Entities: `[/EN#283585/people A man] sits
.`
"""

from pathlib import Path

from pipeline.errors import InputError
from stages.common.markup import read_marked
from stages.parse import phrase_words
from stages.parse.phrases import DroppedPhrase, Phrase

_ARTICLES = {
    "a",
    "an",
    "the",
    "his",
    "her",
    "its",
    "their",
    "my",
    "your",
    "our",
    "this",
    "that",
    "these",
    "those",
    "some",
}
_IRREGULAR = {
    "men": "man",
    "women": "woman",
    "children": "child",
    "people": "people",
    "feet": "foot",
    "teeth": "tooth",
    "mice": "mouse",
    "geese": "goose",
    "knives": "knife",
    "leaves": "leaf",
    "loaves": "loaf",
    "shelves": "shelf",
    "wolves": "wolf",
    "scarves": "scarf",
    "wives": "wife",
}
_SINGULAR_S = ("ss", "us", "is")


def read(path: Path) -> dict[str, list[tuple[int, int, str]]]:
    """Marked captions of a file, or of all .txt files of a folder: plain caption -> (start, end, type) of its phrases.

    A line without markup is a caption without phrases.

    Raises:
        InputError: nothing there, not UTF-8, or a bracket is not closed (file and line are named).
    """
    files = [path] if path.is_file() else sorted(path.glob("*.txt"))
    if not files:
        raise InputError(f"{path}: no marked captions here; set parse.path to a file, or a folder of .txt files")
    known = {}
    for file in files:
        for text, marks in read_marked(file):
            known[text] = [(mark.start, mark.end, mark.types[-1]) for mark in marks]
    return known


class MarkupParser:
    """Looks captions up among the marked ones."""

    def __init__(self, path: Path, drop_heads: list[str], max_words: int):
        self.known, self.drop_heads, self.max_words = read(path), frozenset(drop_heads), max_words

    def parse(self, captions: list[str]) -> list[tuple[list[Phrase], list[DroppedPhrase]]]:
        return [self._one(caption) for caption in captions]

    def _one(self, caption: str) -> tuple[list[Phrase], list[DroppedPhrase]]:
        kept, dropped = [], []
        for start, end, kind in self.known.get(caption, ()):
            phrase = describe(caption, start, end, kind)
            if kind == "notvisual":
                dropped.append(DroppedPhrase(phrase, "not_visual"))
            elif phrase.head in self.drop_heads:
                dropped.append(DroppedPhrase(phrase, "abstract_head"))
            elif len(phrase.text.split()) > self.max_words:
                dropped.append(DroppedPhrase(phrase, "too_long"))
            else:
                kept.append(phrase)
        return kept, dropped


def describe(caption: str, start: int, end: int, kind: str) -> Phrase:
    """Head, number, count and key of a marked phrase by rules of English morphology; no parser is at hand here."""
    text = caption[start:end]
    words = text.lower().split() or [""]
    of = words.index("of") if "of" in words[1:-1] else None
    if of is not None and words[of - 1] in phrase_words.QUANTITIES:
        words = words[of + 1 :]
    elif of is not None:
        words = words[:of]
    lemma, plural = singular(words[-1])
    count = next((c for w in words[:2] if (c := phrase_words.number_said(w)) is not None), None)
    key = list(words[:-1])
    while key and (key[0] in _ARTICLES or phrase_words.number_said(key[0]) is not None):
        key.pop(0)
    several = plural or (of is not None and text.lower().split()[of - 1] in phrase_words.QUANTITIES) or (count or 0) > 1
    return Phrase(start, end, text, lemma, "plur" if several else "sing", count, " ".join([*key, lemma]), kind)


def singular(word: str) -> tuple[str, bool]:
    """The lemma of a noun and whether the word is a plural."""
    if word in _IRREGULAR:
        return _IRREGULAR[word], True
    if len(word) < 4 or not word.endswith("s") or word.endswith(_SINGULAR_S):
        return word, False
    if word.endswith("ies"):
        return word[:-3] + "y", True
    if word.endswith(("ches", "shes", "xes", "sses", "zes")):
        return word[:-2], True
    return word[:-1], True
