import json

import pytest

from model.errors import ModelError
from model.recipes import NAMES, SETTINGS, resolve


def weights(recipe):
    return {t.name: (t.weight, t.temperature) for t in recipe.terms}


def test_defaults_are_the_published_ones():
    recipe = resolve("mcseo")
    assert weights(recipe) == {"text": (1.0, 0.05), "image": (0.01, 0.05), "object": (0.01, 0.05)}
    assert (recipe.batch_size, recipe.learning_rate, recipe.epochs, recipe.max_length) == (64, 3e-5, 3, 32)
    assert (recipe.adam_eps, recipe.weight_decay, recipe.grad_clip, recipe.warmup) == (1e-6, 0, 1.0, 0)
    assert recipe.terms[2].options == {
        "phrase_dup": "multi_positive",
        "same_image": "iou_ignore",
        "direction": "t2v",
        "iou_threshold": 0.5,
    }
    assert set(weights(resolve("mcse"))) == {"text", "image"} and set(weights(resolve("simcse"))) == {"text"}
    assert resolve("untrained").terms == () == resolve("untrained").heads


def test_overrides_and_null():
    recipe = resolve("mcseo", {"tau": 0.1, "tau_object": 0.2, "mu": 0.05, "batch_size": None, "direction": "symmetric"})
    assert weights(recipe) == {"text": (1.0, 0.1), "image": (0.01, 0.1), "object": (0.05, 0.2)}
    assert recipe.batch_size == 64 and recipe.terms[2].options["direction"] == "symmetric"
    assert resolve("simcse", {"mu": 0.5, "lambda": 0.3}).terms == resolve("simcse").terms


def test_a_term_of_weight_zero_is_left_out_with_its_heads():
    assert resolve("mcse", {"lambda": 0}).heads == resolve("simcse").heads == ("simcse",)
    assert resolve("mcseo", {"lambda": 0}).heads == ("simcse", "grounding", "visual")
    assert resolve("mcseo", {"lambda": 0, "share_object_head": False}).heads == ("simcse", "grounding", "object")
    assert resolve("mcseo", {"share_object_head": False}).heads == ("simcse", "grounding", "visual", "object")


def test_every_recipe_is_plain_json():
    for name in NAMES:
        assert json.loads(json.dumps(resolve(name).to_dict()))["name"] == name


def test_every_mistake_is_named_at_once():
    with pytest.raises(ModelError) as raised:
        resolve(
            "mcse", {"tua": 1, "tau": 0, "batch_size": 2.5, "epochs": 1, "steps": 3, "precision": "fp8", "warmup": True}
        )
    message = str(raised.value)
    assert raised.value.code == 2 and "\n" not in message
    for part in (
        "'tua' is unknown",
        "tau is 0 but",
        "batch_size is 2.5",
        "epochs and steps",
        "fp32, bf16",
        "warmup is",
    ):
        assert part in message, part
    assert all(setting in message for setting in SETTINGS)
    with pytest.raises(ModelError, match="recipe 'msce' is unknown; known: untrained, simcse, mcse, mcseo"):
        resolve("msce")
    for bad in (float("nan"), float("inf"), "3e-5", -1):
        with pytest.raises(ModelError, match="learning_rate"):
            resolve("mcse", {"learning_rate": bad})
