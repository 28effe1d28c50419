"""The word pieces of the small Grounding DINO: the words of the world, and every English text piece by piece."""

import re
import string
from collections import Counter
from collections.abc import Iterable

from transformers import BertTokenizerFast

from stages.detect.vocabulary import MARKS

# Where bert-base-uncased has them; transformers' Grounding DINO takes MARKS for granted.
PLACES = {"[PAD]": 0, "[UNK]": 100, "[MASK]": 103, **MARKS}


def pieces(texts: Iterable[str]) -> list[str]:
    """Tokens in the order of their ids: marks at their places, then characters, words by frequency, shared endings."""
    counts = Counter(word for text in texts for word in re.findall(r"[a-z]+|[0-9]|[^\sa-z0-9]", text.lower()))
    endings = Counter(word[-n:] for word in counts for n in range(2, 6) if len(word) > n)
    characters = string.punctuation + string.digits + string.ascii_lowercase
    found = [*characters, *("##" + c for c in characters if c not in string.punctuation)]
    found += sorted(counts, key=lambda word: (-counts[word], word))
    found += sorted("##" + ending for ending, number in endings.items() if number > 2)
    waiting = iter(token for token in dict.fromkeys(found) if token not in PLACES)
    made = {place: token for token, place in PLACES.items()}
    table = []
    while len(table) <= max(PLACES.values()) or (token := next(waiting, None)) is not None:
        number = len(table)
        if number in made:
            table.append(made[number])
        elif number <= max(PLACES.values()):
            token = next(waiting, None) if number > PLACES["[MASK]"] else None
            table.append(token or f"[unused{number}]")
        else:
            table.append(token)
    return table


def tokenizer_of(table: list[str]) -> BertTokenizerFast:
    return BertTokenizerFast(vocab={token: number for number, token in enumerate(table)}, do_lower_case=True)
