import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from model.encoder import load_encoder
from model.errors import ModelError
from model.network import Network
from model.recipes import resolve
from model.teachers import Generator, Teacher, Teachers, check_teachers, load_teachers, prepare
from model.trainer import train
from tests.model.companions import complete, teachers_folder

SETTINGS = {"batch_size": 8, "captions_per_image": "all", "projection": 16, "pair_every": 2, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    return teachers_folder(tiny, tmp_path_factory.mktemp("companions") / "teachers")


def test_only_what_the_recipe_needs_is_loaded(folder):
    assert load_teachers(folder, resolve("mcseo")) is None
    assert load_teachers("/nowhere", resolve("simcse")) is None
    dalr, diffcse = load_teachers(folder, resolve("dalr")), load_teachers(folder, resolve("diffcse"))
    assert list(dalr.text) == ["simcse", "diffcse"] and dalr.generator is None
    assert not diffcse.text and diffcse.generator is not None


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("dalr", "needs frozen text teachers \\(simcse, diffcse\\).*train.teachers_path"),
        ("diffcse", "needs a frozen generator \\(generator\\).*train.teachers_path"),
    ],
)
def test_missing_companions_are_one_clear_line(tiny, data, encoder, tmp_path, name, says):
    recipe = resolve(name, SETTINGS)
    with pytest.raises(ModelError, match=says) as raised:
        load_teachers(tmp_path, recipe)
    assert raised.value.code == 3 and str(tmp_path) in str(raised.value)
    with pytest.raises(ModelError, match=says):
        train(encoder, complete(data), recipe, seed=0, work_dir=tmp_path)


def test_vectors_are_those_of_the_teacher_each_caption_once(data, folder, encoder):
    recipe = resolve("dalr", SETTINGS)
    teachers = load_teachers(folder, recipe)
    twice = replace(complete(data), captions=[*data.captions[:-1], data.captions[0]])
    calls = []
    original = teachers.text["simcse"].encoder.token_ids
    teachers.text["simcse"].encoder.token_ids = lambda texts, limit: calls.extend(texts) or original(texts, limit)
    filled = prepare(encoder, twice, recipe, teachers, "cpu")
    assert len(calls) == len(set(calls)) == len(set(twice.captions))
    for name in ("simcse", "diffcse"):
        alone = load_encoder(folder / name, pooling="cls")
        found = filled.teacher_text[name]
        assert found.shape == (32, 32) and found.dtype == np.float32
        np.testing.assert_allclose(found, alone.encode(twice.captions, 5, 32), atol=1e-5)
        assert (found[-1] == found[0]).all()
    assert twice.teacher_text is None


def test_they_are_frozen_in_eval_mode_and_no_part_of_the_network(data, folder, encoder):
    for name in ("dalr", "diffcse"):
        recipe = resolve(name, SETTINGS)
        teachers = load_teachers(folder, recipe)
        network = Network(encoder, recipe, prepare(encoder, complete(data), recipe, teachers, "cpu"), 0, teachers)
        network.train()
        modules = [t.encoder for t in teachers.text.values()]
        modules += [teachers.generator.model] if teachers.generator else []
        inside = {id(m) for m in network.modules()}
        for module in modules:
            assert not any(m.training or id(m) in inside for m in module.modules())
            assert not any(p.requires_grad for p in module.parameters())
        assert not any("teacher" in n or "generator" in n for n in network.state_dict())


def test_a_teacher_keeps_its_own_tokenizer(tiny, data, folder, encoder, tmp_path):
    """A teacher with another vocabulary is fine for sentence vectors, and refused where its token states are read."""
    other = tmp_path / "teachers"
    shutil.copytree(folder, other)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny)
    tokenizer.add_tokens(["xylophone"])
    model = load_encoder(folder / "simcse", pooling="cls").model
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(other / "simcse")
    tokenizer.save_pretrained(other / "simcse")
    recipe = resolve("dalr", SETTINGS)
    filled = prepare(encoder, complete(data), recipe, load_teachers(other, recipe), "cpu")
    assert np.isfinite(filled.teacher_text["simcse"]).all()
    code = resolve("dalr-code", SETTINGS | {"cma_space": "proj"})
    with pytest.raises(ModelError, match="teacher simcse's token states.*vocabulary") as raised:
        prepare(encoder, complete(data), code, load_teachers(other, code), "cpu")
    assert raised.value.code == 2


def test_the_form_of_the_code_needs_images_as_wide_as_the_encoder(data, folder, encoder):
    code = resolve("dalr-code", SETTINGS)
    with pytest.raises(ModelError, match="the one has 32 dimensions, the other 12"):
        prepare(encoder, complete(data), code, load_teachers(folder, code), "cpu")
    check_teachers(
        encoder, replace(complete(data), image_features=np.ones((16, 32))), code, load_teachers(folder, code)
    )


def test_a_generator_of_another_vocabulary_is_refused(tiny, data, folder, encoder):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny)
    tokenizer.add_tokens(["xylophone"])
    config = BertConfig.from_pretrained(tiny)
    config.vocab_size = len(tokenizer)
    wrong = Teachers(generator=Generator(BertForMaskedLM(config), tokenizer))
    with pytest.raises(ModelError, match="its vocabulary is another: take DistilBERT for BERT") as raised:
        prepare(encoder, data, resolve("diffcse"), wrong, "cpu")
    assert raised.value.code == 2


def test_a_generator_without_its_head_is_refused(tiny, folder, tmp_path):
    shutil.copytree(tiny, tmp_path / "generator")
    with pytest.raises(ModelError, match="lack the language model's head"):
        load_teachers(tmp_path, resolve("diffcse"))
    (tmp_path / "generator" / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="no masked language model can be read") as raised:
        load_teachers(tmp_path, resolve("diffcse"))
    assert "\n" not in str(raised.value)


def test_the_generator_fills_every_position(folder, encoder):
    generator = load_teachers(folder, resolve("diffcse")).generator
    ids, mask = encoder.pad(encoder.token_ids(["a red dog", "a"]))
    logits = generator.model(input_ids=ids, attention_mask=mask).logits
    assert torch.equal(generator.fill(ids, mask), logits.argmax(-1)) and ids.shape == logits.shape[:2]


def test_nan_of_a_teacher_is_named(data, folder, encoder):
    recipe = resolve("dalr", SETTINGS)
    teachers = load_teachers(folder, recipe)
    teachers.text["diffcse"].encoder.model.embeddings.word_embeddings.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="teacher diffcse makes NaN"):
        prepare(encoder, complete(data), recipe, teachers, "cpu")


def test_a_teacher_may_be_made_by_hand(tiny, encoder):
    teacher = Teacher(load_encoder(tiny, pooling="mean"))
    assert teacher.vectors(["a red dog", "a red dog"], 8).shape == (2, 32)
