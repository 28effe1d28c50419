"""What bert_tiny knows of captions it never saw: how often it finds a masked word, and at what perplexity."""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from demo.recipes import world_text
from demo.recipes.bert_tiny import IGNORED, MAX_TOKENS, Masking
from demo.recipes.cards import finish_folder
from demo.recipes.heldout import FIGURES_SEED

SCENES = 1000
CAPTIONS_A_SCENE = 2
_ROWS = 200


def figures(folder: Path, seed: int, scenes: int) -> dict[str, float]:
    """`masked_accuracy`, the share of masked words found, and their `perplexity`, on 2 captions a scene of the seed,
    a word in seven masked as in training."""
    model = AutoModelForMaskedLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    texts = [c.text for c in world_text.captions(seed, "check", CAPTIONS_A_SCENE * scenes)]
    masking = Masking(texts, tokenizer, seed)
    right = count = 0
    surprise = 0.0
    for start in range(0, len(masking), _ROWS):
        numbers = np.arange(start, min(start + _ROWS, len(masking)))
        batch = masking.masked(numbers, np.random.default_rng((seed, start)))
        with torch.inference_mode():
            scores = model(input_ids=batch.ids, attention_mask=batch.attention).logits
        wanted = batch.labels != IGNORED
        right += int((scores.argmax(-1)[wanted] == batch.labels[wanted]).sum())
        surprise += float(torch.nn.functional.cross_entropy(scores[wanted], batch.labels[wanted], reduction="sum"))
        count += int(wanted.sum())
    return {"masked_accuracy": right / count, "perplexity": math.exp(surprise / count)}


def finish(args: argparse.Namespace, minutes: float) -> None:
    """Measures the folder, writes figures.json and card.md, and prints the figures."""
    measured = figures(args.out, FIGURES_SEED, SCENES)
    model = AutoModelForMaskedLM.from_pretrained(args.out, local_files_only=True)
    facts = {
        "Architecture": f"BertForMaskedLM, 2 layers, width 128, 4 heads, feed-forward 512, {MAX_TOKENS} positions; "
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters. AutoModel reads it as a text encoder "
        "(no pooler), AutoModelForMaskedLM with its head",
        "Vocabulary": f"{model.config.vocab_size} lower-cased word pieces: the words of the text it was trained on, "
        "endings they share, and every printable ASCII character, alone and as a continuation",
        "Text": "captions of scenes drawn from the seed; neither the demo world's own captions nor world STS were read",
    }
    title = "bert_tiny: a masked language model of the demo world"
    finish_folder("bert_tiny", args, minutes, measured, title, _ABOUT, facts)


_ABOUT = """Where the text encoders of the demo start. It was pre-trained to fill in masked words of the demo world's
English, and knows nothing of English beyond it. Colours, sizes and kinds are drawn by lot, so many masked words cannot
be known: no model reaches an accuracy near 1 here."""
