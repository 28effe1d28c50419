"""The runner with stages that run on devices: the disk beside the device, a worker a device, and how fast it went."""

import json
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from small import ROOT, digests, in_process

from pipeline import entry, runner
from pipeline.errors import InputError, ResourceError

SPEED = {"what": "images", "images": 12, "busy_s": 1.0, "wall_s": 2.0, "warm_up_s": 0.5, "flop": 3.0,
         "able_flop": 12.0, "peak_bytes": 1 << 30}  # fmt: skip
WAIT = 60


@pytest.fixture
def done(small, monkeypatch) -> Path:
    """The small collection up to phrases, and what detect makes of it as a stage without a device."""
    for stage in ("ingest", "parse", "detect"):
        in_process(stage, small)
    monkeypatch.chdir(small)
    shutil.move("data/small/detect", "right")
    shutil.rmtree(".scratch/small/detect")
    return small


def detect(*devices: str, process=None) -> runner.Stage:
    stage = runner.load_stage("detect")
    return replace(stage, devices=lambda context: list(devices), process=process or stage.process)


def run(stage: runner.Stage) -> None:
    arguments = entry.parser("detect", stage.reads, "").parse_args([])
    runner.run_stage(stage, entry.context("detect", stage.reads, arguments))


def made() -> dict[str, str]:
    return digests(Path("data/small/detect"))


def test_the_worker_is_opened_once_on_the_first_of_its_devices(done):
    opened = []
    stage = detect("cuda:5")
    run(replace(stage, open=lambda context: opened.append(context.device) or stage.open(context)))
    assert opened == ["cuda:5"] and made() == digests(Path("right"))
    run(replace(stage, devices=lambda context: pytest.fail("nothing is left to do, so no device is looked for")))


def test_a_shard_is_written_and_the_next_one_read_while_another_is_computed(done, monkeypatch):
    computing = [threading.Event() for _ in range(4)]
    stored = [threading.Event() for _ in range(4)]
    put, read = runner._put, runner._read
    reading = []

    def process(worker, task, inputs):
        computing[task.shard].set()
        if task.shard:
            assert stored[task.shard - 1].wait(WAIT), "the shard before is written meanwhile"
        return detect().process(worker, task, inputs)

    def slow_put(stage, context, fingerprint, shard):
        number = shard.speed["shard"]
        if number < 3:
            assert computing[number + 1].wait(WAIT), "the next shard is computed meanwhile"
        record = put(stage, context, fingerprint, shard)
        stored[number].set()
        return record

    def noted_read(stage, context, task):
        reading.append((task.shard, computing[max(task.shard - 1, 0)].is_set()))
        return read(stage, context, task)

    def numbered(worker, task, inputs):
        return replace_speed(process(worker, task, inputs), {**SPEED, "shard": task.shard})

    monkeypatch.setattr(runner, "_put", slow_put)
    monkeypatch.setattr(runner, "_read", noted_read)
    run(detect("cpu", process=numbered))
    assert [shard for shard, _ in reading] == [0, 1, 2, 3], "each is read once, in order"
    assert made() == digests(Path("right"))


def replace_speed(output: runner.Output, speed: dict) -> runner.Output:
    output.speed = speed
    return output


def test_speed_is_in_the_last_line_and_in_no_file(done, capsys):
    def process(worker, task, inputs):
        return replace_speed(detect().process(worker, task, inputs), SPEED)

    run(detect("cpu", process=process))
    last = capsys.readouterr().err.splitlines()[-1]
    assert "detect: 4 shards computed, 0 from the scratch store" in last and last.endswith("-> data/small/detect")
    assert "; 6.0 images/s, device busy 50 %, MFU 25 %, peak memory 1.0 GiB, warm-up 2.0 s -> " in last
    for file in (
        *Path("data/small/detect").rglob("*.json"),
        *Path(".scratch").rglob("*.json"),
        *Path("metrics").rglob("*.json"),
    ):
        assert not {"speed", "busy_s", "worker"} & set(json.loads(file.read_text())), file
    assert made() == digests(Path("right"))
    run(detect("cpu"))
    assert "images/s" not in capsys.readouterr().err.splitlines()[-1], "where nothing is computed nothing is fast"


def test_an_error_in_the_middle_keeps_what_was_computed_before(done):
    def process(worker, task, inputs):
        if task.shard == 2:
            raise InputError("shard 2 is bad")
        return detect().process(worker, task, inputs)

    with pytest.raises(InputError, match="shard 2 is bad"):
        run(detect("cpu", process=process))
    assert len(list(Path(".scratch/small/detect").glob("*.json"))) == 2, "shard 1 too, whose write was under way"
    assert not list(Path(".scratch").rglob(".draft-*"))
    run(detect("cpu"))
    assert made() == digests(Path("right"))


def test_a_full_disk_beside_the_device_ends_the_stage(done, monkeypatch):
    put, calls = runner._put, []

    def full(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise ResourceError("no space left on the disk")
        return put(*arguments)

    monkeypatch.setattr(runner, "_put", full)
    with pytest.raises(ResourceError, match="no space"):
        run(detect("cpu"))
    assert len(calls) == 2 and len(list(Path(".scratch/small/detect").glob("*.json"))) == 1


NOTING = """
import os, sys
if "--multiprocessing-fork" in sys.argv:
    from dataclasses import replace
    from pathlib import Path
    from pipeline import runner
    from pipeline.shards import Store

    load, put, deaths = runner.load_stage, Store.put, Path(os.environ["DEATHS"])

    def noting(name):
        stage = load(name)
        def open_(context):
            with open(os.environ["NOTED"], "a") as noted:
                noted.write(f"{context.device} {os.getpid()}\\n")
            if context.device == "wrong":
                from pipeline.errors import InputError
                raise InputError("the weights are wrong")
            return stage.open(context)
        return replace(stage, open=open_)

    def dying(self, *args):
        if deaths.exists():
            deaths.unlink()
            os.kill(os.getpid(), 9)
        return put(self, *args)

    runner.load_stage, Store.put = noting, dying
"""


@pytest.fixture
def noted(done, monkeypatch):
    """Runs detect on devices, each in a process of its own; returns the (device, process) of every worker opened."""
    (done / "site").mkdir()
    (done / "site/sitecustomize.py").write_text(NOTING)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(done / "site"), str(ROOT)]))
    monkeypatch.setenv("NOTED", str(done / "noted"))
    monkeypatch.setenv("DEATHS", str(done / "deaths"))

    def workers(*devices: str) -> list[list[str]]:
        run(detect(*devices))
        return [line.split() for line in (done / "noted").read_text().splitlines()]

    return workers


def test_every_worker_has_a_device_of_its_own(noted):
    opened = noted("first", "second")
    assert sorted(device for device, _ in opened) == ["first", "second"]
    assert len({process for _, process in opened}) == 2
    assert made() == digests(Path("right"))


def test_there_are_no_more_workers_than_shards(noted):
    opened = noted(*(f"device{number}" for number in range(9)))
    assert {device for device, _ in opened} <= {f"device{number}" for number in range(4)}
    assert made() == digests(Path("right"))


@pytest.mark.fault("F6")
def test_a_worker_that_comes_back_gets_a_device_again(noted, done):
    (done / "deaths").touch()
    opened = noted("first", "second")
    assert not (done / "deaths").exists(), "one did die"
    assert {device for device, _ in opened} == {"first", "second"} and len(opened) > 2
    assert made() == digests(Path("right"))


def test_what_is_wrong_with_a_model_is_told_by_its_workers(noted, capfd):
    with pytest.raises(InputError, match="^the weights are wrong$"):
        noted("wrong", "wrong")
    assert "Traceback" not in capfd.readouterr().err
