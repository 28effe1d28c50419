"""bert_tiny and the text teachers: batches, a short training from nothing, and what ships."""

from __future__ import annotations

import json
from argparse import Namespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoTokenizer

from demo.recipes import bert_tiny, diffcse_teacher, figures_bert_tiny, simcse_teacher, text_teacher, world_text
from model.encoder import load_encoder
from model.recipes import resolve
from model.teachers import load_teachers


@pytest.fixture(scope="module")
def texts():
    return [c.text for c in world_text.captions(9, "train", 400)]


@pytest.fixture(scope="module")
def tokenizer(texts):
    return bert_tiny.tokenizer_of(bert_tiny.vocabulary(texts))


def test_the_vocabulary_knows_the_world_and_spells_the_rest(texts, tokenizer):
    for text in texts[::20]:
        assert tokenizer.unk_token not in tokenizer.tokenize(text)
    assert tokenizer.tokenize("A red ball.") == ["a", "red", "ball", "."]
    foreign = tokenizer.tokenize("Zebra #4: quickly & (quietly)!")
    assert "".join(p.removeprefix("##") for p in foreign) == "zebra#4:quickly&(quietly)!"
    assert bert_tiny.vocabulary(texts) == bert_tiny.vocabulary(texts[::-1])


def test_a_batch_depends_on_seed_and_step_alone(texts, tokenizer):
    one, two = (bert_tiny.Masking(texts, tokenizer, seed=5) for _ in range(2))
    first, again, other = one.draw(7), two.draw(7), one.draw(8)
    assert torch.equal(first.ids, again.ids) and torch.equal(first.labels, again.labels)
    assert first.ids.shape != other.ids.shape or not torch.equal(first.ids, other.ids)


def test_masking_hides_words_and_nothing_else(texts, tokenizer):
    masking = bert_tiny.Masking(texts, tokenizer, seed=5)
    batch = masking.masked(np.arange(200), np.random.default_rng(0))
    plain = tokenizer(texts[:200], padding=True, return_tensors="pt")["input_ids"]
    wanted = batch.labels != bert_tiny.IGNORED
    assert torch.equal(batch.labels[wanted], plain[wanted]) and torch.equal(batch.ids[~wanted], plain[~wanted])
    assert wanted.any(1).all() and not wanted[(plain == tokenizer.cls_token_id) | (plain == 0)].any()
    assert (batch.ids[wanted] == tokenizer.mask_token_id).float().mean() == pytest.approx(0.8, abs=0.06)
    assert (batch.ids[wanted] == batch.labels[wanted]).float().mean() == pytest.approx(0.1, abs=0.05)
    assert torch.equal(batch.attention, (plain != 0).long())


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A masked language model of a few steps."""
    folder = tmp_path_factory.mktemp("bert")
    patch = pytest.MonkeyPatch()
    patch.setattr(bert_tiny, "TEXTS", 400)
    patch.setattr(bert_tiny, "BATCH", 16)
    bert_tiny.train(folder / "out", seed=9, steps=40, device=torch.device("cpu"), scratch=folder / "scratch")
    patch.undo()
    return folder / "out"


def test_training_writes_what_encoder_and_generator_read(start):
    vectors = load_encoder(start, pooling="mean").encode(["a red ball", "two small boats at sea"])
    assert vectors.shape == (2, 128) and np.isfinite(vectors).all()
    _, info = AutoModelForMaskedLM.from_pretrained(start, local_files_only=True, output_loading_info=True)
    assert not info["unexpected_keys"] and not set(info["missing_keys"])
    assert (start / "vocab.txt").read_text().split("\n")[:5] == bert_tiny.SPECIAL
    entries = len(AutoTokenizer.from_pretrained(start, local_files_only=True))
    found = figures_bert_tiny.figures(start, seed=1, scenes=30)
    assert found["perplexity"] < 0.7 * entries and 0 < found["masked_accuracy"] < 1


def test_training_goes_on_where_it_stopped(start, tmp_path, monkeypatch):
    """Every step is done already: nothing is trained, and the same weights are written again."""
    monkeypatch.setattr(bert_tiny, "TEXTS", 400)
    monkeypatch.setattr(bert_tiny, "BATCH", 16)
    course = bert_tiny.train(tmp_path, seed=9, steps=40, device=torch.device("cpu"), scratch=start.parent / "scratch")
    assert course.step == 40
    assert (tmp_path / "model.safetensors").read_bytes() == (start / "model.safetensors").read_bytes()


@pytest.mark.parametrize(("method", "module"), [("simcse", simcse_teacher), ("diffcse", diffcse_teacher)])
def test_teachers_are_trained_and_read_by_the_trainer(method, module, start, tmp_path, monkeypatch):
    monkeypatch.setattr(bert_tiny, "TEXTS", 200)
    monkeypatch.setattr(text_teacher, "DEV_PAIRS", 20)
    folder = tmp_path / "teachers"
    args = Namespace(start=start, out=folder / method, seed=9, steps=2, device="cpu")
    settings = module.SETTINGS | {"batch_size": 8, "eval_every": 1}
    minutes = text_teacher.teach(method, settings, args, tmp_path / "scratch")
    assert minutes > 0 and text_teacher.figures(folder / method, seed=2, scenes=30)["spearman"] > -1
    stored = load_file(folder / method / "model.safetensors")
    assert {w.dtype for w in stored.values()} == {torch.float16}
    other = {"simcse": "diffcse", "diffcse": "simcse"}[method]
    (folder / other).symlink_to(folder / method)
    text_teacher.write_generator(start, folder / "generator")
    found = load_teachers(folder, resolve("dalr"))
    assert found.text[method].encoder.pooling == "mean" and found.text[method].encoder.hidden == 128
    assert load_teachers(folder, resolve("diffcse")).generator is not None
    assert json.loads((folder / method / "recipe.json").read_text())["recipe"]["steps"] == 2


def test_minutes_add_up_over_stops(tmp_path):
    (tmp_path / "seconds").write_text("600")
    assert text_teacher.Clock(tmp_path / "seconds").minutes == pytest.approx(10, abs=0.1)


def test_agreement_is_one_for_vectors_that_are_the_grades():
    class Oracle:
        def encode(self, texts):
            return np.array([[np.cos(angle[t]), np.sin(angle[t])] for t in texts])

    pairs = world_text.pairs(3, "check", 20)
    angle = {p.first: 0.0 for p in pairs} | {p.second: (5 - p.grade) / 5 for p in pairs}
    assert text_teacher.agreement(Oracle(), pairs) == pytest.approx(1.0)
