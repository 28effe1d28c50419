"""The vocabulary of the small CLIP: byte pairs in which every word of the demo world is one token."""

from collections import Counter
from collections.abc import Iterable

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from demo.captions import caption_for
from demo.recipes.heldout import training_scene

MAX_TOKENS = 64
START, END = "<|startoftext|>", "<|endoftext|>"


def byte_pairs(words: Counter[str], entries: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A byte-level vocabulary and merges for CLIPTokenizer: every byte, then pairs by frequency, equals by spelling.

    With room enough every word becomes one token; any other text still has one, byte by byte.

    Args:
        words: how often each comes, spelled in the letters that stand for bytes.
    """
    alphabet = sorted(ByteLevel.alphabet())
    spelled = {word: [*word[:-1], word[-1] + "</w>"] for word in words}
    pieces = dict.fromkeys([*alphabet, *(letter + "</w>" for letter in alphabet)])
    merges: list[tuple[str, str]] = []
    while len(pieces) < entries - 2:
        counts = Counter[tuple[str, str]]()
        for word, symbols in spelled.items():
            for pair in zip(symbols, symbols[1:], strict=False):
                counts[pair] += words[word]
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        pieces["".join(best)] = None
        spelled = {word: _merged(symbols, best) for word, symbols in spelled.items()}
    return {piece: number for number, piece in enumerate([*pieces, START, END])}, merges


def _merged(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    made: list[str] = []
    for symbol in symbols:
        if made and (made[-1], symbol) == pair:
            made[-1] += symbol
        else:
            made.append(symbol)
    return made


def make_tokenizer(texts: Iterable[str], entries: int = 2600) -> CLIPTokenizer:
    """For these texts: their words are single tokens, the rarest perhaps in parts."""
    split = CLIPTokenizer().backend_tokenizer
    words: Counter[str] = Counter()
    for text in texts:
        words.update(piece for piece, _ in split.pre_tokenizer.pre_tokenize_str(split.normalizer.normalize_str(text)))
    vocabulary, merges = byte_pairs(words, entries)
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_TOKENS)


def some_texts(seed: int, scenes: int = 4000) -> list[str]:
    """Captions of training scenes, to take the words from."""
    return [caption_for(seed, training_scene(seed, i), "clip", "words", i).text for i in range(scenes)]
