"""From scores of tokens and boxes of queries to boxes of phrases."""

import pytest
import torch

from pipeline.errors import StageError
from stages.detect.backends import Found, Miss
from stages.detect.grounding import Rules, ground, phrase_scores
from stages.detect.prompts import Asked, Prompt

# "a dog. two red hats." and "cat."
LONG = Prompt(
    "a dog. two red hats.", tuple(range(9)), (Asked("a dog", 1, 3, ("p", "q"), 2), Asked("two", 4, 7, ("r",), 9))
)
SHORT = Prompt("cat.", tuple(range(4)), (Asked("cat", 1, 2, ("s",), 2),))
IMAGE = ("photo", 100, 200)


def logits(rows=5, length=9, seed=0):
    """[2, rows, length]: of a prompt as long and of one of 4 tokens."""
    made = torch.randn(2, rows, length, generator=torch.Generator().manual_seed(seed))
    made[1, :, 4:] = -torch.inf
    return made


def test_a_score_is_the_mean_of_the_probabilities_of_the_phrases_tokens():
    given = logits()
    scores = phrase_scores(given, [LONG, SHORT])
    assert scores.shape == (2, 2, 5)
    assert torch.allclose(scores[0, 0], given[0, :, 1:3].sigmoid().mean(1))
    assert torch.allclose(scores[0, 1], given[0, :, 4:7].sigmoid().mean(1))
    assert torch.allclose(scores[1, 0], given[1, :, 1].sigmoid()) and not scores[1, 1].any()


def test_scores_are_those_of_the_original_codes_spans():
    """`create_positive_map_from_span` over the characters of the phrases, times the sigmoid of the logits."""
    from groundingdino.util.vl_utils import create_positive_map_from_span
    from vision import vocabulary

    from stages.detect.prompts import write_prompts
    from stages.detect.vocabulary import read_tokenizer

    tokenizer = read_tokenizer(vocabulary().parent)
    texts = ["a dog", "an umbrella stand", "pterodactyls"]
    rows = [{"id": text, "caption_id": "c", "text": text, "count": None} for text in texts]
    (prompt,), _ = write_prompts(rows, "per_image", tokenizer, 256, 3)
    spans = [
        [[prompt.text.index(asked.text), prompt.text.index(asked.text) + len(asked.text)]] for asked in prompt.asked
    ]
    weights = create_positive_map_from_span(tokenizer(prompt.text), spans)
    given = torch.full((1, 7, 256), -torch.inf)
    given[..., : len(prompt.tokens)] = torch.randn(1, 7, len(prompt.tokens))
    theirs = weights @ given[0].sigmoid().T
    assert torch.allclose(phrase_scores(given, [prompt])[0], theirs, atol=1e-6)
    assert torch.allclose(phrase_scores(given[..., : len(prompt.tokens)], [prompt])[0], theirs, atol=1e-6)


def boxes(*pixels):
    """Boxes x0, y0, x1, y1 in pixels of IMAGE as the detector gives them."""
    corners = torch.tensor(pixels, dtype=torch.float32) / torch.tensor([200.0, 100, 200, 100])
    return torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1)


def found(scores, where, prompt=SHORT, threshold=0.3, nms_iou=0.5):
    return list(ground(torch.tensor(scores), where, prompt, IMAGE, Rules(threshold, nms_iou)))


def test_boxes_are_in_pixels_and_inside_the_image():
    where = boxes((-20, 10, 60, 120), (20, 10, 30, 40), (210, 10, 230, 50))
    ((name, result),) = found([[0.5, 0.9, 0.8]], where)
    assert name == "s" and [item.label for item in result] == ["cat", "cat"]
    assert result[0].box == pytest.approx((20, 10, 30, 40)) and result[0].score == pytest.approx(0.9)
    assert result[1].box == pytest.approx((0, 10, 60, 100))  # the third box is nowhere in the image


def test_what_scores_too_little_and_what_overlaps_goes():
    where = boxes((0, 0, 50, 50), (1, 0, 51, 50), (100, 0, 150, 50), (0, 0, 50, 24))
    ((_, result),) = found([[0.6, 0.7, 0.2, 0.5]], where)
    assert [item.score for item in result] == pytest.approx([0.7, 0.5])  # the first overlaps the second by 0.96
    ((_, result),) = found([[0.6, 0.7, 0.3, 0.5]], where, nms_iou=1.0)
    assert [item.score for item in result] == pytest.approx([0.7, 0.6])  # two at most
    ((_, result),) = found([[0.25, 0.0, 0.25, 0.1]], where, threshold=0.25, nms_iou=1.0)
    assert [item.score for item in result] == [0.25, 0.25]  # the threshold itself is enough


def test_phrases_do_not_take_each_others_boxes():
    where = boxes((0, 0, 50, 50), (0, 0, 50, 50))
    result = dict(found([[0.9, 0.8], [0.7, 0.6]], where, LONG))
    assert set(result) == {"p", "q", "r"} and result["p"] == result["q"]
    assert [item.score for item in result["p"]] == pytest.approx([0.9])
    assert [item.score for item in result["r"]] == pytest.approx([0.7])
    assert isinstance(result["r"][0], Found)


def test_a_phrase_without_a_box_says_its_best_score():
    assert found([[0.1, 0.294]], boxes((0, 0, 9, 9), (20, 20, 29, 29))) == [("s", Miss("no_box", "best score 0.29"))]


@pytest.mark.fault("F48")
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("token", [1, 2, 3])
def test_a_logit_that_is_no_number_fails_the_shard(value, token):
    given = logits()
    given[1, 3, token] = value
    scores = phrase_scores(given, [LONG, SHORT])
    good = torch.full((5, 4), 0.5)
    list(ground(scores[0], good, LONG, IMAGE, Rules(0.0, 0.5)))
    with pytest.raises(StageError, match="image photo: the detector gave NaN or infinity for 'cat.'"):
        list(ground(scores[1], good, SHORT, IMAGE, Rules(0.0, 0.5)))


@pytest.mark.fault("F48")
def test_a_box_that_is_no_number_fails_the_shard():
    broken = torch.full((5, 4), 0.5)
    broken[2, 2] = torch.nan
    with pytest.raises(StageError, match="image photo: the detector gave NaN"):
        list(ground(torch.zeros(1, 5), broken, SHORT, IMAGE, Rules(0.5, 0.5)))
