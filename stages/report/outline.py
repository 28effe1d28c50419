"""Masks as SVG paths."""

import numpy as np
from contourpy import contour_generator
from PIL import Image

TOLERANCE = 0.35


def outline(mask: np.ndarray, width: int, height: int) -> str:
    """The outline of a boolean mask [h, w], scaled to `width` x `height`, as SVG path data ('' for an empty mask).

    Coordinates: x to the right, y down, origin at the outer corner of the top left pixel, as in boxes. Holes are rings
    of their own, so the path is to be filled with the rule evenodd. Contours are traced at half coverage (marching
    squares) and thinned by the algorithm of Douglas and Peucker (1973) with a tolerance of 0.35 units.
    """
    if not mask.any():
        return ""
    scaled = Image.fromarray(mask.astype(np.uint8) * 255).resize((width, height), Image.Resampling.BOX)
    coverage = np.pad(np.asarray(scaled, dtype=np.float32) / 255, 1)
    # A mask thinner than a scaled pixel never reaches half coverage.
    level = min(0.5, float(coverage.max()) / 2)
    rings = [ring - 0.5 for ring in contour_generator(z=coverage).lines(level) if len(ring) >= 4]
    rings.sort(key=lambda ring: (-_area(ring), *ring[0]))
    large = [ring for ring in rings if _area(ring) >= 1.0] or rings[:1]
    return "".join(_path(thin(ring, TOLERANCE)) for ring in large)


def thin(points: np.ndarray, tolerance: float) -> np.ndarray:
    """The points [n, 2] of a line without those nearer than `tolerance` to what is left; first and last stay."""
    keep = np.zeros(len(points), bool)
    keep[[0, -1]] = True
    spans = [(0, len(points) - 1)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        off = _distances(points[first + 1 : last], points[first], points[last])
        far = int(off.argmax())
        if off[far] > tolerance:
            middle = first + 1 + far
            keep[middle] = True
            spans += [(first, middle), (middle, last)]
    return points[keep]


def _distances(points: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    chord, from_a = b - a, points - a
    length = float(np.hypot(*chord))
    if length < 1e-9:
        return np.hypot(from_a[:, 0], from_a[:, 1])
    return np.abs(chord[0] * from_a[:, 1] - chord[1] * from_a[:, 0]) / length


def _area(ring: np.ndarray) -> float:
    x, y = ring[:, 0], ring[:, 1]
    return abs(float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1]))) / 2


def _path(ring: np.ndarray) -> str:
    return "M" + "L".join(f"{_number(x)},{_number(y)}" for x, y in ring[:-1]) + "Z"


def _number(value: float) -> str:
    return f"{round(float(value), 1) + 0.0:g}"  # + 0.0 turns -0.0 into 0.0
