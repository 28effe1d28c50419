"""From a batch to what the terms read of it."""

from dataclasses import replace

import pytest
import torch

from model.batches import Batches
from model.encoder import load_encoder
from model.network import Network, losses
from model.recipes import resolve

SETTINGS = {"batch_size": 8, "captions_per_image": "all", "projection": 16, "pair_every": 2}


def built(tiny, data, name="mcseo", pooling="cls", **overrides):
    recipe = resolve(name, SETTINGS | overrides)
    encoder = load_encoder(tiny, pooling=pooling)
    batch = Batches(data, recipe, encoder, 0).next(0)
    return Network(encoder, recipe, data, 0).eval(), recipe, batch


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_rows_are_the_encoder_s_own_vectors(tiny, data, pooling):
    network, recipe, batch = built(tiny, data, pooling=pooling)
    encoded = network.encode(batch, recipe)
    n, v, length = batch.tokens.input_ids.shape
    assert encoded.h.shape == (n, v, 32) and encoded.states is None
    assert encoded.phrases.shape == (len(batch.objects.tokens.input_ids), v, 32)
    for view in range(v):
        wanted = network.encoder(batch.tokens.input_ids[:, view], batch.tokens.attention_mask[:, view])
        torch.testing.assert_close(encoded.h[:, view], wanted, rtol=0, atol=1e-6)


def test_states_are_kept_only_where_they_are_read(tiny, data):
    network, _, batch = built(tiny, data)
    h, states = network.rows(batch.tokens, keep_states=True)
    assert states.shape == (*batch.tokens.input_ids.shape, 32)
    assert torch.equal(states[:, :, 0], h) and network.rows(batch.tokens)[1] is None
    assert not Network.keeps_states(resolve("mcseo")) and Network.keeps_states(resolve("mcseo-span"))


def test_bf16_gives_float32_vectors_and_states(tiny, data):
    network, _, batch = built(tiny, data, precision="bf16")
    full = built(tiny, data)[0].rows(batch.tokens, True)
    half = network.rows(batch.tokens, True)
    for a, b in zip(half, full, strict=True):
        assert a.dtype == torch.float32 and 0 < (a - b).abs().max() < 0.2


def test_a_batch_without_objects_has_no_object_term(tiny, data):
    network, recipe, batch = built(tiny, data)
    bare = replace(batch, objects=None)
    assert set(losses(network, network.encode(bare, recipe), bare, recipe)) == {"text", "image"}
    assert set(losses(network, network.encode(batch, recipe), batch, recipe)) == {"text", "image", "object"}


def test_compiled_or_not_the_weights_have_the_same_names(tiny, data):
    network, recipe, batch = built(tiny, data)
    names, wanted = list(network.state_dict()), network.rows(batch.tokens)[0]
    network.compile(backend="eager")
    assert list(network.state_dict()) == names
    torch.testing.assert_close(network.rows(batch.tokens)[0], wanted, rtol=0, atol=1e-6)
    assert len(list(network.parameters())) == len(list(built(tiny, data)[0].parameters()))


def test_teachers_are_no_part_of_the_network(tiny, data):
    network, recipe, _ = built(tiny, data)
    teacher = torch.nn.Linear(2, 2)
    taught = Network(network.encoder, recipe, data, 0, teachers=teacher)
    assert taught.teachers is teacher and list(taught.state_dict()) == list(network.state_dict())
    taught.train()
    assert teacher not in set(taught.modules())
