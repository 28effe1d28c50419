"""Spearman under many draws at once: against scipy and numpy on the pairs themselves, one draw after the other."""

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stages.evaluate.compare.claims import arm_means, of_draws, seed_draws
from stages.evaluate.compare.resample import Ranked, pair_draws, resample, resampled_spearman
from stages.evaluate.compare.runs import Arm, Run

_ARMS = [Arm(name, tuple(Run(None, name, i, None, {}) for i in range(count))) for name, count in (("a", 4), ("b", 3))]


def taken(drawn: np.ndarray) -> np.ndarray:
    """The pairs of a draw, one by one."""
    return np.repeat(np.arange(len(drawn)), drawn.astype(int))


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), pairs=st.integers(2, 60), levels=st.integers(1, 7))
def test_every_draw_is_scipys_spearman_of_the_drawn_pairs(seed, pairs, levels):
    draw = np.random.default_rng(seed)
    gold = draw.integers(0, levels, pairs).astype(float)
    cosines = np.stack([draw.normal(size=pairs), draw.integers(0, levels, pairs) / 7, np.zeros(pairs)])
    drawn = pair_draws(pairs, 5, draw)
    found = resampled_spearman(gold, cosines, drawn)
    for b in range(5):
        own = taken(drawn[:, b])
        for r, row in enumerate(cosines):
            varies = np.ptp(gold[own]) > 0 and np.ptp(row[own]) > 0
            expected = stats.spearmanr(row[own], gold[own]).statistic if varies else 0.0
            assert found[b, r] == pytest.approx(expected, abs=1e-12)


def test_ranks_are_scipys_average_ranks_about_their_mean():
    values, draw = np.array([0.3, 0.1, 0.3, 0.9, 0.1, 0.2]), np.random.default_rng(1)
    drawn = pair_draws(6, 4, draw)
    ranks, squares = Ranked(values).ranks(drawn)
    for b in range(4):
        own = taken(drawn[:, b])
        expected = stats.rankdata(values[own]) - 3.5
        np.testing.assert_allclose(ranks[own, b], expected)
        assert squares[b] == pytest.approx((expected**2).sum())


def test_draws_take_as_many_pairs_as_there_are_and_each_about_once():
    drawn = pair_draws(50, 4000, np.random.default_rng(0))
    assert (drawn.sum(axis=0) == 50).all() and (drawn >= 0).all()
    assert np.abs(drawn.mean(axis=1) - 1).max() < 0.1
    assert drawn.var() == pytest.approx(1 - 1 / 50, abs=0.02)


def test_the_bootstrap_is_that_of_a_plain_loop(monkeypatch):
    """Seeds and pairs are drawn here by the same draws, but the pairs and runs themselves are gathered and ranked."""
    draw, resamples, pairs = np.random.default_rng(3), 60, 40
    monkeypatch.setattr("stages.evaluate.compare.resample._CELLS", 16 * pairs)
    gold = {"STS12": draw.integers(0, 6, pairs).astype(float)}
    cosines = {"STS12": gold["STS12"] + draw.normal(size=(7, pairs))}
    scores = resample(gold, cosines, resamples, seed=5)["STS12"]
    a, b = (seed_draws(arm, resamples, seed=5) for arm in _ARMS)
    fast = arm_means(scores[:, :4], a) - arm_means(scores[:, 4:], b)

    stream = np.random.default_rng([5, zlib.crc32(b"pairs of STS12")])
    slow = []
    for start in range(0, resamples, 16):
        chosen = stream.integers(0, pairs, size=(pairs, min(16, resamples - start)))
        for column in range(chosen.shape[1]):
            own, i = chosen[:, column], start + column
            each = [100 * stats.spearmanr(row[own], gold["STS12"][own]).statistic for row in cosines["STS12"]]
            means = []
            for values, drawn in ((each[:4], a[i]), (each[4:], b[i])):
                n, plain = len(values), sum(values) / len(values)
                anew = sum(values[k] for k in taken(drawn)) / n
                means.append(plain + (n / (n - 1)) ** 0.5 * (anew - plain))
            slow.append(means[0] - means[1])
    np.testing.assert_allclose(fast, slow, atol=1e-9)


def test_an_arms_mean_varies_with_its_seeds_as_a_mean_of_n_does():
    """The sd of the mean of n seeds is sd / sqrt(n), with the sample's sd: without the stretch it would be less."""
    scores = np.tile([70.0, 71.5, 69.0, 73.0], (40_000, 1))
    means = arm_means(scores, seed_draws(_ARMS[0], 40_000, seed=0))
    assert means.mean() == pytest.approx(scores[0].mean(), abs=0.03)
    assert means.std() == pytest.approx(scores[0].std(ddof=1) / 2, rel=0.02)


def test_draws_depend_on_seed_and_name_alone():
    gold = {name: np.arange(30.0) for name in ("STS12", "STS13")}
    cosines = {name: np.random.default_rng(1).normal(size=(2, 30)) for name in gold}
    both = resample(gold, cosines, 50, seed=0)
    alone = resample({"STS13": gold["STS13"]}, cosines, 50, seed=0)
    np.testing.assert_array_equal(both["STS13"], alone["STS13"])
    assert not np.array_equal(both["STS12"], both["STS13"])
    assert not np.array_equal(both["STS12"], resample(gold, cosines, 50, seed=1)["STS12"])


@pytest.mark.parametrize(("differences", "p"), [(np.arange(1, 100), 0.02), (np.zeros(99), 1.0), (-np.ones(19), 0.1)])
def test_p_is_where_the_interval_reaches_zero(differences, p):
    assert of_draws(differences.astype(float)).p == pytest.approx(p)


def test_p_and_interval_agree():
    draws = np.random.default_rng(0).normal(2.0, 1.0, 5000)
    found = of_draws(draws)
    assert found.low == pytest.approx(0.04, abs=0.1) and found.high == pytest.approx(3.96, abs=0.1)
    assert found.p == pytest.approx(stats.norm.sf(2) * 2, abs=0.01)
