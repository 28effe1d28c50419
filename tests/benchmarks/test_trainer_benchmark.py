"""What the trainer benchmarks' figures rest on: how steps are timed and mixed, which pairs are taken."""

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.recipes_data import Photo, named, pairs_of
from benchmarks.recipes_run import ends
from benchmarks.trainer import extra_of_mcseo
from benchmarks.trainer_data import thinned
from benchmarks.trainer_ways import Marks
from model.sts import Subset, Task


def test_the_warm_up_is_left_out_of_the_pace():
    marks = Marks("cpu")
    marks.at = [(1, 100.0, 50.0), (2, 101.0, 50.5), (4, 103.0, 51.5)]
    pace = marks.pace(2)
    assert (pace.steps, pace.seconds, pace.processor) == (2, 2.0, 1.0)
    assert pace.cost("cpu") == 0.5
    assert pace.cost("cuda") == 1.0
    with pytest.raises(ValueError, match="none to be timed"):
        marks.pace(4)


def test_what_mcseo_costs_more_is_diluted_by_the_text_steps():
    assert extra_of_mcseo(1.0, 1.0, 1.5, 10, 10) == pytest.approx(0.5)
    assert extra_of_mcseo(1.0, 1.0, 1.5, 1, 10) == pytest.approx(0.05)


def test_means_of_both_ends_need_a_value_in_some_row_and_finite_ones():
    log = [{"loss": float(i), "object": None if i % 2 else i * 10.0} for i in range(10)]
    assert ends(log, ["loss", "object"], 2) == {"loss": (0.5, 8.5), "object": (10.0, 70.0)}
    with pytest.raises(ValueError, match="no row"):
        ends(log, ["rank"])
    with pytest.raises(ValueError, match="not finite"):
        ends([{"loss": math.nan}], ["loss"])


def test_a_share_of_the_sts_pairs_is_evenly_spaced_in_each_split():
    words = [str(i) for i in range(11)]
    task = thinned(Task("x", {"dev": Subset(words, words, np.arange(11.0))}), 0.25)
    assert task.subsets["dev"].sentences1 == ["0", "5", "10"]
    assert task.subsets["dev"].gold.tolist() == [0, 5, 10]


def test_objects_pair_with_the_captions_that_name_their_category():
    assert named("Two Dogs run", "dog") == (4, 8)
    assert named("a hotdog", "dog") is None
    boxes = [(0.0, 0.0, 5.0, 5.0), (1.0, 1.0, 6.0, 6.0)]
    photo = Photo(Path("x.jpg"), ["a cat", "a dog and a cat"], [("dog", boxes[0]), ("cat", boxes[1])])
    one, two = pairs_of(photo.captions, [0, 0], [photo], [7])
    assert [(i.phrase, i.object_row, i.phrase_row) for i in one] == [("cat", 8, 0)]
    assert [(i.phrase, i.object_row, i.phrase_row) for i in two] == [("dog", 7, 1), ("cat", 8, 0)]
    assert all(c[i.start : i.end] == i.phrase for c, own in zip(photo.captions, (one, two), strict=True) for i in own)
