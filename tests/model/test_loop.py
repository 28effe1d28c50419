"""The parts of the loop: accumulation, schedules, the guard, early stop, what is made ahead, tokens, log, speed."""

import re
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from model import gradcache
from model.ahead import ahead
from model.batches import Batches, Tokens
from model.dev import Dev
from model.encoder import load_encoder
from model.errors import ModelError
from model.features import at_hand, on_device
from model.fingerprint import fingerprint
from model.log import Pending, columns, fetch, write_log
from model.network import Network
from model.optimizer import build_optimizer, learning_rate
from model.recipes import resolve
from model.speed import Flop, peak
from model.tokens import TokenTable
from model.trainer import train
from model.update import Guard, update

SETTINGS = {"batch_size": 8, "captions_per_image": "all", "projection": 16, "pair_every": 2, "lambda": 0.5, "mu": 0.5}


def built(tiny, data, name="mcseo", dropout=True, **overrides):
    recipe = resolve(name, SETTINGS | overrides)
    encoder = load_encoder(tiny, pooling="cls")
    batches = Batches(data, recipe, encoder, 0)
    network = Network(encoder, recipe, data, 0)
    network.train(dropout)
    return network, recipe, batches


def test_accumulated_gradients_are_the_mean_over_the_batches(tiny, data):
    network, recipe, batches = built(tiny, data, dropout=False)
    micro = [batches.next(i) for i in range(3)]  # pair, text, pair
    network, recipe = network.double(), replace(recipe, grad_clip=1e9)
    each = []
    for batch in micro:
        network.zero_grad(set_to_none=True)
        values = gradcache.backward(network, batch, recipe)
        each.append((values, {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}))
    optimizer = build_optimizer(network, recipe)
    names, values = update(network, micro, recipe, optimizer, 1e-9, Guard(optimizer))
    row = dict(zip(names, values.tolist(), strict=True))
    assert row["loss"] == pytest.approx(np.mean([v["loss"].item() for v, _ in each]), rel=1e-6)
    assert row["image"] == pytest.approx(np.mean([each[i][0]["image"].item() for i in (0, 2)]), rel=1e-6)
    for name, p in network.named_parameters():
        if p.grad is not None:
            wanted = sum(g.get(name, torch.zeros_like(p)) for _, g in each) / 3
            torch.testing.assert_close(p.grad, wanted, rtol=1e-9, atol=1e-12, msg=name)


def test_accumulation_counts_optimizer_steps(tiny, data, tmp_path):
    network, recipe, batches = built(tiny, data, batch_size=16, pair_every=None, epochs=1)
    assert batches.schedule.steps_per_epoch == 96 // 16 + 32 // 16 == 8
    run = train(network.encoder, data, replace(recipe, accumulation=3), seed=0, work_dir=tmp_path)
    assert run.steps == 3 and [r["kind"] for r in run.log] == ["pair+text", "pair+text", "pair+text"]


def test_cosine_schedule_with_warm_up():
    recipe = replace(resolve("simcse", {"learning_rate": 1.0, "warmup": 0.2}), schedule="cosine")
    rates = [learning_rate(s, 10, recipe) for s in range(10)]
    wanted = [0.5, 1.0, *(0.5 * (1 + np.cos(np.pi * k / 8)) for k in range(8))]
    assert rates == pytest.approx(wanted)


@pytest.mark.parametrize("form", ["adamw", "adamw_early_eps"])
def test_the_guard_keeps_weights_and_state_from_the_first_nan_on(form):
    """As on an accelerator, where the host learns of it steps later."""
    layer = nn.Linear(3, 2)
    recipe = replace(resolve("simcse"), optimizer=form)
    optimizer = build_optimizer(layer, recipe)
    guard = Guard(optimizer)

    def one(loss, gradient=1.0):
        for p in layer.parameters():
            p.grad = torch.full_like(p, gradient)
        norm = nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
        if guard.admits(torch.tensor(loss), norm):
            optimizer.step()
        return [p.detach().clone() for p in layer.parameters()]

    start = [p.detach().clone() for p in layer.parameters()]
    good = one(0.5)
    assert not torch.equal(start[0], good[0])
    held = [v.clone() for s in optimizer.state.values() for v in s.values() if isinstance(v, torch.Tensor)]
    for loss, gradient in ((float("nan"), 1.0), (0.5, float("inf")), (0.5, 1.0)):
        after = one(loss, gradient)
        assert all(torch.equal(a, b) for a, b in zip(good, after, strict=True))
    now = [v for s in optimizer.state.values() for v in s.values() if isinstance(v, torch.Tensor)]
    assert all(torch.equal(a, b) for a, b in zip(held, now, strict=True))


@pytest.mark.fault("F49")
def test_the_line_of_a_nan_names_the_step_and_the_rows(tiny, data, tmp_path):
    network, recipe, _ = built(tiny, data, steps=10, learning_rate=1e30)
    with pytest.raises(ModelError) as raised:
        train(network.encoder, data, recipe, seed=0, work_dir=tmp_path)
    line = str(raised.value)
    assert "\n" not in line and "of 10: the" in line and "is not finite on a" in line
    assert re.search(r"; it read (captions|sentences) \d+(, \d+){7}\. Stopped before the optimizer step", line)


def test_early_stop(tiny, data, dev, tmp_path):
    network, recipe, _ = built(tiny, data, "mcse", steps=60, eval_every=1, learning_rate=0.03)
    run = train(network.encoder, data, replace(recipe, patience=3), seed=0, work_dir=tmp_path, dev=dev)
    scores = [row["dev"] for row in run.log]
    assert run.steps < 60 and run.steps - run.best_step == 3
    assert max(scores[-3:]) <= run.best_dev == scores[run.best_step - 1]
    assert run.notes == [f"stopped early at step {run.steps} of 60: no better dev score in 3 evaluations"]
    again, recipe, _ = built(tiny, data, "mcse", steps=60, eval_every=1, learning_rate=0.03)
    resumed = train(again.encoder, data, replace(recipe, patience=3), seed=0, work_dir=tmp_path, dev=dev)
    assert resumed.log == run.log and resumed.notes == run.notes


def test_what_is_made_ahead_keeps_its_order_and_its_bound():
    made = []

    def make(number):
        made.append((number, threading.current_thread().name))
        return number * number

    results = ahead(make, range(20), depth=2)
    assert next(results) == 0
    time.sleep(0.3)
    assert len(made) <= 4, "one taken, two waiting, one in hand"
    assert list(results) == [n * n for n in range(1, 20)]
    assert [n for n, _ in made] == list(range(20)) and {t for _, t in made} == {"batches"}


def test_a_failure_ahead_comes_where_its_result_would_have():
    def make(number):
        if number == 2:
            raise ModelError("row 2")
        return number

    results = ahead(make, range(9))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ModelError, match="row 2"):
        next(results)
    before = threading.active_count()
    abandoned = ahead(make, range(2))
    next(abandoned)
    abandoned.close()
    assert threading.active_count() == before


def test_token_table_equals_the_tokenizer(tiny, encoder):
    texts = ["a red dog", "", "the cat sees the blue boat near the old tree", "a red dog", "boat " * 60]
    table = TokenTable(encoder, texts, 7)
    for rows in ([0, 2], [2, 4, 4, 1], [3], [0, 1, 2, 3, 4]):
        ids, mask = table.batch(rows)
        wanted_ids, wanted_mask = encoder.pad(encoder.token_ids([texts[r] for r in rows], 7))
        assert torch.equal(ids, wanted_ids) and torch.equal(mask, wanted_mask)
    calls = []
    encoder.token_ids = lambda *arguments: calls.append(arguments)
    table.batch([4, 3, 2, 1, 0])
    assert not calls, "each text is tokenised once"


def test_length_chunks_give_the_same_vectors(tiny, data):
    network, recipe, batches = built(tiny, data, dropout=False)
    tokens = batches.next(0).tokens
    tokens.attention_mask[0, :, 4:] = 0  # lengths that differ
    tokens = Tokens(tokens.input_ids, tokens.attention_mask)
    with torch.no_grad():
        whole, states = network.rows(tokens, True)
        for network.length_chunks in (2, 3, 100):
            cut, cut_states = network.rows(tokens, True)
            torch.testing.assert_close(cut, whole, rtol=0, atol=1e-5)
            real = tokens.attention_mask.bool()
            torch.testing.assert_close(cut_states[real], states[real], rtol=0, atol=1e-5)


def test_dev_score_is_that_of_the_encoder(tiny, dev):
    from model import sts

    encoder = load_encoder(tiny, pooling="cls_mlp").train()
    wanted = sts.score_task(dev, encoder.encode)["all"]
    watch = Dev(dev, encoder)
    assert watch.score() == pytest.approx(wanted, abs=1e-6) and watch.score() == watch.score()
    assert encoder.training


def test_log_rows_are_fetched_in_order_and_written(tmp_path):
    rows = fetch(
        [
            Pending({"step": 1, "kind": "text"}, ("loss", "text"), torch.tensor([1.0, 0.5]).double()),
            Pending({"step": 2, "kind": "pair"}, ("loss", "text", "image", "text.pos_cos"), torch.arange(4.0).double()),
        ]
    )
    assert rows[1] == {"step": 2, "kind": "pair", "loss": 0.0, "text": 1.0, "image": 2.0, "text.pos_cos": 3.0}
    names = ["step", "kind", "loss", "text", "image", "text.pos_cos", "lr", "grad_norm", "dev"]
    assert columns(rows) == names and fetch([]) == []
    write_log(rows, tmp_path / "x.csv")
    lines = (tmp_path / "x.csv").read_text().splitlines()
    assert lines == [",".join(names), "1,text,1,0.5,,,,,", "2,pair,0,1,2,3,,,"]


def test_flop_by_hand(tiny):
    encoder = load_encoder(tiny, pooling="cls")  # 2 layers: 4 x 32 x 32 of attention, 2 x 32 x 64
    a_layer = 4 * 32 * 32 + 2 * 32 * 64
    wanted = sum(n * (2 * 2 * a_layer + 2 * 4 * n * 32) for n in (5, 7))
    assert Flop(encoder).of(torch.tensor([[5], [7]])) == 3 * wanted
    assert Flop(encoder, cached=True).of(torch.tensor([5, 7])) == 4 * wanted
    assert peak(torch.device("cpu"), "fp32") > 1e8


def test_features_as_tensors_make_the_same_batches(tiny, data):
    on_cpu = torch.device("cpu")
    moved = on_device(data, on_cpu, 10**9)
    assert isinstance(moved.image_features, torch.Tensor) and moved.object_features.dtype == torch.float16
    assert on_device(data, on_cpu, 100) is data and at_hand(data, on_cpu) is data
    (*_, plain), (*_, tensors) = built(tiny, data), built(tiny, moved)
    for number in range(4):
        one, two = plain.next(number), tensors.next(number)
        assert (one.image is None) == (two.image is None)
        if one.image is not None:
            assert torch.equal(one.image, two.image) and torch.equal(one.objects.feature, two.objects.feature)


def test_fingerprints_see_every_change(data):
    same = replace(data, image_features=data.image_features.copy(), captions=list(data.captions))
    assert fingerprint(data) == fingerprint(same)
    features = data.image_features.copy()
    features[3, 5] += 1e-6
    pairs = [list(p) for p in data.pairs]
    pairs[1] = [replace(pairs[1][0], phrase="other"), *pairs[1][1:]]
    others = [
        replace(data, image_features=features),
        replace(data, pairs=pairs),
        replace(data, captions=[*data.captions[:-1], "x"]),
        replace(data, sentences=data.sentences[::-1]),
        replace(data, object_features=data.object_features.astype(np.float32)),
    ]
    assert len({fingerprint(d) for d in [data, *others]}) == 6


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_cache_trains_like_the_whole_batch(tiny, data, tmp_path, precision):
    runs = []
    for chunk in (None, 3):
        network, recipe, _ = built(tiny, data, steps=4, learning_rate=1e-3, precision=precision)
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        network.encoder.model.config.attention_probs_dropout_prob = 0.0
        recipe = replace(recipe, cache_chunk=chunk)
        runs.append(train(network.encoder, data, recipe, seed=0, work_dir=tmp_path / str(chunk)))
    one, two = ([row["loss"] for row in run.log] for run in runs)
    assert one == pytest.approx(two, rel=1e-4) if precision == "fp32" else one == pytest.approx(two, rel=2e-2, abs=5e-3)


def test_length_chunks_without_effect_are_told(tiny, data, tmp_path, monkeypatch):
    settings = {"batch_size": 8, "steps": 1, "eval_every": 1, "length_chunks": 3}

    def notes(place: str) -> list[str]:
        encoder = load_encoder(tiny, pooling="cls")
        found = train(encoder, data, resolve("simcse", settings), seed=0, work_dir=tmp_path / place).notes
        return [note for note in found if "length_chunks" in note]

    assert not notes("unpadded")
    monkeypatch.setattr("model.unpadded._FAMILIES", ())
    (note,) = notes("padded")
    assert note.startswith("length_chunks 3 has no effect")
