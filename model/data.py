"""What is trained on, as plain lists and arrays, and the checks that come before any work."""

from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np

from model.errors import PARAMETERS, ModelError
from model.recipes import Recipe


@dataclass(frozen=True)
class PairItem:
    """An object-phrase pair of a caption. `key`: equal for phrases that mean the same; `box`: xyxy in pixels."""

    phrase: str
    object_row: int
    key: Hashable
    box: tuple[float, float, float, float]
    image_id: Hashable


@dataclass(frozen=True)
class TrainingData:
    """Text streams and frozen features.

    sentences: text without an image. captions: text with one; caption_image[i] = row of caption i's image in
    image_features [I, d], float32 or float16 (a memory map will do). pairs[i] = the object-phrase pairs of caption i,
    with rows of object_features [O, d_o]. What a recipe does not use may be left empty or None.
    """

    sentences: list[str] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    caption_image: list[int] = field(default_factory=list)
    image_features: np.ndarray | None = None
    pairs: list[list[PairItem]] = field(default_factory=list)
    object_features: np.ndarray | None = None

    @property
    def image_dim(self) -> int | None:
        return None if self.image_features is None else self.image_features.shape[1]

    @property
    def object_dim(self) -> int | None:
        return None if self.object_features is None else self.object_features.shape[1]


def check(data: TrainingData, recipe: Recipe) -> None:
    """Raises ModelError unless `recipe` can be trained on `data`."""
    if not recipe.terms:
        return
    if not data.sentences and not data.captions:
        raise ModelError(f"recipe {recipe.name}: nothing to train on, neither sentences nor captions")
    if len(data.caption_image) != len(data.captions):
        raise ModelError(f"{len(data.captions)} captions but {len(data.caption_image)} entries in caption_image")
    if recipe.has("image"):
        if not data.captions or data.image_features is None:
            raise ModelError(f"recipe {recipe.name} needs captions with image features, and there are none")
        _check_features(data.image_features, "image_features", data.caption_image, "caption_image")
    if recipe.has("object"):
        _check_pairs(data, recipe)


def check_batch(recipe: Recipe, sentences: int, captions: int) -> None:
    """Raises ModelError when a stream that is there holds less than one batch."""
    for name, rows in (("sentences", sentences), ("captions", captions)):
        if 0 < rows < recipe.batch_size:
            raise ModelError(
                f"batch_size is {recipe.batch_size} but there are only {rows} {name} to train on; lower batch_size",
                PARAMETERS,
            )


def _check_pairs(data: TrainingData, recipe: Recipe) -> None:
    if len(data.pairs) != len(data.captions):
        raise ModelError(f"{len(data.captions)} captions but {len(data.pairs)} entries in pairs")
    rows = [item.object_row for items in data.pairs for item in items]
    if not rows or data.object_features is None:
        raise ModelError(f"recipe {recipe.name} needs object-phrase pairs with object features, and there are none")
    _check_features(data.object_features, "object_features", rows, "object_row")
    if recipe.share_object_head and data.image_dim not in (None, data.object_dim):
        raise ModelError(
            f"image features have {data.image_dim} dimensions, object features {data.object_dim}: embed both with the "
            f"same model, or set share_object_head to false"
        )
    boxes = np.array([item.box for items in data.pairs for item in items], dtype=np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
        raise ModelError("pairs: every box must be four finite numbers, x1 y1 x2 y2 in pixels")


def _check_features(features: np.ndarray, name: str, rows: list[int], index: str) -> None:
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
