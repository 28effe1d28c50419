"""Recipes: which terms are trained, with which weights and temperatures, heads and settings.

- `untrained`: no step at all; the encoder as it starts, the baseline of every comparison.
- `simcse`: InfoNCE between two dropout views (Gao et al. 2021), on sentences and captions alike, so that it sees the
  same text in the same order as the multimodal recipes.
- `mcse`: simcse + lambda x text-to-image InfoNCE on image-caption pairs (Zhang et al. 2022).
- `mcseo`: mcse + mu x object-phrase loss (Zhao et al. 2025, arXiv 2508.00332; weights of this project's choosing).

A setting left None is the recipe's own: those of the MCSE paper for BERT-base (batch 64, 3e-5, 3 epochs, tau 0.05,
lambda 0.01 for a text corpus mixed with image-caption pairs).
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from model.errors import PARAMETERS, ModelError
from model.losses import object_phrase as op


@dataclass(frozen=True)
class Term:
    """One summand of the loss: weight x function(temperature, options), on batches of the kinds named."""

    name: str
    weight: float
    temperature: float
    kinds: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """A resolved recipe. Lengths count tokens; `steps` (optimizer steps), if set, takes the place of `epochs`."""

    name: str
    terms: tuple[Term, ...] = ()
    heads: tuple[str, ...] = ()
    batch_size: int = 64
    learning_rate: float = 3e-5
    epochs: int = 3
    steps: int | None = None
    warmup: float = 0.0  # share of the steps over which the learning rate rises from 0
    weight_decay: float = 0.0
    adam_eps: float = 1e-6
    grad_clip: float = 1.0
    max_length: int = 32
    eval_every: int = 125
    precision: str = "fp32"  # of the encoder; losses are float32 always
    projection: int = 256
    share_object_head: bool = True
    pair_every: int | None = None  # None = as the mixing schedule says
    captions_per_image: str = "one_fixed"
    objects_per_caption: int = 1

    def has(self, term: str) -> bool:
        return any(t.name == term for t in self.terms)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def _whole(low: int) -> Callable[[Any], str | None]:
    return lambda v: None if type(v) is int and v >= low else f"a whole number >= {low}"


def _number(low: float, high: float = float("inf"), above: bool = False) -> Callable[[Any], str | None]:
    def check(v: Any) -> str | None:
        right = type(v) in (int, float) and (low < v if above else low <= v) and v <= high and v != float("inf")
        return None if right else f"a number {'>' if above else '>='} {low:g}" + (f" and <= {high:g}" * (high < 1e300))

    return check


def _choice(*allowed: Any) -> Callable[[Any], str | None]:
    return lambda v: None if v in allowed and type(v) is type(allowed[0]) else f"one of {', '.join(map(str, allowed))}"


# what can be overridden, and what is allowed; the first block belongs to terms, the second to Recipe's fields
_TERM_SETTINGS: dict[str, Callable[[Any], str | None]] = {
    "tau": _number(0, above=True),
    "tau_image": _number(0, above=True),
    "tau_object": _number(0, above=True),
    "lambda": _number(0),
    "mu": _number(0),
    "phrase_dup": _choice(*op.PHRASE_DUP),
    "same_image": _choice(*op.SAME_IMAGE),
    "direction": _choice(*op.DIRECTION),
    "iou_threshold": _number(0, 1),
}
_FIELD_SETTINGS: dict[str, Callable[[Any], str | None]] = {
    "batch_size": _whole(1),
    "learning_rate": _number(0, above=True),
    "epochs": _whole(1),
    "steps": _whole(1),
    "warmup": _number(0, 1),
    "weight_decay": _number(0),
    "adam_eps": _number(0, above=True),
    "grad_clip": _number(0, above=True),
    "max_length": _whole(3),
    "eval_every": _whole(1),
    "precision": _choice("fp32", "bf16"),
    "projection": _whole(1),
    "share_object_head": _choice(True, False),
    "pair_every": _whole(1),
    "captions_per_image": _choice("one_fixed", "all"),
    "objects_per_caption": _whole(1),
}
_TERM_DEFAULTS: dict[str, Any] = {
    "tau": 0.05,
    "lambda": 0.01,
    "mu": 0.01,
    "phrase_dup": "multi_positive",
    "same_image": "iou_ignore",
    "direction": "t2v",
    "iou_threshold": 0.5,
}
_TERMS = {"untrained": (), "simcse": ("text",), "mcse": ("text", "image"), "mcseo": ("text", "image", "object")}
_HEADS = {"text": ("simcse",), "image": ("grounding", "visual"), "object": ("grounding", "visual", "object")}
NAMES = tuple(_TERMS)
SETTINGS = (*_TERM_SETTINGS, *_FIELD_SETTINGS)


def resolve(name: str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe `name` with `overrides` (a setting that is None is the recipe's own).

    Every recipe accepts every setting and uses those that concern it, so that one parameter section serves several
    recipes. A term of weight 0 is left out: neither computed nor given heads.
    Raises ModelError (2) for an unknown recipe or setting, or values out of range, all of them in one line.
    """
    if name not in _TERMS:
        raise ModelError(f"recipe {name!r} is unknown; known: {', '.join(NAMES)}", PARAMETERS)
    given = {k: v for k, v in (overrides or {}).items() if v is not None}
    problems = [f"setting {k!r} is unknown; known: {', '.join(SETTINGS)}" for k in given if k not in SETTINGS]
    for key, check in (_TERM_SETTINGS | _FIELD_SETTINGS).items():
        if key in given and (expected := check(given[key])):
            problems.append(f"{key} is {given[key]!r} but must be {expected}")
    if "epochs" in given and "steps" in given:
        problems.append("epochs and steps are both set: leave one of them null")
    if problems:
        raise ModelError(f"recipe {name}: {'; '.join(problems)}", PARAMETERS)
    knobs = _TERM_DEFAULTS | {k: v for k, v in given.items() if k in _TERM_SETTINGS}
    terms = tuple(t for t in (_term(n, knobs) for n in _TERMS[name]) if t.weight != 0)
    share = given.get("share_object_head", Recipe.share_object_head)
    heads = tuple(dict.fromkeys(h for t in terms for h in _HEADS[t.name] if not (share and h == "object")))
    if not share and not any(t.name == "image" for t in terms):
        heads = tuple(h for h in heads if h != "visual")
    return replace(Recipe(name, terms, heads), **{k: v for k, v in given.items() if k in _FIELD_SETTINGS})


def _term(name: str, knobs: Mapping[str, Any]) -> Term:
    tau = knobs["tau"]
    if name == "text":
        return Term("text", 1.0, tau, ("text", "pair"))
    if name == "image":
        return Term("image", knobs["lambda"], knobs.get("tau_image", tau), ("pair",))
    options = {k: knobs[k] for k in ("phrase_dup", "same_image", "direction", "iou_threshold")}
    return Term("object", knobs["mu"], knobs.get("tau_object", tau), ("pair",), options)
