"""The quick way to a sentence's heads gives what Stanza's own search gives, and is taken back afterwards."""

import numpy as np
import pytest
from stanza.models.common.chuliu_edmonds import chuliu_edmonds_one_root
from stanza.models.depparse import model

from stages.parse import heads


def scores_of(draw, words, certainty):
    """Log-probabilities of heads: noise, and a random tree that stands out by `certainty`."""
    logits = draw.standard_normal((words + 1, words + 1))
    order = draw.permutation(words) + 1
    for at, word in enumerate(order):
        logits[word, order[draw.integers(at)] if at else 0] += certainty
    np.fill_diagonal(logits, -np.inf)
    return (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)


@pytest.mark.parametrize("certainty", [0, 1, 3, 9])
def test_heads_are_those_of_the_full_search(certainty):
    draw = np.random.default_rng(certainty)
    for _ in range(150):
        scores = scores_of(draw, int(draw.integers(1, 15)), certainty)
        given = scores.copy()
        assert heads.best_heads(scores).tolist() == chuliu_edmonds_one_root(scores.copy()).tolist()
        assert np.array_equal(scores, given)


def test_the_full_search_is_entered_only_for_what_is_no_tree_with_one_root(monkeypatch):
    searched = []
    monkeypatch.setattr(heads, "chuliu_edmonds_one_root", lambda scores: searched.append(scores.copy()))
    low = np.full((4, 4), -9.0)
    for wanted, entered in (([0, 2, 0, 2], False), ([0, 0, 0, 2], True), ([0, 2, 1, 0], True), ([0, 2, 3, 1], True)):
        scores = low.copy()
        scores[np.arange(4), wanted] = -0.1
        searched.clear()
        found = heads.best_heads(scores)
        assert bool(searched) == entered
        assert entered or found.tolist() == wanted


def test_stanza_is_as_it_was_afterwards():
    with pytest.raises(RuntimeError), heads.quick_heads():
        assert model.chuliu_edmonds_one_root is heads.best_heads
        raise RuntimeError
    assert model.chuliu_edmonds_one_root is chuliu_edmonds_one_root
