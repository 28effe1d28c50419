"""What is measured of a candidate, and the rules by which it is dropped on its own account."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from stages.align.similarity import Similarity
from stages.common import rle
from stages.common.candidates import feature_ids


@dataclass(frozen=True)
class Measures:
    """Columns over candidates, float64 [N]. `area` is a share of the image; `mask_box_iou` is NaN for candidates that
    a cheaper rule had dropped before.
    """

    area: np.ndarray
    mask_box_iou: np.ndarray


@dataclass
class Verdicts:
    """Why each of N candidates is dropped: reason code, "" for those that are left, and a detail for the reader."""

    reason: np.ndarray
    detail: np.ndarray

    @staticmethod
    def none(rows: int) -> "Verdicts":
        return Verdicts(np.full(rows, "", object), np.full(rows, "", object))

    @property
    def left(self) -> np.ndarray:
        """Rows that no rule has dropped so far."""
        return np.flatnonzero(self.reason == "")

    def drop(self, reason: str, values: np.ndarray, fails: np.ndarray, tell: Callable[[float], str]) -> None:
        """Drops what is left and fails; a candidate has one reason, its first."""
        rows = self.left
        rows = rows[fails[rows]]
        self.reason[rows] = reason
        self.detail[rows] = [tell(value) for value in values[rows].tolist()]


def filtered(made: pa.Table, texts: pa.ChunkedArray, similarity: Similarity, section: Any) -> tuple[Measures, Verdicts]:
    """Measures candidates (`candidates.SCHEMA`; `texts` are their phrases) and drops by thresholds, the cheapest rule
    first, so that what is costly to measure is measured of few.
    """
    verdicts = Verdicts.none(made.num_rows)
    score, predicted = _real(made, "score"), _real(made, "predicted_iou")
    area = _real(made, "area") / (_real(made, "height") * _real(made, "width"))
    verdicts.drop("low_score", score, score < section.min_score, "{:.3f}".format)
    verdicts.drop("low_predicted_iou", predicted, predicted < section.min_predicted_iou, "{:.3f}".format)
    verdicts.drop("too_small", area, area < section.min_area, "{:.4f} of the image".format)
    verdicts.drop("too_large", area, area > section.max_area, "{:.4f} of the image".format)
    agreement = _of_left(verdicts, lambda rows: mask_box_iou(made.take(rows)))
    verdicts.drop("mask_off_box", agreement, agreement < section.min_mask_box_iou, "IoU {:.3f}".format)
    if section.min_similarity is not None:
        alike = _of_left(verdicts, lambda rows: similarity(feature_ids(made.take(rows)), texts.take(rows)))
        verdicts.drop("low_similarity", alike, alike < section.min_similarity, str)
    return Measures(area, agreement), verdicts


def mask_box_iou(made: pa.Table) -> np.ndarray:
    """IoU of each mask's own bounding box with the detected box, float64 [N]."""
    masks = (made.column(name).to_pylist() for name in ("counts", "height", "width"))
    return rle.box_ious(rle.boxes(*masks), np.stack([_real(made, name) for name in ("x0", "y0", "x1", "y1")], axis=1))


def _of_left(verdicts: Verdicts, measure: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    values = np.full(len(verdicts.reason), np.nan)
    rows = verdicts.left
    values[rows] = measure(rows)
    return values


def _real(made: pa.Table, name: str) -> np.ndarray:
    """A column as float64: thresholds are compared in double precision, as written in the parameters."""
    return made.column(name).to_numpy().astype(np.float64)
