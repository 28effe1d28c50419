"""kill -9 in the middle of each sharded stage: at most one shard is computed again, and all bytes are equal."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from checkout import SHARDED, checkout_environment, dvc, make_checkout, run
from small import digests

pytestmark = pytest.mark.graph
SHARDS = 4
SLOW = {"MCSEO_TEST_SHARD_SECONDS": "0.7"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = make_checkout(tmp_path_factory.mktemp("kill") / "undisturbed")
    dvc(folder, "repro", "align")
    return digests(folder / "data")


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory):
    """A checkout that goes through the stages in order; each test kills one stage and finishes it."""
    return make_checkout(tmp_path_factory.mktemp("kill") / "disturbed")


def start(folder, stage):
    """`dvc repro STAGE` in a session of its own, slowed so that a shard takes a while."""
    return subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "--single-item", stage],
        cwd=folder,
        env=checkout_environment(folder, SLOW),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def finished(folder, stage):
    return len(list((folder / f".scratch/small/{stage}").glob("*.json")))


def wait_for(what, seconds=90):
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)
    return found


def stage_pid(folder, stage):
    """The PID in the stage's lock, if that process is alive."""
    try:
        pid = int((folder / f".scratch/small/{stage}.lock").read_text())
        os.kill(pid, 0)
        return pid
    except (OSError, ValueError):
        return None


def forget(folder, stage):
    """Makes a stage's work undone: its scratch records, DVC's lock and its run cache."""
    for record in (folder / f".scratch/small/{stage}").glob("*.json"):
        record.unlink()
    (folder / "dvc.lock").unlink(missing_ok=True)
    shutil.rmtree(folder / ".dvc/cache/runs", ignore_errors=True)


def of_stage(all_digests, stage):
    prefix = f"small/{stage}/"
    return {name.removeprefix(prefix): digest for name, digest in all_digests.items() if name.startswith(prefix)}


def computed(said):
    return int(re.search(r"(\d+) shards computed", said)[1])


@pytest.mark.fault("F1")
@pytest.mark.parametrize("stage", SHARDED)
def test_the_stage_is_killed(stage, disturbed, undisturbed):
    runner = start(disturbed, stage)
    wait_for(lambda: finished(disturbed, stage) >= 2)
    pid = stage_pid(disturbed, stage)
    os.kill(pid, signal.SIGKILL)
    assert runner.wait(60) != 0
    kept = finished(disturbed, stage)
    said = dvc(disturbed, "repro", "--single-item", stage)
    assert computed(said) == SHARDS - kept <= SHARDS - 2
    assert f"{kept} from the scratch store" in said
    assert digests(disturbed / f"data/small/{stage}") == of_stage(undisturbed, stage)


@pytest.mark.fault("F1", "F5")
@pytest.mark.parametrize("stage", SHARDED)
def test_dvc_is_killed(stage, disturbed, undisturbed):
    """The stage outlives its dvc; a second run must not work beside it, and takes over what it made."""
    forget(disturbed, stage)
    runner = start(disturbed, stage)
    wait_for(lambda: finished(disturbed, stage) >= 1)
    pid = stage_pid(disturbed, stage)
    runner.kill()
    runner.wait(60)
    refused = run(disturbed, sys.executable, "-m", "dvc", "repro", "--single-item", stage, check=False)
    if stage_pid(disturbed, stage) == pid:
        assert refused.returncode != 0 and f"already running as PID {pid}" in refused.stdout
    wait_for(lambda: stage_pid(disturbed, stage) is None)
    assert finished(disturbed, stage) == SHARDS, "no shard was computed twice or lost"
    said = dvc(disturbed, "repro", "--single-item", stage)
    assert "0 shards computed, 4 from the scratch store" in said or "didn't change" in said
    assert digests(disturbed / f"data/small/{stage}") == of_stage(undisturbed, stage)


@pytest.mark.fault("F60")
@pytest.mark.parametrize("stage", SHARDED)
def test_the_flow_is_killed(stage, disturbed, undisturbed):
    """What starts dvc for Prefect dies (kill -9): its guard ends dvc and the stage, and the next run goes on."""
    forget(disturbed, stage)
    script = f"from pipeline import child; child.start(child.dvc('repro', '--single-item', '{stage}')).wait()"
    environment = checkout_environment(disturbed, SLOW)
    flow = subprocess.Popen([sys.executable, "-c", script], cwd=disturbed, env=environment, start_new_session=True)
    wait_for(lambda: finished(disturbed, stage) >= 1)
    flow.kill()
    flow.wait(60)
    wait_for(lambda: stage_pid(disturbed, stage) is None)
    kept = finished(disturbed, stage)
    said = dvc(disturbed, "repro", "--single-item", stage)
    assert computed(said) == SHARDS - kept and f"{kept} from the scratch store" in said
    assert digests(disturbed / f"data/small/{stage}") == of_stage(undisturbed, stage)


@pytest.mark.fault("F1")
def test_workers_die_with_their_stage(tmp_path):
    """With two workers, killing the stage leaves no worker computing on."""
    folder = make_checkout(tmp_path / "workers", runtime__workers=2)
    dvc(folder, "repro", "parse")
    runner = start(folder, "detect")
    wait_for(lambda: finished(folder, "detect") >= 1)
    pid = stage_pid(folder, "detect")
    os.kill(pid, signal.SIGKILL)
    runner.wait(60)
    time.sleep(1.0)
    before = finished(folder, "detect")
    time.sleep(1.5)
    assert finished(folder, "detect") == before
    assert computed(dvc(folder, "repro", "--single-item", "detect")) == SHARDS - before


@pytest.mark.fault("F4")
def test_sigterm_ends_with_143_and_keeps_finished_shards(tmp_path):
    folder = make_checkout(tmp_path / "term")
    environment = checkout_environment(folder, SLOW)
    command = [sys.executable, "-m", "stages.ingest"]
    stage = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: finished(folder, "ingest") >= 1)
    stage.terminate()
    _, said = stage.communicate(timeout=60)
    assert stage.returncode == 143 and "ended by SIGTERM" in said and "Traceback" not in said
    assert not list((folder / ".scratch").rglob(".draft-*"))
    assert finished(folder, "ingest") >= 1
