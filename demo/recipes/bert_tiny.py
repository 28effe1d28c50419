"""A WordPiece vocabulary and a small BERT configuration, to train from scratch: `python -m demo.recipes.bert_tiny`.

Writes no weights. The vocabulary comes from the demo world's captions and sentences (not from world STS) and holds
every printable ASCII character alone and as a continuation, so that any English text can be encoded without [UNK].
"""

import argparse
import json
import string
from collections import Counter
from pathlib import Path

from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from transformers import BertConfig, BertTokenizerFast

WORLD = Path(__file__).parents[1] / "world"
OUT = Path(__file__).parents[1] / "checkpoints" / "bert_tiny"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
MAX_TOKENS = 128


def lines(world: Path) -> list[str]:
    """The text a training run sees: captions and sentences."""
    captions = json.loads((world / "annotations" / "captions_world.json").read_text())["annotations"]
    return [row["caption"] for row in captions] + (world / "sentences.txt").read_text().splitlines()


def vocabulary(texts: list[str], entries: int) -> list[str]:
    """At most `entries` word pieces: specials, ASCII characters and their continuations, whole words by frequency, and
    endings that several words share.

    The trainer of `tokenizers` breaks ties by hash order, so two runs of it give two vocabularies; counting gives one.
    """
    normalizer, splitter = BertNormalizer(lowercase=True), BertPreTokenizer()
    words = Counter(word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    endings = Counter(word[-n:] for word in words for n in range(2, 6) if len(word) > n)
    characters = string.punctuation + string.digits + string.ascii_lowercase
    fixed = [*SPECIAL, *characters, *("##" + c for c in characters)]
    found = [word for word, number in _by_frequency(words) if number > 1]
    found += ["##" + ending for ending, number in _by_frequency(endings) if number > 2]
    return list(dict.fromkeys([*fixed, *found]))[:entries]


def _by_frequency(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def config(entries: int) -> BertConfig:
    """Two layers of width 128: small enough to train in a minute on two CPU cores."""
    return BertConfig(
        vocab_size=entries,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=MAX_TOKENS,
        pad_token_id=0,
        architectures=["BertModel"],
    )


def write(world: Path, out: Path, entries: int) -> int:
    """The folder that AutoConfig and AutoTokenizer read; the number of word pieces."""
    out.mkdir(parents=True, exist_ok=True)
    pieces = vocabulary(lines(world), entries)
    (out / "vocab.txt").write_text("".join(piece + "\n" for piece in pieces))
    tokenizer = BertTokenizerFast(
        vocab={piece: i for i, piece in enumerate(pieces)}, do_lower_case=True, model_max_length=MAX_TOKENS
    )
    tokenizer.save_pretrained(out)
    config(len(pieces)).save_pretrained(out)
    (out / "card.md").write_text(_CARD.format(pieces=len(pieces), parameters=_parameters(len(pieces))))
    return len(pieces)


def _parameters(entries: int) -> str:
    c = config(entries)
    layer = 4 * c.hidden_size * (c.hidden_size + 1) + 2 * c.hidden_size * c.intermediate_size
    layer += c.intermediate_size + c.hidden_size + 4 * c.hidden_size
    tables = (entries + c.max_position_embeddings + 2) * c.hidden_size + 2 * c.hidden_size
    pooler = c.hidden_size * (c.hidden_size + 1)
    return f"{(c.num_hidden_layers * layer + tables + pooler) / 1e6:.2f} M"


_CARD = """# bert_tiny: a configuration and a vocabulary, no weights

**There are no weights here.** Training on the demo world starts from random numbers drawn from the run's own seed.

- Architecture: BertModel, 2 layers, width 128, 4 heads, feed-forward 512, 128 positions; {parameters} parameters.
- Vocabulary: {pieces} lower-cased word pieces: the words of the demo world's captions and sentences (world STS was not
  read), endings they share, and every printable ASCII character, alone and as a continuation.
- Recipe: `python -m demo.recipes.bert_tiny`. Licence: CC0 1.0, as the demo world.
- Use: the demo world. It knows nothing of English beyond it.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world", type=Path, default=WORLD)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--entries", type=int, default=2000, help="largest size of the vocabulary")
    args = parser.parse_args()
    print(f"{write(args.world, args.out, args.entries)} word pieces: {args.out}")


if __name__ == "__main__":
    main()
