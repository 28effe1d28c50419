"""What is said, in one line, of data that a recipe cannot be trained on."""

from dataclasses import replace

import numpy as np
import pytest

from model.data import TrainingData, check
from model.errors import ModelError
from model.recipes import NAMES, resolve
from tests.model.companions import complete


def first_pair(data, **changes):
    own = [replace(data.pairs[0][0], **changes), *data.pairs[0][1:]]
    return replace(data, pairs=[own, *data.pairs[1:]])


def with_nan(array):
    array = array.copy()
    array[2, 0] = np.nan
    return array


WRONG = {
    "no triplets": ("simcse-sup", lambda d: replace(d, triplets=[]), "needs triplets.*set train.triplets_path"),
    "half a triplet": ("simcse-sup", lambda d: replace(d, triplets=[("a", "b")]), "row 0 is not three texts"),
    "an empty text": (
        "simcse-sup",
        lambda d: replace(d, triplets=[*d.triplets[:4], ("a", "b", " ")]),
        "triplets: row 4 is not three texts",
    ),
    "no caption text": (
        "kdmcse",
        lambda d: replace(d, caption_text=None),
        "needs CLIP text features of the captions.*set embed.path to a CLIP checkpoint and embed.text to true",
    ),
    "caption text of others": (
        "kdmcse",
        lambda d: replace(d, caption_text=d.caption_text[1:]),
        "32 captions but 31 rows in caption_text",
    ),
    "NaN in caption text": (
        "kdmcse",
        lambda d: replace(d, caption_text=with_nan(d.caption_text)),
        "caption_text: row 2 holds NaN or infinity; embed it again",
    ),
    "another CLIP": (
        "kdmcse-paper",
        lambda d: replace(d, caption_text=d.caption_text[:, :5]),
        "image features have 12 dimensions, caption text features 5; make both with the same CLIP checkpoint",
    ),
    "no phrase text": (
        "mcseo-soft",
        lambda d: replace(d, phrase_text=None),
        "needs CLIP text features of the phrases.*embed.text to true",
    ),
    "no phrase row": (
        "mcseo-soft",
        lambda d: first_pair(d, phrase_row=None),
        "needs CLIP text features of the phrases",
    ),
    "phrase row": ("mcseo-soft", lambda d: first_pair(d, phrase_row=999), "phrase_row 999 is outside phrase_text"),
    "NaN in phrase text": (
        "mcseo-soft",
        lambda d: replace(d, phrase_text=with_nan(d.phrase_text)),
        "phrase_text: row 2 holds NaN",
    ),
    "phrases of another CLIP": (
        "mcseo-soft",
        lambda d: replace(d, phrase_text=d.phrase_text[:, :5]),
        "phrase text features have 5 dimensions, object features 12",
    ),
    "no span": (
        "mcseo-span",
        lambda d: first_pair(d, end=None),
        "of caption 0 has no start and end; run the stage parse",
    ),
    "span outside": ("mcseo-span", lambda d: first_pair(d, end=999), "of caption 0 has the characters 2 to 999"),
    "empty span": ("mcseo-span", lambda d: first_pair(d, start=4, end=4), "has the characters 4 to 4"),
    "no images": ("mcse", lambda d: replace(d, image_features=None), "needs captions with image features.*stage embed"),
    "no images for teachers": ("dalr", lambda d: replace(d, image_features=None), "needs captions with image features"),
    "no captions": (
        "dalr",
        lambda d: TrainingData(sentences=d.sentences),
        "needs captions with image features, and there are none",
    ),
    "no objects": (
        "mcseo-mil",
        lambda d: replace(d, object_features=None),
        "needs object-phrase pairs with object features, and there are none: run the stages that mine them",
    ),
    "no phrases": (
        "simcse-phrases",
        lambda d: replace(d, pairs=[[] for _ in d.captions]),
        "needs object-phrase pairs, and there are none",
    ),
    "box": ("mcseo-whole", lambda d: first_pair(d, box=(0, 0, float("inf"), 1)), "four finite numbers"),
    "pairs of others": (
        "mcseo-shuffled",
        lambda d: replace(d, pairs=d.pairs[1:]),
        "32 captions but 31 entries in pairs",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_data_is_one_clear_line(data, what):
    name, change, says = WRONG[what]
    with pytest.raises(ModelError, match=says) as raised:
        check(change(complete(data)), resolve(name))
    assert raised.value.code == 3 and "\n" not in str(raised.value)


@pytest.mark.parametrize("name", NAMES)
def test_complete_data_serves_every_recipe(data, name):
    check(complete(data), resolve(name))


MINE = {
    "simcse-sup": {"sentences": [], "captions": [], "caption_image": [], "pairs": []},
    "diffcse": {"image_features": None, "object_features": None, "pairs": []},
    "kdmcse": {"object_features": None, "pairs": [], "phrase_text": None},
    "dalr": {"object_features": None, "pairs": [], "caption_text": None},
    "mcseo-span": {"caption_text": None, "phrase_text": None},
    "mcseo-whole": {"object_features": None},
    "simcse-phrases": {"object_features": None, "image_features": None},
}


@pytest.mark.parametrize("name", MINE)
def test_each_recipe_asks_only_for_what_it_uses(data, name):
    check(replace(complete(data), **MINE[name]), resolve(name))
    if "triplets" not in resolve(name).needs:
        check(replace(complete(data), **MINE[name], triplets=[]), resolve(name))


def test_what_is_masked_by_nothing_needs_no_common_space(data):
    narrow = replace(complete(data), caption_text=np.ones((32, 5)))
    check(narrow, resolve("kdmcse"))
    check(narrow, resolve("kdmcse-code"))
    with pytest.raises(ModelError, match="compares captions with images"):
        check(narrow, resolve("kdmcse-code", {"threshold": 0.8}))
