"""DVC over the real dvc.yaml: what is fresh stays, what changed runs, and caches, remotes and experiments work."""

import json
import shutil
import sys

import pytest
from checkout import SHARDED, clone, commit, dvc, make_checkout, run
from small import digests

pytestmark = pytest.mark.graph


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A checkout in which the whole graph has run and is committed."""
    folder = make_checkout(tmp_path_factory.mktemp("graph") / "main")
    dvc(folder, "repro")
    commit(folder, "first run")
    return folder


def ran(said: str) -> list[str]:
    """The stages a `dvc repro` started."""
    return [line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage '")]


def ledger(folder, stage):
    return json.loads((folder / f"metrics/small/{stage}.json").read_text())["ledger"]


def test_the_whole_graph_runs_and_the_page_is_there(done):
    page = (done / "report/index.html").read_text()
    assert "RANDOM WEIGHTS" in page.upper() and len(page) > 5000
    assert ledger(done, "align")["candidate"]["out"] > 20
    assert (done / "data/small/models/mcseo-0/model.safetensors").is_file()
    for stage in SHARDED:
        assert json.loads((done / f".run/{stage}.exit.json").read_text()) == {"code": 0, "message": ""}


def test_a_second_run_does_nothing(done):
    assert "up to date" in dvc(done, "repro")


def test_a_comment_in_a_stages_code_computes_no_shard(done):
    code = done / "stages/detect/stage.py"
    before = code.read_text()
    code.write_text(before + "\n# a remark\n")
    try:
        said = dvc(done, "repro")
        assert ran(said) == ["detect"], "and its output is the same, so nothing after it runs"
        assert "0 shards computed, 4 from the scratch store" in said
    finally:
        code.write_text(before)
        dvc(done, "repro")


@pytest.mark.fault("F58", "F59")
def test_a_threshold_runs_align_and_what_follows_and_setting_it_back_computes_nothing(done):
    params = done / "params.yaml"
    before = params.read_text()
    pages = digests(done / "report")
    params.write_text(before.replace("min_area: 0.002", "min_area: 0.2"))
    assert "min_area: 0.2" in params.read_text()
    try:
        said = dvc(done, "repro")
        assert set(ran(said)) & set(SHARDED) == {"align"}
        assert "train@mcseo-0" in ran(said) and "report" in ran(said)
        assert digests(done / "report") != pages
    finally:
        params.write_text(before)
    said = dvc(done, "repro")
    assert ran(said) == [] and "skipping run" in said
    assert digests(done / "report") == pages


def test_a_second_clone_with_the_same_cache_and_scratch_computes_nothing(done, tmp_path):
    copy = clone(done, tmp_path / "second")
    dvc(copy, "config", "--local", "cache.dir", str(done / ".dvc/cache"))
    (copy / ".scratch").symlink_to(done / ".scratch")
    assert ran(dvc(copy, "repro")) == []
    assert digests(copy / "data") == digests(done / "data")


def test_push_and_pull_bring_everything_and_it_verifies(done, tmp_path):
    dvc(done, "remote", "add", "--local", "-f", "-d", "store", str(tmp_path / "remote"))
    dvc(done, "push")
    copy = clone(done, tmp_path / "pulled")
    dvc(copy, "remote", "add", "--local", "-d", "store", str(tmp_path / "remote"))
    dvc(copy, "pull")
    assert digests(copy / "data") == digests(done / "data")
    assert digests(copy / "report") == digests(done / "report")
    script = (
        "from pathlib import Path; from pipeline.shards import read_all\n"
        "for t in ('align/pairs', 'embed/features'): print(read_all(Path('data/small') / t).num_rows)"
    )
    rows = [int(n) for n in run(copy, sys.executable, "-c", script).stdout.split()]
    assert rows == [64, 48], "32 crops serve 64 pairs"
    assert ran(dvc(copy, "repro")) == []


def test_without_a_cache_the_scratch_store_serves_every_shard(done, tmp_path):
    copy = clone(done, tmp_path / "fresh")
    shutil.copytree(done / ".scratch", copy / ".scratch")
    said = dvc(copy, "repro", "align")
    assert ran(said) == list(SHARDED)
    assert said.count("0 shards computed, 4 from the scratch store") == len(SHARDED)


def test_experiments_metrics_and_plots(done):
    dvc(done, "exp", "run", "-n", "tight", "-S", "align.min_area=0.2")
    try:
        shown = dvc(done, "exp", "show", "--csv")
        assert "tight" in shown and "align.min_area" in shown
        diff = json.loads(dvc(done, "metrics", "diff", "--json"))
        assert any("align.json" in path for path in diff)
        dvc(done, "plots", "diff", "HEAD", "--json")
        assert "min_area" in dvc(done, "params", "diff")
    finally:
        run(done, "git", "checkout", "-q", ".")
        dvc(done, "checkout")
    assert "up to date" in dvc(done, "repro")
