"""Encoders give the vectors of the official classes, and a checkpoint that is not whole is refused in one line."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small import ROOT
from small_encoders import PROCESSORS, SIDE, WORDS, make, noise, plain_vectors, planes
from transformers import AutoTokenizer, CLIPModel

from pipeline.errors import InputError
from stages.embed.encoder import Encoder

VISION = ROOT / "demo/checkpoints/vision_random"
PHOTOS = [noise(*sides) for sides in ((48, 64), (100, 40), (64, 64))]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {kind: make(kind, tmp_path_factory.mktemp(kind)) for kind in PROCESSORS}


def vectors(encoder, images=PHOTOS):
    return encoder.encode(encoder.prepare([planes(image) for image in images])).float().numpy()


@pytest.mark.parametrize("kind", [*sorted(PROCESSORS), "shipped"])
def test_vectors_are_those_of_the_official_classes(folders, kind):
    folder = folders.get(kind, VISION)
    encoder = Encoder(str(folder), "cpu", "fp32", 1)
    assert encoder.preparation is not None and encoder.random_weights == (kind == "shipped")
    assert encoder.two_towers == (kind == "clip") and encoder.dim == {"clip": 24, "shipped": 96}.get(kind, 32)
    np.testing.assert_allclose(vectors(encoder), plain_vectors(folder, PHOTOS), atol=1e-5)


def test_texts_are_those_of_the_official_tower(folders):
    encoder = Encoder(str(folders["clip"]), "cpu", "fp32", 1)
    texts = ["a red ball", "a box", "a " * 40]
    tokens = encoder.tokens(texts)
    assert max(map(len, tokens)) == 16, "cut at the tower's length"
    together = encoder.texts(tokens)
    model, tokenizer = CLIPModel.from_pretrained(folders["clip"]).eval(), AutoTokenizer.from_pretrained(folders["clip"])
    with torch.inference_mode():
        for text, ours in zip(texts[:2], together, strict=False):
            official = model.text_projection(model.text_model(**tokenizer(text, return_tensors="pt")).pooler_output)[0]
            np.testing.assert_allclose(ours, official, atol=1e-5)
    np.testing.assert_allclose(encoder.texts(tokens[1:2])[0], together[1], atol=1e-5)


def test_a_tower_that_reads_padding_is_given_all_of_it(tmp_path):
    from small_encoders import _tokenizer
    from transformers import SiglipConfig, SiglipModel, SiglipTextConfig, SiglipVisionConfig

    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    text = SiglipTextConfig(**shape, vocab_size=len(WORDS), max_position_embeddings=16, projection_size=32)
    vision = SiglipVisionConfig(**shape, image_size=SIDE, patch_size=8)
    SiglipModel(SiglipConfig(text_config=text.to_dict(), vision_config=vision.to_dict())).save_pretrained(tmp_path)
    _tokenizer(tmp_path)
    stated = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(stated | {"model_input_names": ["input_ids"]}))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PROCESSORS["vit"]))
    encoder = Encoder(str(tmp_path), "cpu", "fp32", 1)
    tokens = encoder.tokens(["a red ball next a box", "a box"])
    np.testing.assert_allclose(encoder.texts(tokens)[1], encoder.texts(tokens[1:])[0], atol=1e-6)


def test_the_flop_of_an_image_are_counted(folders):
    encoder = Encoder(str(folders["vit"]), "cpu", "fp32", 1)
    tokens, dim, wide, layers = (SIDE // 8) ** 2 + 1, 32, 64, 2
    products = layers * (tokens * (4 * dim * dim + 2 * dim * wide) + 2 * tokens * tokens * dim)
    products += (tokens - 1) * 3 * 8 * 8 * dim + dim * dim  # the patches, the pooler
    assert encoder.image_flop == pytest.approx(2 * products, rel=0.01)


def broken(tmp_path, source, change=None, **config):
    folder = tmp_path / "broken"
    shutil.copytree(source, folder)
    stated = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(stated | config))
    if change:
        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def test_checkpoints_that_are_not_whole_end_in_one_line(tmp_path):
    with pytest.raises(InputError, match=r"no config\.json"):
        Encoder(str(tmp_path), "cpu", "fp32", 1)
    folder = broken(tmp_path, VISION)
    weights = tmp_path / "broken" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match="cannot be loaded") as told:
        Encoder(folder, "cpu", "fp32", 1)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(("layers", "said"), [(4, "missing"), (2, "left over")])
def test_weights_of_another_depth_are_refused(tmp_path, layers, said):
    with pytest.raises(InputError, match=f"do not fit config.json .{said}"):
        Encoder(broken(tmp_path, VISION, num_hidden_layers=layers), "cpu", "fp32", 1)


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    def spoil(state):
        state["layernorm.weight"][3] = torch.nan

    with pytest.raises(InputError, match=r"NaN or infinity in the weights: layernorm\.weight"):
        Encoder(broken(tmp_path, VISION, spoil), "cpu", "fp32", 1)


def test_the_head_of_a_classifier_and_old_buffers_may_be_left_over(tmp_path, folders):
    def headed(state):
        state["classifier.weight"], state["classifier.bias"] = torch.zeros(10, 96), torch.zeros(10)

    Encoder(broken(tmp_path / "head", VISION, headed), "cpu", "fp32", 1)

    def old(state):
        state["vision_model.embeddings.position_ids"] = torch.arange(37)[None]

    Encoder(broken(tmp_path / "old", folders["clip"], old), "cpu", "fp32", 1)


def test_code_that_comes_with_a_checkpoint_is_not_run(tmp_path):
    folder = broken(tmp_path, VISION, model_type="made_up", auto_map={"AutoConfig": "own.Config", "AutoModel": "own.M"})
    (tmp_path / "broken" / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(InputError, match="cannot be loaded"):
        Encoder(folder, "cpu", "fp32", 1)
    assert not (tmp_path / "ran").exists()


def test_a_processor_without_an_equal_is_named_once_and_used(tmp_path, folders, capsys):
    folder = broken(tmp_path, folders["clip"])
    stated = tmp_path / "broken" / "preprocessor_config.json"
    stated.write_text(json.dumps(json.loads(stated.read_text()) | {"resample": 1}))
    encoder = Encoder(folder, "cpu", "fp32", 1)
    np.testing.assert_allclose(vectors(encoder), plain_vectors(tmp_path / "broken", PHOTOS), atol=1e-5)
    assert capsys.readouterr().err.count("prepared on the CPU by CLIPImageProcessor") == 1


def test_a_processor_that_makes_pictures_of_several_sizes_is_refused(tmp_path, folders):
    folder = broken(tmp_path, folders["clip"])
    stated = tmp_path / "broken" / "preprocessor_config.json"
    stated.write_text(json.dumps(json.loads(stated.read_text()) | {"do_center_crop": False}))
    with pytest.raises(InputError, match="does not make pictures of one size"):
        Encoder(folder, "cpu", "fp32", 1)
