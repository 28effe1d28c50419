"""verify: everything that is kept, held against what is said of it. Nothing is changed.

A dataset's shards against their sidecars and against one another, the scratch store against its own names and
records, DVC's cache against dvc.lock. Existence proves nothing: contents are hashed, each file once however many
names it has (scratch store, cache and workspace share files by hard links).
"""

import contextlib
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import tables
from pipeline.errors import InputError
from pipeline.files import sha256_json
from pipeline.locks import running
from pipeline.rows import shard_file
from pipeline.shards import SHARDED, SIDECARS, Sidecar, read_sidecar, shard_name

_CHUNK = 1 << 20
_ROWS = 256


@dataclass(frozen=True)
class Fault:
    """What is wrong, where, and what to do."""

    where: Path
    what: str
    todo: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.todo}"


@dataclass
class Report:
    """What was looked at: counts by what it is ("shards", "records", ...), faults, and remarks that are no faults."""

    looked: Counter = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def fault(self, where: Path, what: str, todo: str) -> None:
        self.faults.append(Fault(where, what, todo))


class Digests:
    """sha256 and md5 of files, each content read once; `tick` is told the bytes of every file asked for."""

    def __init__(self, tick: Callable[[int], None] = lambda size: None):
        self.tick = tick
        self.known: dict[tuple, dict[str, str]] = {}

    def of(self, path: Path) -> dict[str, str]:
        """Hexadecimal digests by name; what cannot be read has none, and so is like no stated one."""
        try:
            return self._of(path)
        except OSError as error:
            return dict.fromkeys(("sha256", "md5"), f"cannot be read ({error.strerror})")

    def _of(self, path: Path) -> dict[str, str]:
        stat = path.stat()
        key = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if key not in self.known:
            sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
            with path.open("rb") as handle:
                while chunk := handle.read(_CHUNK):
                    sha256.update(chunk)
                    md5.update(chunk)
            self.known[key] = {"sha256": sha256.hexdigest(), "md5": md5.hexdigest()}
        self.tick(stat.st_size)
        return self.known[key]


def dataset(data: Path, report: Report, digests: Digests | None) -> None:
    """Every shard of every stage. Without `digests` contents are not hashed and pages are not read."""
    written: dict[tuple[str, int], str] = {}
    numbers: dict[str, set[int]] = {}
    for stage in SHARDED:
        if not (data / stage).is_dir():
            report.remarks.append(f"{data / stage}: has not run")
            continue
        sidecars = _sidecars(data / stage, report)
        numbers[stage] = {sidecar.shard for sidecar in sidecars}
        for sidecar in sidecars:
            report.looked["shards"] += 1
            for name, stated in sidecar.tables.items():
                written[name if name != "drops" else f"{stage}/drops", sidecar.shard] = stated["sha256"]
                _table(data / stage / name, sidecar, report, digests)
            _ledger(data / stage, sidecar, report)
            _agree(data, sidecar, written, report)
        if len({sha256_json([s.version, s.params]) for s in sidecars}) > 1:
            report.fault(data / stage, "its shards were made with different parameters", f"run `dvc repro {stage}`")
    most = max(numbers.values(), key=len, default=set())
    for stage, found in numbers.items():
        if found and found != most:
            report.fault(data / stage, f"has {len(found)} shards, other stages {len(most)}", f"run `dvc repro {stage}`")


def _sidecars(folder: Path, report: Report) -> list[Sidecar]:
    found = []
    again = f"run `dvc repro {folder.name}` (or `dvc checkout`)"
    for path in sorted((folder / SIDECARS).glob("[0-9]*.json")):
        try:
            sidecar = read_sidecar(path)
        except InputError as error:
            report.fault(path, str(error).removeprefix(f"{path}: ").split(";")[0], again)
            continue
        if (sidecar.stage, shard_name(sidecar.shard)) != (folder.name, path.stem):
            report.fault(path, f"describes shard {sidecar.shard} of {sidecar.stage}", again)
        else:
            found.append(sidecar)
    described = {shard_name(sidecar.shard) for sidecar in found}
    if not described:
        report.fault(folder, "no shard is finished here", again)
    for path in sorted(folder.glob("*/*")):
        if path.parent.name == SIDECARS:
            continue
        if path.name.startswith(".") and path.suffix == ".tmp":
            report.remarks.append(f"{path}: left by a run that was killed; `python -m pipeline clean` removes it")
        elif path.suffix != ".parquet" or path.stem not in described:
            report.fault(path, "no sidecar speaks of it, so it was never finished", again)
    return found


def _table(folder: Path, sidecar: Sidecar, report: Report, digests: Digests | None) -> None:
    path = shard_file(folder, sidecar.shard)
    stated = sidecar.tables[folder.name]
    again = f"delete it and run `dvc checkout` (or `dvc repro {sidecar.stage}`)"
    if not path.is_file():
        report.fault(path, "missing, though its sidecar is there", f"run `dvc checkout` or `dvc repro {sidecar.stage}`")
        return
    report.looked["files"] += 1
    if digests and digests.of(path)["sha256"] != stated["sha256"]:
        report.fault(path, "damaged: its sha256 is not the one in its sidecar", again)
        return
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as handle:
            rows, schema = handle.metadata.num_rows, handle.schema_arrow
            for _ in handle.iter_batches(_ROWS) if digests else ():
                pass
    except (pa.ArrowException, OSError) as error:
        report.fault(path, f"cannot be read ({str(error).splitlines()[0]})", again)
        return
    if not tables.matches(folder.name, schema):
        report.fault(path, f"is not `{folder.name}` as this version writes it", f"run `dvc repro {sidecar.stage}`")
    elif rows != stated["rows"]:
        report.fault(path, f"has {rows} rows, its sidecar says {stated['rows']}", again)


def _ledger(folder: Path, sidecar: Sidecar, report: Report) -> None:
    """in = out + dropped + rejected, and each reason counts as many rows of `drops`."""
    where = folder / SIDECARS / f"{shard_name(sidecar.shard)}.json"
    for unit, counts in sidecar.ledger.items():
        lost = sum(counts["dropped"].values()) + sum(counts["rejected"].values())
        if counts["in"] != counts["out"] + lost:
            report.fault(
                where,
                f"the ledger of {unit} does not add up: {counts['in']} in, {counts['out']} out, {lost} lost",
                "this is a bug, please report it",
            )
    drops = shard_file(folder / "drops", sidecar.shard)
    try:
        table = pq.read_table(drops, columns=["unit", "outcome", "reason"])
    except (pa.ArrowException, OSError):
        return  # told with the file itself
    found = Counter(zip(*(table.column(name).to_pylist() for name in ("unit", "outcome", "reason")), strict=True))
    stated = Counter(
        {
            (unit, outcome, reason): number
            for unit, counts in sidecar.ledger.items()
            for outcome in ("dropped", "rejected")
            for reason, number in counts[outcome].items()
        }
    )
    if found != stated:
        odd = sorted((found - stated) + (stated - found))[0]
        report.fault(
            drops,
            f"has {found[odd]} rows `{' '.join(odd)}`, the ledger says {stated[odd]}",
            f"run `dvc repro {sidecar.stage}`",
        )


def _agree(data: Path, sidecar: Sidecar, written: dict[tuple[str, int], str], report: Report) -> None:
    """A shard was made from the very inputs that lie there now."""
    for table, digest in sidecar.inputs.items():
        now = written.get((table, sidecar.shard))
        if table in tables.WRITER and now != digest:
            why = "is not there" if now is None else f"is not the one that {tables.WRITER[table]} has there now"
            report.fault(
                data / sidecar.stage / SIDECARS / f"{shard_name(sidecar.shard)}.json",
                f"the shard of `{table}` it was made from {why}",
                f"run `dvc repro {sidecar.stage}`",
            )


def scratch(root: Path, report: Report, digests: Digests | None) -> None:
    """The scratch store of a dataset: objects are what their names say, records are whole and lead to objects."""
    todo = "delete it; the shard is computed again when it is needed"
    for path in sorted(root.glob("objects/*")):
        if path.name.startswith(".draft-"):
            report.remarks.append(f"{path}: left by a run that was killed; `python -m pipeline clean` removes it")
            continue
        report.looked["objects"] += 1
        if digests and digests.of(path)["sha256"] != path.name:
            report.fault(path, "damaged: its content does not hash to its name", todo)
    for stage in SHARDED:
        for path in sorted((root / stage).glob("[0-9a-f]*.json")):
            report.looked["records"] += 1
            try:
                body = json.loads(path.read_text(encoding="utf-8"))
                own = body.pop("self")
                lost = [digest for digest in body["files"].values() if not (root / "objects" / digest).is_file()]
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                report.fault(path, "not a record of a shard", todo)
                continue
            if own != sha256_json(body):
                report.fault(path, "damaged: its content does not match its own hash", todo)
            elif lost:
                report.fault(path, f"names an object that is not there ({lost[0][:16]}...)", todo)


def dvc_cache(report: Report, digests: Digests | None) -> None:
    """The objects of DVC's cache that dvc.lock names for this workspace.

    Raises:
        InputError: there is no DVC project here, or dvc.lock does not make sense.
    """
    from pipeline.graph import Graph

    graph = Graph()
    cache = Path(graph.repo.cache.local.path)
    for out in (out for stage in graph.stages for out in stage.outs):
        if not (out.use_cache and out.hash_info):
            continue
        digest = out.hash_info.value
        whole = _cached(cache, digest)
        if not whole.is_file():
            report.remarks.append(f"{out.def_path}: not in DVC's cache; `dvc pull` or `dvc repro` brings it")
            continue
        for path, name in _parts(whole, digest, cache, out.def_path, report):
            report.looked["cache objects"] += 1
            if not path.is_file():
                report.fault(path, f"missing; it is {name}", "run `dvc commit` or `dvc pull`")
            elif digests and digests.of(path)["md5"] != path.parent.name + path.name.removesuffix(".dir"):
                todo = "delete it, then run `dvc commit` (if data/ is whole), `dvc pull` or `dvc repro`"
                report.fault(path, f"damaged: its content does not hash to its name; it is {name}", todo)


def _cached(cache: Path, digest: str) -> Path:
    return cache / digest[:2] / digest[2:]


def _parts(whole: Path, digest: str, cache: Path, name: str, report: Report) -> Iterator[tuple[Path, str]]:
    """An output's own object and, for a folder, those of its files: (path, what it holds)."""
    yield whole, name
    if not digest.endswith(".dir"):
        return
    try:
        listed = json.loads(whole.read_text(encoding="utf-8"))
        found = [(_cached(cache, item["md5"]), f"{name}/{item['relpath']}") for item in listed]
    except (OSError, ValueError, KeyError, TypeError):
        report.fault(whole, f"not a listing of {name}", "delete it and run `dvc commit`, `dvc pull` or `dvc repro`")
        return
    yield from found


def everything(data: Path, root: Path, fast: bool) -> Report:
    """All of it, with a progress bar. `fast`: contents are not hashed and pages are not read."""
    report = Report()
    if at_work := running(root):
        listed = ", ".join(f"{name} (PID {pid})" for name, pid in at_work.items())
        report.remarks.append(f"at work just now: {listed}; what it is writing may look like a fault")
    with progress(_weight(data, root)) as tick:
        digests = None if fast else Digests(tick)
        dataset(data, report, digests)
        scratch(root, report, digests)
        dvc_cache(report, digests)
    return report


@contextlib.contextmanager
def progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar over bytes on a terminal; nothing where there is none."""
    if not sys.stderr.isatty():
        yield lambda size: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("[bold]verify"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("verify", total=total)
        yield lambda size: bar.update(task, advance=size)


def _weight(data: Path, root: Path) -> int:
    """Bytes to hash, nearly: those of shards and store; DVC's cache mostly has the same."""
    files = [*data.glob("*/*/[0-9]*.parquet"), *root.glob("objects/[0-9a-f]*")]
    return sum(path.stat().st_size for path in files if path.exists())
