"""What can be set in a recipe, and which values are allowed."""

from collections.abc import Callable, Mapping
from typing import Any

from model.losses import list_mle
from model.losses import object_phrase as op
from model.losses.cross_modal_kl import TRANSPOSES
from model.losses.replaced_token import PADDINGS

Check = Callable[[Any], str | None]  # None, or what the value must be

CAPTIONS_PER_IMAGE = ("one_fixed", "one_per_epoch", "all")
SCHEDULES = ("linear", "cosine")
OPTIMIZERS = ("adamw", "adamw_early_eps")
SPACES = ("proj", "raw")


def _whole(low: int) -> Check:
    return lambda v: None if type(v) is int and v >= low else f"a whole number >= {low}"


def _number(low: float, high: float = float("inf"), above: bool = False) -> Check:
    def check(v: Any) -> str | None:
        right = type(v) in (int, float) and (low < v if above else low <= v) and v <= high and v != float("inf")
        return None if right else f"a number {'>' if above else '>='} {low:g}" + (f" and <= {high:g}" * (high < 1e300))

    return check


def _choice(*allowed: Any) -> Check:
    return lambda v: None if v in allowed and type(v) is type(allowed[0]) else f"one of {', '.join(map(str, allowed))}"


# of the terms
TERM_SETTINGS: dict[str, Check] = {
    "tau": _number(0, above=True),
    "tau_image": _number(0, above=True),  # of image and caption terms; tau if not set
    "tau_object": _number(0, above=True),  # of object terms; tau if not set
    "lambda": _number(0),  # weight of the image term
    "mu": _number(0),  # weight of the object term
    "phrase_dup": _choice(*op.PHRASE_DUP),
    "same_image": _choice(*op.SAME_IMAGE),
    "direction": _choice(*op.DIRECTION),
    "iou_threshold": _number(0, 1),
    "beta": _number(0, 1),  # mcseo-soft: share of the soft targets
    "hard_negative_weight": _number(-100, 100),  # simcse-sup: log alpha
    "rtd_weight": _number(0),  # diffcse: weight of replaced-token detection
    "padding": _choice(*PADDINGS),
    "margin": _number(0, 3.14159),  # radians, of the text term
    "margin_teacher": _number(0, 3.14159),  # radians, of image and caption terms
    "threshold": _number(-1, 1),  # teacher cosine above which a negative is masked; 1: none is
    "tau_student": _number(0, above=True),  # of the divergences
    "tau_teacher": _number(0, above=True),
    "cross_weight": _number(0),
    "consistency_weight": _number(0),  # inside the bracket of cross_weight
    "consistency_margin": _number(-1, 1),
    "intra_weight": _number(0),
    "rank_weight": _number(0),  # inside the bracket of intra_weight
    "g2l_weight": _number(0),  # inside the bracket of intra_weight
    "first_teacher": _number(0, 1),  # share of the teacher `simcse`; the rest is `diffcse`'s
    "list_reduction": _choice(*list_mle.REDUCTIONS),
    "include_self": _choice(True, False),
    "cma_space": _choice(*SPACES),
    "transpose": _choice(*TRANSPOSES),
}

# of the run: fields of Recipe
FIELD_SETTINGS: dict[str, Check] = {
    "batch_size": _whole(1),
    "learning_rate": _number(0, above=True),
    "epochs": _whole(1),
    "steps": _whole(1),
    "warmup": _number(0, 1),
    "schedule": _choice(*SCHEDULES),
    "accumulation": _whole(1),
    "cache_chunk": _whole(1),
    "patience": _whole(1),
    "compile": _choice(True, False),
    "length_chunks": _whole(1),
    "optimizer": _choice(*OPTIMIZERS),
    "weight_decay": _number(0),
    "adam_eps": _number(0, above=True),
    "grad_clip": _number(0, above=True),
    "max_length": _whole(3),
    "eval_every": _whole(1),
    "precision": _choice("fp32", "bf16"),
    "projection": _whole(1),
    "share_object_head": _choice(True, False),
    "pair_every": _whole(1),
    "captions_per_image": _choice(*CAPTIONS_PER_IMAGE),
    "objects_per_caption": _whole(1),
    "mask_share": _number(0, 1, above=True),  # diffcse: of the tokens the generator fills
}

SETTINGS = (*TERM_SETTINGS, *FIELD_SETTINGS)


def problems(given: Mapping[str, Any]) -> list[str]:
    """What is wrong with these settings (none of them None), one short text each."""
    found = [f"setting {k!r} is unknown; known: {', '.join(SETTINGS)}" for k in given if k not in SETTINGS]
    for key, check in (TERM_SETTINGS | FIELD_SETTINGS).items():
        if key in given and (expected := check(given[key])):
            found.append(f"{key} is {given[key]!r} but must be {expected}")
    if "epochs" in given and "steps" in given:
        found.append("epochs and steps are both set: leave one of them null")
    return found
