"""The checks of `doctor` one after another, printed as they come."""

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

from pipeline import doctor, params
from pipeline.doctor import NOTE, OK, PROBLEM, Check
from pipeline.errors import StageError

_STYLES = {OK: "green", NOTE: "yellow", PROBLEM: "bold red"}
_CACHE = Path(".dvc/cache")


def run(file: Path, console: Console) -> int:
    """Prints every check; returns how many are problems."""
    problems = notes = 0
    for check in checks(file):
        problems += check.state == PROBLEM
        notes += check.state == NOTE
        line = Text(f"{check.state:<8}", _STYLES[check.state])
        line.append(f"{check.what:<20} {check.found}", "default")
        console.print(line, soft_wrap=True)
        if check.todo:
            console.print(Text(f"{'':<29}{check.todo}", "dim"), soft_wrap=True)
    console.print(Text(_summary(problems, notes), "bold"))
    return problems


def checks(file: Path) -> Iterator[Check]:
    """All of them; `file` is params.yaml."""
    yield doctor.python()
    yield doctor.packages(Path("requirements.lock"), Path("requirements.txt"))
    try:
        loaded = params.load(file)
    except StageError as error:
        yield Check("parameters", PROBLEM, "; ".join(line.strip() for line in str(error).splitlines()), "correct it")
        loaded = None
    else:
        yield Check("parameters", OK, f"{file}, dataset {loaded.dataset}")
    runtime = loaded.runtime if loaded else None
    yield doctor.device(runtime.devices if runtime else ["auto"])
    yield doctor.machine(runtime.workers if runtime else 1, runtime.threads if runtime else 1)
    if loaded:
        yield from doctor.paths(loaded)
    scratch = Path(runtime.scratch if runtime else ".scratch")
    cache, configured = doctor.cache(_CACHE)
    yield from doctor.disk(Path("data"), scratch, cache)
    yield doctor.links(Path("data"), cache, configured)
    if loaded:
        yield from doctor.dvc()
        yield doctor.locks(scratch / loaded.dataset)
    yield doctor.prefect()


def _summary(problems: int, notes: int) -> str:
    said = f"{problems} problem{'' if problems == 1 else 's'}" if problems else "no problem"
    return f"{said}, {notes} note{'' if notes == 1 else 's'}"
