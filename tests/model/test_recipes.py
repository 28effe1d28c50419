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


PUBLISHED = {  # batch, learning rate, epochs, captions
    "simcse": (64, 3e-5, 1, "one_fixed"),
    "simcse-sup": (512, 5e-5, 3, "one_fixed"),
    "diffcse": (64, 7e-6, 2, "one_fixed"),
    "mcse": (64, 3e-5, 3, "one_fixed"),
    "kdmcse": (64, 3e-5, 3, "all"),
    "dalr": (128, 2e-5, 4, "all"),
    "mcseo": (64, 3e-5, 3, "one_fixed"),
}


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("untrained", "simcse-phrases")])
def test_published_settings(name):
    family = next(n for n in sorted(PUBLISHED, key=len, reverse=True) if name.startswith(n))
    recipe = resolve(name)
    found = (recipe.batch_size, recipe.learning_rate, recipe.epochs, recipe.captions_per_image)
    assert found == PUBLISHED[family]
    assert (recipe.max_length, recipe.eval_every, recipe.schedule, recipe.warmup) == (32, 125, "linear", 0)
    assert all(t.temperature == 0.05 for t in recipe.terms if t.name in ("text", "image", "caption", "object"))
    assert (recipe.pooling == "cls_mlp") == (name == "simcse-sup")


def options(name, term, **overrides):
    return next(t for t in resolve(name, overrides).terms if t.name == term)


def test_forms_of_kdmcse():
    default, code, paper = (options(n, "image") for n in ("kdmcse", "kdmcse-code", "kdmcse-paper"))
    assert (default.weight, code.weight, paper.weight) == (0.01, 0.01, 0.005), "the paper averages the modalities"
    assert (default.options["margin"], code.options["margin"], paper.options["margin"]) == (0.15, 0.15, 0.125)
    assert (default.options["threshold"], code.options["threshold"]) == (0.9, None)
    masks = [[options(n, t).options["mask"] for t in ("image", "caption")] for n in ("kdmcse", "kdmcse-code")]
    assert masks == [["C.C", "C.C"], ["C.I", "I.C"]]
    assert default.options["same_image"] and not code.options["same_image"]
    assert options("kdmcse", "text").kinds == ("text", "pair") and options("kdmcse", "text").options["margin"] == 0.15


def test_forms_of_dalr():
    found = {n: {t.name: t for t in resolve(n).terms} for n in ("dalr", "dalr-code", "dalr-paper")}
    assert "g2l" in found["dalr-code"] and "g2l" not in found["dalr"] and "g2l" not in found["dalr-paper"]
    rank = [found[n]["rank"].options for n in ("dalr", "dalr-code", "dalr-paper")]
    assert [(o["reduction"], o["include_self"], o["eps"], o["margin"]) for o in rank] == [
        ("mean", False, None, None),
        ("rows", True, 1e-7, 0.18),
        ("sum", True, None, None),
    ]
    assert [found[n]["consistency"].options["same_image"] for n in found] == [True, False, False]
    assert (
        found["dalr"]["cross_kl"].options["space"] == "proj"
        and found["dalr-code"]["cross_kl"].options["space"] == "raw"
    )
    assert found["dalr-code"]["intra_kl"].temperature == pytest.approx(0.0225)
    assert resolve("dalr").teachers == ("simcse", "diffcse") and resolve("dalr-code").teacher_states
    assert not resolve("dalr").teacher_states and not resolve("dalr-code", {"g2l_weight": 0}).teacher_states


NEEDS = {
    "simcse": (),
    "simcse-sup": ("triplets",),
    "diffcse": ("generator",),
    "mcse": ("images",),
    "kdmcse": ("images", "caption_text"),
    "dalr": ("images", "teachers"),
    "mcseo": ("images", "objects"),
    "mcseo-span": ("images", "objects", "spans"),
    "mcseo-soft": ("images", "objects", "phrase_text"),
    "mcseo-whole": ("images", "phrases"),
    "mcseo-mil": ("images", "objects"),
    "mcseo-shuffled": ("images", "objects"),
    "simcse-phrases": ("phrases",),
}


@pytest.mark.parametrize("name", NEEDS)
def test_needs(name):
    assert resolve(name).needs == NEEDS[name]


def test_needs_and_heads_follow_the_terms_that_are_left():
    assert resolve("mcseo", {"mu": 0}).needs == ("images",) and resolve("mcseo", {"lambda": 0}).needs == ("objects",)
    off = resolve("dalr", {"cross_weight": 0, "intra_weight": 0})
    assert (off.needs, off.heads, off.terms) == (("images",), resolve("mcse").heads, resolve("mcse").terms)
    assert "objects" not in resolve("simcse", {"objects_per_caption": 3}).needs
    assert resolve("mcseo-soft").heads == resolve("mcseo").heads and "span" in resolve("mcseo-span").heads


def test_settings_of_the_run():
    recipe = resolve(
        "mcse",
        {"schedule": "cosine", "accumulation": 4, "cache_chunk": 16, "patience": 3, "compile": True}
        | {"length_chunks": 2, "captions_per_image": "one_per_epoch", "optimizer": "adamw_early_eps"},
    )
    assert (recipe.schedule, recipe.accumulation, recipe.cache_chunk, recipe.patience) == ("cosine", 4, 16, 3)
    assert recipe.compile and recipe.length_chunks == 2 and recipe.captions_per_image == "one_per_epoch"
    for bad in ({"schedule": "step"}, {"accumulation": 0}, {"cache_chunk": 0}, {"mask_share": 0}, {"margin": 4}):
        with pytest.raises(ModelError, match=next(iter(bad))):
            resolve("mcse", bad)


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
    with pytest.raises(ModelError, match="recipe 'msce' is unknown; known: untrained, simcse, simcse-sup, mcse"):
        resolve("msce")
    for bad in (float("nan"), float("inf"), "3e-5", -1):
        with pytest.raises(ModelError, match="learning_rate"):
            resolve("mcse", {"learning_rate": bad})
