"""Another dvc.yaml of the checkout (the experiment's) is not the project's graph."""

import subprocess
from pathlib import Path

from checkout import make_checkout
from dvc.repo import Repo

from pipeline.graph import Graph

OTHER = """stages:
  apart:
    cmd: python -c pass
    deps: [../collection]
    outs: [made.txt]
"""


def test_the_graph_holds_the_stages_of_the_root_alone(tmp_path, monkeypatch):
    folder = make_checkout(tmp_path / "checkout")
    monkeypatch.chdir(folder)
    before = Graph().order()
    (folder / "apart").mkdir()
    (folder / "apart" / "dvc.yaml").write_text(OTHER)
    graph = Graph()
    assert any(Path(stage.path).parent.name == "apart" for stage in graph.repo.index.stages), "DVC itself sees it"
    assert graph.order() == before
    assert not any("made.txt" in place for place, _, _ in graph.by_path)


def test_an_input_that_dvc_tracks_by_itself_is_no_stage_of_the_plan(tmp_path, monkeypatch):
    folder = make_checkout(tmp_path / "checkout")
    monkeypatch.chdir(folder)
    before = Graph().plan()
    subprocess.run(["git", "rm", "-rq", "--cached", "collection"], check=True)
    with Repo(folder) as repo:
        repo.add("collection")
    assert (folder / "collection.dvc").is_file()
    after = Graph().plan()
    assert [(step.stage, step.state) for step in after] == [(step.stage, step.state) for step in before]
