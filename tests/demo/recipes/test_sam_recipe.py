import numpy as np
import pytest
import torch

from demo.recipes import figures_sam, sam
from demo.recipes.course import Course, Schedule
from demo.recipes.rendered import Rendered
from demo.scenes import SIDE
from stages.common import rle
from stages.segment.architecture import Architecture
from stages.segment.backends import Mask
from stages.segment.network import Network

SMALL = Architecture(SIDE, 16, 32, 32, 2, 2, (1,), 4, decoder_mlp=32, iou_hidden=16, mask_channels=4)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return Rendered(1, 4, tmp_path_factory.mktemp("scenes"), workers=1, block=4)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A small network after three steps, and its folder."""
    scratch = tmp_path_factory.mktemp("sam")
    torch.manual_seed(0)
    course = Course(sam.Trained(SMALL), Schedule(3, 1e-3, warmup=1), scratch / "s.pt", torch.device("cpu"))
    draw = sam.Draw(data, 1, images=2)
    # the second step, number 3 of a count that starts at 2, trains the single mask
    network = course.run(draw, lambda net, batch: sam.losses(net, batch, course.step + 2))
    for tensor in network.state_dict().values():  # as they are read back from a file of 16-bit floats
        if tensor.is_floating_point():
            tensor.copy_(tensor.half())
    sam.save(network, SMALL, scratch / "out", {"points_per_side": 4, "min_predicted_iou": 0.0, "min_stability": 0.0})
    return network, scratch / "out"


def test_the_stage_sees_images_as_the_training_did(trained, data):
    network, folder = trained
    pixels = torch.from_numpy(np.stack([data.arrays(i)[0].transpose(2, 0, 1) for i in range(2)]))
    with torch.inference_mode():
        expected = network.encode(pixels)
    found = Network(folder, torch.device("cpu"), torch.float32).encode(list(pixels))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("section", [{}, {"multimask": False}])
def test_the_stage_reads_the_folder_and_answers_every_box(trained, section):
    fresh = figures_sam.world(5, 2)
    found = list(figures_sam.segmenter(trained[1], **section).segment(fresh.images, fresh.boxes))
    assert sorted(one.id for one in found) == sorted(fresh.gold)
    masks = [one.found for one in found if isinstance(one.found, Mask)]
    assert all(rle.decode(mask.counts, SIDE, SIDE).any() for mask in masks)
    assert all(one.found.reason == "no_mask" for one in found if not isinstance(one.found, Mask))


def test_figures_are_those_of_the_folder(trained):
    told = figures_sam.figures(trained[1], seed=5, scenes=2)
    assert {"box_iou", "grid_coverage", "box_iou_off", "grid_masks"} <= set(told)
    assert 0 <= told["box_iou"] <= 1
    assert told["min_predicted_iou"] == 0.0


def test_figures_of_gold_masks_are_perfect():
    fresh = figures_sam.world(5, 3)
    gold = [
        figures_sam.Segmented(f"{name.split('/')[0]}/grid/{n}", name.split("/")[0], None, Mask(rle.encode(mask), 1, 1))
        for n, (name, mask) in enumerate(fresh.gold.items())
    ]
    coverage, masks = figures_sam.covered(fresh, gold)
    assert coverage == 1.0
    assert masks == len(gold) / 3
    assert figures_sam.covered(fresh, gold[1:])[0] == pytest.approx(1 - 1 / len(gold))
    assert all(
        figures_sam.mask_iou(one.found, fresh.gold[name]) == 1 for one, name in zip(gold, fresh.gold, strict=True)
    )


def test_prompts_belong_to_what_they_ask_for(data):
    batch = sam.Draw(data, 1, images=3)(7)
    for box, mask, image in zip(batch.boxes, batch.masks, batch.box_image, strict=True):
        rows, columns = torch.nonzero(mask).T
        tight = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        reach = 0.2 * torch.tensor([tight[2] - tight[0], tight[3] - tight[1]]).repeat(2)
        assert ((box - tight).abs() <= reach + 1e-3).all()
        assert batch.shown[image][mask].all()
    for (x, y), image, owner in zip(batch.points.int(), batch.point_image, batch.point_object, strict=True):
        assert batch.shown[image, y, x] == (owner >= 0)
        assert owner < 0 or (batch.masks[owner, y, x] and batch.box_image[owner] == image)
    again = sam.Draw(data, 1, images=3)(7)
    assert all(torch.equal(a, b) for a, b in zip(vars(batch).values(), vars(again).values(), strict=True))


def test_the_loss_falls_with_the_overlap():
    target = torch.zeros(1, 16, 16)
    target[:, 4:8, 4:8] = 1
    beside = target.roll(2, 2)
    logits = torch.stack([20 * target - 10, 20 * beside - 10, -20 * target + 10], 1)
    right, near, wrong = sam.mask_loss(logits, target)[0].tolist()
    assert right < 0.01 < near < wrong
    assert sam.true_iou(logits, target)[0].tolist() == pytest.approx([1.0, 1 / 3, 0.0])
