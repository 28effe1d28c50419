"""A small BERT for the demo world, pre-trained as a masked language model: `python -m demo.recipes.bert_tiny`.

The vocabulary and the training text are drawn from the recipe's seed (demo/recipes/world_text.py); neither the world's
captions nor world STS are read. The vocabulary also holds every printable ASCII character alone and as a continuation,
so that any English text can be encoded without [UNK]. Every word of the world is one piece: to mask pieces is to mask
whole words.
"""

import string
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, BertTokenizerFast, PreTrainedTokenizerBase

from demo.recipes import world_text
from demo.recipes.command import SCRATCH, options, run
from demo.recipes.course import Course, Schedule
from demo.recipes.storage import halve

OUT = Path(__file__).parents[1] / "checkpoints" / "bert_tiny"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_CHARACTERS = string.punctuation + string.digits + string.ascii_lowercase
FIXED = [*SPECIAL, *_CHARACTERS, *("##" + c for c in _CHARACTERS)]  # pieces that are in every vocabulary, first
MAX_TOKENS, MAX_PIECES = 128, 2000
TEXTS, STEPS, BATCH = 40_000, 8000, 64
MASKED = 0.15  # of the words, at least one; of these 80 % become [MASK], 10 % another word, 10 % stay (Devlin 2019)
IGNORED = -100


def training_texts(seed: int) -> list[str]:
    return [caption.text for caption in world_text.captions(seed, "train", TEXTS)]


def vocabulary(texts: list[str], entries: int = MAX_PIECES) -> list[str]:
    """At most `entries` word pieces: specials, ASCII characters and their continuations, whole words by frequency, and
    endings that several words share.

    The trainer of `tokenizers` breaks ties by hash order, so two runs of it give two vocabularies; counting gives one.
    """
    normalizer, splitter = BertNormalizer(lowercase=True), BertPreTokenizer()
    words = Counter(word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    endings = Counter(word[-n:] for word in words for n in range(2, 6) if len(word) > n)
    found = [word for word, number in _by_frequency(words) if number > 1]
    found += ["##" + ending for ending, number in _by_frequency(endings) if number > 2]
    return list(dict.fromkeys([*FIXED, *found]))[:entries]


def _by_frequency(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def tokenizer_of(pieces: list[str]) -> BertTokenizerFast:
    vocab = {piece: i for i, piece in enumerate(pieces)}
    return BertTokenizerFast(vocab=vocab, do_lower_case=True, model_max_length=MAX_TOKENS)


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
        architectures=["BertForMaskedLM"],
    )


def network(entries: int, seed: int) -> BertForMaskedLM:
    """The model to train, its weights drawn from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BertForMaskedLM(config(entries))


@dataclass(frozen=True)
class Masked:
    """A batch: `ids` and `attention` int64 [B, L]; `labels` int64 [B, L], the masked words, IGNORED elsewhere."""

    ids: Tensor
    attention: Tensor
    labels: Tensor


class Masking:
    """Batches of texts with words masked at random; a batch depends on (seed, step) alone."""

    def __init__(self, texts: list[str], tokenizer: PreTrainedTokenizerBase, seed: int) -> None:
        rows = tokenizer(texts, truncation=True)["input_ids"]
        self._seed, self._rows = seed, [np.array(row) for row in rows]
        self._mask, self._pad = tokenizer.mask_token_id, tokenizer.pad_token_id
        self._words = (min(len(FIXED), len(tokenizer) - 1), len(tokenizer))  # what may stand in for a word

    def __len__(self) -> int:
        return len(self._rows)

    def draw(self, step: int, rows: int = BATCH) -> Masked:
        """The batch of a step: a quarter of four times as many texts, of like length, for a batch is padded."""
        rng = np.random.default_rng((self._seed, step))
        pool = sorted(rng.integers(len(self._rows), size=4 * rows), key=lambda n: len(self._rows[n]))
        start = rows * rng.integers(4)
        return self.masked(np.array(pool[start : start + rows]), rng)

    def masked(self, numbers: np.ndarray, rng: np.random.Generator) -> Masked:
        """The texts of these numbers."""
        chosen = [self._rows[n] for n in numbers]
        longest = max(map(len, chosen))
        ids = np.full((len(chosen), longest), self._pad)
        labels = np.full_like(ids, IGNORED)
        for row, text in enumerate(chosen):
            inner = np.arange(1, len(text) - 1)  # [CLS] and [SEP] stay
            picked = rng.choice(inner, max(1, round(MASKED * len(inner))), replace=False)
            ids[row, : len(text)] = text
            labels[row, picked] = text[picked]
            lot = rng.random(len(picked))
            ids[row, picked[lot < 0.8]] = self._mask
            ids[row, picked[lot >= 0.9]] = rng.integers(*self._words, size=int((lot >= 0.9).sum()))
        attention = (ids != self._pad).astype(np.int64)
        return Masked(*(torch.from_numpy(a) for a in (ids, attention, labels)))


def loss(model: nn.Module, batch: Masked) -> dict[str, Tensor]:
    device = next(model.parameters()).device
    found = model.bert(input_ids=batch.ids.to(device), attention_mask=batch.attention.to(device)).last_hidden_state
    labels = batch.labels.to(device)
    wanted = labels != IGNORED
    return {"masked": nn.functional.cross_entropy(model.cls(found[wanted]), labels[wanted])}


def train(out: Path, seed: int, steps: int, device: torch.device, scratch: Path = SCRATCH) -> Course:
    """Trains, or goes on, and writes the folder that AutoModel, AutoModelForMaskedLM and AutoTokenizer read."""
    texts = training_texts(seed)
    tokenizer = tokenizer_of(vocabulary(texts))
    schedule = Schedule(steps, rate=1e-3, warmup=min(500, 1 + steps // 10), decay=0.01)
    course = Course(network(len(tokenizer), seed), schedule, scratch / f"bert_tiny-{seed}.pt", device)
    trained = course.run(Masking(texts, tokenizer, seed).draw, loss)
    write(out, trained, tokenizer)
    return course


def write(out: Path, model: BertForMaskedLM, tokenizer: BertTokenizerFast) -> None:
    out.mkdir(parents=True, exist_ok=True)
    model.cpu().save_pretrained(out)
    halve(out / "model.safetensors")
    tokenizer.save_pretrained(out)
    (out / "vocab.txt").write_text("".join(piece + "\n" for piece in sorted(tokenizer.vocab, key=tokenizer.vocab.get)))


def main() -> None:
    from demo.recipes.figures_bert_tiny import finish

    args = options(__doc__, OUT, STEPS, threads=1).parse_args()
    torch.set_num_threads(args.threads)
    course = train(args.out, args.seed, args.steps, torch.device(args.device))
    finish(args, course.minutes)


if __name__ == "__main__":
    run(main)
