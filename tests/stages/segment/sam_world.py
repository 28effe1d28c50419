"""Pictures with boxes for SAM, the backend over them, and what the official code says of the same."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw, ImageFilter

from pipeline import tables
from pipeline.sections import Runtime, Segment
from stages.common import rle
from stages.segment.backends import Segmented
from stages.segment.sam import SamSegmenter

# Landscape, portrait, square, smaller and larger than the encoder's frame, and its very size.
SIZES = ((96, 160), (150, 90), (64, 64), (260, 300), (128, 128))


def scenes() -> list[np.ndarray]:
    """Made-up pictures, uint8 [H, W, 3]: soft noise with shapes on it."""
    made = []
    for number, (height, width) in enumerate(SIZES):
        draw = np.random.default_rng(number)
        coarse = Image.fromarray(draw.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        picture = coarse.resize((width, height), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(2))
        pen = ImageDraw.Draw(picture)
        for _ in range(4):
            x, y = draw.uniform(0, 0.7, 2) * (width, height)
            colour = tuple(draw.integers(0, 256, 3).tolist())
            (pen.ellipse if draw.random() < 0.5 else pen.rectangle)((x, y, x + 0.3 * width, y + 0.25 * height), colour)
        made.append(np.asarray(picture))
    return made


def photos(shared: Path, count: int) -> list[np.ndarray]:
    """Real photos, uint8 [H, W, 3]."""
    files = sorted((shared / "data/coco/val2017").glob("*.jpg"))[:count]
    return [np.asarray(Image.open(file).convert("RGB")) for file in files]


def boxes_in(height: int, width: int, count: int, seed: int = 0) -> list[tuple[float, ...]]:
    """Boxes of all sizes inside an image."""
    draw = np.random.default_rng(seed + height * width)
    corners = np.sort(draw.random((count, 2, 2)), 1) * 0.7
    corners[:, 1] += 0.25
    return [tuple(row) for row in (corners * (width, height)).reshape(-1, 4).astype(np.float32).tolist()]


def image_table(pictures: list[np.ndarray]) -> pa.Table:
    rows = []
    for number, pixels in enumerate(pictures):
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, "PNG")
        rows.append({"id": f"i{number}", "bytes": data.getvalue(), "height": len(pixels), "width": pixels.shape[1]})
    return pa.Table.from_pylist(rows)


def box_table(boxes: list[list[tuple[float, ...]]]) -> pa.Table:
    """`boxes[n]` are those of image n."""
    plain = {"phrase_id": "p", "rank": 0, "score": 1.0, "label": "", "object_id": None}
    rows = [
        {"id": f"i{n}/{k}", "image_id": f"i{n}", **plain, **dict(zip(("x0", "y0", "x1", "y1"), box, strict=True))}
        for n, several in enumerate(boxes)
        for k, box in enumerate(several)
    ]
    return pa.Table.from_pylist(rows, tables.TABLES["boxes"])


def world(pictures: list[np.ndarray], count: int = 5) -> tuple[pa.Table, pa.Table]:
    """The tables of these pictures with `count` boxes each."""
    return image_table(pictures), box_table([boxes_in(*p.shape[:2], count) for p in pictures])


def open_sam(weights: Path, runtime: dict | None = None, **section) -> SamSegmenter:
    made = Segment(backend="sam", path=str(weights), **section)
    return SamSegmenter(made, Runtime(**{"devices": ["cpu"], "threads": 1, **(runtime or {})}), "cpu")


def segment(segmenter: SamSegmenter, images: pa.Table, boxes: pa.Table) -> dict[str, Segmented]:
    """What was found, by id; no id comes twice."""
    found = list(segmenter.segment(images, boxes))
    assert len({one.id for one in found}) == len(found)
    return {one.id: one for one in found}


def pixels_of(one: Segmented, images: pa.Table) -> np.ndarray:
    """The mask, bool [H, W]."""
    row = images.column("id").to_pylist().index(one.image_id)
    return rle.decode(one.found.counts, images.column("height")[row].as_py(), images.column("width")[row].as_py())


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two masks; 1 for two empty ones."""
    whole = (a | b).sum()
    return float((a & b).sum() / whole) if whole else 1.0
