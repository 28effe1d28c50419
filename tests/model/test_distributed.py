"""Several gloo processes against one with the whole batch."""

import multiprocessing
import os
import pickle
import signal
import socket
from dataclasses import replace

import pytest
import torch

from model.batches import Batch, Tokens
from model.distributed import Processes
from model.encoder import load_encoder
from model.recipes import resolve
from model.trainer import train

SETTINGS = {"batch_size": 64, "captions_per_image": "all", "projection": 16, "steps": 4, "eval_every": 2}
SETTINGS |= {"learning_rate": 1e-3, "pair_every": 2, "lambda": 0.5, "mu": 0.5}


def enlarged(data):
    """Captions enough for batches of 64, and one batch size that does not divide by two."""
    times = 3
    images = len(data.image_features)
    return replace(
        data,
        captions=[f"{caption} {word}".strip() for word in ("", "near", "behind") for caption in data.captions],
        caption_image=[i for _ in range(times) for i in data.caption_image],
        pairs=data.pairs * times,
        sentences=data.sentences[: 96 - 7],
        image_features=data.image_features[:images],
    )


def train_each(tiny, data, dev, out, names, world, overrides, dropout=False, die_at=None):
    """Each recipe, by default without dropout; each process leaves what came of it."""
    found = {}

    def die(progress):
        if progress.step == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    for name in names:
        encoder = load_encoder(tiny, pooling="cls")
        for module in encoder.modules():
            if isinstance(module, torch.nn.Dropout) and not dropout:
                module.p = 0.0
        recipe = resolve(name, SETTINGS | overrides)
        lines = []
        folder = out / f"{name}-{world}"
        run = train(encoder, data, recipe, seed=0, work_dir=folder, dev=dev, tell=lines.append, progress=die)
        weights = {n: w.double() for n, w in [*run.encoder.state_dict().items(), *run.heads.state_dict().items()]}
        found[name] = (run.log, weights, run.best_dev, lines)
    rank = os.environ.get("RANK", "0")
    (out / f"{world}-{rank}.pickle").write_bytes(pickle.dumps(found))


def torchrun(world, *arguments, dies=False):
    """What torchrun does: a process each, told by the environment who it is; one that dies takes the others along."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(world)}

    def work(rank):
        os.environ |= shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        train_each(*arguments)

    fork = multiprocessing.get_context("fork")
    started = [fork.Process(target=work, args=(rank,)) for rank in range(world)]
    for process in started:
        process.start()
    started[0].join(300)
    for process in started[1:]:
        if dies:
            process.kill()
        process.join(300)
    assert [process.exitcode for process in started] == [-signal.SIGKILL if dies else 0] * world


def outcome(tmp_path, world, rank=0):
    return pickle.loads((tmp_path / f"{world}-{rank}.pickle").read_bytes())  # noqa: S301 (written by this test)


def test_two_processes_with_half_a_batch_each_equal_one_with_all_of_it(tiny, data, dev, tmp_path):
    names, data = ("simcse", "mcse", "mcseo"), enlarged(data)
    arguments = (tiny, data, dev, tmp_path, names)
    train_each(*arguments, 1, {})
    torchrun(2, *arguments, 2, {})
    one, two, second = outcome(tmp_path, 1), outcome(tmp_path, 2), outcome(tmp_path, 2, rank=1)
    for name in names:
        assert len(one[name][0]) == len(two[name][0]) == 4
        for a, b in zip(one[name][0], two[name][0], strict=True):
            assert a.keys() == b.keys()
            for key in a:
                if isinstance(a[key], float):
                    assert b[key] == pytest.approx(a[key], rel=1e-5, abs=1e-5), (name, a["step"], key)
                else:
                    assert a[key] == b[key]
        for weight, wanted in one[name][1].items():
            if not weight.endswith("key.bias"):  # its true gradient is zero: the optimizer amplifies rounding noise
                torch.testing.assert_close(two[name][1][weight], wanted, rtol=0, atol=1e-5, msg=weight)
            assert torch.equal(two[name][1][weight], second[name][1][weight]), "both processes hold the same weights"
        assert two[name][2] == second[name][2] == pytest.approx(one[name][2], abs=1e-5)


@pytest.mark.fault("F54")
def test_two_processes_killed_and_resumed_equal_the_undisturbed_ones(tiny, data, dev, tmp_path):
    """With dropout: each process has a random state of its own, and each gets its own back."""
    names, data = ("mcseo",), enlarged(data)
    for place, die_at in (("whole", None), ("killed", 3), ("killed", None)):
        (tmp_path / place).mkdir(exist_ok=True)
        arguments = (tiny, data, dev, tmp_path / place, names, 2, {}, True, die_at)
        torchrun(2, *arguments, dies=die_at is not None)
    for rank in (0, 1):
        whole, resumed = (outcome(tmp_path / place, 2, rank)["mcseo"] for place in ("whole", "killed"))
        assert whole[0] == resumed[0] and len(whole[0]) == 4
        assert all(torch.equal(resumed[1][name], weight) for name, weight in whole[1].items())
        assert [line.split(" (")[0] for line in resumed[3]] == ["training goes on from step 2 of 4"] * (rank == 0)


def test_slices_cover_a_batch_in_order_and_few_rows_go_to_all():
    ids = torch.arange(7 * 2 * 3).view(7, 2, 3)
    batch = Batch("text", Tokens(ids, torch.ones_like(ids)))
    parts = [Processes(rank, 3).own(batch).tokens.input_ids for rank in range(3)]
    assert [len(p) for p in parts] == [2, 2, 3] and torch.equal(torch.cat(parts), ids)
    few = Batch("text", Tokens(ids[:2], torch.ones_like(ids[:2])))
    assert all(torch.equal(Processes(rank, 3).own(few).tokens.input_ids, ids[:2]) for rank in range(3))
    assert Processes().own(batch) is batch
