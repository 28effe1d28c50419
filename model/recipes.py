"""Recipes: which terms are trained, with which weights and temperatures, heads and settings.

docs/recipes.md has each recipe's formula and source. In short:

- `untrained`: no step at all; the encoder as it starts, the baseline of every comparison.
- `simcse`: InfoNCE between two dropout views, on sentences and captions alike, so that it sees the same text in the
  same order as the multimodal recipes. `simcse-sup`: on triplets with hard negatives.
- `diffcse`: simcse through a projector, and replaced-token detection.
- `mcse`: simcse + lambda x text-to-image InfoNCE. `kdmcse`: with angular margins and masks that CLIP teaches.
  `dalr`: mcse + alignment with text teachers and with the images among themselves.
- `mcseo`: mcse + mu x object-phrase loss; `mcseo-span` and `mcseo-soft` are its variants B and C.
- Controls: `mcseo-shuffled` (object rows permuted once), `mcseo-whole` (the whole image in place of the crop),
  `mcseo-mil` (caption against its bag of objects, no phrases), `simcse-phrases` (phrases as sentences, no vision).

The plain name is the recommended form; `-code` follows the method's released code, `-paper` its text. A setting left
None is the recipe's own: what was published for BERT-base.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from model.errors import PARAMETERS, ModelError
from model.settings import FIELD_SETTINGS, SETTINGS, TERM_SETTINGS, problems

__all__ = ["NAMES", "SETTINGS", "TEACHERS", "Recipe", "Term", "resolve"]


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
    """A resolved recipe. Lengths count tokens; `steps` (optimizer steps), if set, takes the place of `epochs`.

    needs: what must be at hand beside text, of: images, objects (pairs with object features), phrases (pairs without),
    caption_text, phrase_text (CLIP's vectors of captions, of phrases), spans (where phrases stand in their captions),
    triplets, teachers, generator.
    """

    name: str
    terms: tuple[Term, ...] = ()
    heads: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    batch_size: int = 64
    learning_rate: float = 3e-5
    epochs: int = 3
    steps: int | None = None
    warmup: float = 0.0  # share of the steps over which the learning rate rises from 0
    schedule: str = "linear"
    accumulation: int = 1  # batches whose mean loss makes one optimizer step
    cache_chunk: int | None = None  # rows of a gradient-cache chunk; None: no gradient cache
    patience: int | None = None  # evaluations without a better dev score after which training stops
    compile: bool = False
    length_chunks: int = 1  # groups of like length in which a batch is encoded
    optimizer: str = "adamw"
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
    objects: str = "own"  # which feature stands for an object: own, shuffled (rows permuted once), image (the whole)
    teachers: tuple[str, ...] = ()  # frozen text encoders, by name
    teacher_states: bool = False  # whether their token states are read, not only their sentence vectors
    mask_share: float = 0.3
    pooling: str | None = None  # what the recipe is meant for; None = any

    def has(self, term: str) -> bool:
        return any(t.name == term for t in self.terms)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


Knobs = Mapping[str, Any]


@dataclass(frozen=True)
class _Form:
    """How a recipe is made: its terms from the settings, and its own values of settings and fields."""

    terms: Callable[[Knobs], list[Term]]
    knobs: Knobs = field(default_factory=dict)
    fields: Knobs = field(default_factory=dict)


_TEXT, _PAIR = ("text", "pair"), ("pair",)
TEACHERS = ("simcse", "diffcse")  # DALR's, in the order of a term's `shares`

# ------------------------------------------------------------ terms


def _text(k: Knobs, **options: Any) -> Term:
    return Term("text", 1.0, k["tau"], _TEXT, options)


def _image(k: Knobs, name: str = "image", weight: float | None = None, **options: Any) -> Term:
    return Term(name, k["lambda"] if weight is None else weight, k.get("tau_image", k["tau"]), _PAIR, options)


def _object(k: Knobs, name: str = "object", *more: str) -> Term:
    options = {o: k[o] for o in ("phrase_dup", "same_image", "direction", "iou_threshold", *more)}
    return Term(name, k["mu"], k.get("tau_object", k["tau"]), _PAIR, options)


def _simcse(k: Knobs) -> list[Term]:
    return [_text(k)]


def _simcse_sup(k: Knobs) -> list[Term]:
    return [Term("triplet", 1.0, k["tau"], ("triplet",), {"weight": k["hard_negative_weight"]})]


def _simcse_phrases(k: Knobs) -> list[Term]:
    return [_text(k, phrases=True)]


def _diffcse(k: Knobs) -> list[Term]:
    return [_text(k), Term("replaced", k["rtd_weight"], 1.0, _TEXT, {"padding": k["padding"]})]


def _mcse(k: Knobs) -> list[Term]:
    return [_text(k), _image(k)]


def _kdmcse(form: str) -> Callable[[Knobs], list[Term]]:
    # which teacher cosine masks the negatives of image and of caption: C = caption, I = image, row i = anchor
    masks = {"": ("C.C", "C.C"), "code": ("C.I", "I.C"), "paper": ("C.I", "C.C")}[form]

    def terms(k: Knobs) -> list[Term]:
        options = {
            "margin": k["margin_teacher"],
            "threshold": k["threshold"],
            "form": "paper" if form == "paper" else "code",
            "same_image": not form,
        }
        weight = k["lambda"] / 2 if form == "paper" else k["lambda"]
        return [
            _text(k, margin=k["margin"]),
            *(_image(k, n, weight, mask=m, **options) for n, m in zip(("image", "caption"), masks, strict=True)),
        ]

    return terms


def _dalr(form: str) -> Callable[[Knobs], list[Term]]:
    code = form == "code"

    def terms(k: Knobs) -> list[Term]:
        cross, intra, shares = k["cross_weight"], k["intra_weight"], [k["first_teacher"], 1 - k["first_teacher"]]
        margin = k["margin"] if code else None
        reduction = "sum" if form == "paper" else "mean"
        divergence = {
            "margin": margin,
            "shares": shares,
            "form": "vectors" if code else "cosines",
            "tau_teacher": k["tau_teacher"],
            "reduction": reduction,
        }
        apart = {"margin": k["consistency_margin"], "reduction": reduction}
        apart |= {"mismatched": "shuffle" if form == "paper" else "roll", "same_image": not form}
        ranked = {"margin": margin, "shares": shares, "include_self": k["include_self"]}
        ranked |= {"reduction": k["list_reduction"], "eps": 1e-7 if code else None}
        aligned = divergence | {"space": k["cma_space"], "transpose": k["transpose"]}
        return [
            _text(k, margin=margin) if code else _text(k),
            _image(k, weight=cross, margin=k["margin_teacher"]) if code else _image(k),
            Term("consistency", cross * k["consistency_weight"], 1.0, _PAIR, apart),
            Term("cross_kl", cross, k["tau_student"], _PAIR, aligned),
            Term("rank", intra * k["rank_weight"], k["tau"], _PAIR, ranked),
            Term("intra_kl", intra, k["tau_student"], _PAIR, divergence),
            Term("g2l", intra * k["g2l_weight"], k["tau"], _PAIR, {"shares": shares}),
        ]

    return terms


def _mcseo(k: Knobs) -> list[Term]:
    return [*_mcse(k), _object(k)]


def _mcseo_span(k: Knobs) -> list[Term]:
    return [*_mcse(k), _object(k, "span")]


def _mcseo_soft(k: Knobs) -> list[Term]:
    return [*_mcse(k), _object(k, "soft", "beta", "tau_teacher")]


def _mcseo_mil(k: Knobs) -> list[Term]:
    return [*_mcse(k), Term("bag", k["mu"], k.get("tau_object", k["tau"]), _PAIR)]


# ------------------------------------------------------------ recipes

_DEFAULTS: dict[str, Any] = {
    "tau": 0.05,
    "lambda": 0.01,
    "mu": 0.01,
    "phrase_dup": "multi_positive",
    "same_image": "iou_ignore",
    "direction": "t2v",
    "iou_threshold": 0.5,
    "beta": 0.5,
    "hard_negative_weight": 0.0,
    "rtd_weight": 0.005,
    "padding": "ignore",
    "margin": 0.15,
    "margin_teacher": 0.15,
    "threshold": 0.9,
    "tau_student": 0.05,
    "tau_teacher": 0.05,
    "cross_weight": 0.1,
    "consistency_weight": 0.01,
    "consistency_margin": 0.2,
    "intra_weight": 0.2,
    "rank_weight": 1.0,
    "g2l_weight": 0.0,
    "first_teacher": 0.33,
    "list_reduction": "mean",
    "include_self": False,
    "cma_space": "proj",
    "transpose": "scores",
}
_ALL = {"captions_per_image": "all"}
_DALR = {"batch_size": 128, "learning_rate": 2e-5, "epochs": 4, **_ALL}
_DALR_CODE = {
    **{"margin": 0.18, "margin_teacher": 0.18, "g2l_weight": 1.0, "tau_student": 0.05 * 0.45, "tau_teacher": 0.5},
    **{"list_reduction": "rows", "include_self": True, "cma_space": "raw"},
}
_DALR_PAPER = {"consistency_weight": 1.0, "list_reduction": "sum", "include_self": True}
_DIFFCSE = {"learning_rate": 7e-6, "epochs": 2}
_FORMS: dict[str, _Form] = {
    "untrained": _Form(lambda k: []),
    "simcse": _Form(_simcse, fields={"epochs": 1}),
    "simcse-sup": _Form(_simcse_sup, fields={"batch_size": 512, "learning_rate": 5e-5, "pooling": "cls_mlp"}),
    "mcse": _Form(_mcse),
    "kdmcse": _Form(_kdmcse(""), fields=_ALL),
    "kdmcse-code": _Form(_kdmcse("code"), {"threshold": None}, _ALL),
    "kdmcse-paper": _Form(_kdmcse("paper"), {"margin": 0.125, "margin_teacher": 0.125}, _ALL),
    "dalr": _Form(_dalr(""), fields=_DALR),
    "dalr-code": _Form(_dalr("code"), _DALR_CODE, _DALR),
    "dalr-paper": _Form(_dalr("paper"), _DALR_PAPER, _DALR),
    "diffcse": _Form(_diffcse, fields=_DIFFCSE),
    "diffcse-code": _Form(_diffcse, {"padding": "count"}, _DIFFCSE),
    "mcseo": _Form(_mcseo),
    "mcseo-span": _Form(_mcseo_span),
    "mcseo-soft": _Form(_mcseo_soft, {"direction": "symmetric", "tau_teacher": 0.03}),
    "mcseo-shuffled": _Form(_mcseo, fields={"objects": "shuffled"}),
    # one vector stands for all phrases of an image, so none of them may be another's negative
    "mcseo-whole": _Form(_mcseo, {"same_image": "ignore"}, fields={"objects": "image"}),
    "mcseo-mil": _Form(_mcseo_mil, fields={"objects_per_caption": 4}),
    "simcse-phrases": _Form(_simcse_phrases),
}
NAMES = tuple(_FORMS)


def resolve(name: str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe `name` with `overrides` (a setting that is None is the recipe's own).

    Every recipe accepts every setting and uses those that concern it, so that one parameter section serves several
    recipes. A term of weight 0 is left out: neither computed nor given heads.
    Raises ModelError (2) for an unknown recipe or setting, or values out of range, all of them in one line.
    """
    if name not in _FORMS:
        raise ModelError(f"recipe {name!r} is unknown; known: {', '.join(NAMES)}", PARAMETERS)
    given = {k: v for k, v in (overrides or {}).items() if v is not None}
    if wrong := problems(given):
        raise ModelError(f"recipe {name}: {'; '.join(wrong)}", PARAMETERS)
    form = _FORMS[name]
    knobs = {**_DEFAULTS, **form.knobs, **{k: v for k, v in given.items() if k in TERM_SETTINGS}}
    terms = tuple(t for t in form.terms(knobs) if t.weight != 0)
    fields = {**form.fields, **{k: v for k, v in given.items() if k in FIELD_SETTINGS}}
    recipe = replace(Recipe(name, terms), **fields)
    needs = tuple(dict.fromkeys(n for t in terms for n in _needs(t, recipe)))
    return replace(
        recipe,
        heads=_heads(recipe),
        needs=needs,
        teachers=TEACHERS if "teachers" in needs else (),
        teacher_states=recipe.has("g2l"),
    )


def _needs(term: Term, recipe: Recipe) -> tuple[str, ...]:
    if term.name == "image":
        masked = term.options.get("threshold") is not None and "C" in term.options["mask"]
        return ("images", "caption_text") if masked else ("images",)
    if term.name == "caption":
        masked = term.options["threshold"] is not None and "I" in term.options["mask"]
        return ("caption_text", "images") if masked else ("caption_text",)
    own = ("images", "phrases") if recipe.objects == "image" else ("objects",)
    return {
        "text": ("phrases",) if term.options.get("phrases") else (),
        "triplet": ("triplets",),
        "replaced": ("generator",),
        "consistency": ("images",),
        "cross_kl": ("images", "teachers"),
        "rank": ("teachers",),
        "intra_kl": ("teachers",),
        "g2l": ("teachers",),
        "object": own,
        "span": (*own, "spans"),
        "soft": (*own, "phrase_text"),
        "bag": own,
    }[term.name]


def _heads(recipe: Recipe) -> tuple[str, ...]:
    seen = "visual" if recipe.share_object_head else "object"
    sentence = "projector" if recipe.has("replaced") else "simcse"
    of = {
        "text": (sentence,),
        "triplet": (sentence,),
        "replaced": (sentence, "discriminator"),
        "image": ("grounding", "visual"),
        "caption": ("grounding", "caption"),
        "consistency": (sentence, "consistency_text", "consistency_image"),
        "rank": (sentence,),
        "intra_kl": (sentence,),
        "g2l": (sentence,),
        "object": ("grounding", seen),
        "span": ("span", seen),
        "soft": ("grounding", seen),
        "bag": ("grounding", seen),
    }
    found = []
    for term in recipe.terms:
        raw = term.options.get("space") == "raw"
        found += of.get(term.name, (sentence,) if raw else ("grounding", "visual"))  # the last: cross_kl
    return tuple(dict.fromkeys(found))
