"""What dvc.yaml says, and the plan: what `dvc repro` would do to every stage, and why.

`dvc repro --dry` lists only the first changed stage: it cannot know what a stage's outputs will be. The plan goes on.
It knows the outputs of a stage that is fresh, or whose result DVC's cache still has; a stage behind one that really
runs *may* run, for equal outputs end the chain. The plan only looks: it takes no lock and changes nothing.
"""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import InputError, ParamsError, StageError

if TYPE_CHECKING:
    from dvc.dependency import Dependency
    from dvc.output import Output
    from dvc.stage import PipelineStage
    from dvc_data.hashfile.hash_info import HashInfo

RUNS, MAY_RUN, RESTORED, FRESH = "runs", "may run", "restored", "fresh"
_STYLES = {RUNS: "bold yellow", MAY_RUN: "yellow", RESTORED: "cyan", FRESH: "green"}


@dataclass(frozen=True)
class Step:
    """A stage (`align`), or a cell of its matrix (`train@mcse-0`), in the plan.

    Attributes:
        state: `runs`; `may run`: a stage before it runs, and its inputs may change; `restored`: DVC's cache has the
            result, nothing is computed; `fresh`: nothing to do.
        reasons: what changed, or what it waits for.
        shards: (finished in the scratch store, all) of a sharded stage that runs and whose inputs are there; else None.
    """

    stage: str
    state: str
    reasons: tuple[str, ...] = ()
    shards: tuple[int, int] | None = None


class Graph:
    """The stages of the dvc.yaml in the current folder.

    Raises:
        InputError: there is no DVC project, or dvc.yaml (or dvc.lock) does not make sense.
        ParamsError: dvc.yaml names a parameter that params.yaml lacks.
    """

    def __init__(self) -> None:
        from dvc.exceptions import DvcException, NotDvcRepoError
        from dvc.repo import Repo
        from dvc.repo.index import Index

        try:
            self.repo = Repo(os.curdir)
            if Path(self.repo.root_dir) != Path.cwd().resolve():
                raise InputError(f"run this in the project's root, {self.repo.root_dir}")
            self.index = Index.from_file(self.repo, "dvc.yaml")  # the experiment's is not read: it runs by itself
            self.links = self.index.graph
        except NotDvcRepoError:
            raise InputError("no DVC project here; run this in the root of a checkout that has a .dvc folder") from None
        except DvcException as error:
            raise InputError(f"dvc.yaml: {_first_line(error)}") from None
        self.stages = self._sorted()
        self.by_path = [(out.fs_path, stage, out) for stage in self.stages for out in stage.outs]

    def _sorted(self) -> list["PipelineStage"]:
        """Stages before those that need them, otherwise as dvc.yaml lists them."""
        from networkx import lexicographical_topological_sort

        place = {stage: number for number, stage in enumerate(self.index.stages)}
        return list(lexicographical_topological_sort(self.links.reverse(copy=True), key=place.__getitem__))

    def order(self, targets: Iterable[str] | None = None) -> list[str]:
        """The names of the targets and of all stages before them (without targets: all), in the order they run.

        A target is a stage, a cell (`train@mcse-0`), or a matrix (`train`: all its cells).

        Raises:
            ParamsError: there is no such stage.
        """
        if not targets:
            return [stage.addressing for stage in self.stages]
        from networkx import descendants

        wanted = set()
        for target in targets:
            found = [stage for stage in self.stages if target in (stage.addressing, stage.addressing.split("@")[0])]
            if not found:
                names = sorted({stage.addressing.split("@")[0] for stage in self.stages})
                raise ParamsError(f"{target!r}: no such stage in dvc.yaml; there are {', '.join(names)}")
            for stage in found:
                wanted |= {stage, *descendants(self.links, stage)}
        return [stage.addressing for stage in self.stages if stage in wanted]

    def plan(self, targets: Iterable[str] | None = None, shards: bool = True) -> list[Step]:
        """What `dvc repro` would do to every stage, in order. `shards`: also look into the scratch store."""
        wanted = set(self.order(targets))
        forecast = _Forecast(self.by_path)
        steps: dict[PipelineStage, Step] = {}
        for stage in self.stages:
            if stage.addressing in wanted:
                before = {link: steps[link] for link in self.links.successors(stage)}
                steps[stage] = self._step(stage, before, forecast, shards)
        return list(steps.values())

    def _step(self, stage: "PipelineStage", before: dict, forecast: "_Forecast", shards: bool) -> Step:
        inputs = {dep: owners for dep in stage.deps if (owners := forecast.owners(dep.fs_path))}
        own = _own_changes(stage, [dep for dep in stage.deps if dep not in inputs])
        waits = [link.addressing for link, step in before.items() if step.state in (RUNS, MAY_RUN)]
        if waits:
            forecast.unknown(stage)
            state, reasons = (RUNS, own) if own else (MAY_RUN, [f"after {_some(waits)}"])
            return Step(stage.addressing, state, tuple(reasons))
        coming = {dep: forecast.hash_of(dep, owners, before) for dep, owners in inputs.items()}
        changed = [_change(dep, coming[dep] is None) for dep in inputs if coming[dep] != dep.hash_info]
        reasons = own if _NEVER in own else own + changed
        if not reasons:
            forecast.known(stage, {out.def_path: out.hash_info for out in stage.outs})
            return Step(stage.addressing, FRESH)
        if (kept := _kept_result(stage, coming, changed)) is not None:
            forecast.known(stage, kept)
            return Step(stage.addressing, RESTORED, tuple(reasons))
        forecast.unknown(stage)
        there = shards and all(step.state == FRESH for step in before.values())
        return Step(stage.addressing, RUNS, tuple(reasons), finished_shards(stage.addressing) if there else None)


_NEVER = "never run before"


def _own_changes(stage: "PipelineStage", deps: list["Dependency"]) -> list[str]:
    """What changed of a stage itself: its command, parameters, code, path, or outputs."""
    from dvc.dependency import ParamsDependency

    if not any(entry.hash_info for entry in (*stage.deps, *stage.outs)):
        return [_NEVER, *(_change(dep, True) for dep in deps if not dep.exists)]
    reasons = ["it always runs"] if stage.is_callback or stage.always_changed else []
    reasons += ["its command changed"] if stage.changed_stage() else []
    for dep in deps:
        if isinstance(dep, ParamsDependency):
            reasons += _params_changes(dep)
        elif status := dep.workspace_status().get(str(dep)):
            reasons.append(_change(dep, status == "deleted"))
    for out in stage.outs:
        if status := out.status().get(str(out)):
            reasons.append(f"output {out.def_path} {_OUTPUTS.get(status, status)}")
    return reasons


_OUTPUTS = {"deleted": "missing", "modified": "changed", "new": "missing in dvc.lock"}


def _params_changes(dep: Any) -> list[str]:
    before, now = _flat(dep.hash_info.value or {}), _flat(dep.read_params())
    return [
        f"{key} changed"
        for key in (*now, *(k for k in before if k not in now))
        if before.get(key, _flat) != now.get(key, _flat)
    ]


def _flat(values: dict, prefix: str = "") -> dict[str, Any]:
    """Nested parameters by their dotted names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return flat


def _change(dep: "Dependency", missing: bool) -> str:
    return f"{dep.def_path} {'is missing' if missing else 'changed'}"


class _Forecast:
    """The content that outputs have, or will have once the stages before are done."""

    def __init__(self, outs: list[tuple[str, "PipelineStage", "Output"]]):
        self.outs = outs
        self.hashes: dict[str, HashInfo | None] = {}

    def owners(self, path: str) -> list[tuple[str, "PipelineStage", "Output"]]:
        """The outputs that are, hold, or lie in a path."""
        return [item for item in self.outs if _within(item[0], path) or _within(path, item[0])]

    def known(self, stage: "PipelineStage", hashes: dict[str, "HashInfo"]) -> None:
        self.hashes |= {out.fs_path: hashes.get(out.def_path) for out in stage.outs}

    def unknown(self, stage: "PipelineStage") -> None:
        self.hashes |= {out.fs_path: None for out in stage.outs}

    def hash_of(self, dep: "Dependency", owners: list, before: dict) -> "HashInfo | None":
        """The content hash of an input whose makers are all fresh or restored; None if it cannot be there."""
        if all(before[stage].state == FRESH for _, stage, _ in owners):
            return dep.get_hash() if dep.exists else None
        return self._assembled(dep, owners)

    def _assembled(self, dep: "Dependency", owners: list) -> "HashInfo | None":
        from dvc_data.hashfile.tree import Tree

        cache = dep.repo.cache.local
        try:
            for path, _, _ in owners:
                if path == dep.fs_path:
                    return self.hashes[path]
                if _within(dep.fs_path, path):
                    part = Tree.load(cache, self.hashes[path]).get_obj(cache, Path(dep.fs_path).relative_to(path).parts)
                    return part.hash_info if part else None
            return self._folder(dep, owners)
        except FileNotFoundError:
            return None

    def _folder(self, dep: "Dependency", owners: list) -> "HashInfo | None":
        """A folder that several stages write to, as it will be: what lies there, with their new files in place."""
        from dvc_data.hashfile.build import build
        from dvc_data.hashfile.tree import Tree

        tree = Tree()
        made = {Path(path).relative_to(dep.fs_path).parts: self.hashes[path] for path, _, _ in owners}
        if dep.exists:
            _, _, now = build(dep.local_cache, dep.fs_path, dep.fs, dep.hash_name, ignore=dep.dvcignore, dry_run=True)
            for key, meta, digest in now:
                if not any(key[: len(place)] == place for place in made):  # what is there of these will be replaced
                    tree.add(key, meta, digest)
        for place, digest in made.items():
            if digest is None:
                return None
            files = Tree.load(dep.repo.cache.local, digest) if digest.isdir else [((), None, digest)]
            for key, meta, own in files:
                tree.add((*place, *key), meta, own)
        tree.digest()
        return tree.hash_info


def _kept_result(stage: "PipelineStage", coming: dict, changed: list[str]) -> dict[str, "HashInfo"] | None:
    """The output hashes of the result that DVC would check out instead of running the stage, if it has one.

    It looks where DVC does: if only outputs are gone, what dvc.lock names; else the run cache, by command, parameters
    and inputs.
    """
    from dvc.stage.serialize import to_single_stage_lockfile

    cache = stage.repo.stage_cache
    try:
        same = (
            not changed
            and not stage.changed_stage()
            and all(dep in coming or not dep.workspace_status() for dep in stage.deps)
        )
        if same and all(out.hash_info for out in stage.outs):
            entry = to_single_stage_lockfile(stage)
        else:
            for dep in stage.deps:
                _pin(dep, coming[dep] if dep in coming else dep.get_hash())
            entry = cache._load(stage)
        kept = cache._create_stage(entry, wdir=stage.wdir) if entry else None
    except FileNotFoundError:
        return None
    if kept is None or not kept.outs_cached():
        return None
    return {out.def_path: out.hash_info for out in kept.outs}


def _pin(dep: "Dependency", digest: "HashInfo | None") -> None:
    """Makes DVC look its run cache up as if this input were already there."""
    if digest is None:
        raise FileNotFoundError(dep.fs_path)
    dep.hash_info = digest
    dep.meta.md5 = None  # as read from dvc.lock; it would stand in the looked-up entry in place of the digest
    dep.get_hash = lambda: digest


def finished_shards(stage: str) -> tuple[int, int] | None:
    """How many shards of a stage the scratch store has, and of how many; None if it has no shards or cannot tell."""
    from pipeline import entry
    from pipeline.runner import fingerprints, load_stage
    from pipeline.shards import Store
    from pipeline.tables import WRITER

    if stage not in WRITER.values():
        return None
    try:
        described = load_stage(stage)
        context = entry.context(stage, described.reads, entry.parser(stage, described.reads, "").parse_args([]))
        store = Store(Path(context.params.runtime.scratch) / context.params.dataset, stage)
        found = [store.has(fingerprint) for _, fingerprint, _ in fingerprints(described, context)]
    except (StageError, ImportError, SyntaxError):
        return None
    return sum(found), len(found)


def as_json(steps: list[Step], roughly: Mapping[str, float | None] | None = None) -> dict:
    """The plan as plain values: `{"stages": [...], "counts": {...}}`; `roughly`: seconds of the steps that run."""
    stages = [asdict(step) | {"roughly_seconds": (roughly or {}).get(step.stage)} for step in steps]
    return {"stages": stages, "counts": counts(steps)}


def counts(steps: list[Step]) -> dict[str, int]:
    found = Counter(step.state for step in steps)
    return {state: found[state] for state in (RUNS, MAY_RUN, RESTORED, FRESH)}


def summary(steps: list[Step]) -> str:
    """The plan in one line: "3 stages run, 2 may run, 11 fresh"."""
    found = counts(steps)
    if found[FRESH] == len(steps):
        return f"nothing to do: {len(steps)} stages fresh"
    parts = [f"{found[RUNS]} stage{' runs' if found[RUNS] == 1 else 's run'}"]
    parts += [f"{found[state]} {state}" for state in (MAY_RUN, RESTORED, FRESH) if found[state] or state == FRESH]
    return ", ".join(parts)


def table(steps: list[Step], roughly: Mapping[str, str] | None = None) -> Any:
    """The plan as a rich table; `roughly`: how long each step takes, in words."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, header_style="dim")
    made.add_column("stage", no_wrap=True)
    made.add_column("", no_wrap=True)
    if roughly:
        made.add_column("roughly", no_wrap=True, justify="right")
    made.add_column("why", overflow="fold")
    for step in steps:
        why = _some(step.reasons, 3)
        if step.shards:
            why += f"; shards: {step.shards[0]} of {step.shards[1]} in the scratch store"
        time = [Text(roughly.get(step.stage, ""))] if roughly else []
        made.add_row(Text(step.stage), Text(step.state, _STYLES[step.state]), *time, Text(why))
    return made


def _some(items: Iterable[str], most: int = 4) -> str:
    listed = list(items)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _first_line(error: Exception) -> str:
    cause = error.__cause__ or error
    return str(cause or error).strip().splitlines()[0]
