"""Masks on a grid of points: the official generator's, by number; and the boxes that take them."""

import numpy as np
import pytest
from sam_world import box_table, boxes_in, image_table, iou, open_sam, photos, pixels_of, scenes, segment, world
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.utils.amg import build_point_grid

from stages.common import rle
from stages.segment import grid
from stages.segment.backends import Mask

OPEN = {"points_per_side": 8, "min_predicted_iou": 0.0, "min_stability": 0.0, "nms_iou": 0.7}


def generated(official, picture, least=0, **values):
    """What the official generator makes; it keeps masks without pixels, which are no masks here."""
    values = OPEN | values
    generator = SamAutomaticMaskGenerator(
        official,
        points_per_side=values["points_per_side"],
        pred_iou_thresh=values["min_predicted_iou"],
        stability_score_thresh=values["min_stability"],
        box_nms_thresh=values["nms_iou"],
        crop_nms_thresh=values["nms_iou"],
        min_mask_region_area=least,
    )
    return [one for one in generator.generate(picture) if one["area"]]


def compare(found, expected, images, image_id):
    """Matches masks by overlap, one to one; returns how many there are."""
    ours = [one for one in found.values() if one.box_id is None and one.image_id == image_id]
    assert len(ours) == len(expected)
    overlap = np.array([[iou(pixels_of(a, images), b["segmentation"]) for b in expected] for a in ours])
    if not len(ours):
        return 0
    match = overlap.argmax(1)
    assert len(set(match)) == len(ours) and overlap.max(1).min() >= 0.99
    for one, index in zip(ours, match, strict=True):
        assert one.found.predicted_iou == pytest.approx(expected[index]["predicted_iou"], abs=1e-5)
        assert one.found.stability == pytest.approx(expected[index]["stability_score"], abs=1e-2)
    return len(ours)


def test_with_thresholds_0_the_masks_are_the_official_generators_on_photos(weights, official, shared):
    pictures = photos(shared, 3)[1:]
    images = image_table(pictures)
    found = segment(open_sam(weights, prompt="grid", grid=OPEN), images, box_table([]))
    assert sum(compare(found, generated(official, p), images, f"i{n}") for n, p in enumerate(pictures)) >= 20


@pytest.mark.parametrize(
    ("values", "least"),
    [
        ({}, 20),
        ({"nms_iou": 0.95}, 40),
        ({"min_predicted_iou": 0.1}, 3),
        ({"min_stability": 0.3}, 5),
        ({"points_per_side": 5, "nms_iou": 0.5}, 5),
    ],
)
def test_thresholds_are_the_official_generators(weights, official, values, least):
    pictures = scenes()[:3]
    images = image_table(pictures)
    found = segment(open_sam(weights, prompt="grid", grid=OPEN | values), images, box_table([]))
    total = sum(compare(found, generated(official, p, **values), images, f"i{n}") for n, p in enumerate(pictures))
    assert total >= least


def test_after_a_clean_up_masks_are_the_official_generators(weights, official):
    pictures = scenes()[:2]
    images = image_table(pictures)
    found = segment(open_sam(weights, prompt="grid", grid=OPEN, min_island=30), images, box_table([]))
    assert sum(compare(found, generated(official, p, 30), images, f"i{n}") for n, p in enumerate(pictures)) > 5


def test_points_are_the_published_grid():
    for side in (1, 4, 32):
        assert (grid.points(side) == build_point_grid(side)).all()


def test_boxes_take_the_mask_that_fits_them_best(weights):
    pictures = [*scenes()[:2], np.zeros((50, 60, 3), np.uint8)]
    images = image_table(pictures)
    boxes = box_table([boxes_in(*p.shape[:2], 4) for p in pictures[:2]])  # the third image has none
    found = segment(open_sam(weights, prompt="grid", grid=OPEN), images, boxes)
    loose = {key: one for key, one in found.items() if one.box_id is None}
    assert {one.image_id for one in loose.values()} == {"i0", "i1", "i2"}
    assert all(key.startswith(f"{one.image_id}/grid/") for key, one in loose.items())
    assert found.keys() - loose.keys() == set(boxes["id"].to_pylist())
    for row in boxes.to_pylist():
        own = [one.found for one in loose.values() if one.image_id == row["image_id"]]
        size = pictures[int(row["image_id"][1:])].shape[:2]
        box = tuple(row[name] for name in ("x0", "y0", "x1", "y1"))
        overlaps = [rle.box_iou(rle.box(mask.counts, *size), box) for mask in own]
        assert found[row["id"]].found == own[int(np.argmax(overlaps))]
    again = segment(open_sam(weights, {"batch_rows": 7, "batch_images": 1}, prompt="grid", grid=OPEN), images, boxes)
    assert again.keys() == found.keys(), "a mask's id is its place on the grid"


def test_a_box_that_no_mask_overlaps_is_dropped():
    left = np.zeros((20, 40), bool)
    left[2:9, 2:9] = True
    masks = [(0, Mask(rle.encode(left), 0.5, 1.0)), (4, Mask(rle.encode(left), 0.4, 1.0))]
    boxes = np.array([[0, 0, 10, 10], [30, 0, 40, 10], [9, 9, 12, 12]], float)
    assert grid.best_for(boxes, masks, (20, 40)) == [masks[0][1], None, None]
    assert grid.best_for(boxes, [], (20, 40)) == [None] * 3 and grid.best_for(boxes[:0], masks, (20, 40)) == []


def test_strict_thresholds_leave_nothing_and_boxes_are_dropped(weights):
    images, boxes = world(scenes()[:1], 2)
    found = segment(open_sam(weights, prompt="grid", grid=OPEN | {"min_predicted_iou": 1.0}), images, boxes)
    assert {(one.found.outcome, one.found.reason) for one in found.values()} == {("dropped", "no_mask")}
    assert len(found) == 2
