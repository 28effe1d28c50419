"""What the wider recipes need, made small: features of captions and phrases, spans, triplets, frozen companions."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertForMaskedLM

from model.data import TrainingData
from model.encoder import load_encoder
from model.teachers import Teachers, load_teachers


def complete(data: TrainingData) -> TrainingData:
    """`data` with everything a recipe may need, teachers apart."""
    rng = np.random.default_rng(5)
    phrases = list(dict.fromkeys(i.phrase for own in data.pairs for i in own))
    pairs = [
        [
            replace(i, phrase_row=phrases.index(i.phrase), start=(at := text.index(i.phrase)), end=at + len(i.phrase))
            for i in own
        ]
        for text, own in zip(data.captions, data.pairs, strict=True)
    ]
    return replace(
        data,
        pairs=pairs,
        caption_text=rng.normal(size=(len(data.captions), 12)).astype(np.float16),
        phrase_text=rng.normal(size=(len(phrases), 12)).astype(np.float32),
        triplets=[(a, a.replace("a ", "the ", 1), b) for a, b in zip(data.sentences, data.sentences[1:], strict=False)],
    )


def teachers_folder(tiny: Path, folder: Path) -> Path:
    """simcse, diffcse: the tiny BERT with other weights; generator: a masked language model with its tokenizer."""
    for seed, name in enumerate(("simcse", "diffcse"), 11):
        teacher = load_encoder(tiny, init="scratch", seed=seed, pooling="cls")
        teacher.model.save_pretrained(folder / name)
        teacher.tokenizer.save_pretrained(folder / name)
    shutil.copytree(tiny, folder / "generator")
    config = BertConfig.from_pretrained(tiny)
    config.hidden_size, config.intermediate_size, config.num_attention_heads = 16, 32, 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(13)
        BertForMaskedLM(config).save_pretrained(folder / "generator")
    return folder


def companions(tiny: Path, folder: Path, recipe) -> Teachers | None:
    return load_teachers(folder if folder.exists() else teachers_folder(tiny, folder), recipe)
