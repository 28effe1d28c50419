"""Every number of quality: counted by hand on one scene, and by a slow second implementation on drawn ones."""

import json
import tracemalloc
from pathlib import Path

import made
import pytest
from made import Caption, Dataset, Found, Phrase, drawn, pixels
from naive import Naive

from pipeline.ledger import Drop
from stages.common import cases
from stages.common.groups import ORDER
from stages.quality.measure import STAGES, measure
from stages.quality.sources import open_gold
from stages.quality.stage import write

TEXT = "a red ball and two dogs near it on grass"


def measured(root: Path, data: Dataset) -> dict[str, dict]:
    tables, gold = data.write(root)
    write(tables, gold, {}, tables / "quality", root / "metrics")
    return {stage: json.loads((root / f"metrics/{stage}.json").read_text()) for stage in STAGES}


def of_hand() -> Dataset:
    ball, dog, cat = pixels((0, 0, 10, 10)), pixels((20, 10, 30, 20)), pixels((30, 10, 40, 20))
    shifted, half = pixels((5, 0, 15, 10)), pixels((20, 10, 30, 15))
    gold = [
        (0, 10, [1], "object"),  # a red ball
        (15, 23, [2, 3], "object"),  # two dogs
        (29, 31, [1], "pronoun"),
        (35, 40, [], "place"),
    ]
    phrases = [
        # "red ball": not gold's span, overlaps it by 8 of 10; its best box is off (IoU 1/3), the second is right.
        Phrase(2, 10, [Found((5, 0, 15, 10), 0.9, shifted), Found((0, 0, 10, 10), 0.8, ball)], pair=0),
        # "two dogs": one box with half a dog as its mask; merged box is 20 wide, so its IoU is 1/2.
        Phrase(15, 23, [Found((20, 10, 30, 20), 0.9, half)], pair=0),
        # "and": no gold phrase has it. "grass" denotes nothing.
        Phrase(11, 14, [Found((0, 0, 40, 30), 0.5, None)]),
        Phrase(35, 40, [Found((30, 10, 40, 20), 0.4, cat)], pair=0),
    ]
    captions = [Caption("i#1", "i", TEXT, phrases, gold), Caption("i#2", "i", TEXT, phrases[:1], None)]
    drops = [("align", Drop("candidate", "i#1@15-23/0", "i", "dropped", "not_best"))]
    return Dataset(captions, {"i": {1: ball, 2: dog, 3: cat}}, drops)


def test_by_hand(tmp_path):
    found = measured(tmp_path, of_hand())
    for body in found.values():
        assert body["captions"] == {"with_gold": 1, "without": 1} and body["misfits"] == 0
        assert body["sources"] == ["phrases and their objects"] and body["missing"] == {}
    parse = found["parse"]["all"]
    # "grass" is of a gold phrase that cannot become a pair: aside. "red ball", "two dogs", "and" of "a red ball",
    # "two dogs": one of three, one of two; with half of it two of three, two of two.
    assert (parse["phrases"], parse["gold"]) == (3, 2)
    assert (parse["precision"], parse["recall"], parse["f1"]) == (1 / 3, 1 / 2, pytest.approx(0.4))
    assert (parse["overlap_precision"], parse["overlap_recall"], parse["overlap_f1"]) == (2 / 3, 1, pytest.approx(0.8))
    kinds = found["parse"]["by"]["kind"]
    assert set(kinds) == {"one object", "several objects", "pronoun", "nothing shown"}
    assert kinds["pronoun"] | {"gold": 1} == kinds["pronoun"] and kinds["pronoun"]["precision"] is None
    assert kinds["nothing shown"]["f1"] == 1
    detect = found["detect"]["all"]
    # Ball: 1/3 is wrong; dogs: half of the merged box, and all of one of them. Ball and first dog are met by a box of
    # their phrase; the second dog only by that of "grass".
    assert detect == {
        "gold": 2, "asked": 2, "without_box": 0, "objects": 3, "accuracy": 0.5, "accuracy_any": 0.5,
        "box_recall": 2 / 3, "box_recall_image": 1.0,
    }  # fmt: skip
    # Right boxes: the ball's second, the first dog's. Their masks' IoU: 1 and 1/2.
    segment = found["segment"]["all"]
    assert segment == {"boxes": 2, "without_mask": 0, "mean_iou": 0.75, "at_50": 1.0, "at_75": 0.5}
    align = found["align"]
    # Ball: 1/3, fits nothing. Dogs: 50 of 200 pixels, and half of one of them. "grass": denotes nothing.
    assert align["verdicts"] == {"right": 0, "other_object": 1, "off_mask": 1, "denotes_nothing": 1}
    assert align["all"]["precision"] == 0 and align["all"]["unjudged"] == 1
    assert (align["all"]["gold"], align["all"]["found"], align["all"]["recall"]) == (2, 0, 0)
    assert align["all"]["mean_iou"] == pytest.approx((1 / 3 + 1 / 4) / 2)
    assert align["missed"] == {"align": {"wrong_pair": 2}}


def test_the_worst_cases_are_kept_worst_first(tmp_path):
    measured(tmp_path, of_hand())
    lists = cases.read(tmp_path / "data/quality/cases.parquet")
    told = {name: [(case.id, case.stage, case.reason) for case in own] for name, own in lists.items()}
    assert told["pairs"] == [
        ("i#1@35-40", "align", "denotes_nothing"),
        ("i#1@15-23", "align", "other_object"),
        ("i#1@2-10", "align", "off_mask"),
    ]
    assert sorted(told["missed"]) == [(f"i#1@{span}/gold", "align", "wrong_pair") for span in ("0-10", "15-23")]
    assert told["masks"] == [("i#1@15-23/0", "segment", "off_mask")]
    assert told["boxes"] == [("i#1@2-10/0", "detect", "lower_rank")]
    assert told["phrases"] == [("i#1@11-14", "parse", "no_gold_phrase"), ("i#1@2-10", "parse", "other_span")]
    box = lists["boxes"][0]
    assert (box.box, box.gold_box, box.frame) == ((5, 0, 15, 10), (0, 0, 10, 10), (30, 40))
    assert box.measures == {"score": pytest.approx(0.9), "gold": pytest.approx(1 / 3)}
    assert cases.read(tmp_path / "data/quality/cases.parquet") == lists


@pytest.mark.parametrize("seed", range(12))
def test_a_slow_second_implementation_finds_the_same(tmp_path, seed):
    data = drawn(seed)
    found, naive = measured(tmp_path, data), Naive(data)
    for stage, body in found.items():
        assert _part(body["all"], wanted := naive.numbers(stage)) == pytest.approx(wanted), stage
        for family, names in ORDER.items():
            for name in names:
                wanted = naive.numbers(stage, family, name)
                if name in body["by"][family]:
                    own = body["by"][family][name]
                    assert _part(own, wanted) == pytest.approx(wanted), (stage, family, name)
                else:
                    assert not any(wanted.values()), (stage, family, name)
    verdicts = {verdict: naive.verdicts.count(verdict) for verdict in found["align"]["verdicts"]}
    assert found["align"]["verdicts"] == verdicts
    missed = sum(number for reasons in found["align"]["missed"].values() for number in reasons.values())
    assert missed == sum(not right for _, right in naive.sought)


def _part(numbers: dict, wanted: dict) -> dict:
    return {name: numbers[name] for name in wanted}


def test_the_drawn_datasets_have_all_there_is_to_measure():
    """What the comparison above would be worth nothing without."""
    every = [Naive(drawn(seed)) for seed in range(12)]
    verdicts = {verdict for naive in every for verdict in naive.verdicts}
    assert verdicts == {"right", "other_object", "off_mask", "denotes_nothing"}
    assert any(0 < unit[1] < 1 for naive in every for unit in naive.boxes)
    assert any(unit[2] for naive in every for unit in naive.boxes), "right boxes without a mask"
    assert any(unit[2] and not unit[1] for naive in every for unit in naive.asked), "right for one of several"
    assert {group for naive in every for own, _ in naive.gold for group in own.values()} >= set(ORDER["area"])


def test_nothing_is_divided_by_zero_where_nothing_was_found(tmp_path):
    caption = Caption("i#1", "i", TEXT, [], [(0, 10, [1], "object")])
    found = measured(tmp_path, Dataset([caption], {"i": {1: pixels((0, 0, 5, 5))}}))
    assert found["parse"]["all"]["recall"] == 0 and found["parse"]["all"]["precision"] is None
    assert found["detect"]["all"]["accuracy"] is None
    assert found["detect"]["missing"]["accuracy"] == "parse cut no phrase that the gold locates"
    assert found["segment"]["missing"]["mean_iou"] == "no box is right"
    assert found["align"]["all"]["recall"] == 0 and found["align"]["all"]["precision"] is None
    assert found["align"]["missed"] == {"parse": {"not_cut_out": 1}}


def test_a_drop_tells_why_a_phrase_has_no_pair(tmp_path):
    drops = [("detect", Drop("phrase", "i#1@2-10", "i", "dropped", "no_match"))]
    caption = Caption("i#1", "i", TEXT, [Phrase(2, 10)], [(0, 10, [1], "object")])
    found = measured(tmp_path, Dataset([caption], {"i": {1: pixels((0, 0, 5, 5))}}, drops))
    assert found["align"]["missed"] == {"detect": {"no_match": 1}}
    assert (found["detect"]["all"]["without_box"], found["detect"]["all"]["accuracy"]) == (1, 0)


def test_gold_that_does_not_fit_is_counted_and_left_out(tmp_path):
    tables, gold = of_hand().write(tmp_path)
    phrases = json.loads((gold / "phrases_made.json").read_text())
    phrases["i#1"][0]["text"] = "a blue ball"
    phrases["i#1"][1]["objects"] = [2, 99]
    phrases["i#1"][3] |= {"start": 38, "end": 60, "text": None}
    (gold / "phrases_made.json").write_text(json.dumps(phrases))
    bodies = write(tables, gold, {}, tmp_path / "out", tmp_path / "metrics")
    assert bodies["align"]["misfits"] == 3 and bodies["align"]["all"]["gold"] == 0
    assert bodies["align"]["missing"]["recall"] == "no gold phrase denotes objects"
    instances = json.loads((gold / "instances_made.json").read_text())
    instances["annotations"][0]["segmentation"]["size"] = [7, 7]
    (gold / "instances_made.json").write_text(json.dumps(instances))
    bodies = write(tables, gold, {}, tmp_path / "out", tmp_path / "metrics")
    assert bodies["align"]["misfits"] == 4, "the pronoun's object has a mask of another size"


def test_a_fault_of_the_gold_is_not_told_as_one_of_a_pair(tmp_path):
    tables, gold = of_hand().write(tmp_path)
    phrases = json.loads((gold / "phrases_made.json").read_text())
    phrases["i#1"][0]["objects"] = [98, 99]
    (gold / "phrases_made.json").write_text(json.dumps(phrases))
    align = write(tables, gold, {}, tmp_path / "out", tmp_path / "metrics")
    assert align["align"]["misfits"] == 1
    wanted = {"right": 0, "other_object": 1, "off_mask": 0, "denotes_nothing": 1}
    assert align["align"]["verdicts"] == wanted, "the ball's pair is not judged; what denotes nothing is the grass"
    before = measured(tmp_path / "fits", of_hand())
    assert align["align"]["all"]["unjudged"] == before["align"]["all"]["unjudged"] + 1
    parse = (align["parse"]["all"], before["parse"]["all"])
    assert parse[0]["precision"] == parse[1]["precision"], "the span is gold's all the same"


def test_gold_of_boxes_alone_judges_pairs_by_boxes_and_masks_not_at_all(tmp_path):
    tables, gold = of_hand().write(tmp_path)
    instances = json.loads((gold / "instances_made.json").read_text())
    for item in instances["annotations"]:
        del item["segmentation"]
    (gold / "instances_made.json").write_text(json.dumps(instances))
    bodies = write(tables, gold, {}, tmp_path / "out", tmp_path / "metrics")
    assert bodies["segment"]["all"]["mean_iou"] is None
    assert set(bodies["segment"]["missing"].values()) == {"the gold has boxes but no masks"}
    align = bodies["align"]
    # The dogs' pair: its box is half of the box around both.
    assert align["verdicts"] == {"right": 1, "other_object": 0, "off_mask": 1, "denotes_nothing": 1}
    assert (align["all"]["precision"], align["all"]["mean_iou"]) == (1 / 3, None)
    assert align["missing"] == {"mean_iou": "the gold has boxes but no masks"}
    lists = cases.read(tmp_path / "out/cases.parquet")
    assert all(case.gold is None for own in lists.values() for case in own)
    assert [case.gold_box for case in lists["missed"]] == [(0, 0, 10, 10)]


def test_the_same_dataset_in_other_shards_gives_the_same_numbers(tmp_path, monkeypatch):
    one = measured(tmp_path / "one", drawn(3))
    monkeypatch.setattr(made, "SHARDS", 1)
    assert _close(one, measured(tmp_path / "other", drawn(3)))


def _close(one: object, other: object) -> bool:
    if isinstance(one, dict):
        return set(one) == set(other) and all(_close(one[key], other[key]) for key in one)
    return one == (pytest.approx(other, abs=1e-12) if isinstance(other, float) else other)


def test_a_shard_is_in_memory_and_not_the_dataset(tmp_path, monkeypatch):
    """Six times the images in six times the shards: what is held at once stays what it is."""

    def most(images: int, shards: int) -> int:
        monkeypatch.setattr(made, "SHARDS", shards)
        tables, gold = drawn(0, images).write(tmp_path / str(images))
        known = open_gold(gold, {})
        tracemalloc.start()
        found = measure(tables, known)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found.captions > images
        return peak

    most(20, 1)  # what is loaded once
    assert most(120, 6) < 1.5 * most(21, 1)
