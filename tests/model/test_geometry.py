import math

import numpy as np
import pytest

from model import geometry
from model.geometry import alignment, of_batches, of_set, uniformity, unit_rows


def test_by_hand():
    x = np.array([[1.0, 0.0], [0.0, 1.0]])
    y = np.array([[0.0, 1.0], [0.0, -1.0]])
    assert alignment(x, y) == pytest.approx((2 + 4) / 2)
    assert alignment(x, y, alpha=1) == pytest.approx((math.sqrt(2) + 2) / 2)
    assert uniformity(x) == pytest.approx(-4) and uniformity(x, t=1) == pytest.approx(-2)
    assert uniformity(np.ones((3, 2))) == 0
    of = of_set(x, y, np.array([4.0, 3.9]))
    # of the six pairs among four rows: squared distances 2, 2, 2, 4, and 0 (0,1 twice), and 4 or 2
    rows = np.concatenate([x, y])
    every = [np.sum((rows[i] - rows[j]) ** 2) for i in range(4) for j in range(i)]
    assert of.alignment == pytest.approx(2)
    assert of.uniformity == pytest.approx(math.log(np.mean(np.exp(-2 * np.array(every)))))


def test_a_batch_without_positives_counts_as_zero():
    rng = np.random.default_rng(0)
    x, y = unit_rows(rng.normal(size=(5, 3))), unit_rows(rng.normal(size=(5, 3)))
    gold = np.array([5.0, 1, 0, 0, 4])
    each = [of_set(x[s], y[s], gold[s]) for s in (slice(0, 2), slice(2, 4), slice(4, 5))]
    assert each[1].alignment is None
    batches = of_batches(x, y, gold, batch_size=2)
    assert batches.alignment == pytest.approx((each[0].alignment + each[2].alignment) / 3)
    assert batches.uniformity == pytest.approx(sum(e.uniformity for e in each) / 3)
    whole, one = of_set(x, y, gold), of_batches(x, y, gold, batch_size=99)
    assert (one.alignment, one.uniformity) == pytest.approx((whole.alignment, whole.uniformity))


def test_blocks_do_not_matter(monkeypatch):
    x = unit_rows(np.random.default_rng(1).normal(size=(23, 4)))
    wanted = uniformity(x)
    for rows in (1, 2, 7, 22):
        monkeypatch.setattr(geometry, "_ROWS", rows)
        assert uniformity(x) == pytest.approx(wanted, rel=1e-13)


def test_nothing_to_measure_is_none():
    none = np.zeros((0, 3))
    assert alignment(none, none) is None and uniformity(none) is None and uniformity(np.ones((1, 3))) is None
    assert of_batches(none, none, np.zeros(0)) == geometry.Geometry(None, None)
    assert np.isnan(unit_rows(np.zeros((1, 2)))).all()
