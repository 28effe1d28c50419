"""The command line: every mistake ends in lines a person can act on and the right exit code; nothing is lost."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from small import ROOT

from pipeline import cli, params, presets

PARAMS = Path("params.yaml")


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Runs a command line in a folder with the default params.yaml; gives its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    PARAMS.write_text((presets.FOLDER / "demo.yaml").read_text())

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(list(arguments))
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return ended.value.code or 0, said.out, said.err

    return run


def test_the_committed_parameters_are_the_default_preset():
    """As committed, so that a person's own params.yaml does not fail the tests; as they lie there outside of git."""

    names = ("params.yaml", "presets/demo.yaml")
    shown = [subprocess.run(["git", "show", f"HEAD:{n}"], cwd=ROOT, capture_output=True, check=False) for n in names]
    if any(done.returncode for done in shown):
        assert (ROOT / names[0]).read_text() == (ROOT / names[1]).read_text()
    else:
        assert shown[0].stdout == shown[1].stdout


def test_set_changes_one_line_and_keeps_comments(call):
    before = PARAMS.read_text().splitlines()
    code, out, _ = call("set", "align.min_score=0.5")
    assert (code, out) == (0, "align.min_score = 0.5\n")
    after = PARAMS.read_text().splitlines()
    assert [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]] == [
        ("  min_score: 0.3", "  min_score: 0.5")
    ]


def test_all_mistakes_are_told_at_once_and_nothing_is_written(call):
    before = PARAMS.read_text()
    code, _, err = call("set", "align.min_score=7", "train.epochs=x", "detect.backend=yolo")
    assert code == 2
    assert "3 mistakes" in err
    for name in ("align.min_score", "train.epochs", "detect.backend"):
        assert f"  {name}: " in err
    assert call("set", "align.min_scor=0.5")[2].count("did you mean align.min_score?") == 1
    assert call("set", "align.min_score")[0] == 2
    assert PARAMS.read_text() == before


@pytest.mark.parametrize("command", [["plan"], ["run"], ["run", "--set", "align.tie=9"]])
def test_wrong_parameters_stop_every_command_before_anything_starts(call, command):
    PARAMS.write_text(PARAMS.read_text().replace("top_k: 3", "top_k: many"))
    code, _, err = call(*command)
    assert code == 2
    assert "detect.top_k: " in err


def test_outside_a_project_the_plan_says_so(call):
    code, _, err = call("plan")
    assert code == 3
    assert err.startswith("no DVC project here")


def test_presets_are_valid_and_name_every_parameter(tmp_path):
    named = {"data_root": "/c", "minilm": "/m"}
    for name in presets.names():
        text = re.sub(r"\{(data_root|minilm)\}", lambda m: named[m[1]], (presets.FOLDER / f"{name}.yaml").read_text())
        file = tmp_path / f"{name}.yaml"
        file.write_text(text)
        checked = params.load(file).model_dump()
        given = YAML(typ="safe").load(text)
        # What is left to a default is in the fingerprint but not seen by DVC.
        for section, values in checked.items():
            assert values == given[section], section


def test_coco_preset_knows_all_categories_and_no_word_twice():
    section = YAML(typ="safe").load((presets.FOLDER / "coco.yaml").read_text())["detect"]["synonyms"]
    assert len(section) == 80
    words = [*section, *(word for listed in section.values() for word in listed)]
    assert len(words) == len(set(words))
    assert all(word == word.lower().strip() for word in words)


def test_a_preset_is_filled_in_and_can_be_overridden(call, tmp_path):
    root = tmp_path / 'my "photos"'
    root.mkdir()
    code, out, _ = call("preset", "coco", "--data-root", str(root), "--set", "ingest.shards=3")
    assert code == 0
    assert "its artifacts go to data/coco/" in out
    made = params.load(PARAMS)
    assert (made.ingest.path, made.detect.path) == (str(root), f"{root}/annotations")
    assert made.ingest.shards == 3
    assert (Path(made.train.path) / "config.json").is_file()
    assert "# RANDOM WEIGHTS" in PARAMS.read_text()


def test_a_preset_needs_what_it_names(call, tmp_path, monkeypatch):
    before = PARAMS.read_text()
    assert call("preset", "coco")[::2] == (2, "preset coco needs the collection's folder: add --data-root DIR\n")
    assert call("preset", "coco", "--data-root", "/nowhere")[0] == 3
    code, _, err = call("preset", "coca")
    assert (code, err) == (2, f"'coca': no such preset; there are {', '.join(presets.names())}\n")
    code, _, err = call("preset", "demo", "--set", "align.min_score=high")
    assert code == 2
    assert err.startswith("presets/demo.yaml: 1 mistake")
    monkeypatch.setattr(presets.importlib.util, "find_spec", lambda name: None)
    code, _, err = call("preset", "coco", "--data-root", str(tmp_path))
    assert code == 3
    assert "requirements-dev.txt" in err
    assert PARAMS.read_text() == before


def test_an_edited_file_is_refused_then_kept(call, tmp_path):
    call("set", "align.min_score=0.5")
    edited = PARAMS.read_text()
    code, _, err = call("preset", "demo")
    assert code == 2
    assert "has been edited" in err
    assert PARAMS.read_text() == edited
    code, out, _ = call("preset", "demo", "--force")
    assert code == 0
    assert "kept as params.yaml.bak" in out
    assert Path("params.yaml.bak").read_text() == edited
    assert PARAMS.read_text() == (presets.FOLDER / "demo.yaml").read_text()


def test_switching_between_unedited_presets_asks_nothing_and_leaves_no_litter(call, tmp_path):
    for arguments in (
        ["coco", "--data-root", str(tmp_path)],
        ["demo"],
        ["coco", "--data-root", str(tmp_path)],
        ["demo"],
    ):
        assert call("preset", *arguments)[0] == 0
    assert PARAMS.read_text() == (presets.FOLDER / "demo.yaml").read_text()
    assert not list(tmp_path.glob("params.yaml.bak*"))


def test_the_list_of_presets_says_what_each_is(call):
    code, out, _ = call("preset", "--list")
    assert code == 0
    assert "demo" in out
    assert "--data-root" in out


STAGE = """
import os, sys, time
from pathlib import Path
from pipeline import files, process
from pipeline.errors import RejectError

def body():
    if os.environ.get("ASKED") == "fail":
        raise RejectError("3 of 4 images rejected")
    if os.environ.get("ASKED") == "sleep":
        Path("asleep.pid").write_text(str(os.getpid()))
        time.sleep(60)
    files.write_text(Path("report/index.html"), "a page")

process.run("report", body)
"""


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A checkout whose graph is one stage, which does as ASKED."""
    (tmp_path / "params.yaml").write_text((presets.FOLDER / "demo.yaml").read_text())
    (tmp_path / "stages" / "report").mkdir(parents=True)
    (tmp_path / "stages" / "report" / "__main__.py").write_text(STAGE)
    graph = {"report": {"cmd": "python -m stages.report", "params": ["report"], "outs": ["report/index.html"]}}
    (tmp_path / "dvc.yaml").write_text(json.dumps({"stages": graph}))
    (tmp_path / "pipeline").symlink_to(ROOT / "pipeline")
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=tmp_path, check=True, timeout=120)
    with (tmp_path / ".dvc" / "config").open("a") as config:
        config.write((ROOT / ".dvc" / "config").read_text().replace("[core]\n", ""))
    return tmp_path


def pipeline(checkout: Path, *arguments: str, asked: str = "") -> subprocess.Popen:
    """`python -m pipeline` where no environment is activated: PATH leads to none of its programs."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", *arguments],
        cwd=checkout,
        env={**os.environ, "ASKED": asked, "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_run_brings_the_graph_up_to_date_and_names_the_page(checkout):
    ran = pipeline(checkout, "run", "--set", "report.gallery=5")
    out, err = ran.communicate(timeout=120)
    assert ran.returncode == 0, out + err
    assert out.splitlines()[-1] == f"done; open {checkout / 'report' / 'index.html'}"
    assert "gallery: 5" in (checkout / "params.yaml").read_text()
    planned = pipeline(checkout, "plan", "--json")
    assert json.loads(planned.communicate(timeout=120)[0])["counts"] == {
        "runs": 0, "may run": 0, "restored": 0, "fresh": 1
    }  # fmt: skip


def test_run_ends_with_the_code_that_the_failed_stage_told(checkout):
    ran = pipeline(checkout, "run", asked="fail")
    out, err = ran.communicate(timeout=120)
    assert ran.returncode == 4
    assert "report: 3 of 4 images rejected" in err
    assert err.splitlines()[-1].startswith("stopped at report (exit 4)")
    assert "Traceback" not in out + err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_ending_run_ends_the_stage(checkout, number):
    ran = pipeline(checkout, "run", asked="sleep")
    asleep = checkout / "asleep.pid"
    _until(lambda: asleep.exists() and asleep.read_text())
    stage = int(asleep.read_text())
    second = pipeline(checkout, "run")
    _, err = second.communicate(timeout=60)
    assert second.returncode == 5
    assert f"already running as PID {ran.pid}" in err
    ran.send_signal(number)
    assert ran.wait(timeout=60) == (130 if number == signal.SIGINT else -signal.SIGKILL)
    _until(lambda: not _alive(stage))
    assert pipeline(checkout, "run").wait(timeout=120) == 0


def _until(holds, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be reaped does not."""
    listed = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], text=True, capture_output=True, check=False).stdout
    return bool(listed.strip()) and not listed.strip().startswith("Z")
