"""Stanza as the parser: tokens, tags, lemmas and dependency trees of captions, in batches."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.files import sha256_file
from stages.parse.phrases import DroppedPhrase, Phrase, PhraseOptions, Word, noun_phrases

PROCESSORS = ("tokenize", "pos", "lemma", "depparse")
_CAPTIONS_A_CALL = 200


class StanzaParser:
    """A Stanza pipeline from a folder: either the four files `tokenize.pt`, `pos.pt`, `lemma.pt`, `depparse.pt` that
    ship with the project, or a Stanza resources folder (`resources.json` and `en/`).

    Captions are joined by blank lines and taken as one sentence each, which keeps them apart and lets Stanza batch
    over them.

    Raises:
        InputError: models are missing, or are not those of `manifest.json`.
    """

    def __init__(self, section: Any, device: str, threads: int, batch_rows: int):
        import stanza
        import torch

        logging.getLogger("stanza").setLevel(logging.ERROR)
        torch.set_num_threads(threads)
        self.options = PhraseOptions(
            section.span, section.drop_pronouns, frozenset(section.drop_heads), section.max_words
        )
        folder = Path(section.path)
        settings = _settings(folder)
        use_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
        try:
            self.pipeline = stanza.Pipeline(
                lang="en",
                dir=str(folder),
                processors=",".join(PROCESSORS),
                download_method=None,
                tokenize_no_ssplit=True,
                use_gpu=use_gpu,
                verbose=False,
                logging_level="ERROR",
                tokenize_batch_size=batch_rows,
                **settings,
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise InputError(f"{folder}: Stanza cannot load these models ({str(error).splitlines()[0]})") from None

    def parse(self, captions: list[str]) -> list[tuple[list[Phrase], list[DroppedPhrase]]]:
        results: list = []
        for start in range(0, len(captions), _CAPTIONS_A_CALL):
            chunk = captions[start : start + _CAPTIONS_A_CALL]
            trees = self._trees(chunk)
            results += [
                noun_phrases(caption, [words], self.options) if words else ([], [])
                for caption, words in zip(chunk, trees, strict=True)
            ]
        return results

    def _trees(self, captions: list[str]) -> list[list[Word]]:
        """The words of each caption, offsets within the caption."""
        from stages.parse.heads import quick_heads

        starts, text = [], ""
        for caption in captions:
            starts.append(len(text))
            text += caption + "\n\n"
        bounds = [(start, start + len(caption)) for start, caption in zip(starts, captions, strict=True)]
        trees: list[list[Word]] = [[] for _ in captions]
        at = 0
        with quick_heads():
            parsed = self.pipeline(text)
        for sentence in parsed.sentences:
            words = list(_words(sentence))
            while at + 1 < len(bounds) and words[0].start_char >= bounds[at][1]:
                at += 1
            offset = bounds[at][0]
            trees[at] = _join(
                trees[at], [w._replace(start_char=w.start_char - offset, end_char=w.end_char - offset) for w in words]
            )
        return trees


def _words(sentence: Any) -> Iterator[Word]:
    """A sentence's words; the parts of a contraction take the offsets of the whole token."""
    for token in sentence.tokens:
        for word in token.words:
            start = word.start_char if word.start_char is not None else token.start_char
            end = word.end_char if word.end_char is not None else token.end_char
            yield Word(
                word.id, word.text, word.lemma, word.upos, word.xpos, word.feats, word.head, word.deprel, start, end
            )


def _join(before: list[Word], words: list[Word]) -> list[Word]:
    """Appends a second sentence of the same caption, ids shifted; its root hangs on nothing."""
    shift = len(before)
    return before + [w._replace(id=w.id + shift, head=w.head + shift if w.head else 0) for w in words]


def _settings(folder: Path) -> dict:
    files = {name: folder / f"{name}.pt" for name in PROCESSORS}
    if all(path.is_file() for path in files.values()):
        _check_manifest(folder)
        return {
            "package": None,
            "allow_unknown_language": True,
            **{f"{name}_model_path": str(path) for name, path in files.items()},
        }
    if (folder / "resources.json").is_file() and (folder / "en").is_dir():
        return {}
    raise InputError(
        f"{folder}: no Stanza models here; set parse.path to a folder with tokenize.pt, pos.pt, lemma.pt and "
        "depparse.pt (one ships as demo/checkpoints/stanza_en), or to a Stanza resources folder "
        "(`python -m pipeline weights get stanza-en`)"
    )


def _check_manifest(folder: Path) -> None:
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        return
    for name, stated in json.loads(manifest.read_text(encoding="utf-8")).items():
        if sha256_file(folder / name) != stated["sha256"]:
            raise InputError(f"{folder / name}: is not the file that manifest.json pins (sha256 differs); get it again")
