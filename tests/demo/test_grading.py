"""World STS: the grading rule on examples a person can check, and the files in SentEval's layout."""

from pathlib import Path

import pytest

from demo import build
from demo.captions import realise
from demo.plans import Bond, Knobs, Mention, Plan, plan_caption, turned
from demo.scenes import CONVERSE, HELD, HOLDERS, PATTERNED, RIDERS, rng_for, sample_scene
from demo.sts import EDITS, judgment, plain, similarity

WORLD = Path(build.__file__).parent / "world"
BALL, RED_BALL, BLUE_BALL = Mention("ball"), Mention("ball", colour="red"), Mention("ball", colour="blue")
CAT, DOG, CAR, RED_CAR = Mention("cat"), Mention("dog"), Mention("car"), Mention("car", colour="red")
BLUE_CAR, BEAR, BALLOON = Mention("car", colour="blue"), Mention("bear"), Mention("balloon")
STRIPED_BALL, SPOTTED_BALL = Mention("ball", pattern="striped"), Mention("ball", pattern="spotted")


def plan(*mentions: Mention, bonds: tuple[Bond, ...] = (), place: str | None = None) -> Plan:
    return Plan(mentions, bonds, place)


def beside(name: str, *mentions: Mention) -> Plan:
    return plan(*mentions, bonds=(Bond(name, 0, 1),))


# A bare thing weighs 3 (kind 2, number 1), a colour 2, a size 1, a pattern 1, a relation 3 (another one between the
# same things: 1), a place 1; grade = 5 * 2 * shared / sum.
EXAMPLES = [
    ("a red ball / a red ball", plan(RED_BALL), plan(RED_BALL), 5.0),
    ("a red ball / a car", plan(RED_BALL), plan(CAR), 0.0),
    ("a red ball / a red car: only an adjective is shared, and no thing", plan(RED_BALL), plan(RED_CAR), 0.0),
    ("a red ball / a blue ball: 3 of 5 and 5", plan(RED_BALL), plan(BLUE_BALL), 3.0),
    ("a red ball / a ball: 3 of 5 and 3", plan(RED_BALL), plan(BALL), 3.75),
    ("a ball / two balls: 2 of 3 and 3", plan(BALL), plan(Mention("ball", 2)), 5 * 2 / 3),
    ("a cat and a dog / a cat: 3 of 6 and 3", plan(CAT, DOG), plan(CAT), 5 * 6 / 9),
    ("a cat and a dog / a dog and a cat", plan(CAT, DOG), plan(DOG, CAT), 5.0),
    (
        "a red ball and a blue car / a blue ball and a red car: 6 of 10 and 10",
        plan(RED_BALL, BLUE_CAR),
        plan(BLUE_BALL, RED_CAR),
        3.0,
    ),
    ("a red and a blue ball / a blue and a red ball", plan(RED_BALL, BLUE_BALL), plan(BLUE_BALL, RED_BALL), 5.0),
    ("a cat left of a dog / a dog right of a cat", beside("left of", CAT, DOG), beside("right of", DOG, CAT), 5.0),
    (
        "a cat left of a dog / a dog left of a cat: 7 of 9 and 9",
        beside("left of", CAT, DOG),
        beside("left of", DOG, CAT),
        5 * 7 / 9,
    ),
    ("a cat next to a dog / a dog next to a cat", beside("next to", CAT, DOG), beside("next to", DOG, CAT), 5.0),
    (
        "a cat next to a dog / a cat next to a car: 3 of 9 and 9",
        beside("next to", CAT, DOG),
        beside("next to", CAT, CAR),
        5 / 3,
    ),
    ("a cat in a room / a dog in a room: 1 of 4 and 4", plan(CAT, place="room"), plan(DOG, place="room"), 1.25),
    ("a striped ball / a striped ball", plan(STRIPED_BALL), plan(STRIPED_BALL), 5.0),
    ("a striped ball / a spotted ball: 3 of 4 and 4", plan(STRIPED_BALL), plan(SPOTTED_BALL), 3.75),
    ("a striped ball / a ball: 3 of 4 and 3", plan(STRIPED_BALL), plan(BALL), 5 * 6 / 7),
    (
        "a red striped ball / a blue striped ball: 4 of 6 and 6",
        plan(Mention("ball", colour="red", pattern="striped")),
        plan(Mention("ball", colour="blue", pattern="striped")),
        5 * 8 / 12,
    ),
    (
        "a small ball / a large ball: 3 of 4 and 4",
        plan(Mention("ball", size="small")),
        plan(Mention("ball", size="large")),
        3.75,
    ),
    ("a cat behind a car / a car in front of a cat", beside("behind", CAT, CAR), beside("in front of", CAR, CAT), 5.0),
    (
        "a cat behind a car / a cat in front of a car: 7 of 9 and 9",
        beside("behind", CAT, CAR),
        beside("in front of", CAT, CAR),
        5 * 14 / 18,
    ),
    (
        "a bear holding a balloon / a balloon held by a bear",
        beside("holding", BEAR, BALLOON),
        beside("held by", BALLOON, BEAR),
        5.0,
    ),
    (
        "a bear holding a balloon / a bear next to a balloon: 7 of 9 and 9",
        beside("holding", BEAR, BALLOON),
        beside("next to", BEAR, BALLOON),
        5 * 14 / 18,
    ),
    (
        "a bear holding a balloon / a bear and a balloon: 6 of 9 and 6",
        beside("holding", BEAR, BALLOON),
        plan(BEAR, BALLOON),
        4.0,
    ),
    ("a bear holding a balloon / a bear: 3 of 9 and 3", beside("holding", BEAR, BALLOON), plan(BEAR), 2.5),
    (
        "a bear holding a balloon / a bear holding a ball: 3 of 9 and 9, the relation is to another thing",
        beside("holding", BEAR, BALLOON),
        beside("holding", BEAR, BALL),
        5 / 3,
    ),
    (
        "a cat and a dog next to a car / a dog and a cat next to a car",
        plan(CAT, CAR, DOG, bonds=(Bond("next to", 0, 1), Bond("next to", 2, 1))),
        plan(DOG, CAR, CAT, bonds=(Bond("next to", 0, 1), Bond("next to", 2, 1))),
        5.0,
    ),
]


@pytest.mark.parametrize(("words", "a", "b", "grade"), EXAMPLES, ids=[example[0] for example in EXAMPLES])
def test_grades_a_person_can_check(words, a, b, grade):
    assert 5 * similarity(a, b) == pytest.approx(grade)
    assert similarity(a, b) == similarity(b, a)


@pytest.mark.parametrize(("a", "b"), [example[1:3] for example in EXAMPLES], ids=[example[0] for example in EXAMPLES])
def test_plans_can_be_said_and_their_grade_does_not_depend_on_how_a_relation_is_told(a, b):
    said = [realise(p, rng_for(0, "said", i)) for i, p in enumerate((a, b))]
    for caption, told in zip(said, (a, b), strict=True):
        assert {p.kind for p in caption.phrases} - {None} == {m.kind for m in told.mentions}
    told_back = Plan(a.mentions, tuple(turned(bond) for bond in a.bonds), a.place)
    assert similarity(told_back, b) == similarity(a, b)


def test_judgments():
    both = beside("on", CAT, RED_CAR)
    assert judgment(both, plan(CAT)) == "ENTAILMENT" and judgment(plan(CAT), both) == "NEUTRAL"
    assert judgment(both, beside("on", CAT, BLUE_CAR)) == "CONTRADICTION"
    assert judgment(beside("left of", CAT, DOG), beside("left of", DOG, CAT)) == "CONTRADICTION"
    assert judgment(beside("behind", CAT, CAR), beside("in front of", CAT, CAR)) == "CONTRADICTION"
    assert judgment(beside("holding", BEAR, BALLOON), beside("held by", BALLOON, BEAR)) == "ENTAILMENT"
    assert judgment(plan(STRIPED_BALL), plan(SPOTTED_BALL)) == "CONTRADICTION"
    assert judgment(plan(STRIPED_BALL), plan(BALL)) == "ENTAILMENT"


def edited(genre: str, number: int) -> list[tuple[Plan, Plan]]:
    """Plans and what the genre's edit makes of them, where it applies."""
    pairs = []
    for index in range(number):
        scene, rng = sample_scene(3, genre, index), rng_for(3, "edit", genre, index)
        before = plan_caption(scene, rng, Knobs(image_noise=0.0, caption_noise=0.0, attribute_dropout=0.1))
        after = EDITS[genre](before, scene, rng)
        if after is not None:
            pairs.append((before, after))
    return pairs


@pytest.mark.parametrize("genre", sorted(EDITS))
def test_every_edit_says_something_else_that_can_be_said(genre):
    pairs = edited(genre, 300)
    assert len(pairs) > 25
    for before, after in pairs:
        assert after != before
        for mention in after.mentions:
            assert mention.pattern is None or mention.kind in PATTERNED
        for bond in after.bonds:
            a, b = after.mentions[bond.a], after.mentions[bond.b]
            if bond.name in ("holding", "held by"):
                holder, held = (a, b) if bond.name == "holding" else (b, a)
                assert holder.kind in HOLDERS and held.kind in HELD
            if bond.name == "on" and genre == "kind":
                assert a.kind in RIDERS[b.kind]
    if genre in ("relation", "roles", "colour", "pattern"):
        assert any(similarity(*pair) < 1 for pair in pairs)


def test_relations_are_exchanged_for_those_that_make_sense():
    names = {(a.bonds[0].name, b.bonds[0].name) for a, b in edited("relation", 4000)}
    assert {"holding", "held by", "behind", "in front of", "next to"} <= {after for _, after in names}
    assert {"holding", "held by", "behind", "in front of", "on", "above"} <= {before for before, _ in names}
    assert all(before != after and after in CONVERSE for before, after in names)


def test_a_holder_and_what_it_holds_never_change_places():
    for before, after in edited("roles", 1500):
        held = any(bond.name in ("holding", "held by") for bond in before.bonds)
        assert not held or [m.kind for m in before.mentions] == [m.kind for m in after.mentions]


def test_the_words_of_a_plan_say_nothing_else():
    """Other lots of one plan name the same kinds and numbers, whatever the wording."""
    told = beside("left of", RED_BALL, Mention("dog", 2, size="small"))
    wordings = [realise(told, rng_for(0, "wording", i)) for i in range(60)]
    assert len({plain(caption.text) for caption in wordings}) > 30
    for caption in wordings:
        things = [p for p in caption.phrases if p.role == "invention"]
        assert sorted((p.kind, p.number) for p in things) == [("ball", "sing"), ("dog", "plur")]
        assert any("red" in p.text for p in things) and any(p.text.split()[-1] in ("dogs", "puppies") for p in things)


def rows_of_years() -> dict[str, list[tuple[str, str, float]]]:
    rows: dict[str, list[tuple[str, str, float]]] = {}
    for path in sorted((WORLD / "sts").glob("STS1?-en-test/STS.input.*.txt")):
        pairs = [line.split("\t") for line in path.read_text().splitlines()]
        grades = path.with_name(path.name.replace("input", "gs")).read_text().splitlines()
        assert len(pairs) == len(grades) >= 50
        rows.setdefault(path.parent.name, []).extend((*pair, float(g)) for pair, g in zip(pairs, grades, strict=True))
    return rows


def all_rows() -> dict[str, list[tuple[str, str, float]]]:
    rows = rows_of_years()
    for path in sorted((WORLD / "sts" / "STSBenchmark").glob("sts-*.csv")):
        fields = [line.split("\t") for line in path.read_text().splitlines()]
        rows[path.name] = [(f[5], f[6], float(f[4])) for f in fields]
    for path in sorted((WORLD / "sts" / "SICK").glob("SICK_*.txt")):
        fields = [line.split("\t") for line in path.read_text().splitlines()[1:]]
        rows[path.name] = [(f[1], f[2], float(f[3])) for f in fields]
    return rows


def test_the_seven_tasks_are_there_with_grades_of_every_height():
    rows = all_rows()
    assert {f"STS{year}-en-test" for year in range(12, 17)} <= set(rows)
    assert {
        "sts-train.csv",
        "sts-dev.csv",
        "sts-test.csv",
        "SICK_train.txt",
        "SICK_trial.txt",
        "SICK_test_annotated.txt",
    } <= set(rows)
    assert len(rows["sts-dev.csv"]) == 250
    for name, pairs in rows.items():
        grades = [grade for _, _, grade in pairs]
        low, high = (1, 5) if name.startswith("SICK") else (0, 5)
        assert all(low <= grade <= high for grade in grades) and {low, high} <= set(grades), name
        assert len({round(grade) for grade in grades}) >= 5, name
        assert all(first.strip() and second.strip() and first != second for first, second, _ in pairs)


def test_no_sts_sentence_is_a_sentence_or_caption_to_train_on():
    graded = {plain(text) for pairs in all_rows().values() for first, second, _ in pairs for text in (first, second)}
    assert not graded & {plain(text) for text in (WORLD / "sentences.txt").read_text().splitlines()}
    captions = build.json.loads((WORLD / "annotations" / "captions_world.json").read_text())["annotations"]
    assert not graded & {plain(row["caption"]) for row in captions}
