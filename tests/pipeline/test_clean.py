"""clean removes what nobody needs, says what it freed, and never costs more than time."""

import json
import os
import re
import time
from pathlib import Path

import pytest
from checkout import SHARDED
from small import digests, in_process

from pipeline import params
from pipeline.process import lock

DAY = 86_400


def age(folder: Path, days: float) -> None:
    for path in folder.rglob("*"):
        then = time.time() - days * DAY
        if path.is_file():
            os.utime(path, (then, then))


@pytest.fixture
def varied(mine):
    """The copy with a second configuration of align in its scratch store; data/ holds the first again."""
    for cap in (4, 1):
        params.update(mine / "params.yaml", {"align.max_per_caption": cap})
        in_process("align", mine)
    return mine


def store(folder: Path) -> dict[str, str]:
    return {name: d for name, d in digests(folder / ".scratch").items() if not name.endswith(".lock")}


def test_only_what_is_old_and_unused_goes_and_comes_back_by_computing(command, varied):
    data, before = digests(varied / "data"), store(varied)
    assert command(varied, "clean", "--scratch", "--keep-days", "10")[0] == 0
    assert store(varied) == before, "all of it was used today"
    age(varied / ".scratch", 11)
    code, out, _ = command(varied, "clean", "--scratch", "--keep-days", "10", "--dry-run")
    listed = [line for line in out.splitlines() if line.startswith(".scratch/")]
    assert code == 0 and store(varied) == before
    code, out, _ = command(varied, "clean", "--scratch", "--keep-days", "10")
    assert code == 0
    gone = set(before) - set(store(varied))
    assert {f".scratch/{name}" for name in gone} == set(listed)
    told = re.fullmatch(r"4 records and (\d+) objects .* freed ([\d.]+) MB.*24 records are kept\n", out)
    assert int(told[1]) == len(gone) - 4 >= 4
    assert all(name.startswith(("small/objects/", "small/align/")) for name in gone)
    assert digests(varied / "data") == data
    for name in SHARDED:
        assert "0 shards computed, 4 from the scratch store" in in_process(name, varied), "what data/ holds was kept"
    params.update(varied / "params.yaml", {"align.max_per_caption": 4})
    assert "4 shards computed, 0 from the scratch store" in in_process("align", varied)


def test_use_renews_a_record(varied, command):
    """A run that takes shards from the store makes them young again, so that they stay."""
    age(varied / ".scratch", 11)
    for cap in (4, 1):
        params.update(varied / "params.yaml", {"align.max_per_caption": cap})
        assert "0 shards computed" in in_process("align", varied)
    code, out, _ = command(varied, "clean", "--scratch", "--keep-days", "10")
    assert (code, out.split(" of")[0]) == (0, "0 records and 0 objects")


def test_linked_files_free_nothing_by_themselves(varied, command):
    """Objects of the other configuration that DVC's cache (here: a second name) still holds."""
    age(varied / ".scratch", 11)
    used = {s["sha256"] for p in (varied / "data").rglob("sidecars/*.json") for s in _tables(p)}
    unused = [p for p in (varied / ".scratch/small/objects").iterdir() if p.name not in used]
    for path in unused:
        os.link(path, varied / f"kept-{path.name}")
    size = sum(path.stat().st_size for path in unused)
    records = sum(p.stat().st_size for p in _unused_records(varied, used))
    _, out, _ = command(varied, "clean", "--scratch", "--keep-days", "0.5")
    assert f"freed {records / 1e6:.2f} MB; {size / 1e6:.2f} MB more lie in data/ or DVC's cache too" in out
    assert all((varied / f"kept-{path.name}").is_file() and not path.exists() for path in unused)


def _tables(sidecar: Path) -> list[dict]:
    return list(json.loads(sidecar.read_text())["tables"].values())


def _unused_records(folder: Path, used: set[str]) -> list[Path]:
    found = (folder / ".scratch/small/align").glob("*.json")
    return [p for p in found if not set(json.loads(p.read_text())["files"].values()) <= used]


def test_without_scratch_only_left_overs_of_the_dead_go(mine, command):
    before = digests(mine / "data") | store(mine)
    alive = mine / f"data/small/parse/phrases/.0000.parquet.{os.getpid()}.tmp"
    dead = [mine / "data/small/parse/phrases/.0000.parquet.4194399.tmp",
            mine / ".scratch/small/objects/.draft-4194399-phrases",
            mine / ".scratch/small/parse/.00ff.json.4194399.tmp"]  # fmt: skip
    for path in (alive, *dead):
        path.write_bytes(b"half")
    assert "3 left-over files: would free" in command(mine, "clean", "--dry-run")[1]
    assert all(path.exists() for path in dead)
    assert "3 left-over files: freed" in command(mine, "clean")[1]
    assert not any(path.exists() for path in dead)
    assert alive.read_bytes() == b"half"
    alive.unlink()
    assert digests(mine / "data") | store(mine) == before


@pytest.mark.parametrize("held", [".scratch/small/embed.lock", ".scratch/small/train@mcse-0.lock", ".run/flow.lock"])
def test_a_dataset_at_work_is_not_touched(mine, command, held):
    age(mine / ".scratch", 100)
    before = store(mine)
    with lock(mine / held, "it"):
        code, _, err = command(mine, "clean", "--scratch", "--keep-days", "0")
    assert code == 5
    assert f"already running as PID {os.getpid()}" in err
    assert store(mine) == before


def test_a_damaged_sidecar_stops_it(mine, command):
    sidecar = mine / "data/small/align/sidecars/0000.json"
    text = sidecar.read_text()
    sidecar.unlink()
    sidecar.write_text(text.replace('"shard": 0', '"shard": 1'))
    before = store(mine)
    assert command(mine, "clean", "--scratch", "--keep-days", "0")[0] == 3
    assert store(mine) == before


@pytest.mark.parametrize("days", ["-1", "nan"])
def test_no_number_of_days_means_nothing_goes(mine, command, days):
    before = store(mine)
    code, _, err = command(mine, "clean", "--scratch", "--keep-days", days)
    assert (code, "--keep-days" in err) == (2, True)
    assert command(mine, "clean", "--scratch", "--keep-days", "0", "--dataset", "../data/small")[0] == 3
    assert store(mine) == before
