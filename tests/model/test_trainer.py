import csv
import io
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model import checkpoint
from model.batches import Batches
from model.checkpoint import LAST, best_path
from model.data import TrainingData
from model.encoder import load_encoder
from model.errors import ModelError
from model.export import export
from model.log import columns
from model.network import Network, losses
from model.progress import ProgressLines
from model.recipes import resolve
from model.trainer import learning_rate, load_checkpoint, train, write_log

SETTINGS = {
    "batch_size": 8,
    "learning_rate": 1e-3,
    "steps": 60,
    "eval_every": 15,
    "captions_per_image": "all",
    "projection": 16,
    "pair_every": 2,
    "lambda": 0.5,
    "mu": 0.5,
}


TERMS = ("text", "image", "object")


def fit(tiny, data, name, work_dir, seed=0, pooling="cls", dev=None, progress=None, **overrides):
    encoder = load_encoder(tiny, pooling=pooling, seed=seed)
    recipe = resolve(name, SETTINGS | overrides)
    return train(encoder, data, recipe, seed=seed, work_dir=work_dir, dev=dev, progress=progress)


def column(run, name, kind=None):
    return [r[name] for r in run.log if r.get(name) is not None and kind in (None, r["kind"])]


@pytest.mark.parametrize("name", ["simcse", "mcse", "mcseo"])
def test_every_recipe_learns(tiny, data, dev, tmp_path, name):
    run = fit(tiny, data, name, tmp_path, dev=dev)
    terms = {"simcse": {"text"}, "mcse": {"text", "image"}, "mcseo": {"text", "image", "object"}}[name]
    assert len(run.log) == run.steps == 60
    statistics = {f"{term}.{cosine}" for term in terms for cosine in ("pos_cos", "neg_cos")}
    assert statistics <= set(columns(run.log)) and terms == {c for c in columns(run.log) if c in TERMS}
    for term in ("text", "image", "object"):
        values = column(run, term)
        assert bool(values) == (term in terms)
        if values:
            third = len(values) // 3
            assert np.mean(values[-third:]) < 0.9 * np.mean(values[:third]), f"{term} does not fall"
    assert {r["kind"] for r in run.log if r.get("image") is not None} <= {"pair"}
    assert [r["step"] for r in run.log if r["dev"] is not None] == [15, 30, 45, 60]
    assert run.best_dev == max(column(run, "dev")) and run.notes == []
    assert not run.encoder.training


def test_the_loss_is_the_weighted_sum_of_its_terms(tiny, data, tmp_path):
    for row in fit(tiny, data, "mcseo", tmp_path, steps=6, mu=0.25).log:
        total = row["text"] + 0.5 * row.get("image", 0) + 0.25 * row.get("object", 0)
        assert row["loss"] == pytest.approx(total, rel=1e-6)


def network_and_batch(tiny, data, name, pooling="cls", **overrides):
    recipe = resolve(name, SETTINGS | overrides)
    encoder = load_encoder(tiny, pooling=pooling)
    batch = Batches(data, recipe, encoder, 0).next(0)
    assert batch.kind == "pair"
    return Network(encoder, recipe, data, 0).train(), recipe, batch


def scalars(network, batch, recipe):
    found = losses(network, network.encode(batch, recipe), batch, recipe)
    return {name: value for name, (value, _) in found.items()}


def reached(network, scalar):
    """The parts that get a gradient: encoder, and heads by name."""
    network.zero_grad(set_to_none=True)
    scalar.backward(retain_graph=True)
    names = [n for n, p in network.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    return {n.split(".")[1] if n.startswith("heads") else ".".join(n.split(".")[:2]) for n in names}


def test_gradients_reach_exactly_what_they_should(tiny, data):
    network, recipe, batch = network_and_batch(tiny, data, "mcseo", share_object_head=False)
    batch.image.requires_grad_()
    batch.objects.feature.requires_grad_()
    terms = scalars(network, batch, recipe)
    assert reached(network, terms["text"]) == {"encoder.model", "simcse"}
    assert batch.image.grad is None
    assert reached(network, terms["image"]) == {"encoder.model", "grounding", "visual"}
    assert batch.objects.feature.grad is None
    assert reached(network, terms["object"]) == {"encoder.model", "grounding", "object"}


def test_gradients_with_shared_object_head_and_mlp_pooling(tiny, data):
    network, recipe, batch = network_and_batch(tiny, data, "mcseo", pooling="cls_mlp")
    terms = scalars(network, batch, recipe)
    assert reached(network, terms["text"]) == {"encoder.model", "encoder.mlp"}
    assert reached(network, terms["image"]) == {"encoder.model", "grounding", "visual"}
    assert reached(network, terms["object"]) == {"encoder.model", "grounding", "visual"}


def test_frozen_features_are_not_trained_and_not_changed(tiny, data, tmp_path):
    before = data.image_features.copy(), data.object_features.copy()
    run = fit(tiny, data, "mcseo", tmp_path, steps=5)
    assert (data.image_features == before[0]).all() and (data.object_features == before[1]).all()
    assert set(run.heads) == {"simcse", "grounding", "visual"}
    pooler = load_encoder(tiny, pooling="cls").model.pooler.dense.weight
    assert torch.equal(run.encoder.model.pooler.dense.weight, pooler), "the pooler takes no part"


def test_heads_start_equal_whatever_the_recipe(tiny, data):
    heads = [network_and_batch(tiny, data, name)[0].heads for name in ("simcse", "mcse", "mcseo")]
    assert len({h["simcse"].dense.weight.sum().item() for h in heads}) == 1
    assert len({h["visual"].dense.weight.sum().item() for h in heads[1:]}) == 1


def test_views_differ_by_dropout_only_while_training(tiny, data):
    network, _, batch = network_and_batch(tiny, data, "simcse")
    one, two = network.views(batch.tokens).unbind(1)
    assert (one - two).abs().max() > 1e-3
    one, two = network.eval().views(batch.tokens).unbind(1)
    assert (one - two).abs().max() < 1e-6


SCRIPT = """
import pickle, sys, torch
from pathlib import Path
from tests.model.test_trainer import fit_and_export
torch.set_num_threads(1)
fit_and_export(*pickle.loads(Path(sys.argv[1]).read_bytes()))
"""


def fit_and_export(tiny, data, dev, out, seed):
    run = fit(tiny, data, "mcseo", out.with_suffix(".work"), seed=seed, dev=dev, steps=20)
    write_log(run.log, out.with_suffix(".csv"))
    export(out, run.encoder, resolve("mcseo", SETTINGS), seed, heads=run.heads, metrics={"dev": run.best_dev})


def outcome(out):
    files = [*out.rglob("*"), out.with_suffix(".csv"), *out.with_suffix(".work").iterdir()]
    return {str(f.relative_to(out.parent)): f.read_bytes() for f in sorted(files) if f.is_file()}


def test_same_seed_same_bytes_in_another_process(tiny, data, dev, tmp_path):
    arguments = tmp_path / "arguments"
    arguments.write_bytes(pickle.dumps((tiny, data, dev, tmp_path / "there" / "m", 0)))
    (tmp_path / "there").mkdir()
    subprocess.run([sys.executable, "-c", SCRIPT, str(arguments)], check=True, cwd=Path(__file__).parents[2])
    fit_and_export(tiny, data, dev, tmp_path / "here" / "m", 0)
    fit_and_export(tiny, data, dev, tmp_path / "other" / "m", 1)
    there, here, other = (outcome(tmp_path / where / "m") for where in ("there", "here", "other"))
    assert there == here and len(here) >= 10
    assert {f for f in here if here[f] != other.get(f)} >= {"m/model.safetensors", "m/heads.safetensors", "m.csv"}


def test_training_leaves_global_torch_state_alone(tiny, data, tmp_path):
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    fit(tiny, data, "simcse", tmp_path, steps=2)
    assert torch.equal(torch.rand(3), wanted) and not torch.are_deterministic_algorithms_enabled()


def test_dev_evaluation_does_not_change_training(tiny, data, dev, tmp_path):
    plain = fit(tiny, data, "mcse", tmp_path / "a", steps=10, eval_every=100)
    watched = fit(tiny, data, "mcse", tmp_path / "b", steps=10, eval_every=3, dev=dev)
    assert column(plain, "loss") == column(watched, "loss")


def test_best_checkpoint_comes_back_with_its_heads(tiny, data, dev, tmp_path):
    # a rate that ruins the encoder after a good start
    run = fit(tiny, data, "mcse", tmp_path, dev=dev, eval_every=1, steps=40, learning_rate=0.03)
    scores = column(run, "dev")
    assert run.best_step == 1 + int(np.argmax(scores)) < 40
    vectors = run.encoder.encode(dev.subsets["dev"].sentences1)
    again = fit(tiny, data, "mcse", tmp_path / "again", dev=dev, eval_every=1, steps=40, learning_rate=0.03)
    short = Network(load_encoder(tiny, pooling="cls"), resolve("mcse", SETTINGS), data, 0)
    load_checkpoint(short, best_path(tmp_path / "again", again.best_step))
    np.testing.assert_array_equal(short.encoder.eval().encode(dev.subsets["dev"].sentences1), vectors)
    assert torch.equal(short.heads["grounding"].dense.weight, run.heads["grounding"].dense.weight)
    assert again.best_dev == run.best_dev


def nan_loss(loss):
    return loss * float("nan")


def nan_gradient(loss):
    return loss + (loss * 0).sqrt()


@pytest.mark.fault("F49")
@pytest.mark.parametrize(
    ("fault", "says"), [(nan_loss, "loss is not finite"), (nan_gradient, "gradient is not finite")]
)
def test_nan_stops_before_the_step_with_the_last_good_checkpoint(tiny, data, tmp_path, monkeypatch, fault, says):
    calls, networks = [], []

    def losses_with_a_fault(network, encoded, batch, recipe):
        calls.append(batch.kind)
        networks.append(network)
        values = losses(network, encoded, batch, recipe)
        return values | {"text": (fault(values["text"][0]), {})} if len(calls) == 8 else values

    monkeypatch.setattr("model.gradcache.losses", losses_with_a_fault)
    with pytest.raises(ModelError, match=f"step 8 of 60: the {says}.*last good weights.*Lower learning_rate") as raised:
        fit(tiny, data, "mcse", tmp_path, eval_every=1)
    assert raised.value.code == 2 and "\n" not in str(raised.value) and len(calls) == 8
    good = Network(load_encoder(tiny, pooling="cls"), resolve("mcse", SETTINGS), data, 0)
    load_checkpoint(good, tmp_path / LAST)
    for (name, saved), kept in zip(good.state_dict().items(), networks[-1].state_dict().values(), strict=True):
        assert torch.equal(saved, kept) and torch.isfinite(saved).all(), name
    calls.clear()
    with pytest.raises(ModelError, match="there is no checkpoint yet"):
        fit(tiny, data, "mcse", tmp_path, eval_every=50)


def test_a_damaged_checkpoint_is_one_clear_line(tiny, data, tmp_path):
    network = Network(load_encoder(tiny, pooling="cls"), resolve("simcse"), data, 0)
    (tmp_path / "x").write_bytes(b"not a checkpoint")
    for file in ("x", "absent"):
        with pytest.raises(ModelError, match="not a checkpoint, or damaged"):
            load_checkpoint(network, tmp_path / file)
    checkpoint.save(tmp_path / "other", checkpoint.weights(network.encoder), {})
    with pytest.raises(ModelError, match="not a checkpoint of this model") as raised:
        load_checkpoint(network, tmp_path / "other")
    assert "\n" not in str(raised.value)


def test_bad_data_leaves_the_previous_checkpoint(tiny, data, tmp_path):
    (tmp_path / LAST).write_bytes(b"previous")
    for bad, overrides in ((TrainingData(), {}), (data, {"batch_size": 90})):
        with pytest.raises(ModelError):
            fit(tiny, bad, "mcse", tmp_path, **overrides)
    assert (tmp_path / LAST).read_bytes() == b"previous"


def test_untrained_is_the_encoder_as_it_was(tiny, data, dev, tmp_path):
    run = train(load_encoder(tiny, pooling="mean"), data, resolve("untrained"), seed=0, work_dir=tmp_path, dev=dev)
    texts = dev.subsets["dev"].sentences1
    np.testing.assert_array_equal(run.encoder.encode(texts), load_encoder(tiny, pooling="mean").encode(texts))
    assert run.steps == 0 and len(run.log) == 1 and run.log[0]["dev"] == run.best_dev is not None


def test_epochs_and_the_warning_when_text_is_never_read(tiny, data, tmp_path):
    run = fit(tiny, data, "mcse", tmp_path, steps=None, epochs=2, pair_every=None, batch_size=16)
    assert run.steps == 2 * (96 // 16 + 32 // 16) and run.notes == []
    few = replace(data, sentences=data.sentences[:40])
    run = fit(tiny, few, "mcse", tmp_path, steps=3, pair_every=None)
    assert "never read" in run.notes[0] and {r["kind"] for r in run.log} == {"pair"}


def test_bf16_runs_with_float32_losses(tiny, data, tmp_path):
    network, recipe, batch = network_and_batch(tiny, data, "mcseo", precision="bf16")
    assert all(v.dtype == torch.float32 for v in scalars(network, batch, recipe).values())
    half, full = (column(fit(tiny, data, "mcseo", tmp_path, steps=5, precision=p), "loss") for p in ("bf16", "fp32"))
    assert half == pytest.approx(full, rel=0.2) and half != full


def test_learning_rate_is_linear():
    recipe = resolve("simcse", {"learning_rate": 1.0})
    assert [learning_rate(s, 4, recipe) for s in range(4)] == [1.0, 0.75, 0.5, 0.25]
    warm = resolve("simcse", {"learning_rate": 1.0, "warmup": 0.5})
    assert [learning_rate(s, 4, warm) for s in range(4)] == [0.5, 1.0, 1.0, 0.5]


def test_log_and_progress(tiny, data, dev, tmp_path):
    out = io.StringIO()
    run = fit(tiny, data, "mcseo", tmp_path, dev=dev, steps=20, progress=ProgressLines(every_s=1e9, stream=out))
    write_log(run.log, tmp_path / "log.csv")
    with (tmp_path / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == columns(run.log) and len(rows) == 20 and rows[0]["dev"] == ""
    assert float(rows[-1]["loss"]) == pytest.approx(run.log[-1]["loss"], rel=1e-8)
    lines = out.getvalue().splitlines()
    assert len(lines) == 2 and lines[0].startswith("step 15/20  loss ") and "left" in lines[0]
    assert lines[1].endswith("done") and "STS-B dev" in lines[1] and "sentences/s" in lines[1]
