"""How much a cell computes, for the plan's estimate: reckoned from the recipe and the schedule, without any data."""

from model.recipes import Recipe
from model.streams import Schedule, plan
from pipeline.estimate import ENCODED, Counts
from pipeline.sections import Params
from stages.train.settings import recipe_of

_DEV = 2_900  # different sentences of STS-B dev
_PHRASE = 0.3  # of a sentence: a phrase is short
_GENERATED = 1.17  # of a sentence: a discriminator of the encoder's size, and half a one that only generates


def sentences(name: str, params: Params, amount: Counts) -> float:
    """The work of training a recipe, in sentences trained on in two views; evaluation on STS-B dev included.

    Raises ModelError for settings that do not fit.
    """
    recipe = recipe_of(name, params.train)
    if not recipe.terms:
        return _DEV * ENCODED
    share = params.ingest.splits.train
    captions = share * (amount.captions if recipe.captions_per_image == "all" else amount.images)
    if "triplets" in recipe.needs:
        schedule = plan(0, 0, recipe.batch_size, triplets=amount.triplets)
    else:
        schedule = plan(amount.sentences, round(captions), recipe.batch_size, recipe.pair_every)
    steps = recipe.steps or -(-recipe.epochs * schedule.steps_per_epoch // recipe.accumulation)
    rows = steps * recipe.accumulation * recipe.batch_size * _a_row(recipe, schedule)
    evaluated = (steps // recipe.eval_every + 1) * _DEV * ENCODED
    taught = len(recipe.teachers) * share * amount.captions * ENCODED
    return rows + evaluated + taught


def _a_row(recipe: Recipe, schedule: Schedule) -> float:
    """The work of a row of a batch, on average over the schedule's steps."""
    work = 1.5 if "triplets" in recipe.needs else 1.0
    if "generator" in recipe.needs:
        work += _GENERATED
    if recipe.has("object") or recipe.has("soft") or any(t.options.get("phrases") for t in recipe.terms):
        share = 1 / schedule.pair_every if schedule.text_batches else 1.0
        work += share * recipe.objects_per_caption * _PHRASE
    return work * (4 / 3 if recipe.cache_chunk else 1)
