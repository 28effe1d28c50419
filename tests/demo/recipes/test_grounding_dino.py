"""The recipe of the small Grounding DINO: it trains what the detect stage runs, and can be stopped."""

import random

import pytest
import torch

from demo.recipes import figures_grounding_dino
from demo.recipes import grounding_dino as recipe
from demo.recipes.course import Course, Schedule
from demo.recipes.dino_loss import Truth, focal, match, owners, place_loss
from demo.recipes.dino_network import Shape, Trainee, configure
from demo.recipes.dino_phrases import Phrasebook, fitting, shown, untrue
from demo.recipes.dino_vocabulary import pieces, tokenizer_of
from demo.recipes.heldout import HELD_OUT, training_scene
from demo.recipes.rendered import Rendered
from stages.detect.loading import load
from stages.detect.network import Network, Texts
from stages.detect.vocabulary import MARKS, read_tokenizer

CPU = torch.device("cpu")
TINY = {"widths": (8, 16, 32), "depths": (1, 1, 1), "d_model": 32, "ffn": 32, "heads": 2, "queries": 8}
SMALL = Shape(**TINY, text_width=32, text_layers=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return Rendered(1, 16, tmp_path_factory.mktemp("scenes"), workers=1, block=16)


@pytest.fixture(scope="module")
def table():
    return recipe.vocabulary(1, captions=200)


@pytest.fixture(scope="module")
def draw(data, table):
    words = recipe.Words(tokenizer_of(table))
    return recipe.Draw(data, Phrasebook(1, captions=100), words, size=4, limit=SMALL.longest)


@pytest.fixture(scope="module")
def trained(data, table, draw, tmp_path_factory):
    """A smaller network after three steps of each part."""
    scratch = tmp_path_factory.mktemp("state")
    plan = recipe.Plan(1, first=3, second=3, size=4, captions=200, shape=SMALL)
    network, words, minutes = recipe.train(plan, data, scratch, CPU, watched=False)
    assert minutes > 0 and words == table
    as_stored(network)
    return network, words


def as_stored(network):
    """The weights as they are read back from a file of 16-bit floats."""
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.half())


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "grounding_dino"
    recipe.write(folder, *trained, SMALL.side)
    return folder


def test_the_stage_s_network_answers_as_the_trained_one_does(folder, trained, data):
    network, table = trained
    own = recipe.Draw(data, Phrasebook(1, captions=100), recipe.Words(tokenizer_of(table)), 4, SMALL.longest)
    batch = own.whole(7)
    pixels = recipe.normalised(batch.pixels)
    texts = Texts(batch.prompts, batch.denoted.shape[2], CPU)
    stage = Network(load(folder))
    logits, boxes = stage.read(*stage.look(pixels), texts)
    with torch.no_grad():
        mine, where = network.eval()(pixels, texts).layers[-1]
    own_tokens = ~texts.padding[:, None].expand_as(logits)
    torch.testing.assert_close(logits[own_tokens], mine[own_tokens], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(boxes, where, atol=1e-5, rtol=1e-4)


def test_figures_of_the_folder(folder):
    told = figures_grounding_dino.figures(folder, seed=5, scenes=12)
    assert {"accuracy", "recall", "false_positives", "threshold", "accuracy_seen", "accuracy_unseen"} <= set(told)
    assert told["false_positives"] <= 0.10
    assert told["recall"] <= told["accuracy"] <= 1


def test_a_stopped_training_ends_where_it_would_have_ended(draw, table, tmp_path):
    def course(name: str) -> Course:
        return Course(Trainee(configure(SMALL, len(table)), 3), Schedule(4, 1e-3, warmup=1), tmp_path / name, CPU)

    lesson = recipe.Lesson(CPU)
    whole = course("whole.pt").run(draw.whole, lesson.whole)
    course("cut.pt").run(draw.whole, lesson.whole, until=2)
    resumed = course("cut.pt").run(draw.whole, lesson.whole)
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def test_both_parts_give_gradients_to_what_the_stage_uses(draw, table):
    network = Trainee(configure(SMALL, len(table)), 0)
    lesson = recipe.Lesson(CPU)
    sum(lesson.whole(network, draw.whole(0)).values()).backward()
    without = {name for name, weight in network.detector.named_parameters() if weight.grad is None}
    assert without == set()
    network.zero_grad(set_to_none=True)
    sum(lesson.places(network, draw.places(0)).values()).backward()
    given = {name.split(".")[1] for name, weight in network.detector.named_parameters() if weight.grad is not None}
    assert {"backbone", "text_backbone", "enc_output", "encoder_output_bbox_embed"} <= given
    assert "decoder" not in given


def test_phrases_say_what_is_true_or_not_and_never_what_is_held_out():
    rng = random.Random(0)
    for index in range(60):
        scene = training_scene(1, index)
        assert fitting(scene, shown(scene, rng))
        false = untrue(scene, rng)
        assert not fitting(scene, false)
        assert (false.kind, false.colour) not in HELD_OUT


def test_a_batch_s_boxes_are_the_objects_and_its_tokens_their_phrases(draw, data):
    batch = draw.whole(3)
    assert batch.pixels.shape == (4, 3, 128, 128)
    height = batch.boxes[..., 3]
    for row, prompt in enumerate(batch.prompts):
        denoted = batch.denoted[row].any(0).nonzero().flatten().tolist()
        inside = {token for one in prompt.asked for token in range(one.start, one.end)}
        assert set(denoted) <= inside
        assert batch.denoted[row][height[row] == 0].sum() == 0
    index, number = 5, 1
    thing = data.scene(index).objects[number]
    x, y, w, h = (128 * draw._boxes(index)[number]).tolist()
    assert abs(x - w / 2 - thing.x) <= 3 or w < thing.w
    assert w <= thing.w + 3 and h <= thing.h + 3


def test_owners_are_in_the_middle_of_their_box_at_a_fitting_resolution():
    boxes = torch.tensor([[[0.25, 0.25, 0.2, 0.2], [0.75, 0.75, 0.45, 0.45], [0, 0, 0, 0]]])
    own, inside = owners(boxes, ((16, 16), (8, 8), (4, 4)))
    assert own.shape == (1, 336) and inside.shape == (1, 336, 3)
    assert set(own[0, :256].tolist()) == {-1, 0}
    assert {1} <= set(own[0, 256:].tolist()) <= {-1, 0, 1}
    assert not inside[..., 2].any()
    assert inside[0][own[0] == 1, 1].all()


def test_the_focal_loss_and_its_gradient_are_what_autograd_says():
    logits = torch.linspace(-9, 9, 37, dtype=torch.float64).requires_grad_()
    wanted = torch.arange(37) % 3 == 0
    right = torch.where(wanted, logits.sigmoid(), 1 - logits.sigmoid())
    plain = torch.where(wanted, 0.25, 0.75) * (1 - right) ** 2 * -right.log()
    torch.testing.assert_close(focal(logits, wanted), plain)
    (mine,), (theirs,) = (torch.autograd.grad(loss.sum(), logits) for loss in (focal(logits, wanted), plain))
    torch.testing.assert_close(mine, theirs)


def test_losses_are_least_where_the_answer_is_right():
    boxes = torch.tensor([[[0.25, 0.25, 0.2, 0.2], [0.75, 0.75, 0.4, 0.4]]])
    denoted = torch.tensor([[[True, False], [False, True]]])
    truth = Truth(boxes, denoted, torch.ones(1, 2, dtype=torch.bool))
    shapes = ((16, 16), (8, 8))
    own, inside = owners(boxes, shapes)
    wanted = denoted[0][own[0].clamp(min=0)] & (own[0] >= 0)[:, None]
    right = torch.where(wanted, 8.0, -8.0)[None]
    places = boxes[0][own[0].clamp(min=0)][None]
    good = place_loss(right, places, truth, own, inside)
    bad = place_loss(right[..., [1, 0]], places, truth, own, inside)
    assert float(good["place"]) < 0.01 < 1 < float(bad["place"])
    assert float(good["place_box"]) < 1e-5
    queries, objects = match(torch.tensor([[[-8.0, 8], [8, -8], [0, 0]]]), boxes[:, [1, 0, 1]], truth, 0, copies=1)
    assert dict(zip(queries, objects, strict=True)) == {0: 1, 1: 0}


def test_the_marks_have_the_numbers_the_model_takes_for_granted(folder):
    tokenizer = read_tokenizer(folder)
    assert tokenizer.get_vocab().items() >= MARKS.items()
    assert tokenizer.tokenize("a small spotted umbrella") == ["a", "small", "spotted", "umbrella"]
    assert tokenizer.unk_token not in tokenizer.tokenize("xylophones, 42 zebras!")
    assert len(set(pieces(["a red ball"]))) == len(pieces(["a red ball"]))
