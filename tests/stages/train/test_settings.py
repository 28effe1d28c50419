"""The section `train` and the recipes' own settings."""

import typing

import pytest
from small import ROOT

from model.errors import ModelError
from model.recipes import NAMES, resolve
from model.settings import FIELD_SETTINGS
from pipeline import params, presets, sections
from stages.train.settings import recipe_of

PAPER = [name for name in presets.names() if name.startswith("paper-")]


def section(**changes):
    values = params.load(ROOT / "params.yaml").train.model_dump()
    free = ("epochs", "max_steps", "batch_size", "learning_rate", "captions_per_image", "objects_per_caption")
    usual = dict.fromkeys(free) | {"eval_every": 125}
    return sections.Train.model_validate(values | usual | changes)


def test_the_parameters_know_every_recipe():
    assert set(typing.get_args(sections.Recipe)) == set(NAMES)
    assert len(typing.get_args(sections.Recipe)) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_null_is_the_recipes_own(name):
    assert recipe_of(name, section()) == resolve(name)


@pytest.mark.parametrize(
    ("parameter", "value", "field"),
    [
        ("epochs", 9, "epochs"),
        ("max_steps", 9, "steps"),
        ("batch_size", 9, "batch_size"),
        ("accumulation", 9, "accumulation"),
        ("cache_chunk", 9, "cache_chunk"),
        ("learning_rate", 0.9, "learning_rate"),
        ("schedule", "cosine", "schedule"),
        ("warmup", 0.9, "warmup"),
        ("max_length", 9, "max_length"),
        ("length_chunks", 9, "length_chunks"),
        ("objects_per_caption", 9, "objects_per_caption"),
        ("captions_per_image", "one_per_epoch", "captions_per_image"),
        ("pair_every", 9, "pair_every"),
        ("eval_every", 9, "eval_every"),
        ("patience", 9, "patience"),
        ("dtype", "bf16", "precision"),
        ("compile", True, "compile"),
    ],
)
def test_a_parameter_reaches_the_recipe(parameter, value, field):
    assert field in FIELD_SETTINGS and getattr(recipe_of("mcseo", section(**{parameter: value})), field) == value


def test_weights_and_temperature_reach_the_terms():
    recipe = recipe_of("mcseo", section(temperature=0.5, image_weight=0.25, object_weight=0.125))
    assert [(t.weight, t.temperature) for t in recipe.terms] == [(1, 0.5), (0.25, 0.5), (0.125, 0.5)]


def test_settings_of_a_recipe_stand_over_the_parameters_and_are_its_alone():
    table = {"dalr": {"learning_rate": 1e-5, "epochs": 3, "rank_weight": 0.05}, "mcse": {"steps": 7}}
    made = section(learning_rate=0.1, epochs=5, settings=table)
    dalr, mcse, simcse = (recipe_of(name, made) for name in ("dalr", "mcse", "simcse"))
    assert (dalr.learning_rate, dalr.epochs) == (1e-5, 3)
    assert next(t.weight for t in dalr.terms if t.name == "rank") == pytest.approx(0.2 * 0.05)
    assert (mcse.learning_rate, mcse.steps) == (0.1, 7)
    assert (simcse.learning_rate, simcse.epochs, simcse.steps) == (0.1, 5, None)


def test_all_wrong_settings_of_a_recipe_are_told_in_one_line():
    with pytest.raises(ModelError) as caught:
        recipe_of("kdmcse", section(settings={"kdmcse": {"margins": 1, "tau": -1.0}}))
    assert caught.value.code == 2 and "'margins' is unknown" in str(caught.value)
    assert "tau is -1.0 but must be a number > 0" in str(caught.value)


@pytest.mark.parametrize("name", PAPER)
def test_the_published_settings(name, tmp_path):
    """batch, learning rate, epochs, captions an image, of docs/recipes.md."""
    (tmp_path / "params.yaml").write_text(presets.render(presets._source(name), name, tmp_path))
    made = params.load(tmp_path / "params.yaml")
    assert made.grid.seeds == [0, 1, 2, 3, 4]
    resolved = {recipe: recipe_of(recipe, made.train) for recipe in NAMES}
    got = {n: (r.batch_size, r.learning_rate, r.epochs, r.captions_per_image) for n, r in resolved.items()}
    roberta, flickr = name.endswith("roberta"), "flickr" in name
    common = (128, 1e-5) if roberta else (64, 3e-5)
    wanted = dict.fromkeys(("simcse", "mcse", "mcseo", "mcseo-span", "mcseo-soft"), (*common, 3, "one_fixed"))
    wanted |= dict.fromkeys(("kdmcse", "kdmcse-code", "kdmcse-paper"), (*common, 3, "all"))
    wanted |= dict.fromkeys(("mcseo-shuffled", "mcseo-whole", "mcseo-mil", "simcse-phrases"), (*common, 3, "one_fixed"))
    dalr = (128, 2e-5, 4, "all") if flickr else (128, 1e-5, 3, "all")
    wanted |= dict.fromkeys(("dalr", "dalr-code", "dalr-paper"), dalr)
    wanted |= dict.fromkeys(("diffcse", "diffcse-code"), (64, 1e-5 if roberta else 7e-6, 2, "one_fixed"))
    wanted["simcse-sup"] = (512, 5e-5, 3, "one_fixed")
    assert got == wanted | {"untrained": got["untrained"]}
    assert resolved["diffcse"].mask_share == (0.2 if roberta else 0.3)
    for recipe in resolved.values():
        assert (recipe.max_length, recipe.eval_every, recipe.schedule, recipe.warmup) == (32, 125, "linear", 0)
        assert {t.temperature for t in recipe.terms if t.name in ("text", "image", "triplet")} <= {0.05}
        assert not recipe.has("image") or recipe.name.startswith("kdmcse-paper") or "dalr" in recipe.name or (
            next(t.weight for t in recipe.terms if t.name == "image") == 0.01
        )  # fmt: skip
