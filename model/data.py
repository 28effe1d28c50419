"""What is trained on, as plain lists and arrays, and the checks that come before any work."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from model.errors import PARAMETERS, ModelError
from model.recipes import Recipe


@dataclass(frozen=True)
class PairItem:
    """An object-phrase pair of a caption. `key`: equal for phrases that mean the same; `box`: xyxy in pixels.

    phrase_row: its row in phrase_text. start, end: the characters [start, end) of the caption that are the phrase.
    What a recipe does not use may be left None.
    """

    phrase: str
    object_row: int
    key: Hashable
    box: tuple[float, float, float, float]
    image_id: Hashable
    phrase_row: int | None = None
    start: int | None = None
    end: int | None = None


@dataclass(frozen=True)
class TrainingData:
    """Text streams and frozen features.

    sentences: text without an image. captions: text with one; caption_image[i] = row of caption i's image in
    image_features [I, d], float32 or float16 (a memory map will do). pairs[i] = the object-phrase pairs of caption i,
    with rows of object_features [O, d_o]. caption_text [C, d_c]: a row a caption, and phrase_text [P, d_p]: vectors of
    captions and phrases by the text side of CLIP. triplets: (premise, entailment, contradiction). teacher_text: what
    each frozen text teacher makes of the captions, [C, d_k] (model.teachers.prepare fills it in).
    What a recipe does not use may be left empty or None.
    """

    sentences: list[str] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    caption_image: list[int] = field(default_factory=list)
    image_features: np.ndarray | None = None
    pairs: list[list[PairItem]] = field(default_factory=list)
    object_features: np.ndarray | None = None
    caption_text: np.ndarray | None = None
    phrase_text: np.ndarray | None = None
    triplets: list[tuple[str, str, str]] = field(default_factory=list)
    teacher_text: Mapping[str, np.ndarray] | None = None

    @property
    def image_dim(self) -> int | None:
        return _width(self.image_features)

    @property
    def object_dim(self) -> int | None:
        return _width(self.object_features)

    @property
    def caption_dim(self) -> int | None:
        return _width(self.caption_text)


def check(data: TrainingData, recipe: Recipe) -> None:
    """Raises ModelError unless `recipe` can be trained on `data`; the message says what would make what is missing."""
    if not recipe.terms:
        return
    needs = recipe.needs
    if "triplets" in needs:
        _check_triplets(data, recipe)
        return
    if not data.sentences and not data.captions:
        raise ModelError(f"recipe {recipe.name}: nothing to train on, neither sentences nor captions")
    if len(data.caption_image) != len(data.captions):
        raise ModelError(f"{len(data.captions)} captions but {len(data.caption_image)} entries in caption_image")
    if "images" in needs:
        if not data.captions or data.image_features is None:
            raise ModelError(
                f"recipe {recipe.name} needs captions with image features, and there are none: read captions with "
                f"images and run the stage embed"
            )
        _check_features(data.image_features, "image_features", data.caption_image, "caption_image")
    if "caption_text" in needs:
        _check_caption_text(data, recipe)
    if "teachers" in needs and not data.captions:
        raise ModelError(f"recipe {recipe.name} needs captions, and there are none")
    if "objects" in needs or "phrases" in needs:
        _check_pairs(data, recipe)


def check_batch(recipe: Recipe, **rows: int) -> None:
    """Raises ModelError when a stream that is there holds less than one batch. rows: the streams' lengths by name."""
    for name, count in rows.items():
        if 0 < count < recipe.batch_size:
            raise ModelError(
                f"batch_size is {recipe.batch_size} but there are only {count} {name} to train on; lower batch_size",
                PARAMETERS,
            )


def _check_triplets(data: TrainingData, recipe: Recipe) -> None:
    if not data.triplets:
        raise ModelError(
            f"recipe {recipe.name} needs triplets (premise, entailment, contradiction), and there are none: set "
            f"train.triplets_path to a table of them"
        )
    for row, triplet in enumerate(data.triplets):
        if len(triplet) != 3 or not all(isinstance(text, str) and text.strip() for text in triplet):
            raise ModelError(f"triplets: row {row} is not three texts, premise, entailment, contradiction")


def _check_caption_text(data: TrainingData, recipe: Recipe) -> None:
    if data.caption_text is None:
        raise ModelError(
            f"recipe {recipe.name} needs CLIP text features of the captions, and there are none: {_CLIP_TEXT}"
        )
    if len(data.caption_text) != len(data.captions):
        raise ModelError(f"{len(data.captions)} captions but {len(data.caption_text)} rows in caption_text")
    _check_features(data.caption_text, "caption_text", range(len(data.captions)), "caption")
    crossed = [t.options.get("mask") for t in recipe.terms if t.options.get("threshold") is not None]
    if {"C.I", "I.C"} & set(crossed) and data.image_dim != data.caption_dim:
        raise ModelError(
            f"recipe {recipe.name} compares captions with images: image features have {data.image_dim} dimensions, "
            f"caption text features {data.caption_dim}; make both with the same CLIP checkpoint (embed.path)"
        )


_CLIP_TEXT = "set embed.path to a CLIP checkpoint and embed.text to true, and run the stage embed"


def _check_pairs(data: TrainingData, recipe: Recipe) -> None:
    if len(data.pairs) != len(data.captions):
        raise ModelError(f"{len(data.captions)} captions but {len(data.pairs)} entries in pairs")
    items = [item for own in data.pairs for item in own]
    with_features = "objects" in recipe.needs
    if not items or (with_features and data.object_features is None):
        features = " with object features" * with_features
        raise ModelError(
            f"recipe {recipe.name} needs object-phrase pairs{features}, and there are none: run the stages that mine "
            f"them (parse to align){' and embed' * with_features}"
        )
    if with_features:
        _check_features(data.object_features, "object_features", [i.object_row for i in items], "object_row")
        if recipe.share_object_head and data.image_dim not in (None, data.object_dim):
            raise ModelError(
                f"image features have {data.image_dim} dimensions, object features {data.object_dim}: embed both with "
                f"the same model, or set share_object_head to false"
            )
    boxes = np.array([item.box for item in items], dtype=np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
        raise ModelError("pairs: every box must be four finite numbers, x1 y1 x2 y2 in pixels")
    if "phrase_text" in recipe.needs:
        _check_phrase_text(data, recipe, items)
    if "spans" in recipe.needs:
        _check_spans(data, recipe)


def _check_phrase_text(data: TrainingData, recipe: Recipe, items: list[PairItem]) -> None:
    rows = [item.phrase_row for item in items]
    if data.phrase_text is None or None in rows:
        raise ModelError(
            f"recipe {recipe.name} needs CLIP text features of the phrases, and there are none: {_CLIP_TEXT}"
        )
    _check_features(data.phrase_text, "phrase_text", rows, "phrase_row")
    seen, name = data.object_dim, "object"
    if recipe.objects == "image":
        seen, name = data.image_dim, "image"
    if data.phrase_text.shape[1] != seen:
        raise ModelError(
            f"recipe {recipe.name} compares phrases with objects: phrase text features have "
            f"{data.phrase_text.shape[1]} dimensions, {name} features {seen}; make both with the same CLIP checkpoint "
            f"(embed.path)"
        )


def _check_spans(data: TrainingData, recipe: Recipe) -> None:
    for caption, (text, items) in enumerate(zip(data.captions, data.pairs, strict=True)):
        for item in items:
            if item.start is None or item.end is None:
                raise ModelError(
                    f"recipe {recipe.name} needs to know where phrases stand in their captions: the pair "
                    f"{item.phrase!r} of caption {caption} has no start and end; run the stage parse"
                )
            if not 0 <= item.start < item.end <= len(text):
                raise ModelError(
                    f"pairs: {item.phrase!r} of caption {caption} has the characters {item.start} to {item.end}, but "
                    f"the caption has {len(text)}"
                )


def _check_features(features: np.ndarray, name: str, rows: Iterable[int], index: str) -> None:
    if features.ndim != 2 or features.shape[1] == 0:
        raise ModelError(f"{name} has shape {list(features.shape)}; it must be [rows, dimensions]")
    index_array = np.asarray(rows, dtype=np.int64)
    bad = np.flatnonzero((index_array < 0) | (index_array >= len(features)))
    if len(bad):
        raise ModelError(f"{index} {index_array[bad[0]]} is outside {name}, which has {len(features)} rows")
    for start in range(0, len(features), 65536):  # in parts: it may be a memory map larger than memory
        finite = np.isfinite(features[start : start + 65536]).all(axis=1)
        if not finite.all():
            raise ModelError(f"{name}: row {start + int(np.argmin(finite))} holds NaN or infinity; embed it again")


def _width(features: np.ndarray | None) -> int | None:
    return None if features is None else features.shape[1]
