"""What the loop promises holds for every recipe: the gradient cache, and going on after a kill."""

import multiprocessing
import os
import signal
from dataclasses import replace

import pytest
import torch

from model import gradcache
from model.batches import Batches
from model.encoder import load_encoder
from model.network import Network
from model.recipes import NAMES, resolve
from model.teachers import prepare
from model.trainer import train
from tests.model.companions import companions, complete, teachers_folder

SETTINGS = {"batch_size": 8, "captions_per_image": "all", "projection": 16, "pair_every": 2, "objects_per_caption": 2}
SETTINGS |= {"lambda": 0.5, "mu": 0.5, "learning_rate": 2e-3, "rtd_weight": 0.5, "cma_space": "proj"}
TRAINED = pytest.mark.parametrize("name", [name for name in NAMES if name != "untrained"])


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    return teachers_folder(tiny, tmp_path_factory.mktemp("companions") / "teachers")


@TRAINED
def test_the_cache_gives_the_gradient_of_the_whole_batch(tiny, data, folder, name):
    recipe, encoder = resolve(name, SETTINGS), load_encoder(tiny, pooling="cls")
    teachers = companions(tiny, folder, recipe)
    data = prepare(encoder, complete(data), recipe, teachers, "cpu")
    network = Network(encoder, recipe, data, 0, teachers).train()
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    batch = Batches(data, recipe, encoder, 0).next(0)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    found = []
    for chunk in (None, 3):
        network.load_state_dict(state)
        network.zero_grad(set_to_none=True)
        values = gradcache.backward(network, batch, replace(recipe, cache_chunk=chunk))
        gradients = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
        found.append((values, gradients))
    (values, whole), (cached_values, cached) = found
    assert values.keys() == cached_values.keys() and whole.keys() == cached.keys()
    for key, value in values.items():
        assert cached_values[key].item() == pytest.approx(value.item(), rel=1e-4, abs=1e-5), key
    largest = max(gradient.abs().max().item() for gradient in whole.values())
    for key, gradient in whole.items():
        torch.testing.assert_close(cached[key], gradient, rtol=1e-3, atol=1e-4 * largest, msg=key)


def run(tiny, data, folder, name, work_dir, die_at=None):
    recipe, encoder = resolve(name, SETTINGS | {"steps": 6, "eval_every": 2}), load_encoder(tiny, pooling="cls")

    def die(progress):
        if progress.step == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    lines = []
    teachers = companions(tiny, folder, recipe)
    options = {"teachers": teachers, "progress": die, "tell": lines.append}
    return train(encoder, complete(data), recipe, seed=0, work_dir=work_dir, **options), lines


@pytest.mark.fault("F54")
@TRAINED
def test_killed_and_resumed_equals_the_undisturbed_run(tiny, data, folder, tmp_path, name):
    undisturbed, _ = run(tiny, data, folder, name, tmp_path / "whole")
    process = multiprocessing.get_context("fork").Process(
        target=run, args=(tiny, data, folder, name, tmp_path / "killed", 5)
    )
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    resumed, lines = run(tiny, data, folder, name, tmp_path / "killed")
    assert [line.split(" (")[0] for line in lines] == ["training goes on from step 4 of 6"]
    assert resumed.log == undisturbed.log and resumed.notes == undisturbed.notes
    for one, two in ((undisturbed.encoder, resumed.encoder), (undisturbed.heads, resumed.heads)):
        for (key, a), (same, b) in zip(one.state_dict().items(), two.state_dict().items(), strict=True):
            assert key == same and torch.equal(a, b), key
