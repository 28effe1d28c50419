"""A stage with a model (embed) on devices that are missing, short of memory, or two and not one; and ended halfway."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from small import ROOT, digests, environment, in_process, make_collection, run_stage, write_params

SHARDS = 4
ENCODER = str(ROOT / "demo/checkpoints/vision_random")
SLOW = {"MCSEO_TEST_SHARD_SECONDS": "1.0"}


@pytest.fixture(scope="module")
def embedded(tmp_path_factory) -> Path:
    """A small collection, embedded on one CPU."""
    folder = tmp_path_factory.mktemp("embedded")
    make_collection(folder / "collection", 16)
    on(folder, "cpu")
    for stage in ("ingest", "parse", "detect", "segment", "embed"):
        in_process(stage, folder)
    return folder


@pytest.fixture
def folder(embedded, tmp_path) -> Path:
    """The same collection, not embedded yet."""
    shutil.copytree(embedded, tmp_path / "copy", symlinks=True)
    for part in ("data/small/embed", ".scratch/small/embed"):
        shutil.rmtree(tmp_path / "copy" / part)
    return on(tmp_path / "copy", "cpu")


def on(folder: Path, *devices: str, **changes: object) -> Path:
    root = folder / "collection"
    changes = {"embed__path": ENCODER, "runtime__devices": list(devices)} | changes
    write_params(folder / "params.yaml", root, **changes)
    return folder


def made(folder: Path) -> dict[str, str]:
    return digests(folder / "data/small/embed")


@pytest.mark.fault("F51")
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_gpu_that_is_not_there_is_refused_and_auto_does_without(folder, embedded):
    on(folder, "cpu", "cuda:0", embed__path=str(folder / "no-such-model"))
    (folder / "no-such-model").mkdir()
    ended = run_stage("embed", folder)
    right = "runtime.devices: cuda:0 is not available on this machine (it has no CUDA device); use auto or cpu"
    assert ended.returncode == 3 and ended.stderr.splitlines() == [f"embed: {right}"]
    assert json.loads((folder / ".run/embed.exit.json").read_text()) == {"code": 3, "message": right}
    on(folder, "auto")
    assert "device busy" in in_process("embed", folder)
    assert made(folder) == made(embedded)


@pytest.mark.fault("F53")
def test_two_devices_write_the_bytes_of_one(folder, embedded):
    on(folder, "cpu", "cpu")
    said = in_process("embed", folder)
    assert f"{SHARDS} shards computed, 0 from the scratch store" in said.splitlines()[-1]
    assert "pictures/s" in said.splitlines()[-1]
    assert made(folder) == made(embedded)


@pytest.mark.fault("F47")
@pytest.mark.parametrize("after", [0, 2])
def test_memory_that_runs_out_changes_no_feature(folder, embedded, monkeypatch, after):
    on(folder, "cpu", runtime__batch_rows=6)
    forward, sizes = torch.nn.Conv2d.forward, []

    def short(self, batch):
        sizes.append(len(batch))
        if sizes.count(6) > after and len(batch) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(self, batch)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", short)
    said = in_process("embed", folder)
    assert "out of memory with 6 pictures at a time; going on with 3" in said and f"{SHARDS} shards computed" in said
    assert max(sizes) == 6 and sizes.count(6) == after + 1 and sizes.count(3) > 4
    for file in sorted((embedded / "data/small/embed/features").iterdir()):
        right, found = (pq.read_table(place / "data/small/embed/features" / file.name) for place in (embedded, folder))
        assert found.drop(["vector"]).equals(right.drop(["vector"]))
        off = np.abs(vectors(found) - vectors(right)).max()
        assert off <= 2e-3, "one place of float16"


def vectors(table) -> np.ndarray:
    return np.stack([np.frombuffer(row, "<f2") for row in table.column("vector").to_pylist()]).astype(np.float32)


@pytest.mark.fault("F47")
@pytest.mark.parametrize(
    ("fits", "says"),
    [(0, "embed: out of memory on the device, before"), (3, "embed: out of memory with one of the pictures at a time")],
    ids=["model", "picture"],
)
def test_a_model_or_a_picture_that_does_not_fit_ends_the_stage_in_one_line(folder, fits, says):
    (folder / "site").mkdir()
    (folder / "site/sitecustomize.py").write_text(
        "import torch\n"
        "forward, calls = torch.nn.Conv2d.forward, []\n"
        "def full(self, batch):\n"
        "    calls.append(len(batch))\n"
        f"    if len(calls) > {fits}: raise torch.OutOfMemoryError('CUDA out of memory')\n"
        "    return forward(self, batch)\n"
        "torch.nn.Conv2d.forward = full\n"
    )
    ended = run_stage("embed", folder, env={"PYTHONPATH": f"{folder / 'site'}:{ROOT}"})
    assert ended.returncode == 5 and "Traceback" not in ended.stderr, ended.stderr
    assert ended.stderr.splitlines()[-1].startswith(says)


def start(folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "stages.embed"],
        cwd=folder,
        env=environment(SLOW),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def until(holds, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def finished(folder: Path) -> int:
    return len(list((folder / ".scratch/small/embed").glob("[0-9a-f]*.json")))


@pytest.mark.fault("F1", "F4")
@pytest.mark.parametrize(
    ("devices", "number", "code"),
    [
        (["cpu"], signal.SIGTERM, 143),
        (["cpu", "cpu"], signal.SIGINT, 130),
        (["cpu"], signal.SIGKILL, -9),
        (["cpu", "cpu"], signal.SIGKILL, -9),
    ],
)
def test_a_stage_that_is_ended_halfway_goes_on_where_it_was(folder, embedded, devices, number, code):
    on(folder, *devices)
    running = start(folder)
    until(lambda: finished(folder) >= 1 or running.poll() is not None)
    running.send_signal(number)
    said, _ = running.communicate(timeout=60)
    assert running.returncode == code and "Traceback" not in said, said
    if number != signal.SIGKILL:
        assert json.loads((folder / ".run/embed.exit.json").read_text())["code"] == code
        until(lambda: not list((folder / ".scratch").rglob(".draft-*")), 10)
    kept = finished(folder)
    assert 1 <= kept < SHARDS
    assert f"{SHARDS - kept} shards computed, {kept} from the scratch store" in in_process("embed", folder)
    assert made(folder) == made(embedded)
