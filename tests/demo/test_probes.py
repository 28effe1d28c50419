"""Probes: classes that follow from what a sentence says, and files in the layout of SentEval's probing tasks."""

import json
from collections import Counter
from pathlib import Path

import pytest

from demo import build, probes
from demo.captions import realise
from demo.graded import graded_sentences
from demo.plans import Bond, Mention, Plan
from demo.scenes import rng_for
from demo.sts import plain

WORLD = Path(build.__file__).parent / "world"
CAT, RED_CAR, TWO_DOGS = Mention("cat"), Mention("car", colour="red"), Mention("dog", 2)


def sayings(plan: Plan, number: int = 60) -> list:
    return [realise(plan, rng_for(0, "probe test", i)) for i in range(number)]


def begins(caption, plan: Plan) -> Mention:
    """The mention whose noun stands first, read off the sentence by hand."""
    words = {"cat": ("cat", "kitten", "kitty"), "car": ("car", "automobile"), "dog": ("dogs", "puppies")}
    position = {m.kind: min(caption.text.lower().find(w) % 999 for w in words[m.kind]) for m in plan.mentions}
    return min(plan.mentions, key=lambda m: position[m.kind])


def test_the_count_is_that_of_the_thing_named_first():
    plan = Plan((CAT, TWO_DOGS))
    found = {(begins(caption, plan).kind, probes.count(caption)) for caption in sayings(plan)}
    assert found == {("cat", "1"), ("dog", "2")}


def test_a_colour_is_a_class_where_one_thing_has_one():
    assert {probes.colour(c) for c in sayings(Plan((CAT, RED_CAR)))} == {"red"}
    assert {probes.colour(c) for c in sayings(Plan((CAT,)))} == {None}
    assert {probes.colour(c) for c in sayings(Plan((Mention("cat", colour="black"), RED_CAR)))} == {None}
    meadow = {("green" in c.text, probes.colour(c)) for c in sayings(Plan((CAT, RED_CAR), place="meadow"), 200)}
    assert meadow == {(True, None), (False, "red")}  # "in a green field" is one colour too many


@pytest.mark.parametrize(
    ("name", "other"), [("left of", "right of"), ("behind", "in front of"), ("above", "below"), ("next to", "next to")]
)
def test_a_relation_goes_by_the_order_of_naming(name, other):
    plan = Plan((CAT, RED_CAR), (Bond(name, 0, 1),))
    found = {(begins(caption, plan).kind, probes.relation(caption)) for caption in sayings(plan)}
    assert found == {("cat", name), ("car", other)}


def test_a_relation_has_a_class_only_where_there_is_one_between_two():
    assert {probes.relation(c) for c in sayings(Plan((CAT, RED_CAR)))} == {None}
    three = Plan((CAT, RED_CAR, TWO_DOGS), (Bond("next to", 0, 1),))
    assert {probes.relation(c) for c in sayings(three)} == {None}
    told = {probes.relation(c) for c in sayings(Plan((CAT, RED_CAR), (Bond("on", 0, 1),)))}
    assert told == {"on", "under"} and "under" not in probes.RELATIONS


def rows(name: str) -> list[list[str]]:
    return [line.split("\t") for line in (WORLD / "sts" / "probing" / f"{name}.txt").read_text().splitlines()]


@pytest.mark.parametrize("name", sorted(probes.PROBES))
def test_files_have_three_splits_of_equal_classes(name):
    sizes = Counter((split, label) for split, label, _ in rows(name))
    classes = probes.PROBES[name][0]
    assert set(sizes) == {(split, label) for split in ("tr", "va", "te") for label in classes}
    for split, most in probes.SIZES.items():
        assert {sizes[split, label] for label in classes} == {most // len(classes)}
    assert [split for split, _, _ in rows(name)] == sorted((r[0] for r in rows(name)), key=["tr", "va", "te"].index)


def test_no_sentence_of_a_probe_is_said_elsewhere():
    said = [plain(text) for name in probes.PROBES for _, _, text in rows(name)]
    assert len(set(said)) == len(said) > 2900
    captions = json.loads((WORLD / "annotations" / "captions_world.json").read_text())["annotations"]
    elsewhere = {plain(row["caption"]) for row in captions}
    elsewhere |= {plain(text) for text in (WORLD / "sentences.txt").read_text().splitlines()}
    assert not set(said) & elsewhere
    assert set(said) <= graded_sentences(WORLD)


def test_no_sentence_that_is_used_is_drawn_again(monkeypatch):
    monkeypatch.setattr(probes, "SIZES", {"tr": 18, "va": 9, "te": 9})
    used: set[str] = set()
    first = dict(probes.probe_files(5, used))
    assert dict(probes.probe_files(5, set())) == first
    before, second = set(used), dict(probes.probe_files(5, used))
    said = {plain(line.split("\t")[2]) for text in second.values() for line in text.splitlines()}
    assert not said & before and used == said | before
