"""World STS: the grading rule on examples a person can check, and the files in SentEval's layout."""

from pathlib import Path

import pytest

from demo import build
from demo.captions import realise
from demo.plans import Bond, Mention, Plan
from demo.scenes import rng_for
from demo.sts import judgment, plain, similarity

WORLD = Path(build.__file__).parent / "world"
BALL, RED_BALL, BLUE_BALL = Mention("ball"), Mention("ball", colour="red"), Mention("ball", colour="blue")
CAT, DOG, CAR, RED_CAR = Mention("cat"), Mention("dog"), Mention("car"), Mention("car", colour="red")
BLUE_CAR = Mention("car", colour="blue")


def plan(*mentions: Mention, bonds: tuple[Bond, ...] = (), place: str | None = None) -> Plan:
    return Plan(mentions, bonds, place)


def beside(name: str, *mentions: Mention) -> Plan:
    return plan(*mentions, bonds=(Bond(name, 0, 1),))


# A bare thing weighs 3 (kind 2, number 1), a colour 2, a size 1, a relation 3, a place 1; grade = 5 * 2 * shared / sum.
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
]


@pytest.mark.parametrize(("words", "a", "b", "grade"), EXAMPLES, ids=[example[0] for example in EXAMPLES])
def test_grades_a_person_can_check(words, a, b, grade):
    assert 5 * similarity(a, b) == pytest.approx(grade)
    assert similarity(a, b) == similarity(b, a)


def test_judgments():
    both = beside("on", CAT, RED_CAR)
    assert judgment(both, plan(CAT)) == "ENTAILMENT" and judgment(plan(CAT), both) == "NEUTRAL"
    assert judgment(both, beside("on", CAT, BLUE_CAR)) == "CONTRADICTION"
    assert judgment(beside("left of", CAT, DOG), beside("left of", DOG, CAT)) == "CONTRADICTION"


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
