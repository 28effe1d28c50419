"""What the vision benchmark's figures rest on: which photos, which boxes, how FLOP are counted, how a table is made."""

import pytest

from benchmarks.vision_flop import sam_encoder
from benchmarks.vision_measure import Figure, told
from benchmarks.vision_photos import collect, objects_of
from pipeline import tables
from stages.common.annotations import Annotations
from stages.segment.architecture import OFFICIAL, encoder_flop


def image(identifier, width, height):
    row = {"id": identifier, "sha256": "", "bytes": b"", "width": width, "height": height, "uri": "", "split": "train"}
    return row | {"rewritten": "", "phash": 0}


@pytest.mark.parametrize("images", [1, 5])
def test_photos_are_drawn_the_same_each_time_annotated_ones_first(tmp_path, shared, images):
    for name in ("a", "b"):
        assert collect(tmp_path / name, shared / "data/coco", images) == images
    found = [sorted(p.relative_to(tmp_path / name) for p in (tmp_path / name).rglob("*.jpg")) for name in ("a", "b")]
    assert [p.name for p in found[0]] == [p.name for p in found[1]]
    assert len(found[0]) == images
    annotations = Annotations(tmp_path / "a/annotations", "instances_*.json")
    assert all(annotations.of_image[path.name] for path in found[0])


def test_a_photo_without_annotations_borrows_scaled_boxes(tmp_path, shared):
    collect(tmp_path, shared / "data/coco", 1)
    annotations = Annotations(tmp_path / "annotations", "instances_*.json")
    known = next(identifier for identifier in annotations.of_image if identifier.isdigit())
    things = annotations.of_image[known]
    table = tables.build("images", [image(known, 640, 480), image(known + "x", 320, 960)])
    rows, lent = objects_of(table, annotations, [])
    own = [row for row in rows if row["image_id"] == known]
    borrowed = [row for row in rows if row["image_id"] != known]
    assert len(own) == len(borrowed) == len(things) == len(lent)
    assert [row["x0"] for row in own] == pytest.approx([thing.box[0] for thing in things])
    assert [row["x1"] for row in borrowed] == pytest.approx([thing.box[2] / 2 for thing in things])
    assert [row["y1"] for row in borrowed] == pytest.approx([thing.box[3] * 2 for thing in things])
    assert tables.build("boxes", rows).num_rows == 2 * len(things)


def test_the_formula_for_flop_is_what_torch_counts_in_the_published_network():
    assert sam_encoder("sam-vit-base") == pytest.approx(encoder_flop(OFFICIAL["vit_b"]), rel=1e-3)


def test_ratio_and_use_are_of_processor_time_on_a_cpu_and_of_the_clock_elsewhere():
    slow = Figure("slow", 10, 20.0, 10.0, "fp32", flop=2.0)
    fast = Figure("fast", 30, 10.0, 10.0, "fp32", flop=2.0, busy=9.0)
    cpu = told([slow, fast], {"fast": "slow"}, {"fp32": 10.0}, "cpu").splitlines()[-1]
    gpu = told([slow, fast], {"fast": "slow"}, {"fp32": 10.0}, "cuda:0").splitlines()[-1]
    assert cpu.split()[4:7] == ["3.00x", "60%", "90%"]
    assert gpu.split()[4:7] == ["6.00x", "60%", "90%"]
