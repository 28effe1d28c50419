"""The flow against a real Prefect server on loopback: deployed, run by a process worker, retried, killed, run again.

The checkout is small (three stages that copy a file); flow, deployment file, DVC and parameters are the project's own.
"""

import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PREFECT = [sys.executable, "-P", "-m", "prefect"]
pytestmark = [pytest.mark.server, pytest.mark.timeout(300)]

GRAPH = """
stages:
  ingest:
    cmd: python -m stages.ingest source.txt data/ingest.txt
    deps: [source.txt]
    params: [ingest]
    outs: [data/ingest.txt]
  align:
    cmd: python -m stages.align data/ingest.txt data/align.txt
    deps: [data/ingest.txt]
    params: [align]
    outs: [data/align.txt]
    metrics:
      - metrics/demo/align.json:
          cache: false
  report:
    cmd: python -m stages.report data/align.txt report/index.html
    deps: [data/align.txt]
    outs: [report/index.html]
"""

# Does what trouble.json asks of a stage (once each), else writes its input and a parameter to its output.
STAGE = """
import json, os, sys, time
from pathlib import Path
from pipeline import files, params, process
from pipeline.errors import ParamsError, TransientError

NAME = "{name}"

def body():
    with Path("ran.log").open("a") as log:
        log.write(NAME + chr(10))
    trouble = json.loads(Path("trouble.json").read_text())
    todo = trouble.get(NAME) or ["work"]
    trouble[NAME] = todo[1:]
    files.write_json(Path("trouble.json"), trouble)
    print(NAME, "is asked to", todo[0], flush=True)
    if todo[0] == "blink":
        raise TransientError("the disk blinked")
    if todo[0] == "refuse":
        raise ParamsError("align.min_score: these scores make no sense")
    if todo[0] == "sleep":
        Path("asleep.pid").write_text(str(os.getpid()))
        time.sleep(120)
    source, target = map(Path, sys.argv[1:])
    files.write_text(target, source.read_text() + f"{{params.load(Path('params.yaml')).align.min_score}}\\n")
    ledger = {{"candidate": {{"in": 7, "out": 5, "dropped": {{"too_small": 2}}, "rejected": {{}}}}}}
    files.write_json(Path(f"metrics/demo/{{NAME}}.json"), {{"ledger": ledger}})

process.run(NAME, body)
"""


class Checkout:
    """A small checkout under a server and a worker of its own."""

    def __init__(self, root: Path, env: dict[str, str]):
        self.root, self.env = root, env
        self.worker: subprocess.Popen | None = None

    def call(self, *command: str) -> str:
        done = subprocess.run(command, cwd=self.root, env=self.env, text=True, capture_output=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def start_worker(self) -> None:
        with (self.root.parent / "worker.log").open("a") as log:
            self.worker = subprocess.Popen(
                [*PREFECT, "worker", "start", "--pool", "local"],
                cwd=self.root.parent, env=self.env, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def end_worker(self) -> None:
        """kill -9 of the worker and of the process that runs the flow, each with its process group."""
        for pid in [self.worker.pid, *self._children(self.worker.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(os.getpgid(pid), signal.SIGKILL)
        self.worker.wait()

    @staticmethod
    def _children(pid: int) -> list[int]:
        listed = subprocess.run(["ps", "-eo", "pid=,ppid="], text=True, capture_output=True, check=True).stdout
        return [int(child) for child, parent in map(str.split, listed.splitlines()) if int(parent) == pid]

    def trouble(self, **asked: list[str]) -> None:
        (self.root / "trouble.json").write_text(json.dumps(asked))
        (self.root / "ran.log").write_text("")

    def ran(self) -> list[str]:
        return (self.root / "ran.log").read_text().split()

    def api(self, path: str, body: object = None, method: str = "POST") -> object:
        data = json.dumps(body or {}).encode() if method == "POST" else None
        request = urllib.request.Request(
            f"{self.env['PREFECT_API_URL']}/{path}", data, {"Content-Type": "application/json"}, method=method
        )
        # The server answers 503 while its SQLite file is locked, and asks to come again; Prefect's own client does.
        for patience in range(60):
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                if error.code != 503 or patience == 59:
                    raise
                time.sleep(0.5)

    def submit(self, **parameters: object) -> str:
        deployment = self.api("deployments/name/mcseo/demo", method="GET")["id"]
        return self.api(f"deployments/{deployment}/create_flow_run", {"parameters": parameters})["id"]

    def state(self, run: str) -> dict:
        return self.api(f"flow_runs/{run}", method="GET")["state"]

    def wait(self, run: str, seconds: float = 90) -> dict:
        deadline = time.monotonic() + seconds
        while (state := self.state(run))["type"] not in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            assert time.monotonic() < deadline, f"{state}\n{self.logs(run)}\n{self.worker_log()}"
            time.sleep(0.3)
        return state

    def await_name(self, run: str, name: str, seconds: float = 60) -> None:
        """Waits until a run's state bears this name."""
        deadline = time.monotonic() + seconds
        while (state := self.state(run))["name"] != name:
            assert time.monotonic() < deadline, state
            time.sleep(0.3)

    def logs(self, run: str, until: str = "") -> str:
        """The messages of a run; waits for the one that holds `until`: Prefect sends them in batches, out of step."""
        deadline = time.monotonic() + 30
        while True:
            rows = self.api(
                "logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}, "limit": 200, "sort": "TIMESTAMP_ASC"}
            )
            said = "\n".join(row["message"] for row in rows)
            if until in said or time.monotonic() > deadline:
                return said
            time.sleep(0.3)

    def worker_log(self) -> str:
        return (self.root.parent / "worker.log").read_text()

    def artifact(self, run: str, key: str) -> dict:
        found = self.api("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}, "key": {"any_": [key]}}})
        assert len(found) == 1, found
        return found[0]

    def states(self, run: str) -> dict[str, str]:
        return {row["stage"]: row["state"] for row in json.loads(self.artifact(run, "mcseo-stages")["data"])}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    home = tmp_path_factory.mktemp("prefect")
    root = home / "checkout"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "PYTHONDONTWRITE"))} | {
        "PREFECT_HOME": str(home / "home"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_WORKER_QUERY_SECONDS": "0.5",
        "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "0.5",
        "MCSEO_RETRY_DELAY_S": "0.2",
    }
    made = Checkout(root, env)
    with (home / "server.log").open("w") as log:
        server = subprocess.Popen(
            [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            cwd=home, env=env, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        _lay_out(made)
        _wait_for(f"{env['PREFECT_API_URL']}/health", home / "server.log")
        made.call(*PREFECT, "work-pool", "create", "local", "--type", "process")
        made.start_worker()
        made.call(*PREFECT, "--no-prompt", "deploy", "--all")
        yield made
    finally:
        if made.worker:
            made.end_worker()
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _lay_out(made: Checkout) -> None:
    root = made.root
    shutil.copytree(ROOT / "pipeline", root / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "prefect.yaml", root / "prefect.yaml")
    shutil.copyfile(ROOT / "presets" / "demo.yaml", root / "params.yaml")
    (root / "dvc.yaml").write_text(GRAPH)
    (root / "source.txt").write_text("a dog\n")
    for name in ("ingest", "align", "report"):
        (root / "stages" / name).mkdir(parents=True)
        (root / "stages" / name / "__main__.py").write_text(STAGE.format(name=name))
    made.call("git", "init", "-q")
    made.call(sys.executable, "-P", "-m", "dvc", "init", "-q")
    shutil.copyfile(ROOT / ".dvc" / "config", root / ".dvc" / "config")


def _wait_for(url: str, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
            return
        time.sleep(0.3)
    pytest.fail(f"the Prefect server did not come up:\n{log.read_text()[-2000:]}")


def test_the_graph_runs_and_tells_what_it_did(checkout: Checkout) -> None:
    checkout.trouble()
    said = checkout.call(*PREFECT, "deployment", "run", "mcseo/demo", "--watch")
    run = checkout.api("flow_runs/filter", {"limit": 1, "sort": "START_TIME_DESC"})[0]["id"]
    assert checkout.state(run)["type"] == "COMPLETED", said + checkout.logs(run)
    assert checkout.ran() == ["ingest", "align", "report"]
    rows = json.loads(checkout.artifact(run, "mcseo-stages")["data"])
    assert [(row["stage"], row["state"], row["exit"]) for row in rows] == [
        ("ingest", "ran", 0), ("align", "ran", 0), ("report", "ran", 0)
    ]  # fmt: skip
    assert (rows[1]["in"], rows[1]["out"]) == ("7 candidates", "5 candidates")
    told = f"done: 3 ran; open {checkout.root / 'report' / 'index.html'}"
    logs = checkout.logs(run, until=told)
    assert "align is asked to work" in logs
    assert told in logs


def test_an_override_runs_only_what_depends_on_it(checkout: Checkout) -> None:
    checkout.trouble()
    run = checkout.submit(overrides={"align.min_score": 0.4})
    assert checkout.wait(run)["type"] == "COMPLETED", checkout.logs(run)
    assert checkout.ran() == ["align", "report"]
    assert checkout.states(run) == {"ingest": "fresh", "align": "ran", "report": "ran"}
    assert "`align.min_score` = `0.4`" in checkout.artifact(run, "mcseo-overrides")["data"]
    written = (checkout.root / "params.yaml").read_text()
    assert "min_score: 0.4\n" in written
    assert written.startswith((ROOT / "presets" / "demo.yaml").read_text().splitlines()[0])


def test_exit_75_is_tried_again(checkout: Checkout) -> None:
    checkout.trouble(align=["blink", "blink", "work"])
    run = checkout.submit(overrides={"align.min_score": 0.5}, targets=["align"])
    assert checkout.wait(run)["type"] == "COMPLETED", checkout.logs(run)
    assert checkout.ran() == ["align", "align", "align"]
    assert checkout.states(run) == {"ingest": "fresh", "align": "ran"}
    told = "the disk blinked (exit 75)"
    assert told in checkout.logs(run, until=told)


def test_exit_2_is_not_tried_again(checkout: Checkout) -> None:
    checkout.trouble(align=["refuse", "work"])
    run = checkout.submit(overrides={"align.min_score": 0.6})
    state = checkout.wait(run)
    told = "align: align.min_score: these scores make no sense"
    assert (state["type"], state["message"]) == ("FAILED", f"{told} (exit 2)")
    assert checkout.ran() == ["align"]
    assert checkout.states(run) == {"ingest": "fresh", "align": "failed", "report": "not reached"}
    assert told in checkout.logs(run, until=told)


def test_cancelling_a_run_ends_its_stage(checkout: Checkout) -> None:
    checkout.trouble(align=["sleep"])
    run = checkout.submit(overrides={"align.min_score": 0.65})
    stage = _asleep(checkout)
    checkout.api(f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    assert checkout.wait(run)["type"] == "CANCELLED"
    _wait_until_gone(stage)


@pytest.mark.fault("F60")
def test_a_killed_worker_leaves_nothing_running_and_the_next_run_finishes(checkout: Checkout) -> None:
    checkout.trouble(align=["sleep"])
    run = checkout.submit(overrides={"align.min_score": 0.7})
    stage = _asleep(checkout)
    checkout.end_worker()
    _wait_until_gone(stage)

    # The dead run keeps its place in the queue until its lease ends; a person would cancel it.
    checkout.api(f"flow_runs/{run}/set_state", {"state": {"type": "CRASHED"}, "force": True})
    checkout.start_worker()
    run = checkout.submit()
    assert checkout.wait(run)["type"] == "COMPLETED", checkout.logs(run)
    assert checkout.ran()[-3:] == ["align", "align", "report"]
    assert "0.7" in (checkout.root / "report" / "index.html").read_text()


@pytest.mark.fault("F62")
def test_a_second_run_waits_for_the_first(checkout: Checkout) -> None:
    checkout.trouble(align=["sleep"])
    first = checkout.submit(overrides={"align.min_score": 0.75})
    stage = _asleep(checkout)
    second = checkout.submit(overrides={"align.min_score": 0.8})
    checkout.await_name(second, "AwaitingConcurrencySlot")
    assert checkout.ran() == ["align"], "the second has not begun"
    assert "min_score: 0.75\n" in (checkout.root / "params.yaml").read_text()
    os.kill(stage, signal.SIGTERM)
    assert checkout.wait(first)["type"] == "FAILED"
    assert checkout.wait(second)["type"] == "COMPLETED", checkout.logs(second)
    assert checkout.ran() == ["align", "align", "report"]
    assert "min_score: 0.8\n" in (checkout.root / "params.yaml").read_text()


def _asleep(checkout: Checkout) -> int:
    """The PID of the stage that was asked to sleep, once it does."""
    told = checkout.root / "asleep.pid"
    deadline = time.monotonic() + 60
    while not (told.exists() and told.read_text()):
        assert time.monotonic() < deadline, checkout.worker_log()
        time.sleep(0.1)
    pid = int(told.read_text())
    told.unlink()
    return pid


def _wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 30
    while _alive(pid):
        assert time.monotonic() < deadline, "the stage outlived the flow that started it"
        time.sleep(0.1)


def test_what_dvc_did_is_told_apart(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline import flow

    monkeypatch.chdir(checkout.root)
    monkeypatch.setattr(flow, "get_run_logger", lambda: logging.getLogger("test"))
    checkout.trouble()
    (checkout.root / "data" / "align.txt").write_text("something new\n")
    assert flow._dvc_repro("report")[:2] == (0, "ran")
    assert flow._dvc_repro("report")[:2] == (0, "fresh")
    (checkout.root / "report" / "index.html").unlink()
    assert flow._dvc_repro("report")[:2] == (0, "restored")
    assert checkout.ran() == ["report"]


def _alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be reaped does not."""
    listed = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], text=True, capture_output=True, check=False).stdout
    return bool(listed.strip()) and not listed.strip().startswith("Z")
