"""align: one phrase, one pair; every other candidate has its reason."""

import json

import numpy as np
import pytest
from small import in_process, run_stage, write_params

from pipeline.params import Align
from pipeline.shards import read_all
from stages.align.stage import Measured, choose, filtered
from stages.common import rle
from stages.common.candidates import Candidate

SECTION = Align(min_score=0.4, min_area=0.01, max_area=0.9)
CHAIN = ("ingest", "parse", "detect", "segment", "embed")


def item(score=0.9, objects=1, area=0.2, iou=1.0, similarity=None, name="a", label="dog"):
    counts = rle.encode(np.ones((4, 4), bool))
    candidate = Candidate(name, "p", "i", label, (0, 0, 4, 4), counts, 4, 4, objects, score, 1.0, 1.0)
    return Measured(candidate, area, iou, similarity)


def phrase(number="sing", count=None, text="a dog"):
    return {"number": number, "count": count, "text": text}


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (item(score=0.39), "low_score"),
        (item(area=0.009), "too_small"),
        (item(area=0.91), "too_large"),
        (item(iou=0.1), "mask_off_box"),
        (item(), None),
    ],
)
def test_a_candidate_is_filtered_by_its_own_measures(given, reason):
    fault = filtered(given, SECTION)
    assert (fault and fault[0]) == reason


def test_similarity_filters_only_where_it_is_known_and_asked_for():
    strict = Align(min_similarity=0.2)
    assert filtered(item(similarity=0.1), strict)[0] == "low_similarity"
    assert filtered(item(similarity=0.3), strict) is None and filtered(item(similarity=None), strict) is None
    assert filtered(item(similarity=0.1), SECTION) is None


def test_a_singular_takes_its_best_and_an_equal_best_is_ambiguous():
    best, other = item(0.9, name="a"), item(0.7, name="b")
    assert choose(phrase(), [other, best], 1e-4) == (best, [(other, "not_best")])
    twin = item(0.90005, name="c")
    chosen, lost = choose(phrase(), [best, twin, other], 1e-4)
    assert chosen is None and sorted(reason for _, reason in lost) == ["ambiguous", "ambiguous", "not_best"]


def test_plurals():
    one, two, both = item(name="a"), item(name="b"), item(objects=2, name="all")
    assert choose(phrase("plur", 2, "two dogs"), [one, two, both], 1e-4) == (
        both,
        [(one, "part_of_union"), (two, "part_of_union")],
    )
    assert choose(phrase("plur", 3, "three dogs"), [one, two], 1e-4)[1] == [
        (one, "count_mismatch"),
        (two, "count_mismatch"),
    ]
    assert choose(phrase("plur", None, "dogs"), [one], 1e-4) == (None, [(one, "uncounted_plural")])
    scissors = item(label="scissors")
    assert choose(phrase("plur", None, "the scissors"), [scissors], 1e-4) == (scissors, [])
    assert choose(phrase(), [], 1e-4) == (None, [])


def test_the_ledger_counts_every_candidate_and_a_caption_keeps_its_cap(small):
    for stage in CHAIN:
        in_process(stage, small)
    params = {"embed__path": _encoder(), "align__max_per_caption": 1}
    write_params(small / "params.yaml", small / "collection", **params)
    in_process("align", small)
    ledger = json.loads((small / "metrics/small/align.json").read_text())["ledger"]["candidate"]
    assert ledger == {"in": 96, "out": 48, "dropped": {"caption_cap": 48}, "rejected": {}}
    pairs = read_all(small / "data/small/align/pairs").to_pylist()
    captions = {row["id"]: row["text"] for row in read_all(small / "data/small/ingest/captions").to_pylist()}
    features = set(read_all(small / "data/small/embed/features").column("id").to_pylist())
    for pair in pairs:
        assert captions[pair["caption_id"]][pair["start"] : pair["end"]] == pair["text"]
        assert {pair["feature_id"], pair["image_feature_id"]} <= features
        pixels = rle.area(pair["counts"], pair["height"], pair["width"])
        assert pair["area"] == pytest.approx(pixels / (48 * 64), abs=1e-6)


def test_everything_dropped_and_a_similarity_without_text_features_end_in_one_line(small):
    for stage in CHAIN:
        in_process(stage, small)
    write_params(
        small / "params.yaml", small / "collection", embed__path=_encoder(), align__min_area=0.9, align__max_area=1.0
    )
    result = run_stage("align", small)
    assert result.returncode == 3 and "none of 96 candidates came through: too_small 96" in result.stderr
    write_params(small / "params.yaml", small / "collection", embed__path=_encoder(), align__min_similarity=0.2)
    result = run_stage("align", small)
    assert result.returncode == 2 and "align.min_similarity needs phrase features" in result.stderr


def _encoder():
    from small import ROOT

    return str(ROOT / "demo/checkpoints/vision_random")
