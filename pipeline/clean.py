"""clean: what the scratch store no longer needs. Removing any of it loses time, never a result.

A record of the store counts as used while the dataset's folder holds the very shard it stands for; the others are
there so that a parameter set back, or another branch, costs nothing, and go when nobody has asked for them for a
while. A record's time is that of its last use (the store renews it). Objects go when no record names them.
"""

import json
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.locks import alive
from pipeline.shards import SHARDED, SIDECARS, read_sidecar

_DAY = 86_400.0
# `.NAME.PID.tmp` of files.write_atomic and `.draft-PID-TABLE` of the store.
_LITTER = re.compile(r"\.(?:.+\.(?P<tmp>\d+)\.tmp|draft-(?P<draft>\d+)-.+)")


@dataclass
class Sweep:
    """What goes: files, the bytes that this frees, and the bytes that other names of the same files still hold."""

    records: list[Path] = field(default_factory=list)
    objects: list[Path] = field(default_factory=list)
    litter: list[Path] = field(default_factory=list)
    kept: int = 0
    freed: int = 0
    shared: int = 0

    def add(self, into: list[Path], path: Path) -> None:
        stat = path.stat()
        into.append(path)
        if stat.st_nlink > 1:
            self.shared += stat.st_size
        else:
            self.freed += stat.st_size

    def listed(self) -> list[Path]:
        """Records before objects: a record whose object is gone would be found out, but need not be there at all."""
        return [*self.records, *self.objects, *self.litter]

    def summary(self, verb: str) -> str:
        shared = f"; {_size(self.shared)} more lie in data/ or DVC's cache too, and stay there" if self.shared else ""
        return (
            f"{len(self.records)} records and {len(self.objects)} objects of the scratch store, {len(self.litter)} "
            f"left-over files: {verb} {_size(self.freed)}{shared}; {self.kept} records are kept"
        )

    def remove(self) -> None:
        for path in self.listed():
            path.unlink(missing_ok=True)


def sweep(data: Path, root: Path, keep_days: float | None) -> Sweep:
    """What can go; `keep_days` None: left-over files only. The caller holds the locks of the dataset."""
    found = Sweep()
    _litter(data, root, found)
    if keep_days is not None:
        _records(data, root, keep_days, found)
    return found


def _litter(data: Path, root: Path, sweep: Sweep) -> None:
    """Temporary files of processes that are gone, in the store and in the folders of the sharded stages."""
    folders = [root / "objects", *(root / stage for stage in SHARDED)]
    folders += [folder for stage in SHARDED for folder in (data / stage).glob("*") if folder.is_dir()]
    for folder in folders:
        for path in _left_over(folder):
            sweep.add(sweep.litter, path)


def remove_litter(folder: Path) -> None:
    """Removes from a folder the temporary files of processes that are gone."""
    for path in _left_over(folder):
        path.unlink(missing_ok=True)


def _left_over(folder: Path) -> list[Path]:
    named = [(path, _LITTER.fullmatch(path.name)) for path in sorted(folder.glob(".*"))]
    return [path for path, name in named if name and path.is_file() and not alive(int(name["tmp"] or name["draft"]))]


def _records(data: Path, root: Path, keep_days: float, sweep: Sweep) -> None:
    """Records that stand for no shard of the dataset's folder and were last used so many days ago, and their objects.

    Raises:
        InputError: a sidecar is damaged, so that nobody can say what is used.
    """
    used, named = _used(data)
    oldest = time.time() - keep_days * _DAY
    for stage in SHARDED:
        for path in sorted((root / stage).glob("[0-9a-f]*.json")):
            files = _files(path)
            if (stage, frozenset(files.items())) in used or path.stat().st_mtime > oldest:
                named |= set(files.values())
                sweep.kept += 1
            else:
                sweep.add(sweep.records, path)
    for path in sorted((root / "objects").glob("[0-9a-f]*")):
        if path.name not in named and path.stat().st_mtime <= oldest:
            sweep.add(sweep.objects, path)


def _used(data: Path) -> tuple[set, set[str]]:
    """(stage, its files) of every shard that lies there, and all their hashes."""
    used, named = set(), set()
    for stage in SHARDED:
        for path in sorted((data / stage / SIDECARS).glob("[0-9]*.json")):
            files = {name: stated["sha256"] for name, stated in read_sidecar(path).tables.items()}
            used.add((stage, frozenset(files.items())))
            named |= set(files.values())
    return used, named


def _files(record: Path) -> dict[str, str]:
    """Table -> sha256 of a record; a damaged one names nothing."""
    try:
        files = json.loads(record.read_text(encoding="utf-8"))["files"]
        return {str(name): str(digest) for name, digest in files.items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return {}


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"
