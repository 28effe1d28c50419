"""What is claimed: Holm by hand, t tests, and how often a claim is wrong or missed in many made-up comparisons."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from stages.evaluate.compare.claims import Claim, Result, compare, corrected, holm, of_seeds, spreads
from stages.evaluate.compare.runs import Arm, Board, Run


@pytest.mark.parametrize(
    ("given", "adjusted"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # 4 x .005, 3 x .01, 2 x .03, and .04 not below .06
        ([0.5, 0.6], [1.0, 1.0]),
        ([0.01, 0.01, 0.01], [0.03, 0.03, 0.03]),
        ([0.2], [0.2]),
        ([], []),
    ],
)
def test_holm_by_hand(given, adjusted):
    assert holm(given) == pytest.approx(adjusted)


def test_t_over_seeds_by_hand():
    """Differences 1, 2, 3, 4, 5: mean 3, sd sqrt(2.5), t = 3 / sqrt(.5) = 4.2426 with 4 degrees of freedom."""
    two = np.array([70.0, 75.0, 71.0, 73.0, 72.0])
    found = of_seeds(two + np.arange(1, 6), two, paired=True)
    assert found.p == pytest.approx(0.013236, abs=1e-6)
    half = 2.776445 * 0.5**0.5
    assert (found.low, found.high) == pytest.approx((3 - half, 3 + half), abs=1e-5)


def test_welch_by_hand():
    """Means 5 apart; variances 1 and 4 of n = 3: t = 5 / sqrt(5 / 3), degrees of freedom (5/3)^2 / (1/18 + 16/18)."""
    one, two = np.array([9.0, 10.0, 11.0]), np.array([3.0, 5.0, 7.0])
    found, freedom = of_seeds(one, two, paired=False), (5 / 3) ** 2 / (1 / 18 + 16 / 18)
    assert found.p == pytest.approx(2 * stats.t.sf(5 / (5 / 3) ** 0.5, freedom))
    assert found.high - 5 == pytest.approx(stats.t.ppf(0.975, freedom) * (5 / 3) ** 0.5)


@pytest.mark.parametrize("paired", [True, False])
def test_where_no_seed_varies_nothing_is_claimed(paired):
    found = of_seeds(np.full(5, 80.0), np.full(5, 70.0), paired)
    assert found.p == 1 and found.low is None


def test_both_methods_must_agree():
    def claim(bootstrap, seeds):
        return Claim("STS12", -1.0, Result(-2, 0, bootstrap, bootstrap), seeds and Result(-2, 0, seeds, seeds))

    assert claim(0.01, 0.01).verdict == "lower"
    assert {claim(*p).verdict for p in ((0.01, 0.06), (0.06, 0.01), (0.05, 0.05))} == {"no difference shown"}
    assert claim(0.01, None).shown


# ------------------------------------------------------------ made-up comparisons

NAMES = ("simcse", "mcse")


def made_board(draw, effect=0.0, seeds=(5, 5), pairs=150, tasks=("STS12",), shared=0.0):
    """Two recipes on the same pairs. A run's cosine = quality x gold + the pair's own trouble, the same for all runs,
    + the run's noise; quality differs from seed to seed, and by `effect` between the recipes. `shared`: how much of a
    seed's luck is common to both recipes.
    """
    luck = draw.normal(size=max(seeds))
    gold = {name: draw.integers(0, 6, pairs).astype(float) for name in tasks}
    trouble = {name: draw.normal(size=pairs) for name in tasks}
    arms, cosines, points, end, rows = [], {name: [] for name in tasks}, {}, 0, {}
    for side, count in enumerate(seeds):
        arms.append(Arm(NAMES[side], tuple(Run(None, NAMES[side], s, None, {}) for s in range(count))))
        rows[NAMES[side]] = slice(end, end := end + count)
        for seed in range(count):
            quality = 0.6 + effect * (side == 0) + 0.06 * (shared * luck[seed] + (1 - shared**2) ** 0.5 * draw.normal())
            for name in tasks:
                noise = 0.5 * draw.normal(size=pairs)
                cosines[name].append(quality * gold[name] + trouble[name] + noise)
    for name in tasks:
        points[name] = 100 * np.array([stats.spearmanr(row, gold[name]).statistic for row in cosines[name]])
    stacked = {name: np.stack(rows_) for name, rows_ in cosines.items()}
    return Board(tuple(arms), gold, stacked, rows, points, {}, "")


def rates(count, **settings):
    """Shares of comparisons in which p < .05: of the bootstrap, of t, and in which a difference is claimed."""
    found = []
    for number in range(count):
        board = made_board(np.random.default_rng([7, number]), **settings)
        (claim,) = compare(board, NAMES[1], resamples=300, seed=number)[0].claims
        found.append((claim.bootstrap.p < 0.05, claim.seeds.p < 0.05, claim.shown))
    return np.mean(found, axis=0)


@pytest.mark.parametrize("settings", [{}, {"seeds": (5, 3)}, {"seeds": (3, 3)}, {"shared": 0.9}])
def test_without_a_difference_few_claims_are_made(settings):
    assert rates(250, **settings)[2] <= 0.08


@pytest.mark.parametrize("settings", [{"effect": 0.25}, {"effect": 0.25, "seeds": (5, 4)}])
def test_a_clear_difference_is_found(settings):
    assert rates(60, **settings)[2] >= 0.9


def test_the_same_luck_in_both_arms_is_taken_out_where_seeds_are_paired():
    """Of two recipes whose seeds share their luck, a smaller difference is found."""
    assert rates(60, effect=0.12, shared=0.95)[2] > rates(60, effect=0.12)[2] + 0.2


def test_seven_tasks_do_not_make_a_chance_finding_likelier():
    wrong = 0
    for number in range(40):
        board = made_board(np.random.default_rng([9, number]), tasks=tuple(f"T{i}" for i in range(7)), pairs=50)
        wrong += any(claim.shown for claim in compare(board, NAMES[1], resamples=400, seed=number)[0].claims)
    assert wrong / 40 <= 0.1


def test_correction_is_over_the_tasks_of_all_comparisons_and_averages_apart():
    board = made_board(np.random.default_rng(0), tasks=("STS12", "STS13"))
    (made,) = compare(board, NAMES[1], 200, 0)

    def with_p(*values):
        names = ("STS12", "STS13", "Avg")
        claims = [Claim(n, 1.0, Result(0, 1, p), Result(0, 1, p)) for n, p in zip(names, values, strict=True)]
        return replace(made, claims=tuple(claims))

    one, two = corrected([with_p(0.01, 0.02, 0.03), with_p(0.03, 0.5, 0.01)])
    assert [c.seeds.holm for c in one.claims] == pytest.approx([0.04, 0.06, 0.03])
    assert [c.bootstrap.holm for c in two.claims] == pytest.approx([0.06, 0.5, 0.02])


def test_spread_is_the_samples():
    board = made_board(np.random.default_rng(0))
    found = spreads(board, board.arms[0])["STS12"]
    own = board.points["STS12"][:5]
    assert found.mean == pytest.approx(own.mean()) and found.sd == pytest.approx(np.std(own, ddof=1))


@pytest.mark.parametrize(
    ("seeds", "says"),
    [
        ((1, 1), "one checkpoint each: no claim about the recipe"),
        ((2, 2), "two checkpoints each: no claim about the recipe"),
        ((1, 5), "one checkpoint against five: no claim about the recipe"),
        ((4, 2), "four checkpoints against two: no claim about the recipe"),
    ],
)
def test_under_three_seeds_pairs_alone_are_drawn(seeds, says):
    (made,) = compare(made_board(np.random.default_rng(0), seeds=seeds), NAMES[1], 200, 0)
    assert not made.of_recipe and made.caution[0] == says and made.single == (seeds == (1, 1))
    assert made.claims[0].seeds is None and 0 < made.claims[0].bootstrap.p <= 1


def test_seeds_are_paired_where_both_arms_have_the_same():
    paired = compare(made_board(np.random.default_rng(0)), NAMES[1], 200, 0)[0]
    assert paired.test == "paired t over 5 seeds" and not paired.caution
    unlike = compare(made_board(np.random.default_rng(0), seeds=(5, 4)), NAMES[1], 200, 0)[0]
    assert unlike.test == "Welch's t over seeds" and "different seeds" in unlike.caution[0]


def test_runs_that_are_one_checkpoint_are_called_so():
    board = made_board(np.random.default_rng(0))
    board.cosines["STS12"][5:], board.points["STS12"][5:] = board.cosines["STS12"][5], board.points["STS12"][5]
    (made,) = compare(board, NAMES[1], 200, 0)
    assert made.caution == (
        "five checkpoints against one: no claim about the recipe",
        "all 5 runs of mcse score the same: they are one checkpoint, whatever their seeds",
    )
    assert not made.of_recipe and made.claims[0].seeds is None


def renamed(board, *recipes):
    """The made-up board with other recipes told by the runs of its arms: a name, or one a run; names of arms stay."""
    arms = []
    for arm, told in zip(board.arms, recipes, strict=True):
        each = [told] * len(arm.runs) if isinstance(told, str) else told
        runs = tuple(replace(run, recipe=recipe) for run, recipe in zip(arm.runs, each, strict=True))
        arms.append(replace(arm, runs=runs))
    return replace(board, arms=tuple(arms))


def fixed(board, arm):
    """The board, all runs of an arm (0 or 1) being its first."""
    rows = board.rows[NAMES[arm]]
    for name in board.gold:
        board.cosines[name][rows], board.points[name][rows] = board.cosines[name][rows][0], board.points[name][rows][0]
    return board


def test_untrained_that_does_not_vary_is_a_baseline_that_seeds_are_judged_against():
    board = fixed(renamed(made_board(np.random.default_rng(0), effect=0.6), "simcse", "untrained"), 1)
    (made,) = compare(board, NAMES[1], 200, 0)
    assert made.of_recipe and made.claims[0].verdict == "higher"
    assert made.test == "Welch's t over seeds" and "mcse does not vary with the seed" in made.caution[1]
    assert made.caution[0].endswith("one checkpoint, whatever their seeds, as nothing was trained")
    own = board.points["STS12"]
    assert made.claims[0].seeds.p == pytest.approx(stats.ttest_1samp(own[:5], own[5]).pvalue)
    (turned,) = compare(board, NAMES[0], 200, 0)
    low, high = made.claims[0].seeds.low, made.claims[0].seeds.high
    assert (turned.claims[0].seeds.low, turned.claims[0].seeds.high) == pytest.approx((-high, -low))


@pytest.mark.parametrize(
    ("seeds", "recipes", "same", "says"),
    [
        ((5, 5), ("untrained", "untrained"), (0, 1), "one checkpoint each"),  # two encoders as they start
        ((2, 5), ("simcse", "untrained"), (1,), "two checkpoints against one"),
        ((5, 2), ("simcse", "untrained"), (1,), "five checkpoints against one"),  # too few to see that it is fixed
        ((5, 5), ("simcse", "mcse"), (0,), "one checkpoint against five"),
    ],
)
def test_one_checkpoint_says_nothing_of_a_recipe_otherwise(seeds, recipes, same, says):
    board = renamed(made_board(np.random.default_rng(0), effect=0.6, seeds=seeds), *recipes)
    for arm in same:
        fixed(board, arm)
    (made,) = compare(board, NAMES[1], 200, 0)
    assert not made.of_recipe and made.caution[0] == f"{says}: no claim about the recipe"
    assert made.claims[0].seeds is None and made.single == (same == (0, 1))


def test_untrained_that_varies_is_a_recipe_like_others():
    board = renamed(made_board(np.random.default_rng(0)), "simcse", "untrained")
    (made,) = compare(board, NAMES[1], 200, 0)
    assert made.of_recipe and made.test == "paired t over 5 seeds" and not made.caution


def test_an_arm_of_several_recipes_says_nothing_of_one():
    """Nor are its seeds paired with those of another such arm, or counted."""
    board = renamed(made_board(np.random.default_rng(0), effect=0.6, seeds=(3, 3)), ("mcse", "mcseo", "dalr"), "simcse")
    (made,) = compare(board, NAMES[1], 200, 0)
    assert not made.of_recipe and made.test == "" and made.claims[0].seeds is None
    assert made.caution == ("simcse is runs of several recipes (mcse, mcseo, dalr): no claim about the recipe",)


def test_a_seed_that_comes_twice_is_not_paired():
    board = made_board(np.random.default_rng(0), seeds=(3, 3))
    runs = tuple(replace(run, seed=0) for run in board.arms[0].runs)
    board = replace(board, arms=(replace(board.arms[0], runs=runs), board.arms[1]))
    (made,) = compare(board, NAMES[1], 200, 0)
    assert board.arms[0].seeds is None and not made.of_recipe
    assert made.caution == ("simcse has a seed twice: no claim about the recipe",)
