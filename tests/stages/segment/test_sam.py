"""The backend `sam` with box prompts: the official predictor's masks, whatever the batch; odd boxes; faults."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from sam_world import box_table, boxes_in, image_table, iou, open_sam, photos, pixels_of, scenes, segment, world
from segment_anything import SamPredictor
from vision import small_sam

from pipeline.errors import ParamsError, ResourceError, StageError
from stages.segment.backends import Mask, Miss
from stages.segment.convert import convert
from stages.segment.network import Network


@pytest.fixture(scope="module", params=["scenes", "photos"])
def pictures(request):
    return scenes() if request.param == "scenes" else photos(request.getfixturevalue("shared"), 3)


@pytest.fixture(scope="module")
def made():
    return world(scenes())


def predicted(official, pictures, multimask, count=5):
    """Box id -> the official predictor's mask and predicted IoU (the best by it)."""
    predictor, found = SamPredictor(official), {}
    for number, picture in enumerate(pictures):
        predictor.set_image(picture)
        for index, box in enumerate(boxes_in(*picture.shape[:2], count)):
            masks, scores, _ = predictor.predict(box=np.array(box), multimask_output=multimask)
            found[f"i{number}/{index}"] = masks[scores.argmax()], scores.max()
    return found


def same(one, other, images):
    """Two results have the same boxes, figures and (but for pixels at the threshold) masks."""
    assert one.keys() == other.keys()
    for key, first in one.items():
        second = other[key]
        assert (first.image_id, first.box_id, type(first.found)) == (second.image_id, second.box_id, type(second.found))
        if isinstance(first.found, Mask):
            assert first.found.predicted_iou == pytest.approx(second.found.predicted_iou, abs=1e-5)
            a, b = pixels_of(first, images), pixels_of(second, images)
            assert (a != b).sum() <= max(2, 0.0005 * a.size)


@pytest.mark.parametrize("multimask", [True, False])
def test_masks_are_the_official_predictors(weights, official, pictures, multimask):
    images, boxes = world(pictures)
    found = segment(open_sam(weights, multimask=multimask), images, boxes)
    expected = predicted(official, pictures, multimask)
    assert found.keys() == expected.keys()
    shares = []
    for key, (mask, score) in expected.items():
        assert iou(pixels_of(found[key], images), mask) >= 0.995
        assert found[key].found.predicted_iou == pytest.approx(float(score), abs=1e-5)
        shares.append(mask.mean())
    assert 0.02 < np.median(shares) < 0.98, "masks with shape, not all or nothing"


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_masks_agree(weights, official, pictures, dtype):
    images, boxes = world(pictures)
    found = segment(open_sam(weights, dtype=dtype), images, boxes)
    overlaps = [
        iou(pixels_of(found[key], images), mask) for key, (mask, _) in predicted(official, pictures, True).items()
    ]
    assert min(overlaps) >= 0.98 and np.mean(overlaps) >= 0.995


def test_stability_is_the_published_measure(weights, official):
    from segment_anything.utils.amg import calculate_stability_score

    picture = scenes()[0]
    images, boxes = world([picture])
    predictor = SamPredictor(official)
    predictor.set_image(picture)
    found = segment(open_sam(weights, multimask=False), images, boxes)
    for index, box in enumerate(boxes_in(*picture.shape[:2], 5)):
        logits, _, _ = predictor.predict(box=np.array(box), multimask_output=False, return_logits=True)
        expected = float(calculate_stability_score(torch.from_numpy(logits), 0.0, 1.0)[0])
        assert 0 < expected < 1
        assert found[f"i0/{index}"].found.stability == pytest.approx(expected, abs=1e-3)


@pytest.mark.fault("F52")
def test_neither_batches_nor_order_change_anything(weights, made):
    images, boxes = made
    first = segment(open_sam(weights, {"batch_images": 4, "batch_rows": 32}), images, boxes)
    draw = np.random.default_rng(0)
    for several in (1, 4, 16):
        shuffled = images.take(draw.permutation(images.num_rows)), boxes.take(draw.permutation(boxes.num_rows))
        runtime = {"batch_images": several, "batch_rows": several}
        same(first, segment(open_sam(weights, runtime), *shuffled), images)


def test_equal_boxes_are_decoded_once(weights, made, monkeypatch):
    images, boxes = made
    again = [row | {"id": f"{row['id']}/again"} for row in boxes.to_pylist()]
    twice = pa.Table.from_pylist([*boxes.to_pylist(), *again], boxes.schema)
    segmenter, seen = open_sam(weights), []
    decode = segmenter.network.decode
    monkeypatch.setattr(
        segmenter.network, "decode", lambda e, owner, *r: seen.append(len(owner)) or decode(e, owner, *r)
    )
    found = segment(segmenter, images, twice)
    assert sum(seen) == boxes.num_rows and len(found) == 2 * boxes.num_rows
    for identifier in boxes["id"].to_pylist():
        assert found[identifier].found == found[f"{identifier}/again"].found


def test_boxes_are_clipped_and_those_without_area_are_rejected(weights):
    picture = scenes()[0]
    height, width = picture.shape[:2]
    whole = (-20.0, -5.0, width + 50.0, height + 1.0)
    bad = [(5.0, 5.0, 5.0, 20.0), (9.0, 9.0, 3.0, 20.0), (-9.0, 0.0, -1.0, 9.0), (float("nan"), 0.0, 9.0, 9.0)]
    images, boxes = image_table([picture]), box_table([[whole, (0.0, 0.0, width, height), *bad]])
    found = segment(open_sam(weights), images, boxes)
    assert found["i0/0"].found == found["i0/1"].found, "beyond the image there is nothing"
    for index in range(2, 6):
        miss = found[f"i0/{index}"].found
        assert (miss.outcome, miss.reason) == ("rejected", "bad_box") and "160x96" in miss.detail
    assert "5, 5, 5, 20 has no area" in found["i0/2"].found.detail


def test_images_without_boxes_are_not_encoded_and_damaged_ones_rejected(weights, made, monkeypatch):
    images, boxes = made
    data = images["bytes"].to_pylist()
    data[1] = data[1][:200]
    images = images.set_column(1, "bytes", pa.array(data, pa.binary()))
    boxes = boxes.filter(pa.compute.not_equal(boxes["image_id"], "i2"))
    segmenter, seen = open_sam(weights), []
    encode = segmenter.network.encode
    monkeypatch.setattr(segmenter.network, "encode", lambda some, fill: seen.append(len(some)) or encode(some, fill))
    found = segment(segmenter, images, boxes)
    assert found.keys() == set(boxes["id"].to_pylist()) and sum(seen) == 3
    for one in found.values():
        if one.image_id == "i1":
            assert (one.found.outcome, one.found.reason) == ("rejected", "unreadable")
        else:
            assert isinstance(one.found, Mask)
    assert segmenter.speed()["images"] == 3 and segmenter.speed()["images"] == 0


def test_a_mask_without_pixels_is_a_dropped_box(tmp_path, made):
    sam = small_sam()
    last = sam.mask_decoder.output_hypernetworks_mlps[0].layers[-1]
    last.weight.data.zero_()
    last.bias.data.zero_()
    torch.save(sam.state_dict(), tmp_path / "sam.pth")
    convert(tmp_path / "sam.pth", tmp_path / "sam", "small")
    found = segment(open_sam(tmp_path / "sam", multimask=False), *made)
    assert {one.found for one in found.values()} == {Miss("dropped", "no_mask", "the network's mask has no pixels")}


@pytest.mark.fault("F48")
@pytest.mark.parametrize("prompt", ["boxes", "grid"])
def test_nan_ends_in_one_line_that_names_the_image(tmp_path, made, prompt):
    sam = small_sam()
    sam.image_encoder.patch_embed.proj.weight.data *= 1e6  # more than fp16 holds
    torch.save(sam.state_dict(), tmp_path / "sam.pth")
    convert(tmp_path / "sam.pth", tmp_path / "sam", "small")
    grid = {"points_per_side": 2, "min_predicted_iou": 0.5, "min_stability": 0.5}
    segmenter = open_sam(tmp_path / "sam", dtype="fp16", prompt=prompt, grid=grid)
    with pytest.raises(StageError, match=r"^image i\d: NaN or infinity in its masks .*segment\.dtype$"):
        segment(segmenter, *made)


@pytest.mark.fault("F47")
@pytest.mark.parametrize("prompt", ["boxes", "grid"])
def test_out_of_memory_halves_the_batch_and_changes_nothing(weights, made, prompt, monkeypatch, capsys):
    images, boxes = made
    section = {"prompt": prompt, "grid": {"points_per_side": 3, "min_predicted_iou": 0.0, "min_stability": 0.0}}
    expected = segment(open_sam(weights, {"batch_rows": 8}, **section), images, boxes)
    segmenter = open_sam(weights, {"batch_rows": 8}, **section)
    encode, enlarge = segmenter.network.encode, segmenter.network.enlarge

    def small_device(some, fill):
        if len(some) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(some, fill)

    def smaller_still(low, size):
        if len(low) > 6:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return enlarge(low, size)

    monkeypatch.setattr(segmenter.network, "encode", small_device)
    monkeypatch.setattr(segmenter.network, "enlarge", smaller_still)
    same(expected, segment(segmenter, images, boxes), images)
    told = capsys.readouterr().err
    assert "out of memory with 4 images at a time; going on with 2" in told
    assert ("out of memory with 8 prompts" in told) == (prompt == "grid")

    def no_device(some, fill):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(segmenter.network, "encode", no_device)
    with pytest.raises(ResourceError, match="one of the images at a time"):
        segment(segmenter, images, boxes)


def test_many_pixels_are_enlarged_in_parts(weights, made, monkeypatch):
    from stages.segment import sam

    images, boxes = made
    expected = segment(open_sam(weights), images, boxes)
    monkeypatch.setattr(sam, "_PIXELS", 30_000)
    same(expected, segment(open_sam(weights), images, boxes), images)


def test_islands_and_holes_are_cleaned_away(weights, made):
    from segment_anything.utils.amg import remove_small_regions

    images, boxes = made
    plain, cleaned = (segment(open_sam(weights, min_island=least), images, boxes) for least in (0, 40))
    changed = 0
    for key, one in plain.items():
        mask = pixels_of(one, images)
        expected, first = remove_small_regions(mask, 40, "holes")
        expected, second = remove_small_regions(expected, 40, "islands")
        assert (pixels_of(cleaned[key], images) == expected).all()
        changed += first or second
    assert changed > 2


def test_a_compiled_network_sees_one_size_of_batch_only(weights, made, monkeypatch):
    """By dynamo without its code generator, which takes a minute."""
    from torch._dynamo.utils import counters

    images, boxes = made
    expected = segment(open_sam(weights), images, boxes)
    plain = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: plain(self, backend="eager", **options))
    torch._dynamo.reset()
    counters.clear()
    segmenter = open_sam(weights, {"compile": True, "batch_images": 3})
    graphs = counters["stats"]["unique_graphs"]
    assert graphs == 2, "one for windows, one for global attention"
    same(expected, segment(segmenter, images, boxes), images)  # five images: the second batch is filled up
    assert counters["stats"]["unique_graphs"] == graphs
    speed = segmenter.speed()
    assert speed["images"] == 5 and speed["warm_up_s"] > 0
    torch._dynamo.reset()


def test_a_machine_without_a_compiler_says_so(weights, monkeypatch):
    def backend(*_):
        raise RuntimeError("no working C++ compiler\nand much more")

    plain = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: plain(self, backend=backend, **options))
    torch._dynamo.reset()
    with pytest.raises(ParamsError, match=r"runtime\.compile: the network cannot be compiled here .*set it to false"):
        open_sam(weights, {"compile": True})
    torch._dynamo.reset()


@pytest.mark.fault("F47")
def test_a_first_pass_that_does_not_fit_is_halved_too(weights, monkeypatch, capsys):
    def warm_up(self, images):
        if images > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Network, "warm_up", warm_up)
    assert open_sam(weights, {"compile": True, "batch_images": 4}).image_halving.limit == 1
    assert "out of memory with 2 images at a time; going on with 1" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_masks_on_a_gpu_are_those_of_the_cpu(weights, made):
    from pipeline.sections import Runtime, Segment
    from stages.segment.sam import SamSegmenter

    images, boxes = made
    expected = segment(open_sam(weights), images, boxes)
    for dtype, least in (("fp32", 0.995), ("bf16", 0.98)):
        there = SamSegmenter(Segment(backend="sam", path=str(weights), dtype=dtype), Runtime(), "cuda:0")
        found = segment(there, images, boxes)
        overlaps = [iou(pixels_of(found[key], images), pixels_of(one, images)) for key, one in expected.items()]
        assert min(overlaps) >= least
        speed = there.speed()
        assert speed["images"] == 5 and 0 < speed["busy_s"] <= speed["wall_s"] and speed["warm_up_s"] > 0
