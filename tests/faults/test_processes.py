"""Signals, two at once, dying workers, what a restart leaves behind, and clocks that run backwards."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from checkout import dvc, make_checkout
from small import ROOT, digests, environment, in_process, make_collection, run_stage, write_params

SLOW = {"MCSEO_TEST_SHARD_SECONDS": "1.0"}
SHARDS = 4


@pytest.fixture
def folder(tmp_path) -> Path:
    make_collection(tmp_path / "collection", 8)
    write_params(tmp_path / "params.yaml", tmp_path / "collection")
    return tmp_path


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("whole")
    make_collection(folder / "collection", 8)
    write_params(folder / "params.yaml", folder / "collection")
    for stage in ("ingest", "parse"):
        in_process(stage, folder)
    return digests(folder / "data")


def start(folder: Path, stage: str, **env: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", f"stages.{stage}"],
        cwd=folder,
        env=environment({**SLOW, **env}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # What runs in the background of a shell ignores SIGINT, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def until(holds, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def finished(folder: Path, stage: str) -> int:
    return len(list((folder / f".scratch/small/{stage}").glob("[0-9a-f]*.json")))


@pytest.mark.fault("F4")
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("number", "code", "says"), [(signal.SIGTERM, 143, "ended by SIGTERM"), (signal.SIGINT, 130, "interrupted")]
)
def test_a_signal_ends_a_stage_in_one_line(folder, whole, number, code, says, workers):
    write_params(folder / "params.yaml", folder / "collection", runtime__workers=workers)
    running = start(folder, "ingest")
    until(lambda: finished(folder, "ingest") >= 1)
    assert running.poll() is None, "it ended before it was told to"
    # What a worker that is ended in the middle of a table leaves behind (it seldom happens to be in one just now).
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    if workers > 1:
        (folder / f".scratch/small/objects/.draft-{gone.pid}-images").write_bytes(b"half")
    running.send_signal(number)
    said, _ = running.communicate(timeout=60)
    assert running.returncode == code and says in said and "Traceback" not in said, said
    assert json.loads((folder / ".run/ingest.exit.json").read_text())["code"] == code
    assert not list((folder / ".scratch").rglob(".draft-*"))
    kept = finished(folder, "ingest")
    assert 1 <= kept < SHARDS
    assert f"{SHARDS - kept} shards computed, {kept} from the scratch store" in in_process("ingest", folder)
    assert digests(folder / "data/small/ingest") == of(whole, "ingest")


def of(all_digests: dict[str, str], stage: str) -> dict[str, str]:
    prefix = f"small/{stage}/"
    return {name.removeprefix(prefix): digest for name, digest in all_digests.items() if name.startswith(prefix)}


@pytest.mark.fault("F5")
def test_two_processes_of_one_stage(folder, whole):
    first = start(folder, "ingest")
    until(lambda: finished(folder, "ingest") >= 1)
    second = run_stage("ingest", folder)
    assert first.poll() is None and second.returncode == 5
    assert f"already running as PID {first.pid}" in second.stderr and "Traceback" not in second.stderr
    said, _ = first.communicate(timeout=60)
    assert first.returncode == 0 and f"{SHARDS} shards computed, 0 from" in said
    assert digests(folder / "data/small/ingest") == of(whole, "ingest")


@pytest.mark.fault("F6")
@pytest.mark.parametrize(("deaths", "code"), [(1, 0), (99, 5)])
def test_a_worker_dies_in_the_middle_of_a_shard(folder, whole, deaths, code):
    write_params(folder / "params.yaml", folder / "collection", runtime__workers=2)
    path = os.pathsep.join([str(ROOT / "tests/faults/armed"), str(ROOT)])
    env = {"PYTHONPATH": path, "MARK": str(folder / "mark"), "DEATHS": str(deaths)}
    ended = run_stage("ingest", folder, env=env)
    assert ended.returncode == code and "Traceback" not in ended.stderr, ended.stderr
    assert len((folder / "mark").read_text()) >= 1, "a worker did die"
    if code:
        assert "a worker process died twice" in ended.stderr
        assert not list((folder / "data").rglob("*.json"))
        assert run_stage("ingest", folder).returncode == 0
    assert digests(folder / "data/small/ingest") == of(whole, "ingest")


@pytest.mark.fault("F7")
@pytest.mark.graph
def test_locks_that_a_restart_left_behind(tmp_path):
    """The lock files of DVC and of the stages name processes that are gone: nobody has to delete anything."""
    folder = make_checkout(tmp_path / "restarted", images=4)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dvc(folder, "status")
    stale = {"pid": gone.pid, "cmd": "dvc repro ingest"}
    place = str(folder / "data/small/ingest")
    locked = {"write": {place: stale}, "read": {place: [stale], str(folder / "collection"): [stale]}}
    (folder / ".dvc/tmp").mkdir(exist_ok=True)
    (folder / ".dvc/tmp/rwlock").write_text(json.dumps(locked))
    (folder / ".dvc/tmp/lock").write_text(f"                 {gone.pid}\n")
    (folder / ".scratch/small").mkdir(parents=True)
    (folder / ".scratch/small/ingest.lock").write_text(str(gone.pid))
    (folder / ".run").mkdir(exist_ok=True)
    (folder / ".run/flow.lock").write_text(str(gone.pid))
    assert "Running stage 'ingest'" in dvc(folder, "repro", "ingest")
    assert json.loads((folder / ".run/ingest.exit.json").read_text())["code"] == 0
    left = json.loads((folder / ".dvc/tmp/rwlock").read_text() or "{}")
    assert not left.get("write"), "the dead writer is out of DVC's list"


BACKWARDS = """
import time, itertools
ticks = itertools.count()
time.time = lambda: 1e9 - next(ticks) * 3600.0

"""


@pytest.mark.fault("F8")
def test_clocks_and_file_times_that_run_backwards(folder, whole):
    (folder / "clock").mkdir()
    (folder / "clock/sitecustomize.py").write_text(BACKWARDS)
    env = {"PYTHONPATH": os.pathsep.join([str(folder / "clock"), str(ROOT)])}
    for stage in ("ingest", "parse"):
        assert run_stage(stage, folder, env=env).returncode == 0
    assert digests(folder / "data") == whole
    years = [0, 10**9, 4 * 10**9]
    for number, path in enumerate(sorted(folder.rglob("*"))):
        os.utime(path, (years[number % 3], years[number % 3]))
    for stage in ("ingest", "parse"):
        assert f"0 shards computed, {SHARDS} from the scratch store" in run_stage(stage, folder, env=env).stderr
    assert digests(folder / "data") == whole

    # A change that keeps size and time is a change.
    image = folder / "collection/images/000003.png"
    times = (image.stat().st_atime_ns, image.stat().st_mtime_ns)
    data = (folder / "collection/images/000004.png").read_bytes()
    image.write_bytes(data + image.read_bytes()[len(data) :])
    captions = folder / "collection/captions.json"
    before = captions.stat().st_mtime_ns
    captions.write_text(captions.read_text().replace("next to", "touches"))
    for path, at in ((image, times[1]), (captions, before)):
        os.utime(path, ns=(at, at))
    assert "0 shards computed" not in run_stage("ingest", folder, env=env).stderr
    assert digests(folder / "data/small/ingest") != of(whole, "ingest")


def test_what_a_killed_writer_left_is_no_output(folder):
    """Drafts of a killed process in the output folder are cleared by the next run, so that DVC never stores them."""
    in_process("ingest", folder)
    right = digests(folder / "data")
    (folder / "data/small/ingest/images/.0001.parquet.99.tmp").write_bytes(b"half")
    (folder / "data/small/ingest/sidecars/.0001.json.99.tmp").write_bytes(b"half")
    shutil.rmtree(folder / "data/small/ingest/captions")
    in_process("ingest", folder)
    assert digests(folder / "data") == right
