"""Rows end to end against the padded batch."""

import itertools

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    MPNetConfig,
    MPNetModel,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from model import unpadded
from model.batches import Tokens
from model.encoder import Encoder

SHAPE = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
}
FAMILIES = {
    "bert": (BertModel, BertConfig),
    "roberta": (RobertaModel, RobertaConfig),
    "xlm-roberta": (XLMRobertaModel, XLMRobertaConfig),
    "electra": (ElectraModel, ElectraConfig),
}


def built(family: str, pooling: str = "cls") -> Encoder:
    model, config = FAMILIES[family]
    torch.manual_seed(0)
    return Encoder(model(config(**SHAPE)).double().eval(), None, pooling)


def block(lengths: list[list[int]], pad: int, seed: int = 0) -> Tokens:
    """Random tokens, [N, V] lengths, padded to the longest."""
    shape = np.asarray(lengths)
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 50, (*shape.shape, int(shape.max())), generator=draw)
    mask = (torch.arange(ids.shape[-1]) < torch.from_numpy(shape)[..., None]).long()
    return Tokens(torch.where(mask.bool(), ids, pad), mask)


def padded(encoder: Encoder, tokens: Tokens):
    ids, mask = tokens.input_ids.flatten(0, 1), tokens.attention_mask.flatten(0, 1)
    states = encoder.model(input_ids=ids, attention_mask=mask).last_hidden_state
    return encoder.pool(states, mask).view(*tokens.input_ids.shape[:2], -1), states.view(*tokens.input_ids.shape, -1)


TEXTS = [[9, 9], [3, 3], [17, 17], [4, 11], [30, 2]]
PHRASES = [[3, 3], [5, 4], [4, 4]]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_vectors_states_and_gradients_are_those_of_the_padded_batch(family, pooling):
    encoder = built(family, pooling)
    pad = encoder.model.config.pad_token_id
    texts, phrases = block(TEXTS, pad), block(PHRASES, pad, seed=1)
    weight = torch.randn(16, dtype=torch.float64)

    def run(encode) -> tuple[list, torch.Tensor]:
        encoder.zero_grad()
        found = encode()
        sum((h @ weight).square().sum() for h, _ in found).backward()
        parameters = [p for n, p in encoder.named_parameters() if "pooler" not in n]
        return found, torch.cat([p.grad.reshape(-1) for p in parameters])

    wanted, gradient = run(lambda: [padded(encoder, texts), padded(encoder, phrases)])
    for groups in (1, 2, 4, 100):
        found, own = run(lambda g=groups: unpadded.encode(encoder, [texts, phrases], g, keep_states=True))
        for (h, states), (whole, theirs), tokens in zip(found, wanted, (texts, phrases), strict=True):
            torch.testing.assert_close(h, whole, rtol=0, atol=1e-12)
            real = tokens.attention_mask.bool()
            torch.testing.assert_close(states[real], theirs[real], rtol=0, atol=1e-12)
            assert states.shape == theirs.shape and not states[~real].any()
        torch.testing.assert_close(own, gradient, rtol=0, atol=1e-11)


def test_dropout_falls_within_rows_too():
    encoder = built("bert").train()
    texts = block(TEXTS, 0)
    torch.manual_seed(3)
    ((one, _),) = unpadded.encode(encoder, [texts], 3)
    torch.manual_seed(3)
    ((same, _),) = unpadded.encode(encoder, [texts], 3)
    ((other, _),) = unpadded.encode(encoder, [texts], 3)
    assert torch.equal(one, same) and (one - other).abs().amax(-1).gt(0).all()


def test_lengths_of_the_host_are_taken_as_they_are():
    encoder, texts = built("bert"), block(TEXTS, 0)
    known = Tokens(texts.input_ids, texts.attention_mask, np.asarray(TEXTS))
    assert np.array_equal(known.row_lengths(), texts.row_lengths())
    part = known.cut(1, 3)
    assert np.array_equal(part.lengths, np.asarray(TEXTS)[1:3]) and len(part.input_ids) == 2
    torch.testing.assert_close(unpadded.encode(encoder, [part], 2)[0][0], padded(encoder, part)[0], rtol=0, atol=1e-12)


def test_the_model_goes_on_as_it_was():
    encoder, texts = built("bert"), block(TEXTS, 0)
    before = encoder.model.config._attn_implementation
    unpadded.encode(encoder, [texts], 3)
    assert encoder.model.config._attn_implementation == before
    bad = Tokens(texts.input_ids + 10_000, texts.attention_mask)
    with pytest.raises(IndexError):
        unpadded.encode(encoder, [bad], 3)
    assert encoder.model.config._attn_implementation == before
    torch.testing.assert_close(
        unpadded.encode(encoder, [texts], 3)[0][0], padded(encoder, texts)[0], rtol=0, atol=1e-12
    )


def test_only_models_it_is_proven_on():
    assert all(unpadded.possible(built(family).model) for family in FAMILIES)
    relative = MPNetModel(MPNetConfig(**SHAPE))
    other = DistilBertModel(DistilBertConfig(vocab_size=50, dim=16, n_layers=1, n_heads=2, hidden_dim=24))
    decoder = BertModel(BertConfig(**SHAPE, is_decoder=True))
    assert not any(unpadded.possible(model) for model in (relative, other, decoder, torch.nn.Linear(2, 2)))


@pytest.mark.parametrize("seed", range(8))
def test_groups_are_the_cut_with_the_least_padding(seed):
    lengths = np.sort(np.random.default_rng(seed).integers(1, 9, size=12))
    distinct = np.unique(lengths)
    for most in range(1, 7):
        found = unpadded._groups(lengths, most)
        assert len(found) <= most
        assert [start for start, _, _ in found] == [0, *(end for _, end, _ in found)][:-1] and found[-1][1] == 12
        assert all(lengths[end - 1] == length for _, end, length in found)
        tokens = sum((end - start) * length for start, end, length in found)
        ways = itertools.chain.from_iterable(itertools.combinations(distinct[:-1], k) for k in range(most))
        least = min(sum(min(t for t in (*tops, distinct[-1]) if t >= n) for n in lengths) for tops in ways)
        assert tokens == least
