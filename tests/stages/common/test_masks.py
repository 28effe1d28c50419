"""Masks and candidates: areas, boxes and unions by pixels, and which masks a phrase may denote."""

import numpy as np
import pytest

from pipeline import tables
from pipeline.errors import InputError
from stages.common import rle
from stages.common.candidates import candidates, feature_ids


def square(x0, y0, x1, y1, height=20, width=30):
    mask = np.zeros((height, width), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_rle_is_exact():
    draw = np.random.default_rng(0)
    for _ in range(20):
        mask = draw.random((17, 23)) < draw.random()
        counts = rle.encode(mask)
        assert (rle.decode(counts, 17, 23) == mask).all() and rle.area(counts, 17, 23) == mask.sum()
    assert rle.box(rle.encode(square(3, 4, 10, 9)), 20, 30) == (3, 4, 10, 9)
    both = rle.union([rle.encode(square(0, 0, 5, 5)), rle.encode(square(3, 3, 9, 9))], 20, 30)
    assert (rle.decode(both, 20, 30) == (square(0, 0, 5, 5) | square(3, 3, 9, 9))).all()


def test_polygons_and_both_kinds_of_rle_are_read():
    polygon = [[3, 4, 10, 4, 10, 9, 3, 9]]
    counts = rle.from_annotation(polygon, 20, 30)
    assert rle.area(counts, 20, 30) == 35
    compressed = {"size": [20, 30], "counts": counts.decode()}
    assert rle.from_annotation(compressed, 20, 30) == counts
    runs = {"size": [2, 3], "counts": [1, 2, 3]}
    assert rle.decode(rle.from_annotation(runs, 2, 3), 2, 3).T.flatten().tolist() == [
        False,
        True,
        True,
        False,
        False,
        False,
    ]
    assert rle.from_annotation([], 20, 30) is None
    for bad in ({"size": [3, 3], "counts": "x"}, {"counts": []}, "text", [[1, 2]]):
        with pytest.raises(InputError):
            rle.from_annotation(bad, 20, 30)


def test_box_iou():
    assert rle.box_iou((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert rle.box_iou((0, 0, 0, 0), (0, 0, 0, 0)) == 0.0


def test_mask_iou_is_that_of_the_pixels():
    draw = np.random.default_rng(1)
    for _ in range(20):
        a, b = (draw.random((9, 14)) < draw.random() for _ in range(2))
        iou = (a & b).sum() / max((a | b).sum(), 1)
        assert rle.mask_iou(rle.encode(a), rle.encode(b), 9, 14) == pytest.approx(iou)
    empty = rle.encode(np.zeros((9, 14), bool))
    assert rle.mask_iou(empty, empty, 9, 14) == 0.0


def tables_of(count, masks):
    phrase = {
        "id": "c@0-8",
        "image_id": "i",
        "caption_id": "c",
        "start": 0,
        "end": 8,
        "text": "two dogs",
        "head": "dog",
    }
    phrases = tables.build("phrases", [phrase | {"number": "plur", "count": count, "key": "dog", "kind": "noun"}])
    boxes, rows = [], []
    for rank, mask in enumerate(masks):
        counts = rle.encode(mask)
        x0, y0, x1, y1 = rle.box(counts, 20, 30)
        box = {
            "id": f"b{rank}",
            "image_id": "i",
            "phrase_id": "c@0-8",
            "rank": rank,
            "x0": x0,
            "y0": y0,
            "x1": x1,
            "y1": y1,
        }
        boxes.append(box | {"score": 0.9 - 0.1 * rank, "label": "dog", "object_id": None})
        row = {"id": f"b{rank}", "image_id": "i", "box_id": f"b{rank}", "height": 20, "width": 30, "counts": counts}
        rows.append(row | {"area": int(mask.sum()), "predicted_iou": 0.9, "stability": 1.0})
    return phrases, tables.build("boxes", boxes), tables.build("masks", rows)


def test_a_counted_plural_gets_the_union_of_exactly_so_many_masks():
    masks = [square(0, 0, 5, 5), square(10, 10, 15, 18)]
    made = candidates(*tables_of(2, masks)).to_pylist()
    union = made[-1]
    assert [c["objects"] for c in made] == [1, 1, 2]
    assert [union[name] for name in ("x0", "y0", "x1", "y1")] == [0, 0, 15, 18]
    assert union["score"] == pytest.approx(0.8) and union["area"] == (masks[0] | masks[1]).sum()
    assert (rle.decode(union["counts"], 20, 30) == masks[0] | masks[1]).all()
    for count in (3, None):
        assert candidates(*tables_of(count, masks)).column("objects").to_pylist() == [1, 1]


def test_equal_pixels_share_a_feature():
    made = candidates(*tables_of(None, [square(0, 0, 5, 5), square(0, 0, 5, 5), square(0, 0, 5, 6)]))
    ids = feature_ids(made)
    assert ids[0] == ids[1] != ids[2]


def test_boxes_and_their_overlap_are_the_same_one_by_one_and_in_columns():
    draw = np.random.default_rng(0)
    counts = [rle.encode(draw.random((17, 23)) < share) for share in (0, 0.01, 0.1, 0.9, 1) for _ in range(70)]
    found = rle.boxes(counts, [17] * len(counts), [23] * len(counts))
    assert [tuple(row) for row in found.tolist()] == [rle.box(each, 17, 23) for each in counts]
    others = draw.uniform(0, 20, (len(counts), 4))
    each = [rle.box_iou(tuple(a), tuple(b)) for a, b in zip(found, others, strict=True)]
    assert rle.box_ious(found, others).tolist() == each
    assert rle.boxes([], [], []).shape == (0, 4)
