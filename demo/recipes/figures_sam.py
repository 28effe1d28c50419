"""What the small Segment Anything reaches on scenes it never saw, read and run as the segment stage does it."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from demo.recipes.cards import finish_folder
from demo.recipes.heldout import FIGURES_SEED, HELD_OUT, check_scene
from demo.recipes.rendered import box_of, image_row, picture_arrays
from demo.recipes.sam import TINY, Trained, jittered, save
from demo.scenes import SIDE
from pipeline import tables
from pipeline.sections import Runtime, Segment
from stages.common import rle
from stages.segment.backends import Mask, Segmented
from stages.segment.sam import SamSegmenter

SCENES, GRID_SCENES = 300, 80
CORNERS = ("x0", "y0", "x1", "y1")
COVERED = 0.75
POINTS_PER_SIDE, NMS_IOU = 16, 0.7
_OPEN = {"points_per_side": POINTS_PER_SIDE, "min_predicted_iou": 0.0, "min_stability": 0.0, "nms_iou": NMS_IOU}


@dataclass(frozen=True)
class World:
    """Fresh scenes as the stage gets them, and the gold masks by box id, bool [SIDE, SIDE]."""

    images: pa.Table
    boxes: pa.Table
    gold: dict[str, np.ndarray]
    unseen: frozenset[str]


def world(seed: int, scenes: int) -> World:
    """The first scenes of a seed, and the boxes of the gold masks."""
    images, boxes, gold, unseen = [], [], {}, set()
    plain = {"phrase_id": "p", "rank": 0, "score": 1.0, "label": "", "object_id": None}
    for index in range(scenes):
        scene = check_scene(seed, index)
        pixels, labels = picture_arrays(scene)
        images.append(image_row(f"i{index:05d}", pixels))
        for number, thing in enumerate(scene.objects):
            mask = labels == number + 1
            name = f"i{index:05d}/{number}"
            corners = dict(zip(CORNERS, map(float, box_of(mask)), strict=True))
            boxes.append({"id": name, "image_id": f"i{index:05d}", **plain, **corners})
            gold[name] = mask
            if (thing.kind, thing.colour) in HELD_OUT:
                unseen.add(name)
    return World(
        pa.Table.from_pylist(images), pa.Table.from_pylist(boxes, tables.TABLES["boxes"]), gold, frozenset(unseen)
    )


def detected(fresh: World, seed: int) -> World:
    """The same with boxes as a detector might have found them."""
    rng = np.random.default_rng(seed)
    boxes = [
        row | dict(zip(CORNERS, jittered(np.array([row[name] for name in CORNERS]), rng), strict=True))
        for row in fresh.boxes.to_pylist()
    ]
    return replace(fresh, boxes=pa.Table.from_pylist(boxes, fresh.boxes.schema))


def first(fresh: World, scenes: int) -> World:
    """The first scenes of a world."""
    images = fresh.images.slice(0, scenes)
    own = pc.is_in(fresh.boxes.column("image_id"), images.column("id").combine_chunks())
    boxes = fresh.boxes.filter(own)
    names = boxes.column("id").to_pylist()
    return World(images, boxes, {name: fresh.gold[name] for name in names}, fresh.unseen.intersection(names))


def figures(folder: Path, seed: int, scenes: int) -> dict[str, float]:
    """`box_iou`, mean IoU of the masks of gold boxes with the gold masks, also of boxes that are off and of unseen
    combinations; `grid_coverage`, objects that a mask of the automatic grid covers at IoU >= .75, with the thresholds
    of config.json, and `grid_masks`, how many masks an image gets. The grid is run on at most GRID_SCENES scenes."""
    grid = json.loads((folder / "config.json").read_text())["grid"]
    fresh = world(seed, scenes)
    ious, off = (box_ious(folder, w) for w in (fresh, detected(fresh, seed)))
    few = first(fresh, GRID_SCENES)
    best, masks = covered(few, list(segmenter(folder, prompt="grid", grid=grid).segment(few.images, few.boxes)))
    return {
        "box_iou": float(np.mean(list(ious.values()))),
        "grid_coverage": best,
        "box_iou_off": float(np.mean(list(off.values()))),
        **({"box_iou_unseen": float(np.mean([ious[name] for name in fresh.unseen]))} if fresh.unseen else {}),
        "grid_masks": masks,
        **{name: float(grid[name]) for name in ("min_predicted_iou", "min_stability")},
    }


def segmenter(folder: Path, **section: object) -> SamSegmenter:
    made = Segment(backend="sam", path=str(folder), **section)
    runtime = Runtime(devices=["cpu"], threads=torch.get_num_threads(), batch_rows=64, batch_images=8)
    return SamSegmenter(made, runtime, "cpu")


def box_ious(folder: Path, fresh: World) -> dict[str, float]:
    """IoU with the gold mask by box id, 0 where nothing was found."""
    found = segmenter(folder).segment(fresh.images, fresh.boxes)
    return {one.id: mask_iou(one.found, fresh.gold[one.id]) for one in found}


def mask_iou(found: object, gold: np.ndarray) -> float:
    if not isinstance(found, Mask):
        return 0.0
    mask = rle.decode(found.counts, *gold.shape)
    return float((mask & gold).sum() / (mask | gold).sum())


def _of_grid(found: list[Segmented]) -> Iterator[tuple[str, Mask]]:
    return ((one.image_id, one.found) for one in found if "/grid/" in one.id and isinstance(one.found, Mask))


def covered(fresh: World, found: list[Segmented]) -> tuple[float, float]:
    """Share of objects with a mask of the grid at IoU >= .75, and masks an image."""
    by_image: dict[str, list[np.ndarray]] = {name: [] for name in fresh.images.column("id").to_pylist()}
    for image, mask in _of_grid(found):
        by_image[image].append(rle.decode(mask.counts, SIDE, SIDE))
    best = [
        max(((mask & gold).sum() / (mask | gold).sum() for mask in by_image[name.split("/")[0]]), default=0.0)
        for name, gold in fresh.gold.items()
    ]
    return float(np.mean(np.array(best) >= COVERED)), sum(map(len, by_image.values())) / len(by_image)


def choose_grid(folder: Path, seed: int, scenes: int = 30) -> dict[str, float]:
    """The automatic grid's settings that suit these weights: the highest threshold of predicted IoU, then of
    stability, that costs no more than a fiftieth of the coverage."""
    fresh, grid = world(seed, scenes), dict(_OPEN)
    found = list(segmenter(folder, prompt="grid", grid=grid).segment(fresh.images, fresh.boxes))
    everything = covered(fresh, found)[0]
    for least in (0.88, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.5, 0.4, 0.3):  # what is left out never suppressed the rest
        surer = [one for one in found if isinstance(one.found, Mask) and one.found.predicted_iou > least]
        if covered(fresh, surer)[0] >= 0.98 * everything:
            grid["min_predicted_iou"] = least
            break
    for least in (0.95, 0.92, 0.88, 0.84, 0.8, 0.7):
        steady = grid | {"min_stability": least}
        found = list(segmenter(folder, prompt="grid", grid=steady).segment(fresh.images, fresh.boxes))
        if covered(fresh, found)[0] >= 0.98 * everything:
            return steady
    return grid


def watch(network: Trained) -> dict[str, float]:
    """`box_iou` of a network in training, on a few scenes of another seed."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        save(network, TINY, Path(folder))
        return {"box_iou": float(np.mean(list(box_ious(Path(folder), world(FIGURES_SEED + 1, 60)).values())))}


def finish(args: argparse.Namespace, network: Trained, minutes: float) -> None:
    """Chooses the grid's thresholds, measures the folder, writes figures.json and card.md, and prints the figures."""
    grid = choose_grid(args.out, FIGURES_SEED + 2)
    save(network, TINY, args.out, grid)
    measured = figures(args.out, FIGURES_SEED, SCENES)
    facts = {
        "Architecture": f"segment-anything's `Sam`: a ViT of {TINY.depth} blocks, width {TINY.dim}, patches of "
        f"{TINY.patch} of {SIDE} x {SIDE} pixels, prompts of {TINY.prompt_dim} numbers, masks of {SIDE // 2} x "
        f"{SIDE // 2}; {sum(p.numel() for p in network.sam.parameters()) / 1e6:.2f} M parameters",
        "Prompts": "boxes and single points; `multimask` true or false. Masks as prompts were not trained",
        "Automatic masks": "`segment.grid: {"
        + ", ".join(f"{k}: {v}" for k, v in grid.items())
        + "}` suits these weights",
        "Trained on": "the visible parts of drawn things; combinations of `demo/recipes/heldout.py` were never shown",
    }
    title = "sam: a small Segment Anything of the demo world"
    finish_folder("sam", args, minutes, measured, title, _ABOUT, facts, library="segment-anything")


_ABOUT = """Masks of drawn things from boxes or points, by the published classes. It knows the demo world's pictures and
nothing beyond them."""
