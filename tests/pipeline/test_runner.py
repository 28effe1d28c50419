"""The runner over real stages: resume, workers, ledger, exit codes; on a small collection, in processes of their
own.
"""

import json
import shutil

import pytest
from small import digests, environment, in_process, make_collection, run_stage, write_params

from pipeline import ledger, runner, tables
from pipeline.errors import InputError
from pipeline.process import read_exit

CHAIN = ("ingest", "parse", "detect", "segment")


def run_chain(folder, stages=CHAIN):
    return {name: in_process(name, folder) for name in stages}


def metrics(folder, stage):
    return json.loads((folder / "metrics/small" / f"{stage}.json").read_text())


@pytest.fixture
def done(small):
    run_chain(small)
    return small


def test_the_ledger_adds_up_at_every_stage(done):
    for stage in CHAIN:
        for unit, counts in metrics(done, stage)["ledger"].items():
            assert counts["in"] == counts["out"] + sum(counts["dropped"].values()) + sum(counts["rejected"].values()), (
                unit
            )
    assert metrics(done, "ingest")["ledger"]["image"] == {"in": 24, "out": 24, "dropped": {}, "rejected": {}}
    assert metrics(done, "detect")["ledger"]["phrase"]["out"] == 96


def test_a_second_run_takes_every_shard_from_the_store_and_writes_the_same_bytes(done):
    before = digests(done / "data")
    shutil.rmtree(done / "data/small/detect")
    said = in_process("detect", done)
    assert "0 shards computed, 4 from the scratch store" in said
    assert digests(done / "data") == before


def test_bytes_do_not_depend_on_workers_or_order(done, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    write_params(other / "params.yaml", done / "collection", runtime__workers=2, runtime__batch_rows=5)
    run_chain(other)
    assert digests(other / "data") == digests(done / "data")


def test_a_grown_collection_recomputes_only_the_shards_its_images_fall_in(done):
    write_params(done / "params.yaml", done / "collection", ingest__shards=64)
    run_chain(done)
    before = digests(done / "data")
    make_collection(done / "collection", 10, first=1000)
    results = run_chain(done)
    after = digests(done / "data")
    for stage in ("ingest", "detect", "segment"):
        computed = int(results[stage].split(" shards computed")[0].split()[-1])
        assert 1 <= computed <= 10, (stage, computed)
    for table in ("ingest/images", "parse/phrases", "detect/boxes", "segment/masks"):
        changed = [n for n in before if n.startswith(f"small/{table}/") and before[n] != after[n]]
        assert len(changed) <= 10, table


@pytest.mark.fault("F59")
def test_a_parameter_set_back_costs_nothing(done):
    first = digests(done / "data/small/detect")
    write_params(done / "params.yaml", done / "collection", detect__top_k=1)
    assert "4 shards computed" in in_process("detect", done)
    assert digests(done / "data/small/detect") != first
    write_params(done / "params.yaml", done / "collection")
    assert "0 shards computed, 4 from" in in_process("detect", done)
    assert digests(done / "data/small/detect") == first


def test_runtime_and_the_place_of_a_path_are_in_no_fingerprint(done):
    moved = done / "elsewhere"
    shutil.copytree(done / "collection", moved)
    write_params(done / "params.yaml", moved, runtime__batch_rows=3, runtime__threads=2)
    for stage in CHAIN:
        assert "0 shards computed" in in_process(stage, done), stage


@pytest.mark.fault("F11")
def test_a_damaged_input_is_refused_with_one_line_and_exit_3(done):
    shard = next((done / "data/small/parse/phrases").glob("*.parquet"))
    shard.chmod(0o644)
    shard.write_bytes(shard.read_bytes()[:-30])
    result = run_stage("detect", done)
    assert result.returncode == 3 and "damaged" in result.stderr and "Traceback" not in result.stderr
    told = json.loads((done / ".run/detect.exit.json").read_text())
    assert told["code"] == 3 and str(shard.name) in told["message"]


def test_shards_of_another_cut_are_refused(done):
    write_params(done / "params.yaml", done / "collection", ingest__shards=3)
    in_process("ingest", done)
    assert sorted(p.name for p in (done / "data/small/ingest/images").iterdir()) == [
        f"{i:04d}.parquet" for i in range(3)
    ]
    result = run_stage("detect", done)
    assert result.returncode == 3 and "different runs" in result.stderr


@pytest.mark.fault("F6")
def test_a_worker_that_dies_is_replaced_once_then_the_stage_says_so(done):
    shutil.rmtree(done / ".scratch/small/detect")
    write_params(done / "params.yaml", done / "collection", runtime__workers=2)
    dying = done / "sitecustomize.py"
    dying.write_text(
        "import os, pathlib, sys\n"
        "if '--multiprocessing-fork' in sys.argv:\n"
        "    mark = pathlib.Path(os.environ['MARK'])\n"
        "    count = int(mark.read_text()) if mark.exists() else 0\n"
        "    mark.write_text(str(count + 1))\n"
        "    if count < int(os.environ['DEATHS']): os._exit(9)\n"
    )
    path = f"{done}:{environment()['PYTHONPATH']}"
    result = run_stage("detect", done, env={"PYTHONPATH": path, "MARK": str(done / "mark1"), "DEATHS": "1"})
    assert result.returncode == 0, result.stderr
    shutil.rmtree(done / ".scratch/small/detect")
    result = run_stage("detect", done, env={"PYTHONPATH": path, "MARK": str(done / "mark2"), "DEATHS": "99"})
    assert result.returncode == 5 and "worker process died twice" in result.stderr


def test_a_ledger_that_does_not_add_up_stops_the_stage():
    units = runner.load_stage("detect").units
    with pytest.raises(InputError, match="does not add up"):
        ledger.count(units, {"phrase": 3}, {name: tables.build(name, []) for name in ("boxes", "drops")})


@pytest.mark.fault("F10")
def test_unwritable_scratch_gives_exit_5(small):
    (small / "blocked").write_text("a file where a folder should be")
    write_params(small / "params.yaml", small / "collection", runtime__scratch=str(small / "blocked" / "scratch"))
    result = run_stage("ingest", small)
    assert result.returncode == 5 and "Traceback" not in result.stderr


def test_exit_files_that_are_not_what_they_should_be_do_not_count(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".run").mkdir()
    assert read_exit("detect") is None
    for text in ("", "[]", '{"code": "75"}', "{"):
        (tmp_path / ".run/detect.exit.json").write_text(text)
        assert read_exit("detect") is None
    (tmp_path / ".run/detect.exit.json").write_text('{"code": 75, "message": "x"}')
    assert read_exit("detect")["code"] == 75
