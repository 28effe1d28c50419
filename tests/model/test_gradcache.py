"""The gradient cache against a plain backward pass through the same chunks, and against the whole batch."""

from dataclasses import replace

import pytest
import torch

from model import gradcache
from model.batches import Batches, Tokens
from model.encoded import Encoded
from model.encoder import load_encoder
from model.network import Network, losses
from model.recipes import resolve

SETTINGS = {"batch_size": 8, "captions_per_image": "all", "projection": 16, "pair_every": 2, "lambda": 0.5, "mu": 0.5}
RECIPES = pytest.mark.parametrize("name", ["simcse", "mcse", "mcseo"])


def build(tiny, data, name, dropout, pooling="cls"):
    recipe = resolve(name, SETTINGS)
    encoder = load_encoder(tiny, pooling=pooling)
    batch = Batches(data, recipe, encoder, 0).next(0)
    assert batch.kind == "pair"
    network = Network(encoder, recipe, data, 0)
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    network.encoder.model.config.attention_probs_dropout_prob = dropout
    return network.train(), recipe, batch


def gradients(network):
    return {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}


def measured(network, run):
    network.zero_grad(set_to_none=True)
    torch.manual_seed(3)
    values = run()
    return values, gradients(network), torch.rand(1)


def cached(network, batch, recipe, chunk):
    return measured(network, lambda: gradcache.backward(network, batch, replace(recipe, cache_chunk=chunk)))


def plain_in_chunks(network, batch, recipe, chunk):
    """The same chunks in the same order, all of them with a graph."""

    def rows(tokens):
        parts = zip(tokens.input_ids.split(chunk), tokens.attention_mask.split(chunk), strict=True)
        return torch.cat([network.views(Tokens(ids, mask)) for ids, mask in parts])

    h = rows(batch.tokens)
    encoded = Encoded(h, phrases=None if batch.objects is None else rows(batch.objects.tokens))
    terms = losses(network, encoded, batch, recipe)
    weight = {t.name: t.weight for t in recipe.terms}
    loss = sum(weight[name] * value for name, (value, _) in terms.items())
    loss.backward()
    return {"loss": loss.detach()}


def close(one, two, tolerance):
    assert one.keys() == two.keys()
    for name in one:
        scale = max(two[name].abs().max().item(), 1e-3)
        assert (one[name] - two[name]).abs().max().item() <= tolerance * scale, name


@RECIPES
@pytest.mark.parametrize("chunk", [3, 8])
def test_equal_to_a_plain_backward_through_the_same_chunks(tiny, data, name, chunk):
    network, recipe, batch = build(tiny, data, name, dropout=0.1)
    network = network.double()  # so that the order of sums does not hide a difference
    wanted, plain, _ = measured(network, lambda: plain_in_chunks(network, batch, recipe, chunk))
    values, ours, _ = cached(network, batch, recipe, chunk)
    assert values["loss"].item() == pytest.approx(wanted["loss"].item(), rel=1e-12)
    close(ours, plain, 1e-9)


@RECIPES
def test_without_dropout_equal_to_the_whole_batch(tiny, data, name):
    network, recipe, batch = build(tiny, data, name, dropout=0.0)
    wanted, whole, _ = measured(network, lambda: gradcache.backward(network, batch, recipe))
    values, ours, _ = cached(network, batch, recipe, 3)
    assert values.keys() == wanted.keys()
    for key in wanted:
        assert values[key].item() == pytest.approx(wanted[key].item(), abs=1e-6), key
    network = network.double()
    _, whole, _ = measured(network, lambda: gradcache.backward(network, batch, recipe))
    _, ours, _ = cached(network, batch, recipe, 3)
    close(ours, whole, 1e-6)


def test_the_random_state_goes_on_as_after_one_pass(tiny, data):
    network, recipe, batch = build(tiny, data, "mcseo", dropout=0.1)
    *_, after_plain = measured(network, lambda: plain_in_chunks(network, batch, recipe, 4))
    *_, after_cached = cached(network, batch, recipe, 4)
    assert torch.equal(after_plain, after_cached)


def test_dropout_makes_chunks_differ_from_the_whole_batch(tiny, data):
    """Or the first test would show nothing."""
    network, recipe, batch = build(tiny, data, "simcse", dropout=0.1)
    wanted, _, _ = measured(network, lambda: gradcache.backward(network, batch, recipe))
    values, _, _ = cached(network, batch, recipe, 3)
    assert abs(values["loss"] - wanted["loss"]) > 1e-4


def test_with_the_mlp_that_belongs_to_the_embedding(tiny, data):
    network, recipe, batch = build(tiny, data, "mcse", dropout=0.0, pooling="cls_mlp")
    network = network.double()
    _, whole, _ = measured(network, lambda: gradcache.backward(network, batch, recipe))
    _, ours, _ = cached(network, batch, recipe, 5)
    assert any(name.startswith("encoder.mlp") for name in ours)
    close(ours, whole, 1e-9)


def test_token_states_get_their_gradient_too(tiny, data, monkeypatch):
    def over_states(network, encoded, batch, recipe):
        return {"text": (encoded.states.square().mean() + encoded.h.mean(), {})}

    network, recipe, batch = build(tiny, data, "simcse", dropout=0.0)
    network = network.double()
    monkeypatch.setattr("model.gradcache.losses", over_states)
    monkeypatch.setattr(Network, "keeps_states", staticmethod(lambda recipe: True))
    _, whole, _ = measured(network, lambda: gradcache.backward(network, batch, recipe))
    _, ours, _ = cached(network, batch, recipe, 3)
    close(ours, whole, 1e-9)


def test_sharing_a_step_among_batches_scales_the_gradient(tiny, data):
    network, recipe, batch = build(tiny, data, "mcse", dropout=0.0)
    _, whole, _ = measured(network, lambda: gradcache.backward(network, batch, recipe))
    values, half, _ = measured(network, lambda: gradcache.backward(network, batch, recipe, 0.5))
    close({n: 2 * g for n, g in half.items()}, whole, 1e-5)
    assert values["loss"] == measured(network, lambda: gradcache.backward(network, batch, recipe))[0]["loss"]
