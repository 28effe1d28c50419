"""doctor sees what is amiss and says what to do; it changes nothing and needs no torch of its own."""

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from checkout import checkout_environment
from small import ROOT, digests

from pipeline import doctor, locks, params, whole
from pipeline.process import lock


@pytest.fixture(autouse=True)
def no_server(monkeypatch, tmp_path):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))


@pytest.fixture
def seen(monkeypatch):
    """torch answered without starting it."""
    answer = {"torch": "2.9.9", "cuda": [], "mps": False}

    def run(*_: object, **__: object) -> subprocess.CompletedProcess:
        return subprocess.CompletedProcess([], 0, json.dumps(answer) + "\n", "")

    monkeypatch.setattr(doctor.subprocess, "run", run)
    return answer


def test_a_sound_checkout_has_no_problem(finished):
    """As a person calls it: in a process of its own, torch in another."""
    before = digests(finished)
    code = "import sys; from pipeline import cli; sys.argv = ['p', 'doctor']\n"
    code += "try: cli.main()\nfinally: assert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=finished, env=checkout_environment(finished), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    state = {line[8:28].strip(): line.split()[0] for line in lines[:-1] if not line.startswith(" ")}
    assert lines[-1].startswith("no problem, ")
    assert {*state} >= {"python", "packages", "parameters", "device", "machine", "disk", "cache type", "running"}
    assert state["embed.path"] == state["dvc"] == state["prefect"] == "ok"
    assert "6 stages are fresh" in done.stdout and "vision_random (1 weight file, whole)" in done.stdout
    assert "\x1b" not in done.stdout
    assert digests(finished) == before


def test_every_problem_is_told_at_once_with_exit_5(mine, command, seen):
    params.update(mine / "params.yaml", {"runtime.devices": ["cuda"], "parse.path": "nowhere"})
    weights = mine / "demo/checkpoints/vision_random/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    code, out, err = command(mine, "doctor")
    assert (code, err) == (5, "")
    problems = [line for line in out.splitlines() if line.startswith("problem")]
    assert [line.split()[1] for line in problems] == ["device", "parse.path", "embed.path"]
    assert "cut off or damaged" in out and "nowhere: not there" in out
    assert out.splitlines()[-1].startswith("3 problems")
    assert "stages run" in out or "stage runs" in out, "dvc.lock does not agree any more"


def test_wrong_parameters_do_not_stop_the_other_checks(mine, command, seen):
    file = mine / "params.yaml"
    file.write_text(file.read_text().replace("top_k: 3", "top_k: many"))
    code, out, _ = command(mine, "doctor")
    assert code == 5
    assert "detect.top_k" in out and "disk" in out and "device" in out


def test_packages_are_held_against_lock_and_ranges(tmp_path):
    lock_file, ranges = tmp_path / "requirements.lock", tmp_path / "requirements.txt"
    ranges.write_text("numpy>=1  # a remark\n")

    def check(text: str) -> doctor.Check:
        lock_file.write_text(text)
        return doctor.packages(lock_file, ranges)

    here = doctor._installed("numpy")
    assert check(f"numpy=={here}\nnot-here==1 ; python_version < '3'\n").state == doctor.OK
    missing = check(f"numpy=={here}\nno-such-package==1.0\n")
    assert (missing.state, missing.found) == (doctor.PROBLEM, "missing: no-such-package")
    other = check("numpy==1.0\n")
    assert other.state == doctor.NOTE and f"numpy {here} (1.0)" in other.found
    ranges.write_text("numpy<1\n")
    assert check("numpy==1.0\n").state == doctor.PROBLEM
    assert doctor.packages(tmp_path / "none", ranges).state == doctor.PROBLEM


def test_the_lock_that_ships_can_be_read():
    names = {requirement.name for requirement in doctor._requirements(ROOT / "requirements.lock")}
    assert {"torch", "pyarrow", "dvc", "prefect"} <= names and len(names) > 100


def test_the_device_is_what_torch_sees(seen):
    assert doctor.device(["auto"]).found == "torch 2.9.9: cpu (runtime.devices: auto)"
    assert doctor.device(["cuda:0"]).state == doctor.device(["cpu", "mps"]).state == doctor.PROBLEM
    assert "runtime.devices" in doctor.device(["mps"]).todo
    seen["cuda"] = [{"name": "Card 1", "memory": 80 * 2**30}, {"name": "Card 2", "memory": 40 * 2**30}]
    both = doctor.device(["cuda:0", "cuda:1"])
    assert both.state == doctor.device(["cuda"]).state == doctor.OK
    assert both.found == "torch 2.9.9: Card 1, 80 GiB; Card 2, 40 GiB (runtime.devices: cuda:0, cuda:1)"
    third = doctor.device(["cuda:0", "cuda:2"])
    assert third.state == doctor.PROBLEM and third.found.endswith("; not here: cuda:2")


def test_weights_that_are_not_here_name_the_command_that_gets_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (check,) = [doctor._path("segment.path", Path("weights/sam-vit-base"), True)]
    assert check.state == doctor.PROBLEM and "`python -m pipeline weights get sam-vit-base` fetches it" in check.todo
    assert "weights list` shows what can be fetched" in doctor._path("segment.path", Path("weights/mine"), True).todo


def test_weights_are_looked_through(tmp_path):
    source = ROOT / "demo/checkpoints/stanza_en"
    folder = Path(shutil.copytree(source, tmp_path / "stanza"))
    assert whole.fault(folder) == (None, "4 weight files, whole, hashes as in manifest.json")
    raw = bytearray((folder / "pos.pt").read_bytes())
    raw[1000] ^= 1
    (folder / "pos.pt").write_bytes(raw)
    assert "sha256 differs" in whole.fault(folder)[0]
    (folder / "manifest.json").unlink()
    (folder / "pos.pt").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert "git lfs pull" in whole.fault(folder)[0]
    (folder / "pos.pt").write_bytes(b"")
    assert "cut off" in whole.fault(folder)[0]

    vision = Path(shutil.copytree(ROOT / "demo/checkpoints/vision_random", tmp_path / "vision"))
    assert whole.fault(vision) == (None, "1 weight file, whole")
    tensors = (vision / "model.safetensors").read_bytes()
    for bad in (tensors[:-1], tensors[:4], b"", tensors + b"x", b"\xff" * 100):
        (vision / "model.safetensors").write_bytes(bad)
        assert whole.fault(vision)[0]
    (vision / "model.safetensors").write_bytes(tensors)
    (vision / "config.json").write_text("{")
    assert "config.json" in whole.fault(vision)[0]


def test_a_damaged_archive_of_torch_is_found(tmp_path):
    import torch

    torch.save({"weight": torch.zeros(1000)}, tmp_path / "model.pt")
    assert whole.fault(tmp_path) == (None, "1 weight file, whole")
    raw = bytearray((tmp_path / "model.pt").read_bytes())
    raw[len(raw) // 2] ^= 1
    (tmp_path / "model.pt").write_bytes(raw)
    assert "damaged" in whole.fault(tmp_path)[0]


def test_links_are_tried_not_assumed(tmp_path, monkeypatch):
    from dvc_objects.fs import system

    def refuse(*_: object) -> None:
        raise OSError(95, "not supported")

    monkeypatch.setattr(system, "reflink", refuse)
    allowed = ["reflink", "hardlink", "copy"]
    assert "here hardlink is used" in doctor.links(tmp_path / "data", tmp_path / "cache", allowed).found
    monkeypatch.setattr(system, "hardlink", refuse)
    last = doctor.links(tmp_path / "data", tmp_path / "cache", allowed)
    assert (last.state, "here copy is used" in last.found) == (doctor.NOTE, True)
    assert doctor.links(tmp_path / "data", tmp_path / "cache", ["reflink"]).state == doctor.PROBLEM
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_little_space_and_several_file_systems_are_told(tmp_path, monkeypatch):
    free = {"n": 100 << 30}
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: type("Usage", (), {"free": free["n"]}))
    places = tmp_path / "data", tmp_path / "scratch", tmp_path / "cache"
    assert [check.state for check in doctor.disk(*places)] == [doctor.OK]
    free["n"] = 5 << 30
    assert [check.state for check in doctor.disk(*places)] == [doctor.NOTE]
    free["n"] = 1 << 20
    assert [check.state for check in doctor.disk(*places)] == [doctor.PROBLEM]
    if (shm := Path("/dev/shm")).is_dir() and shm.stat().st_dev != tmp_path.stat().st_dev:
        checks = list(doctor.disk(places[0], shm, places[2]))
        assert len(checks) == 3 and "different file systems" in checks[-1].found


def test_a_run_at_work_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scratch = Path("scratch")
    assert doctor.locks(scratch).found == "nothing runs here"
    with lock(scratch / "embed.lock", "embed"), lock(locks._RUN, "run"):
        assert locks.running(scratch) == {"embed": os.getpid(), "run": os.getpid()}
        assert f"embed (PID {os.getpid()})" in doctor.locks(scratch).found
    assert locks.running(scratch) == {}, "the file is still there, its holder is not"


class Server(http.server.BaseHTTPRequestHandler):
    pools = "[]"

    def do_GET(self) -> None:
        self._say("true")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._say(self.pools)

    def _say(self, body: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


def test_prefects_server_is_asked(monkeypatch):
    assert doctor.prefect().state == doctor.OK and "no server is set" in doctor.prefect().found
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{server.server_port}/api")
        none = doctor.prefect()
        assert (none.state, "work-pool create local" in none.todo) == (doctor.NOTE, True)
        monkeypatch.setattr(Server, "pools", '[{"name": "local"}]')
        assert doctor.prefect().state == doctor.OK
        server.shutdown()
    away = doctor.prefect()
    assert (away.state, "does not answer" in away.found) == (doctor.NOTE, True)


def test_outside_a_project_it_says_so(tmp_path, command, seen):
    code, out, _ = command(tmp_path, "doctor")
    assert code == 5
    assert "no such parameter file" in out and "no requirements.lock here" in out
