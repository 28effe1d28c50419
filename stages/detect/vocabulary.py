"""The tokenizer of a Grounding DINO weights folder."""

import json
from pathlib import Path

from transformers import BertTokenizerFast

from pipeline.errors import InputError

# transformers' Grounding DINO has these ids written into its code: they are where phrases end.
MARKS = {"[CLS]": 101, "[SEP]": 102, ".": 1012, "?": 1029}


def read_tokenizer(folder: Path) -> BertTokenizerFast:
    """A fast BERT tokenizer without case, from the folder's vocab.txt, or its tokenizer.json if that is all there is.

    Raises:
        InputError: no vocabulary, or one that does not number the marks as the model does.
    """
    vocabulary = read_vocabulary(folder)
    if wrong := {token: vocabulary.get(token) for token, number in MARKS.items() if vocabulary.get(token) != number}:
        said = ", ".join(f"{token} is {number}, not {MARKS[token]}" for token, number in wrong.items())
        raise InputError(
            f"{folder}: not the vocabulary of Grounding DINO ({said}); put bert-base-uncased's vocab.txt there"
        )
    return BertTokenizerFast(vocab=vocabulary, do_lower_case=True)


def read_vocabulary(folder: Path) -> dict[str, int]:
    """Token -> id.

    Raises:
        InputError: there is none, it cannot be read, or a token stands in it twice.
    """
    listed, whole = folder / "vocab.txt", folder / "tokenizer.json"
    try:
        if listed.is_file():
            tokens = listed.read_text(encoding="utf-8").replace("\r\n", "\n").removesuffix("\n").split("\n")
            vocabulary = {token: number for number, token in enumerate(tokens)}
            if len(vocabulary) < len(tokens):
                raise InputError(f"{listed}: a token stands in it twice; get the file again")
            return vocabulary
        if whole.is_file():
            return {str(token): int(n) for token, n in json.loads(whole.read_text("utf-8"))["model"]["vocab"].items()}
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder}: the vocabulary cannot be read ({error}); get it again") from None
    raise InputError(f"{folder}: no vocab.txt here; put bert-base-uncased's vocab.txt beside the weights")
