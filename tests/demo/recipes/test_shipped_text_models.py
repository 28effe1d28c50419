"""The text models that ship: complete, small, and better than nothing on text that no recipe drew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from demo.recipes import bert_tiny, figures_bert_tiny, figures_teachers, text_teacher
from demo.recipes.cards import read_figures
from model.encoder import load_encoder
from model.recipes import resolve
from model.teachers import load_teachers

WORLD = Path(bert_tiny.__file__).parents[1] / "world"
SEED = 77  # neither a recipe's nor that of the stated figures


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(bert_tiny.OUT, local_files_only=True)


def test_every_word_of_the_world_is_one_piece(tokenizer):
    captions = json.loads((WORLD / "annotations" / "captions_world.json").read_text())["annotations"]
    texts = [row["caption"] for row in captions] + (WORLD / "sentences.txt").read_text().splitlines()
    for text in texts[::20]:
        pieces = tokenizer.tokenize(text)
        assert tokenizer.unk_token not in pieces and not any(piece.startswith("##") for piece in pieces), text


def test_bert_tiny_fills_masked_words_of_unseen_captions():
    found = figures_bert_tiny.figures(bert_tiny.OUT, SEED, scenes=60)
    stated = read_figures(bert_tiny.OUT).figures
    assert found["masked_accuracy"] >= 0.5
    assert found["masked_accuracy"] == pytest.approx(stated["masked_accuracy"], abs=0.06)


def test_dalr_and_diffcse_find_their_companions():
    assert set(load_teachers(text_teacher.FOLDER, resolve("dalr")).text) == {"simcse", "diffcse"}
    generator = load_teachers(text_teacher.FOLDER, resolve("diffcse")).generator
    assert generator.tokenizer.get_vocab() == load_encoder(bert_tiny.OUT, pooling="mean").tokenizer.get_vocab()


def test_teachers_rank_unseen_pairs_better_than_where_they_started():
    start = text_teacher.agreement(
        load_encoder(bert_tiny.OUT, pooling=text_teacher.POOLING), text_teacher.world_text.pairs(SEED, "check", 300)
    )
    found = figures_teachers.figures(text_teacher.FOLDER, SEED, 300)
    assert found["simcse_spearman"] > start and found["diffcse_spearman"] > start


def test_weights_are_small_and_finite_and_every_folder_has_a_card():
    folders = [bert_tiny.OUT, *(text_teacher.FOLDER / name for name in ("simcse", "diffcse", "generator"))]
    for folder in folders:
        assert "CC0 1.0" in (folder / "card.md").read_text(encoding="utf-8")
        weights = load_file(folder / "model.safetensors")
        assert all(torch.isfinite(w).all() for w in weights.values())
    assert sum(p.stat().st_size for folder in folders for p in folder.rglob("*") if p.is_file()) <= 6_000_000
