import random
import string

import numpy as np
import pytest
import torch

from demo.recipes import clip, clip_text, figures_clip
from demo.recipes.course import Course, Schedule
from demo.recipes.heldout import HELD_OUT
from demo.recipes.rendered import Rendered
from demo.scenes import PATTERNED
from stages.embed.encoder import Encoder

PREPARATION = clip.make_preparation()


@pytest.fixture(scope="module")
def tokenizer():
    return clip_text.make_tokenizer(["A small red ball, next to two houses.", "the spotted umbrella"])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    scratch = tmp_path_factory.mktemp("pictures")
    return clip.Pictures(Rendered(1, 32, scratch, workers=1, block=32), PREPARATION, scratch)


@pytest.fixture(scope="module")
def folder(pictures, tokenizer, tmp_path_factory):
    """A small network after three steps: crops, crops, captions."""
    scratch = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    network = clip.Trained(clip.make_model(tokenizer, width=32, layers=1))
    course = Course(network, Schedule(3, 1e-3, warmup=1), scratch / "s.pt", torch.device("cpu"))
    draw = clip.Draw(pictures, tokenizer, 1, pairs=8)
    trained = course.run(draw, lambda net, batch: clip.losses(net, batch, PREPARATION))
    clip.save(trained, tokenizer, scratch / "out")
    return scratch / "out"


def test_the_stage_reads_the_folder_and_prepares_as_the_training_did(folder, pictures):
    encoder = Encoder(str(folder), "cpu", "fp32", 1)
    assert encoder.preparation == PREPARATION
    assert encoder.two_towers
    assert encoder.dim == 64
    assert torch.equal(encoder.fill, clip.fill_of(PREPARATION))
    assert encoder.texts(encoder.tokens(["a red ball", "TWO HOUSES", "?"])).shape == (3, 64)
    crops = encoder.prepare([torch.from_numpy(np.array(crop)) for crop in pictures.crops[:2]])
    assert encoder.encode(crops).shape == (2, 64)


def test_a_text_s_vector_does_not_depend_on_what_it_is_padded_with(folder):
    encoder = Encoder(str(folder), "cpu", "fp32", 1)
    assert encoder.model.config.text_config.eos_token_id == encoder.tokenizer.eos_token_id != 2
    alone = encoder.texts(encoder.tokens(["a red ball"]))
    padded = encoder.texts(encoder.tokens(["a red ball", "two houses next to the spotted umbrella"]))
    torch.testing.assert_close(padded[:1], alone, atol=1e-5, rtol=1e-4)


def test_figures_of_the_folder(folder):
    told = figures_clip.figures(folder, seed=5, scenes=24)
    assert {"one_of_20", "hard_one_of_20", "accuracy_seen", "accuracy_unseen"} <= set(told)
    assert 0 <= told["one_of_20"] <= 1


def test_one_of_twenty_counts_those_that_win():
    scores = torch.eye(30)
    scores[0, 0] = -1.0
    right = figures_clip._best(scores, ~torch.eye(30, dtype=torch.bool), random.Random(0))
    assert right.tolist() == [False] + [True] * 29


def test_words_are_single_tokens_and_every_character_can_be_written(tokenizer):
    assert tokenizer.tokenize("Small UMBRELLA, houses") == ["small</w>", "umbrella</w>", ",</w>", "houses</w>"]
    for text in (string.printable.strip(), "a~b_c", "zebra {42}"):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids[1:-1]
        kept = tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "")
        assert kept == "".join(text.lower().split())


def test_the_vocabulary_is_a_function_of_the_texts(tokenizer):
    again = clip_text.make_tokenizer(["the spotted umbrella", "A small red ball, next to two houses."])
    assert again.get_vocab() == tokenizer.get_vocab()


def test_an_altered_mention_is_wrong_in_one_attribute_and_never_held_out(pictures):
    rng = random.Random(3)
    things = [thing for scene in pictures.scenes for thing in scene.objects]
    for thing in things:
        mention = clip.mention_of(thing, rng)
        other = clip.altered(mention, thing, rng)
        assert (other.kind, other.colour) not in HELD_OUT
        assert other.pattern is None or other.kind in PATTERNED
        told = torch.tensor([clip.told_by(mention), clip.told_by(other)])
        assert (told[0] != told[1]).sum() == 1
        fits = clip.fitting(torch.tensor([clip.shown_by(thing)]), told)[0]
        assert fits.tolist() == [True, False]


def test_crops_are_a_tenth_wider_than_the_object_and_filled_around_it():
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    mask = np.zeros((40, 60), bool)
    mask[5:15, 30:59] = True
    mask[9, 40:50] = False
    crop = clip.crop_of(pixels, mask, torch.tensor([1, 2, 3], dtype=torch.uint8).view(3, 1, 1))
    filled = np.where(mask[..., None], pixels, np.array([1, 2, 3], np.uint8))
    assert np.array_equal(crop.permute(1, 2, 0), filled[4:16, 27:60])


def test_the_loss_asks_for_all_that_fits():
    fits = torch.tensor([[True, True, False], [False, False, True]])
    right = torch.tensor([[9.0, 9.0, -9.0], [-9.0, -9.0, 9.0]])
    one_missed = torch.tensor([[9.0, -9.0, -9.0], [-9.0, -9.0, 9.0]])
    assert clip._towards(right, fits) < 1e-6
    assert clip._towards(one_missed, fits) > 0.1
    assert clip._towards(-right, fits) > 10
