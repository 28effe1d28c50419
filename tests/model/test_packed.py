"""Packed layers give the numbers of the layers they stand for, and go away again."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from model.encoder import by_length, load_encoder
from model.packed import Packed, packed, packs

TEXTS = ["a red dog sees the cat", "a boat", "the large black horse near the old tree chases a small white bird", ""]


@pytest.fixture
def encoder(tiny):
    return load_encoder(tiny, pooling="mean")


def test_the_layers_are_packed_and_put_back(encoder):
    before = copy.deepcopy(encoder.state_dict())
    kinds = [type(module) for module in encoder.modules()]
    with pytest.raises(ZeroDivisionError), packed(encoder, encoder.device):
        packed_now = sum(isinstance(module, Packed) for module in encoder.modules())
        assert packed_now == (kinds.count(nn.Linear) if packs(torch.float32) else 0)
        raise ZeroDivisionError
    assert [type(module) for module in encoder.modules()] == kinds
    assert all((before[name] == value).all() for name, value in encoder.state_dict().items())


def test_vectors_are_those_of_the_plain_layers(encoder):
    with torch.inference_mode():
        ids, mask = encoder.pad(encoder.token_ids(TEXTS))
        plain = encoder.embedding(encoder(ids, mask)).numpy()
    np.testing.assert_allclose(encoder.encode(TEXTS), plain, atol=1e-5)
    half = encoder.encode(TEXTS, dtype=torch.bfloat16)
    assert half.dtype == np.float32 and not np.array_equal(half, plain)
    cosine = (half * plain).sum(1) / np.linalg.norm(half, axis=1) / np.linalg.norm(plain, axis=1)
    assert cosine.min() > 0.999


def test_where_the_operators_are_not_there_the_layers_stay(encoder, monkeypatch):
    wanted = encoder.encode(TEXTS)
    monkeypatch.setattr("model.packed.packs", lambda dtype: False)
    with packed(encoder, encoder.device):
        assert not any(isinstance(module, Packed) for module in encoder.modules())
    np.testing.assert_allclose(encoder.encode(TEXTS), wanted, atol=1e-5)


def test_groups_hold_every_row_once_and_keep_to_their_tokens():
    draw = np.random.default_rng(0)
    lengths = [int(n) for n in draw.integers(1, 90, 500)]
    groups = by_length(lengths, 256)
    assert sorted(row for group in groups for row in group) == list(range(500))
    assert all(len(group) * max(lengths[row] for row in group) <= 256 for group in groups)
    assert by_length([300, 2], 256) == [[0], [1]] and by_length([], 8) == []


def test_random_numbers_of_the_training_around_it_stay_what_they_are():
    layer = nn.Linear(8, 8)
    before = torch.get_rng_state()
    packs.cache_clear()
    with packed(layer, torch.device("cpu")), torch.autocast("cpu", torch.bfloat16):
        packs.cache_clear()
        assert packs(torch.float32), "asked under autocast too"
    assert torch.equal(torch.get_rng_state(), before)
