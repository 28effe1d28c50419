"""COCO run-length masks. Compressed counts as bytes, masks at image resolution, boxes x0, y0, x1, y1 in pixels."""

from typing import NamedTuple

import numpy as np
from pycocotools import mask as coco

from pipeline.errors import InputError


class Mask(NamedTuple):
    """Compressed counts with the size of their image."""

    counts: bytes
    height: int
    width: int


def encode(mask: np.ndarray) -> bytes:
    """Compressed counts of a boolean mask [height, width]."""
    return coco.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]


def decode(counts: bytes, height: int, width: int) -> np.ndarray:
    """A boolean mask [height, width]."""
    return coco.decode({"counts": counts, "size": [height, width]}).astype(bool)


def area(counts: bytes, height: int, width: int) -> int:
    """Pixels set."""
    return int(coco.area({"counts": counts, "size": [height, width]}))


def box(counts: bytes, height: int, width: int) -> tuple[float, float, float, float]:
    """The mask's own bounding box; all zeros for an empty mask."""
    x, y, w, h = (float(v) for v in coco.toBbox({"counts": counts, "size": [height, width]}))
    return x, y, x + w, y + h


def boxes(several: list[bytes], heights: list[int], widths: list[int]) -> np.ndarray:
    """The bounding boxes of many masks, float64 [N, 4]; all zeros for an empty mask."""
    if not several:
        return np.zeros((0, 4))
    sized = zip(several, heights, widths, strict=True)
    found = coco.toBbox([{"counts": counts, "size": (height, width)} for counts, height, width in sized])
    found[:, 2:] += found[:, :2]
    return found


def union(several: list[bytes], height: int, width: int) -> bytes:
    """The mask of all pixels set in any of the given ones."""
    return coco.merge([{"counts": counts, "size": [height, width]} for counts in several])["counts"]


def from_annotation(segmentation: object, height: int, width: int) -> bytes | None:
    """Compressed counts of a COCO `segmentation`: polygons, uncompressed or compressed RLE; None if it is empty.

    Raises:
        InputError: it is none of these, or an RLE of another size.
    """
    if not segmentation:
        return None
    try:
        if isinstance(segmentation, list):
            return coco.merge(coco.frPyObjects(segmentation, height, width))["counts"]
        if list(segmentation["size"]) != [height, width]:
            raise InputError(
                f"annotated mask is {segmentation['size']}, the image is {[height, width]} (height, width)"
            )
        counts = segmentation["counts"]
        if isinstance(counts, list):
            return coco.frPyObjects(segmentation, height, width)["counts"]
        return counts.encode() if isinstance(counts, str) else counts
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - pycocotools raises bare Exception on what it does not know
        raise InputError(f"annotated mask cannot be read ({error})") from None


def mask_iou(a: bytes, b: bytes, height: int, width: int) -> float:
    """Intersection over union of two masks; 0 where both are empty."""
    shape = [height, width]
    return float(coco.iou([{"counts": a, "size": shape}], [{"counts": b, "size": shape}], [0])[0][0])


def box_iou(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """Intersection over union of two boxes, continuous coordinates; 0 for empty ones."""
    return float(box_ious(np.array([a]), np.array([b]))[0])


def box_ious(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of the boxes a[i] and b[i], float64 [N, 4], continuous coordinates; 0 for empty ones."""
    width = np.maximum(np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0]), 0.0)
    height = np.maximum(np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1]), 0.0)
    shared = width * height
    whole = _areas(a) + _areas(b) - shared
    return np.divide(shared, whole, out=np.zeros(len(a)), where=whole > 0)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
