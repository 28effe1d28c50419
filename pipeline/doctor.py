"""doctor: what this machine and checkout have, and what to do where something is amiss. Nothing is changed."""

import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import StageError
from pipeline.locks import running
from pipeline.sections import Params
from pipeline.weights.manifest import of_folder
from pipeline.whole import fault

OK, NOTE, PROBLEM = "ok", "note", "problem"
_PYTHON = ((3, 11), (3, 13))
_MODELS = ("parse", "detect", "segment", "embed", "train")
_GIB = 1 << 30
_LITTLE, _LOW = 1 * _GIB, 10 * _GIB
_TORCH = """
import json, torch
cuda = torch.cuda.is_available()
found = [{"name": torch.cuda.get_device_name(i), "memory": torch.cuda.get_device_properties(i).total_memory}
         for i in range(torch.cuda.device_count())] if cuda else []
print(json.dumps({"torch": torch.__version__, "cuda": found, "mps": torch.backends.mps.is_available()}))
"""


@dataclass(frozen=True)
class Check:
    """One line: `todo` is what to do where the state is not ok."""

    what: str
    state: str
    found: str
    todo: str = ""


def python() -> Check:
    low, high = _PYTHON
    found = f"{platform.python_version()}, {sys.executable}"
    if low <= sys.version_info[:2] <= high:
        return Check("python", OK, found)
    return Check("python", PROBLEM, found, "use Python 3.11, 3.12 or 3.13: `make demo PYTHON=python3.12`")


def packages(lock: Path, ranges: Path) -> Check:
    """The installed packages against requirements.lock (exact) and requirements.txt (what is known to work)."""
    if not lock.is_file():
        return Check("packages", PROBLEM, f"no {lock} here", "run this in the root of a checkout")
    missing, other, outside = [], [], []
    for requirement in _requirements(lock):
        installed = _installed(requirement.name)
        if installed is None:
            missing.append(requirement.name)
        elif not requirement.specifier.contains(installed, prereleases=True):
            other.append(f"{requirement.name} {installed} ({str(requirement.specifier).removeprefix('==')})")
    for requirement in _requirements(ranges) if ranges.is_file() else ():
        installed = _installed(requirement.name)
        if installed and not requirement.specifier.contains(installed, prereleases=True):
            outside.append(f"{requirement.name} {installed} ({requirement.specifier})")
    todo = f"`pip install -r {lock}`"
    if missing:
        return Check("packages", PROBLEM, f"missing: {_some(missing)}", todo)
    if outside:
        return Check("packages", PROBLEM, f"outside the ranges that work together: {_some(outside)}", todo)
    if other:
        return Check("packages", NOTE, f"other versions than {lock}: {_some(other)}", f"{todo} for the exact set")
    return Check("packages", OK, f"all as in {lock}")


def _requirements(file: Path) -> Iterator:
    from packaging.requirements import InvalidRequirement, Requirement

    for line in file.read_text(encoding="utf-8").splitlines():
        text = line.split(" #")[0].strip()
        if text and not text.startswith(("#", "-")):
            with contextlib.suppress(InvalidRequirement):
                requirement = Requirement(text)
                if requirement.marker is None or requirement.marker.evaluate():
                    yield requirement


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def device(wanted: list[str]) -> Check:
    """What torch sees against `runtime.devices`, asked in a process of its own: this one does without torch."""
    try:
        asked = subprocess.run([sys.executable, "-c", _TORCH], capture_output=True, text=True, timeout=300, check=True)
        seen = json.loads(asked.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError, OSError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        return Check("device", PROBLEM, f"torch does not start: {said[-1] if said else error}", "install it again")
    cards = [f"{card['name']}, {card['memory'] / _GIB:.0f} GiB" for card in seen["cuda"]]
    there = "; ".join(cards) or ("mps" if seen["mps"] else "cpu")
    found = f"torch {seen['torch']}: {there} (runtime.devices: {', '.join(wanted)})"
    known = {"auto", "cpu", *(["mps"] if seen["mps"] else []), *(["cuda"] if cards else [])}
    known |= {f"cuda:{number}" for number in range(len(cards))}
    if missing := [name for name in wanted if name not in known]:
        todo = "set runtime.devices to [auto], or install the driver and the torch build that belong together"
        return Check("device", PROBLEM, f"{found}; not here: {', '.join(missing)}", todo)
    return Check("device", OK, found)


def machine(workers: int, threads: int) -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    found = f"{cores} cores, {memory / _GIB:.0f} GiB of memory (runtime.workers {workers}, threads {threads})"
    if workers * threads > 2 * cores:
        return Check("machine", NOTE, found, "workers x threads is far more than there are cores; lower runtime.*")
    if memory < 4 * _GIB:
        return Check("machine", NOTE, found, "little memory: keep runtime.workers at 1 and batch_rows low")
    return Check("machine", OK, found)


def paths(params: Params) -> Iterator[Check]:
    """Every file and folder that the parameters name; weights are looked at, too."""
    for section, values in params.model_dump().items():
        if not isinstance(values, dict):
            continue
        for name, value in values.items():
            if name.endswith("path") and isinstance(value, str):
                yield _path(f"{section}.{name}", Path(value), name == "path" and section in _MODELS)


def _path(key: str, path: Path, weights: bool) -> Check:
    if not path.exists():
        known = of_folder(path)
        how = f"get {known}` fetches it" if known else "list` shows what can be fetched"
        todo = f"set {key}, or bring it: `python -m pipeline weights {how}"
        return Check(key, PROBLEM, f"{path}: not there", todo)
    try:
        wrong, held = fault(path) if weights and path.is_dir() else (None, "")
    except OSError as error:
        wrong, held = f"{error.filename}: cannot be read ({error.strerror})", ""
    if wrong:
        return Check(key, PROBLEM, wrong, "get it again")
    return Check(key, OK, f"{path}{f' ({held})' if held else ''}")


def disk(data: Path, scratch: Path, cache: Path) -> Iterator[Check]:
    """Free space, and whether the three places share one file system."""
    places = {path: _nearest(path) for path in (data, scratch, cache)}
    by_device: dict[int, list[Path]] = {}
    for path, there in places.items():
        by_device.setdefault(there.stat().st_dev, []).append(path)
    for shared in by_device.values():
        free = shutil.disk_usage(places[shared[0]]).free
        found = f"{free / _GIB:.1f} GiB free for {', '.join(map(str, shared))}"
        state = PROBLEM if free < _LITTLE else NOTE if free < _LOW else OK
        todo = "" if state == OK else "free some: `python -m pipeline clean --scratch --keep-days 30`, `dvc gc -w`"
        yield Check("disk", state, found, todo)
    if len(by_device) > 1:
        todo = "every shard is copied between them; put them on one (runtime.scratch, `dvc cache dir`)"
        yield Check("disk", NOTE, "data, scratch store and DVC's cache lie on different file systems", todo)


def cache(usual: Path) -> tuple[Path, list[str]]:
    """Where DVC's cache lies, and the ways of linking from it that its configuration allows, best first."""
    from dvc.config import Config
    from dvc.exceptions import DvcException

    try:
        config = Config(str(usual.parent)) if usual.parent.is_dir() else {}
    except DvcException:
        return usual, ["reflink", "copy"]  # what is wrong with it is told with the rest of DVC
    section = config.get("cache", {})
    types = section.get("type") or ["reflink", "copy"]
    types = types.split(",") if isinstance(types, str) else list(types)
    return Path(section.get("dir") or usual), types


def links(data: Path, cache: Path, configured: list[str]) -> Check:
    """How a file gets from DVC's cache into the workspace: the first of the configured ways that works here."""
    from dvc_objects.fs import system

    tries = {"reflink": system.reflink, "hardlink": system.hardlink, "symlink": system.symlink,
             "copy": shutil.copyfile}  # fmt: skip
    works = []
    try:
        with (
            tempfile.TemporaryDirectory(prefix=".doctor-", dir=_nearest(cache)) as one,
            tempfile.TemporaryDirectory(prefix=".doctor-", dir=_nearest(data)) as other,
        ):
            source = Path(one) / "file"
            source.write_bytes(b"x" * 4096)
            for name in configured:
                target = Path(other) / name
                with contextlib.suppress(OSError, NotImplementedError, KeyError):
                    tries[name](str(source), str(target))
                    if target.read_bytes() == source.read_bytes():
                        works.append(name)
    except OSError as error:
        todo = "make the folder writable"
        return Check("cache type", PROBLEM, f"{error.filename}: cannot be written ({error.strerror})", todo)
    found = f"{', '.join(configured)}: here {works[0] if works else 'none'} is used"
    if not works:
        return Check("cache type", PROBLEM, found, "`dvc config cache.type reflink,hardlink,copy`")
    if works[0] == "copy":
        return Check("cache type", NOTE, found, "every shard takes its space twice; links need one file system")
    return Check("cache type", OK, found)


def dvc() -> Iterator[Check]:
    """DVC's project and whether dvc.lock speaks of what lies here."""
    from pipeline.graph import FRESH, Graph, summary

    try:
        steps = Graph().plan(shards=False)
    except StageError as error:
        yield Check("dvc", PROBLEM, str(error).splitlines()[0], "run this in the root of a checkout (git clone, make)")
        return
    version = importlib.metadata.version("dvc")
    if all(step.state == FRESH for step in steps):
        yield Check("dvc", OK, f"dvc {version}; dvc.lock agrees: all {len(steps)} stages are fresh")
    else:
        todo = "`python -m pipeline plan` says why, `python -m pipeline run` brings it up to date"
        yield Check("dvc", NOTE, f"dvc {version}; {summary(steps)}", todo)


def locks(scratch: Path) -> Check:
    found = running(scratch)
    if not found:
        return Check("running", OK, "nothing runs here")
    listed = ", ".join(f"{name} (PID {pid})" for name, pid in found.items())
    return Check("running", NOTE, listed, "a second run of the same stage would be refused (exit 5)")


def prefect() -> Check:
    """The server that this environment's Prefect is set to; needed only for deployments."""
    version = _installed("prefect")
    if version is None:
        return Check("prefect", PROBLEM, "not installed", "`pip install -r requirements.lock`")
    url = _prefect_url()
    if not url:
        todo = "for deployments: `prefect server start`, then set PREFECT_API_URL; `python -m pipeline run` needs none"
        return Check("prefect", OK, f"prefect {version}; no server is set", todo)
    try:
        _ask(f"{url}/health")
        pools = [pool["name"] for pool in _ask(f"{url}/work_pools/filter", {})]
    except (OSError, ValueError, KeyError, TypeError) as error:
        todo = "`prefect server start`; `python -m pipeline run` needs none"
        return Check("prefect", NOTE, f"prefect {version}; {url} does not answer ({error})", todo)
    if "local" not in pools:
        found = f"prefect {version}; {url} answers; work pools: {', '.join(pools) or 'none'}"
        return Check("prefect", NOTE, found, "for prefect.yaml: `prefect work-pool create local --type process`")
    return Check("prefect", OK, f"prefect {version}; {url} answers; work pool local is there")


def _prefect_url() -> str | None:
    if url := os.environ.get("PREFECT_API_URL"):
        return url.rstrip("/")
    with contextlib.suppress(Exception):  # whatever is wrong with a profile is Prefect's to say
        from prefect.settings import get_current_settings

        return str(get_current_settings().api.url or "").rstrip("/") or None
    return None


def _ask(url: str, body: dict | None = None) -> object:
    from urllib.request import ProxyHandler, Request, build_opener

    data = None if body is None else json.dumps(body).encode()
    request = Request(url, data, {"Content-Type": "application/json"})
    with build_opener(ProxyHandler({})).open(request, timeout=3) as answer:
        return json.loads(answer.read())


def _nearest(path: Path) -> Path:
    """The folder itself, or the first above it that is there."""
    path = path.absolute()
    while not path.is_dir():
        path = path.parent
    return path


def _some(items: list[str], most: int = 4) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
