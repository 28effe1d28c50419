"""Where models differ: slices, the pairs listed, and readers of scores and sentences."""

import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from tiny_world import World, make

from pipeline.errors import InputError
from stages.report import differences, pair_scores, sts_sets
from stages.report.differences import FEWEST, SHOWN, compare, kinds
from stages.report.scores import TASKS


def bench(folder, rows, split="test"):
    """STS-B in SentEval's layout; rows: (gold, sentence, sentence)."""
    file = folder / "STSBenchmark" / f"sts-{split}.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"g\tf\ty\t{n}\t{g}\t{a}\t{b}\n" for n, (g, a, b) in enumerate(rows)), encoding="utf-8")
    return file


@pytest.fixture
def scored(tmp_path):
    """A world of 60 STS-B pairs: recipe `good` follows people, `bad` goes the other way, two seeds each."""
    world = World(tmp_path)
    draw = random.Random(0)
    golds = [round(draw.uniform(0, 5), 2) for _ in range(60)]
    golds[7] = golds[8]
    rows = [(g, f"a dog number w{n}", f"two cats w{n}") for n, g in enumerate(golds)]
    bench(tmp_path / "sts", [*rows[:30], ("", "not", "scored"), *rows[30:]])
    for seed in (0, 1):
        noise = [g + draw.gauss(0, 0.5) for g in golds]
        world.write_scores("good", seed, [("STS-B", "test", n, v / 10, golds[n]) for n, v in enumerate(noise)])
        world.write_scores("bad", seed, [("STS-B", "test", n, 9 - v, golds[n]) for n, v in enumerate(noise)])
    return world, golds


def read(world, recipes=("good", "bad"), seeds=(0, 1)):
    cells = [(recipe, seed) for recipe in recipes for seed in seeds]
    return pair_scores.read(world.places.data / "scores", world.root / "sts", cells, TASKS)


def test_places_are_ranks_within_a_task(tmp_path):
    world = World(tmp_path)
    bench(tmp_path / "sts", [(1, "a", "b"), (3, "c", "d"), (3, "e", "f"), (2, "g", "h")])
    year = tmp_path / "sts/STS13-en-test"
    year.mkdir()
    (year / "STS.input.OnWN.txt").write_text("i\tj\nk\tl\n")
    (year / "STS.gs.OnWN.txt").write_text("100\n50\n")
    rows = [("STS-B", "test", n, c, g) for n, (c, g) in enumerate([(0.9, 1), (-0.5, 3), (0.1, 3), (0.2, 2)])]
    rows += [("STS13", "OnWN", 0, 7, 100), ("STS13", "OnWN", 1, 8, 50), ("STS-B-dev", "dev", 0, 1, 1)]
    world.write_scores("one", 0, rows)
    pairs = read(world, ["one"], [0])
    assert pairs.task == ["STS-B"] * 4 + ["STS13"] * 2 and pairs.left_out == []
    assert pairs.first == ["a", "c", "e", "g", "i", "k"] and pairs.second == ["b", "d", "f", "h", "j", "l"]
    assert pairs.gold_place.tolist() == [1 / 8, 6 / 8, 6 / 8, 3 / 8, 3 / 4, 1 / 4]
    assert pairs.places["one"].tolist() == [[7 / 8, 1 / 8, 3 / 8, 5 / 8, 1 / 4, 3 / 4]]


def test_slices_are_spearman_of_the_pairs_they_hold(scored):
    world, golds = scored
    pairs = read(world)
    found = compare(pairs, ["good", "bad"])
    (every,) = found.slices[""]
    assert every.pairs == 60 == found.pairs
    each = [100 * spearmanr(own, golds).statistic for own in pairs.places["good"]]
    assert every.scores["good"] == (pytest.approx(np.mean(each)), pytest.approx(np.std(each, ddof=1)))
    assert every.scores["good"][0] > 90 and every.scores["bad"][0] == pytest.approx(-every.scores["good"][0])
    (short,) = [part for part in found.slices["words of the longer sentence"] if part.name == "up to 7"]
    assert short.scores == every.scores
    # "number w7" is no number, "two" is one: all pairs differ in it
    assert {part.name: part.pairs for part in found.slices["numbers"]} == {
        "in neither sentence": 0,
        "the same in both": 0,
        "not the same": 60,
    }
    empty = found.slices["negation"][2]
    assert empty.pairs == 0 < FEWEST and empty.scores == {"good": None, "bad": None}


def test_the_pairs_listed_are_those_placed_most_differently(scored):
    world, _ = scored
    pairs = read(world)
    found = compare(pairs, ["good", "bad"])
    assert found.two == ("good", "bad") and found.why == "the best two of the grid over all pairs"
    good, bad = (pairs.places[recipe].mean(axis=0) for recipe in found.two)
    nearer = np.abs(good - pairs.gold_place) < np.abs(bad - pairs.gold_place)
    count, shown = found.nearer["good"]
    assert count == nearer.sum() > found.nearer["bad"][0]
    assert len(shown) == SHOWN
    widest = sorted((-abs(good - bad))[nearer])[:SHOWN]
    assert [-abs(odd.places["good"] - odd.places["bad"]) / 100 for odd in shown] == pytest.approx(widest)
    row = pairs.first.index(shown[0].first)
    assert (shown[0].second, shown[0].gold) == (pairs.second[row], pairs.gold[row])
    assert shown[0].people == pytest.approx(100 * pairs.gold_place[row])


def test_a_constant_model_has_no_correlation_and_one_recipe_no_pairs(scored):
    world, golds = scored
    world.write_scores("flat", 0, [("STS-B", "test", n, 0.5, g) for n, g in enumerate(golds)])
    found = compare(read(world, ["flat"], [0]), ["flat"])
    assert found.slices[""][0].scores == {"flat": None} and found.two is None and found.nearer == {}
    found = compare(read(world, ["flat", "good"], [0]), ["flat", "good"])
    assert found.two is None
    assert found.slices[""][0].scores["good"][1] is None


def test_mcseo_is_held_against_simcse_where_both_are():
    every = differences.Slice("all", 9, {r: (v, None) for r, v in (("simcse", 1.0), ("mcse", 9.0), ("mcseo", 2.0))})
    assert differences.chosen(["simcse", "mcse", "mcseo"], every)[0] == ("mcseo", "simcse")
    assert differences.chosen(["simcse", "mcse"], every)[0] == ("mcse", "simcse")


WORDS = st.sampled_from(["a", "dog", "not", "two", "2", "1,000", "don't", "cats", "under", "no", "...", "ünder", "one"])
SENTENCES = st.lists(WORDS, max_size=24).map(" ".join)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(SENTENCES, SENTENCES), min_size=1, max_size=10))
def test_every_pair_is_in_one_kind_of_each_group(pairs):
    first, second = map(list, zip(*pairs, strict=True))
    turned = kinds(second, first)
    for group, parts in kinds(first, second).items():
        assert (np.sum(list(parts.values()), axis=0) == 1).all(), group
        assert all((rows == turned[group][name]).all() for name, rows in parts.items())


@pytest.mark.parametrize(
    ("text", "negated", "counted"),
    [
        ("He does n't run.", True, set()),
        ("They don’t", True, set()),
        ("A NOT uncommon dog", True, set()),
        ("a knot of notes", False, set()),
        ("one of the Two dogs and 2 cats", False, {"2"}),
        ("1,000 people, a dozen at 3.5", False, {"1000", "12", "3.5"}),
        ("without an end", True, set()),
    ],
)
def test_negation_and_numbers(text, negated, counted):
    assert differences.negative(text) == negated
    assert differences.numbers(text) == counted


# ---------------------------------------------------------------- files


def test_scores_that_do_not_fit_end_in_one_line(scored):
    world, golds = scored
    rows = [("STS-B", "test", n, 0.1 * n, g) for n, g in enumerate(golds)]
    with pytest.raises(InputError, match=r"other-0/pairs.parquet: missing, other-0 has not been evaluated; run `dvc"):
        read(world, ["other"], [0])
    world.write_scores("other", 0, rows[:-1])
    with pytest.raises(InputError, match="good-0 and other-0 were scored on different pairs"):
        read(world, ["good", "other"], [0])
    world.write_scores("other", 0, [(*row[:3], float("nan"), row[4]) for row in rows])
    with pytest.raises(InputError, match="a score that is no number"):
        read(world, ["other"], [0])
    file = world.places.data / "scores/other-0/pairs.parquet"
    data = file.read_bytes()
    for damaged in (b"", b"PAR1", data[:-20], data[:40] + b"\0" * 60 + data[100:]):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match=r"pairs.parquet: (damaged|lacks)"):
            read(world, ["other"], [0])


def test_a_task_without_its_sentences_is_left_out_whole(scored):
    world, golds = scored
    bench(world.root / "sts", [(g + (n == 40), "x", "y") for n, g in enumerate(golds)])
    pairs = read(world)
    assert pairs.task == [] and pairs.left_out == ["STS-B"]
    found = compare(pairs, ["good", "bad"])
    assert (found.pairs, found.left_out, found.slices, found.two) == (0, ["STS-B"], {}, None)


def test_sentences_are_the_pairs_that_are_scored(shared):
    from model.sts import load_tasks

    found = sts_sets.read(shared / "data/sts")
    assert set(found) == {*TASKS, "STS-B-dev"}
    for name, subsets in found.items():
        (task,) = load_tasks(shared / "data/sts", ["SICK-R-all" if name == "SICK-R" else name]).values()
        assert set(subsets) == set(task.subsets)
        for subset, pairs in subsets.items():
            own = task.subsets[subset]
            assert (pairs.first, pairs.second) == (own.sentences1, own.sentences2)
            assert pairs.gold == own.gold.tolist()


def test_bom_crlf_tabs_quotes_and_odd_line_ends_are_read(tmp_path):
    file = bench(tmp_path, [])
    text = '\ufeffg\tf\ty\t0\t4.5\t"a  dog\u2028runs\tb\textra\r\ng\tf\ty\t1\t\tc\td\r\ng\tf\ty\t2\t1\t\té\n'
    file.write_bytes(text.encode())
    pairs = sts_sets.read(tmp_path)["STS-B"]["test"]
    assert (pairs.first, pairs.second, pairs.gold) == (['"a dog runs', ""], ["b", "é"], [4.5, 1.0])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=120), st.sampled_from(["bench", "sick", "input", "gold"]), st.booleans())
def test_whatever_a_file_holds_it_is_read_or_told_with_its_line(tmp_path_factory, data, kind, whole):
    folder = tmp_path_factory.mktemp("sets")
    year = folder / "STS12-en-test"
    files = {
        "bench": folder / "STSBenchmark/sts-test.csv",
        "sick": folder / "SICK/SICK_test_annotated.txt",
        "input": year / "STS.input.x.txt",
        "gold": year / "STS.gs.x.txt",
    }
    good = {
        "bench": b"g\tf\ty\t0\t1.0\ta\tb\n",
        "sick": b"pair_ID\tsentence_A\tsentence_B\trelatedness_score\n1\ta\tb\t3.0\n",
        "input": b"a\tb\n",
        "gold": b"2\n",
    }
    for name, file in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes((data if whole else good[name] + data) if name == kind else good[name])
    try:
        found = sts_sets.read(folder)
    except InputError as error:
        assert re.match(rf"{re.escape(str(folder))}/\S+: (line \d+: .+|\d+ lines, but)", str(error), re.DOTALL)
    else:
        assert all(len(p.first) == len(p.second) == len(p.gold) for own in found.values() for p in own.values())


# ---------------------------------------------------------------- the page


def test_the_page_shows_slices_and_pairs(tmp_path):
    from stages.report.stage import build

    world = make(tmp_path)
    world.change(grid__recipes=["simcse", "mcseo"], grid__seeds=[0])
    for recipe in ("simcse", "mcseo"):
        world.write_run(recipe, 0)
    rows = [(5 - n / 10, f"<b>dog</b> number {n}", f"a cat that did not {n}") for n in range(40)]
    bench(world.root / "sts", rows)
    for recipe, sign in (("simcse", -1), ("mcseo", 1)):
        world.write_scores(
            recipe, 0, [("STS-B", "test", n, sign * g * (1 + n % 3), g) for n, (g, _, _) in enumerate(rows)]
        )
    page = build(world.params, world.places)
    section = page[page.index('id="section-differences"') : page.index('id="section-leaks"')]
    assert "mcseo against simcse, pair by pair" in section and 'href="#section-differences"' in page
    assert "&lt;b&gt;dog&lt;/b&gt; number" in section and "<b>" not in section
    assert section.count('class="strip"') >= SHOWN
    assert re.search(r"in one of them</th><td class=\"num\">40</td>", section)
    assert "style=" not in section
