"""align: one phrase, one pair; every other candidate has its reason."""

import json

import numpy as np
import pyarrow as pa
import pytest
from small import in_process, run_stage, write_params

from pipeline import tables
from pipeline.sections import Align
from pipeline.shards import read_all
from stages.align.choose import choose
from stages.align.filters import filtered
from stages.common import rle
from stages.common.candidates import SCHEMA

SECTION = Align(min_score=0.4, min_area=0.01, max_area=0.9)
CHAIN = ("ingest", "parse", "detect", "segment", "embed")


def item(score=0.9, objects=1, area=20, box=(0, 0, 10, 10), name="a", category="dog"):
    """A candidate whose mask fills the 10 x 10 image; `area` is what the table says of it."""
    counts = rle.encode(np.ones((10, 10), bool))
    own = {"phrase": 0, "id": name, "image_id": "i", "category": category, "counts": counts, "height": 10, "width": 10}
    own |= dict(zip(("x0", "y0", "x1", "y1"), box, strict=True))
    return own | {"objects": objects, "area": area, "score": score, "predicted_iou": 1.0, "stability": 1.0}


def made(*items):
    return pa.Table.from_pylist(items, SCHEMA)


def reasons(items, number="sing", count=None, text="a dog", head="dog"):
    own = {"id": "p", "image_id": "i", "caption_id": "c", "start": 0, "end": 3, "head": head, "key": "dog", "kind": ""}
    phrases = tables.build("phrases", [own | {"text": text, "number": number, "count": count}])
    return choose(made(*items), phrases, 1e-4).tolist()


def verdict(given, section, similarity=None):
    def similar(crops, texts):
        return np.full(len(crops), np.nan if similarity is None else similarity)

    _, verdicts = filtered(made(given), pa.chunked_array([["a dog"]]), similar, section)
    return verdicts.reason[0], verdicts.detail[0]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (item(score=0.39), ("low_score", "0.390")),
        (item(area=0), ("too_small", "0.0000 of the image")),
        (item(area=91), ("too_large", "0.9100 of the image")),
        (item(box=(0, 0, 1, 10)), ("mask_off_box", "IoU 0.100")),
        (item(), ("", "")),
    ],
)
def test_a_candidate_is_filtered_by_its_own_measures(given, reason):
    assert verdict(given, SECTION) == reason


def test_similarity_filters_only_where_it_is_known_and_asked_for():
    strict = Align(min_similarity=0.2)
    assert verdict(item(), strict, 0.1) == ("low_similarity", "0.1")
    assert verdict(item(), strict, 0.3)[0] == verdict(item(), strict, None)[0] == ""
    assert verdict(item(), SECTION, 0.1)[0] == ""


def test_a_singular_takes_its_best_and_an_equal_best_is_ambiguous():
    best, other = item(0.9, name="a"), item(0.7, name="b")
    assert reasons([other, best]) == ["not_best", ""]
    twin = item(0.90005, name="c")
    assert reasons([best, twin, other]) == ["ambiguous", "ambiguous", "not_best"]


def test_plurals():
    one, two, both = item(name="a"), item(name="b"), item(objects=2, name="all")
    assert reasons([one, two, both], "plur", 2, "two dogs") == ["part_of_union", "part_of_union", ""]
    assert reasons([one, two], "plur", 3, "three dogs") == ["count_mismatch", "count_mismatch"]
    assert reasons([one], "plur", None, "dogs") == ["uncounted_plural"]
    scissors = item(category="scissors")
    assert reasons([scissors], "plur", None, "the scissors") == [""]
    assert reasons([]) == []


def test_plurals_that_a_model_found_go_by_their_lemma():
    one, two, both = item(name="a", category=None), item(name="b", category=None), item(objects=2, name="all")
    assert reasons([one, two], "plur", None, "dogs") == ["uncounted_plural"] * 2
    assert reasons([one], "plur", 2, "two dogs") == ["count_mismatch"]
    assert reasons([one, two, both | {"category": None}], "plur", 2, "two dogs") == ["part_of_union"] * 2 + [""]
    assert reasons([one], "plur", None, "the scissors", head="scissors") == [""]
    assert reasons([one], "plur", None, "sheep", head="sheep") == ["uncounted_plural"]


def test_without_a_tie_the_first_id_of_equals_stays_and_a_lone_union_is_a_phrases_best():
    own = {"id": "p", "image_id": "i", "caption_id": "c", "start": 0, "end": 3, "head": "dog", "key": "dog", "kind": ""}
    phrases = tables.build("phrases", [own | {"text": "a dog", "number": "sing", "count": None}])
    assert choose(made(item(name="b"), item(name="a")), phrases, 0.0).tolist() == ["not_best", ""]
    union = item(objects=2, name="all", category="scissors")
    assert reasons([union], "plur", 2, "two scissors") == [""]


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
