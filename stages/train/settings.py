"""The section `train` in the words of `model.recipes`."""

from typing import Any

from model.recipes import Recipe, resolve
from pipeline.sections import Train


def recipe_of(name: str, section: Train) -> Recipe:
    """The recipe with the parameters of the section over its own settings, and those of `settings` over both.

    Raises ModelError (2): an unknown recipe or setting, or values out of range, all of them in one line.
    """
    own = section.settings.get(name, {})
    common = _common(section)
    if {"epochs", "steps"} & own.keys():
        common |= {"epochs": None, "steps": None}
    return resolve(name, common | own)


def _common(section: Train) -> dict[str, Any]:
    """What holds for all recipes; null leaves a setting to the recipe."""
    return {
        "epochs": None if section.max_steps else section.epochs,
        "steps": section.max_steps,
        "batch_size": section.batch_size,
        "accumulation": section.accumulation,
        "cache_chunk": section.cache_chunk,
        "learning_rate": section.learning_rate,
        "schedule": section.schedule,
        "warmup": section.warmup,
        "max_length": section.max_length,
        "length_chunks": section.length_chunks,
        "objects_per_caption": section.objects_per_caption,
        "captions_per_image": section.captions_per_image,
        "pair_every": section.pair_every,
        "tau": section.temperature,
        "lambda": section.image_weight,
        "mu": section.object_weight,
        "eval_every": section.eval_every,
        "patience": section.patience,
        "precision": section.dtype,
        "compile": section.compile,
    }
