"""How well the noun phrases of a trained parser match marked text.

    python -m demo.recipes.noun_phrases --model demo/checkpoints/stanza_en --conll2000 ZIP --entities MARKED_CAPTIONS

Two measures, both exact match of spans (precision, recall, F1 over all phrases of the set):

* conll2000 (Tjong Kim Sang and Buchholz 2000), test part: base noun-phrase chunks, over the words as given. Chunks
  there follow another convention, so base phrases are cut to it first: the owner and the rest are two chunks
  ("[the man] ['s hat]"), and so are the sides of "of" ("[a group] of [men]"). "all" counts every NP chunk, pronouns,
  relative pronouns and bare numbers included; "nouns" only chunks, gold and found, that hold a word with a noun tag
  (NN*) in the gold.
* Flickr30k Entities captions (Plummer et al. 2015): marked phrases, from the raw text, phrases as extracted, nothing
  dropped.
"""

from __future__ import annotations

import argparse
import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from stages.parse.phrases import Phrase, PhraseOptions, noun_phrases

EVERYTHING = PhraseOptions(span="base", drop_pronouns=False, drop_heads=(), max_words=1000)
MARKED = re.compile(r"\[/EN#\d+(?:/\w+)+ ([^\]]*)\]")
Spans = set[tuple[int, int]]


def f1(found: Iterable[Spans], gold: Iterable[Spans]) -> dict[str, float | int]:
    """Micro-averaged, in percent."""
    right = wrong = missed = 0
    for f, g in zip(found, gold, strict=True):
        right, wrong, missed = right + len(f & g), wrong + len(f - g), missed + len(g - f)
    precision, recall = right / max(1, right + wrong), right / max(1, right + missed)
    return {
        "precision": round(100 * precision, 2),
        "recall": round(100 * recall, 2),
        "f1": round(200 * right / max(1, 2 * right + wrong + missed), 2),
        "gold": right + missed,
    }


def read_conll2000(path: Path, part: str = "test") -> Iterator[list[tuple[str, str, str]]]:
    """Sentences of (word, tag, chunk label)."""
    with zipfile.ZipFile(path) as archive:
        name = next(n for n in archive.namelist() if n.endswith(f"{part}.txt"))
        for block in archive.read(name).decode("ascii").strip().split("\n\n"):
            yield [tuple(line.split()) for line in block.splitlines()]


def gold_chunks(labels: list[str]) -> Spans:
    """NP chunks as (first word, last word + 1)."""
    starts = [i for i, label in enumerate(labels) if label == "B-NP"]
    chunks = set()
    for start in starts:
        end = start + 1
        while end < len(labels) and labels[end] == "I-NP":
            end += 1
        chunks.add((start, end))
    return chunks


def as_chunks(phrases: list[Phrase], words: list[str], word_at: dict[int, int]) -> Spans:
    """Phrases as word spans in the convention of conll2000: cut at the owner and at "of"."""
    spans = sorted((word_at[p.start], word_at[p.end - 1] + 1) for p in phrases)
    chunks = set()
    for start, end in spans:
        for owner_start, owner_end in spans:
            inside = start <= owner_start and owner_end < end and (owner_start, owner_end) != (start, end)
            if inside and words[owner_end] in ("'s", "'", "’s", "’"):
                start = max(start, owner_end)
        if "of" in words[start:end]:
            cut = words.index("of", start, end)
            chunks.add((start, cut))
            start = cut + 1
        if start < end:
            chunks.add((start, end))
    return chunks


def measure_conll2000(folder: Path, archive: Path) -> dict[str, Any]:
    from demo.recipes.stanza_package import load_pipeline

    sentences = list(read_conll2000(archive))
    document = load_pipeline(folder, tokenize_pretokenized=True)([[w for w, _, _ in s] for s in sentences])
    found, gold, found_nouns, gold_nouns = [], [], [], []
    for sentence, parse in zip(sentences, document.sentences, strict=True):
        words = [w for w, _, _ in sentence]
        nouns = {i for i, (_, tag, _) in enumerate(sentence) if tag.startswith("NN")}
        offset = parse.words[0].start_char
        text = document.text[offset : parse.words[-1].end_char]
        word_at = {c - offset: i for i, w in enumerate(parse.words) for c in range(w.start_char, w.end_char)}
        shifted = [ShiftedWord(w, offset) for w in parse.words]
        kept, _ = noun_phrases(text, [shifted], EVERYTHING)
        found.append(as_chunks(kept, words, word_at))
        gold.append(gold_chunks([label for _, _, label in sentence]))
        found_nouns.append({s for s in found[-1] if nouns & set(range(*s))})
        gold_nouns.append({s for s in gold[-1] if nouns & set(range(*s))})
    return {"all": f1(found, gold), "nouns": f1(found_nouns, gold_nouns), "sentences": len(sentences)}


class ShiftedWord:
    """A Stanza word with offsets into its own sentence."""

    def __init__(self, word: Any, offset: int) -> None:
        self._word = word
        self.start_char, self.end_char = word.start_char - offset, word.end_char - offset

    def __getattr__(self, name: str) -> Any:
        return getattr(self._word, name)


def read_entities(path: Path) -> Iterator[tuple[str, Spans]]:
    """Captions without their marks, and the marked phrases as character spans."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if "[/EN#" not in line:
            continue
        text, spans, position = "", set(), 0
        for mark in MARKED.finditer(line):
            text += line[position : mark.start()]
            spans.add((len(text), len(text) + len(mark.group(1))))
            text += mark.group(1)
            position = mark.end()
        yield text + line[position:], spans


def measure_entities(folder: Path, samples: Path) -> dict[str, Any]:
    from demo.recipes.stanza_package import load_pipeline

    captions = list(read_entities(samples))
    pipeline = load_pipeline(folder, tokenize_no_ssplit=True)
    found, misses = [], []
    for text, gold in captions:
        kept, _ = noun_phrases(text, [s.words for s in pipeline(text).sentences], EVERYTHING)
        found.append({(p.start, p.end) for p in kept})
        wrong, missed = found[-1] - gold, gold - found[-1]
        if wrong or missed:
            misses.append({"caption": text, "found": sorted(text[a:b] for a, b in wrong),
                           "gold": sorted(text[a:b] for a, b in missed)})  # fmt: skip
    return {**f1(found, [g for _, g in captions]), "captions": len(captions), "misses": misses}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of the four .pt files")
    parser.add_argument("--conll2000", type=Path, help="conll2000.zip")
    parser.add_argument("--entities", type=Path, help="captions with Flickr30k Entities marks")
    args = parser.parse_args()
    figures = {}
    if args.conll2000:
        figures["conll2000"] = measure_conll2000(args.model, args.conll2000)
    if args.entities:
        figures["entities"] = measure_entities(args.model, args.entities)
    print(json.dumps(figures, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
