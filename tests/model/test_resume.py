"""A run killed (SIGKILL, in a process of its own) and resumed against the undisturbed one; damaged checkpoints."""

import json
import multiprocessing
import os
import random
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model import checkpoint
from model.checkpoint import LAST, LOG
from model.encoder import load_encoder
from model.errors import ModelError
from model.network import Network
from model.recipes import resolve
from model.trainer import train

SETTINGS = {
    "batch_size": 8,
    "learning_rate": 3e-3,
    "steps": 18,
    "eval_every": 3,
    "captions_per_image": "all",
    "projection": 16,
    "pair_every": 2,
    "lambda": 0.5,
    "mu": 0.5,
}


def fit(tiny, data, work_dir, name="mcseo", dev=None, progress=None, seed=0, **overrides):
    lines = []
    encoder = load_encoder(tiny, pooling="cls")
    recipe = resolve(name, SETTINGS | overrides)
    run = train(encoder, data, recipe, seed=seed, work_dir=work_dir, dev=dev, progress=progress, tell=lines.append)
    return run, lines


def weights(run):
    return [*run.encoder.state_dict().items(), *run.heads.state_dict().items()]


def equal(one, two):
    assert one.log == two.log and (one.steps, one.best_step, one.best_dev) == (two.steps, two.best_step, two.best_dev)
    assert one.notes == two.notes
    for (name, a), (same, b) in zip(weights(one), weights(two), strict=True):
        assert name == same and torch.equal(a, b), name


def killed(run, *arguments, **options):
    """Runs it in a process that does not survive it."""
    process = multiprocessing.get_context("fork").Process(target=run, args=arguments, kwargs=options)
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL, f"it ended by {process.exitcode}"


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(step):
    return lambda progress: die() if progress.step == step else None


@pytest.mark.fault("F54")
@pytest.mark.parametrize(
    ("name", "watched", "overrides"),
    [
        ("mcseo", True, {}),
        ("simcse", False, {}),
        ("mcse", True, {"captions_per_image": "one_per_epoch", "accumulation": 2, "cache_chunk": 3, "warmup": 0.3}),
        ("simcse-phrases", False, {"optimizer": "adamw_early_eps", "schedule": "cosine", "weight_decay": 0.1}),
    ],
    ids=["mcseo", "simcse", "chunks", "early eps"],
)
def test_killed_at_five_random_steps_equals_the_undisturbed_run(tiny, data, dev, tmp_path, name, watched, overrides):
    dev = dev if watched else None
    undisturbed, lines = fit(tiny, data, tmp_path / "whole", name, dev, **overrides)
    assert not lines and len(undisturbed.log) == 18
    steps = sorted(random.Random(name).sample(range(1, 18), 5))
    for step in steps:
        killed(fit, tiny, data, tmp_path / "killed", name, dev, die_at(step), **overrides)
    resumed, lines = fit(tiny, data, tmp_path / "killed", name, dev, **overrides)
    from_step = (steps[-1] - 1) // 3 * 3 if steps[-1] % 3 else steps[-1]
    assert lines == [f"training goes on from step {from_step} of 18 ({tmp_path / 'killed' / LAST})"]
    equal(resumed, undisturbed)


def test_a_finished_run_is_not_trained_again(tiny, data, dev, tmp_path):
    first, _ = fit(tiny, data, tmp_path, dev=dev)
    again, lines = fit(tiny, data, tmp_path, dev=dev, progress=lambda _: pytest.fail("a step was taken"))
    assert "goes on from step 18 of 18" in lines[0]
    equal(again, first)


def test_resume_can_be_declined(tiny, data, tmp_path):
    fit(tiny, data, tmp_path)
    seen = []
    recipe = resolve("mcseo", SETTINGS)
    encoder = load_encoder(tiny, pooling="cls")
    train(encoder, data, recipe, seed=0, work_dir=tmp_path, resume=False, progress=lambda p: seen.append(p.step))
    assert seen[0] == 1


def in_the_middle_of(which, count, monkeypatched, tmp_path):
    """Kills the process the `count`-th time a checkpoint's writing comes to a point."""
    calls = []

    def point(original):
        def run(*arguments, **options):
            calls.append(1)
            if len(calls) == count:
                if which == "half written":
                    path = arguments[1]
                    original(*arguments, **options)
                    os.truncate(path, path.stat().st_size // 2)
                die()
            return original(*arguments, **options)

        return run

    if which == "half written":
        monkeypatched.setattr(checkpoint, "save_file", point(checkpoint.save_file))
    elif which == "written, not renamed":
        monkeypatched.setattr(Path, "replace", point(Path.replace))
    elif which == "log written":
        monkeypatched.setattr(checkpoint, "save", point(checkpoint.save))
    else:
        monkeypatched.setattr(checkpoint, "clear_best", point(checkpoint.clear_best))


POINTS = ["log written", "half written", "written, not renamed", "renamed, old best not deleted"]


@pytest.mark.fault("F55")
@pytest.mark.parametrize("which", POINTS)
def test_killed_while_a_checkpoint_is_saved_the_previous_one_loads(tiny, data, dev, tmp_path, monkeypatch, which):
    undisturbed, _ = fit(tiny, data, tmp_path / "whole", dev=dev)

    def until_the_save():
        in_the_middle_of(which, 4, monkeypatch, tmp_path)
        fit(tiny, data, tmp_path / "killed", dev=dev)

    killed(until_the_save)
    folder = tmp_path / "killed"
    tensors, record = checkpoint.load(folder / LAST)
    assert record["step"] in (3, 6, 9, 12)
    assert record["rows"] == record["step"] == len(checkpoint.read_log(folder / LOG, record["rows"])[0])
    network = Network(load_encoder(tiny, pooling="cls"), resolve("mcseo", SETTINGS), data, 0)
    checkpoint.set_weights(network, tensors, folder / LAST)
    if record["best_step"] is not None:
        checkpoint.load_weights(network, checkpoint.best_path(folder, record["best_step"]))
    resumed, _ = fit(tiny, data, folder, dev=dev)
    equal(resumed, undisturbed)
    assert not list(folder.glob(".*tmp"))
    assert len(list(folder.glob("best-*"))) == 1


def damage_cut(path):
    os.truncate(path, path.stat().st_size - 100)


def damage_bit(path):
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)


def damage_text(path):
    path.write_text("not a checkpoint")


def damage_empty(path):
    path.write_bytes(b"")


@pytest.mark.fault("F55")
@pytest.mark.parametrize("damage", [damage_cut, damage_bit, damage_text, damage_empty])
def test_a_damaged_checkpoint_is_refused_in_one_line(tiny, data, tmp_path, damage):
    fit(tiny, data, tmp_path, steps=3)
    damage(tmp_path / LAST)
    before = (tmp_path / LAST).read_bytes()
    with pytest.raises(ModelError, match=r"last\.safetensors: .*damaged.*delete it to train from the start") as raised:
        fit(tiny, data, tmp_path, steps=3)
    assert raised.value.code == 3 and "\n" not in str(raised.value)
    assert (tmp_path / LAST).read_bytes() == before, "it is left where it is"


@pytest.mark.fault("F55")
def test_a_log_that_lost_rows_is_refused_in_one_line(tiny, data, tmp_path):
    fit(tiny, data, tmp_path, steps=6)
    log = tmp_path / LOG
    log.write_bytes(b"\n".join(log.read_bytes().split(b"\n")[:3]))
    with pytest.raises(ModelError, match="6 log rows of the checkpoint are not there.*delete it"):
        fit(tiny, data, tmp_path, steps=6)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seed": 1}, "seed"),
        ({"learning_rate": 1e-3}, "recipe"),
        ({"name": "mcse"}, "recipe"),
        ({"data": "fewer"}, "data"),
    ],
)
def test_a_checkpoint_of_another_run_is_not_gone_on_from(tiny, data, tmp_path, change, says):
    few = {"steps": 4, "eval_every": 2}
    other = replace(data, sentences=data.sentences[:-1]) if change.pop("data", None) else data
    fit(tiny, data, tmp_path / "a", **few)
    anew, lines = fit(tiny, other, tmp_path / "a", **(few | change))
    assert lines == [f"{tmp_path / 'a' / LAST} is of a run with another {says}: training starts anew"]
    fresh, _ = fit(tiny, other, tmp_path / "b", **(few | change))
    equal(anew, fresh)


def test_another_thread_count_starts_anew(tiny, data, tmp_path):
    fit(tiny, data, tmp_path, steps=3)
    torch.set_num_threads(2)
    try:
        _, lines = fit(tiny, data, tmp_path, steps=3)
    finally:
        torch.set_num_threads(1)
    assert "another thread count" in lines[0]


def test_what_is_saved_comes_back(tmp_path):
    tensors = {
        "a": torch.randn(3, 4, dtype=torch.float64),
        "b": torch.tensor(2.5),
        "c": torch.randn(5).to(torch.bfloat16),
        "d": torch.randn(4, 6).T,
        "e": torch.empty(0, 3),
    }
    record = {"step": 3, "x": [1.5, None, "ä"], "float": 0.1 + 0.2}
    checkpoint.save(tmp_path / "x.safetensors", tensors, record)
    back, read = checkpoint.load(tmp_path / "x.safetensors")
    assert read == json.loads(json.dumps(record))
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype and torch.equal(back[name], tensor), name
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]
