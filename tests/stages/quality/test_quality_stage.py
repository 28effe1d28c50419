"""The stage as a process: its files, its exits, its lock."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML
from small import ROOT, digests, in_process, make_collection, run_stage, write_params

from pipeline import params, process
from stages.common import cases
from stages.quality.measure import STAGES

BEFORE = ("ingest", "parse", "detect", "segment", "embed", "align")


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A small collection of which every stage up to align has run; its phrases and boxes are gold's own."""
    folder = tmp_path_factory.mktemp("ran")
    make_collection(folder / "collection", 24)
    encoder = str(ROOT / "demo/checkpoints/vision_random")
    write_params(folder / "params.yaml", folder / "collection", embed__path=encoder)
    for stage in BEFORE:
        in_process(stage, folder)
    return folder


@pytest.fixture
def done(ran, tmp_path):
    """A copy of it, to work in and to damage."""
    return shutil.copytree(ran, tmp_path / "done")


def set_gold(folder, path):
    params.update(folder / "params.yaml", {"quality.gold_path": str(path)})


def bodies(folder):
    return {stage: json.loads((folder / f"metrics/small/quality/{stage}.json").read_text()) for stage in STAGES}


def test_without_gold_it_ends_well_and_says_so(done):
    set_gold(done, ROOT / "presets/no_gold.json")
    result = run_stage("quality", done)
    assert result.returncode == 0, result.stderr
    assert "no gold" in result.stderr and "nothing is measured" in result.stderr
    assert json.loads((done / ".run/quality.exit.json").read_text()) == {"code": 0, "message": ""}
    for stage, body in bodies(done).items():
        assert body["gold"] is None and set(body["all"]) == set(STAGES[stage])
        assert set(body["all"].values()) == {None}
        assert set(body["missing"].values()) == {"no gold: quality.gold_path is an empty file"}
    assert cases.read(done / "data/small/quality/cases.parquet") == {}


def test_two_kinds_of_gold_over_one_collection(done):
    """Marked captions say what phrases there are, instances where they are; each says nothing of the other."""
    set_gold(done, done / "collection/marked.txt")
    result = run_stage("quality", done)
    assert result.returncode == 0, result.stderr
    found = bodies(done)
    assert (found["parse"]["all"]["f1"], found["parse"]["all"]["gold"]) == (1.0, 96)
    assert set(found["parse"]["by"]["kind"]) == {"not located", "other"}
    assert found["detect"]["all"]["accuracy"] is None
    assert found["detect"]["missing"]["accuracy"] == "the gold has no boxes of phrases"
    assert found["align"]["all"]["precision"] is None and found["align"]["all"]["unjudged"] > 50
    set_gold(done, done / "collection/instances.json")
    assert run_stage("quality", done).returncode == 0
    found = bodies(done)
    assert found["parse"]["missing"]["f1"] == "the gold does not mark phrases of captions"
    assert found["detect"]["all"]["accuracy"] == found["segment"]["all"]["mean_iou"] == 1.0
    assert found["align"]["all"]["precision"] == 1.0 and found["align"]["all"]["judged"] > 50
    before = digests(done / "data/small/quality") | digests(done / "metrics/small/quality")
    assert run_stage("quality", done).returncode == 0
    assert digests(done / "data/small/quality") | digests(done / "metrics/small/quality") == before


def test_mistakes_end_in_one_line_and_the_right_exit(done):
    set_gold(done, done / "nowhere")
    result = run_stage("quality", done)
    assert result.returncode == 3 and "no gold here; quality.gold_path is a folder" in result.stderr
    set_gold(done, done / "collection/instances.json")
    with process.lock(done / ".scratch/small/quality.lock", "a test"):
        result = run_stage("quality", done)
    assert result.returncode == 5 and "stage quality is already running as PID" in result.stderr
    damaged = next((done / "data/small/segment/masks").glob("*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:-9] + b"123456789")
    result = run_stage("quality", done)
    assert result.returncode == 3 and str(damaged.name) in result.stderr and "Traceback" not in result.stderr


def test_gold_of_another_collection_is_told(done):
    (done / "marked.txt").write_text("[/EN#1/people A man] is not here .\n")
    set_gold(done, done / "marked.txt")
    result = run_stage("quality", done)
    assert result.returncode == 0 and "none of 48 captions has gold" in result.stderr
    assert bodies(done)["align"]["captions"] == {"with_gold": 0, "without": 48}


def test_cases_are_one_file_that_says_what_it_is(done):
    set_gold(done, ROOT / "presets/no_gold.json")
    run_stage("quality", done)
    file = done / "data/small/quality/cases.parquet"
    assert pq.ParquetFile(file).schema_arrow.equals(cases.SCHEMA)
    file.write_bytes(b"x")
    with pytest.raises(Exception, match="no cases here.*run `dvc repro quality`"):
        cases.read(file)


def test_gold_is_seen_by_quality_alone():
    """Its stage depends on all that it reads; no stage that finds something depends on gold."""
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
    read = {f"data/${{dataset}}/{name}" for name in ("ingest/images", "ingest/captions", "parse", "detect", "segment")}
    code = {"stages/common", "pipeline/tables.py", "requirements.lock", "data/${dataset}/align"}
    assert read | code | {"${quality.gold_path}"} <= set(stages["quality"]["deps"])
    assert {"dataset", "quality", "detect.synonyms"} == set(stages["quality"]["params"])
    for name, declared in stages.items():
        assert name == "quality" or not any("gold" in dep for dep in declared["deps"]), name
