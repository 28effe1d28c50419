"""The Prefect flow: one task a DVC stage (a matrix: one a cell), in the order of the graph.

Prefect decides when, where, and whether to try again; DVC decides what is fresh, so nothing is cached here. A stage is
retried only if it said so itself (exit 75). `python -m pipeline run` does the same without a server.
"""

import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.states import Failed, State

from pipeline import child, params
from pipeline.errors import StageError, TransientError
from pipeline.graph import Graph
from pipeline.ledger import plural
from pipeline.process import RUN_DIR, exit_file, lock, read_exit

PARAMS = Path("params.yaml")
PAGE = Path("report/index.html")
RETRIES = 2
RETRY_DELAY_S = float(os.environ.get("MCSEO_RETRY_DELAY_S", "30"))
_TRANSIENT = "Transient"


@dataclass
class Outcome:
    """What became of a stage.

    Attributes:
        state: ran, restored, fresh, failed or not reached.
        code: the exit code it told, if it told one.
    """

    stage: str
    state: str = "not reached"
    seconds: float | None = None
    code: int | None = None


def is_transient(_task: Any, _run: Any, state: State) -> bool:
    """Whether a failed stage is worth another try: only if it said so itself, by exit 75."""
    return state.name == _TRANSIENT


@task(
    task_run_name="{stage}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAY_S,
    retry_condition_fn=is_transient,
)
def run_stage(stage: str) -> str | State:
    """Brings one stage up to date.

    Returns ran, restored or fresh; or a failed state if DVC or the stage ended with an error. Failure is a state and
    not an exception, because Prefect would log that with a traceback.
    """
    exit_file(stage).unlink(missing_ok=True)
    code, said, last = _dvc_repro(stage)
    if code == 0:
        return said
    told = read_exit(stage) or {}
    name = _TRANSIENT if told.get("code") == TransientError.code else "Failed"
    ended = f"exit {told['code']}" if told else f"no exit told, dvc ended with {code}"
    return Failed(name=name, message=f"{stage}: {told.get('message') or last} ({ended})")


def _dvc_repro(stage: str) -> tuple[int, str, str]:
    """Runs DVC on one stage, its output line by line into the run's log.

    Returns its exit code, what it did, and its last line.
    """
    logger = get_run_logger()
    signs = {
        f"Running stage '{stage}'": "ran",
        f"Stage '{stage}' is cached - skipping run": "restored",
        f"Stage '{stage}' didn't change, skipping": "fresh",
    }
    said, last = "ran", ""
    running = child.start(
        child.dvc("repro", "--single-item", stage),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        bufsize=1,
    )
    try:
        for line in map(str.rstrip, running.stdout):
            if line:
                logger.info("%s", line)
                said = next((did for sign, did in signs.items() if line.startswith(sign)), said)
                last = line
        return running.wait(), said, last
    finally:
        child.stop(running)


@flow(name="mcseo", description="Brings the graph of dvc.yaml up to date, one task a stage")
def mcseo(overrides: dict[str, Any] | None = None, targets: list[str] | None = None) -> State | None:
    """Brings the graph, or the targets and what they need, up to date.

    `overrides` ({"align.min_score": 0.4}) are written to params.yaml first, checked all together, comments kept.
    """
    logger = get_run_logger()
    try:
        with lock(RUN_DIR / "flow.lock", "a run in this checkout"):
            values = params.update(PARAMS, overrides) if overrides else params.load(PARAMS)
            outcomes = [Outcome(stage) for stage in Graph().order(targets)]
            logger.info("%d stages: %s", len(outcomes), ", ".join(o.stage for o in outcomes))
            failure = next((state for o in outcomes if (state := _follow(o)).is_failed()), None)
            _tell(outcomes, overrides or {}, values.dataset)
    except StageError as error:
        logger.error("%s", error)
        return Failed(message=f"{error} (exit {error.code})")
    if failure:
        logger.error("%s", failure.message)
        return Failed(message=failure.message)
    done = ", ".join(
        f"{n} {did}" for did in ("ran", "restored", "fresh") if (n := sum(o.state == did for o in outcomes))
    )
    logger.info("done: %s%s", done, f"; open {PAGE.resolve()}" if PAGE.exists() else "")
    return None


def _follow(outcome: Outcome) -> State:
    started = time.monotonic()
    state = run_stage(outcome.stage, return_state=True)
    outcome.state = "failed" if state.is_failed() else state.result()
    outcome.seconds = round(time.monotonic() - started, 1)
    outcome.code = (read_exit(outcome.stage) or {}).get("code")
    return state


def _tell(outcomes: list[Outcome], overrides: dict[str, Any], dataset: str) -> None:
    """The run's artifacts: a table of its stages, and the overrides it was given."""
    rows = [
        {"stage": o.stage, "state": o.state, "seconds": o.seconds, "in": seen, "out": through, "exit": o.code}
        for o in outcomes
        for seen, through in [_ledger(dataset, o.stage)]
    ]
    create_table_artifact(
        rows, key="mcseo-stages", description="Stages of this run; in and out are units of the stage's ledger"
    )
    given = "\n".join(f"- `{key}` = `{value!r}`" for key, value in overrides.items())
    create_markdown_artifact(f"**Overrides of params.yaml**\n\n{given or 'none'}\n", key="mcseo-overrides")


def _ledger(dataset: str, stage: str) -> tuple[str, str]:
    """What came into a sharded stage and what came through, a unit each."""
    try:
        ledger = json.loads((Path("metrics") / dataset / f"{stage}.json").read_text(encoding="utf-8"))["ledger"]
        return tuple(
            ", ".join(f"{counts[side]:,} {plural(unit)}" for unit, counts in ledger.items()) for side in ("in", "out")
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "", ""
