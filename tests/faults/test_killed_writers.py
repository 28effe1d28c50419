"""1,000 kills of a writer of shards: whenever it dies, no reader takes a bad shard, and the next writer finishes."""

import random
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from faults.nursery import nursery
from small import digests

from pipeline import tables
from pipeline.errors import InputError
from pipeline.shards import Sidecar, Store, read_table, shard_name, shard_numbers, verified_hash

KILLS = 850  # and some 170 at every call
SHARDS = 2
LEDGER = {"caption": {"in": 9, "out": 9, "dropped": {}, "rejected": {}}}


def shard(number: int) -> pa.Table:
    rows = [{"id": f"{number}-{i}", "image_id": "i", "text": f"a dog {i * number}", "split": "train"} for i in range(9)]
    return tables.build("captions", rows)


def fingerprint(number: int) -> str:
    return f"{number:064d}"


def write_world(folder: str) -> None:
    """What a stage does with its shards, by the functions it does it with: stored, linked, then the sidecar."""
    store = Store(Path(folder) / "scratch", "ingest")
    out = Path(folder) / "out"
    for number in range(SHARDS):
        record = store.get(fingerprint(number))
        if record is None:
            record = store.put(fingerprint(number), {"captions": shard(number)}, LEDGER, {})
        store.link_into(record, out, number)
        stated = {"captions": {"sha256": record.files["captions"], "rows": 9}}
        sidecar = Sidecar(number, "ingest", 1, stated, {}, LEDGER, None, {}, {})
        sidecar.write(out / "sidecars" / f"{shard_name(number)}.json")


def warm() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_world(folder)
        look(Path(folder))


def look(folder: Path) -> int:
    """Reads all that a reader would take, by the functions it reads with; how many shards that were. Each must be
    right.
    """
    taken = 0
    store = Store(folder / "scratch", "ingest")
    for number in range(SHARDS):
        record = store.get(fingerprint(number))
        assert not store.has(fingerprint(number)) or record, "the plan's quick look says done, and it is not"
        if record:
            taken += 1
            assert read_table(store.objects / record.files["captions"], "captions").equals(shard(number))
        table = folder / "out/captions"
        try:
            digest = verified_hash(table, number)
        except InputError:
            continue
        taken += 1
        assert record and digest == record.files["captions"], "a shard is out that the store does not have"
        assert read_table(table / f"{shard_name(number)}.parquet", "captions").equals(shard(number))
    try:
        listed = shard_numbers(folder / "out/captions")
    except InputError:
        return taken
    for number in listed:
        assert verified_hash(folder / "out/captions", number)
    return taken


def kept(folder: Path) -> dict[str, str]:
    """Every file but drafts of the dead, which have names that nobody reads."""
    return {name: digest for name, digest in digests(folder).items() if not Path(name).name.startswith(".")}


@pytest.fixture(scope="module")
def young():
    with nursery("faults.test_killed_writers:warm") as made:
        yield made


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    write_world(str(folder))
    assert look(folder) == 2 * SHARDS
    return kept(folder)


CALL = "faults.test_killed_writers:write_world"


@pytest.mark.fault("F2", "F3")
@pytest.mark.parametrize("kind", ["kill", "killed", "torn"])
def test_killed_at_every_call(young, whole, tmp_path, kind):
    """Before, after and in the middle of every file operation; each time from nothing, and the next writer finishes."""
    points = young.run(CALL, tmp_path / "counted")["points"]
    assert points > 40
    seen = set()
    for at in range(1, points + 1):
        folder = tmp_path / str(at)
        assert young.run(CALL, folder, at=at, kind=kind)["signal"] == 9, at
        seen.add(look(folder))
        write_world(str(folder))
        assert look(folder) == 2 * SHARDS and kept(folder) == whole, at
    assert seen >= {0, 1, 2, 3}, "some died early and some late"


@pytest.mark.fault("F3")
def test_killed_at_random_moments(young, whole, tmp_path):
    """The rest of the 1,000: many writers die one after another over the same folder before one may finish."""
    draw = random.Random(0)
    died = round_ = 0
    while died < KILLS:
        folder = tmp_path / str(round_)
        for _ in range(draw.randint(1, 8)):
            if draw.random() < 0.5:
                ended = young.run(CALL, folder, at=draw.randint(1, 45), kind=draw.choice(["kill", "killed", "torn"]))
            else:
                ended = young.run(CALL, folder, delay=draw.random() * 0.02)
            assert ended["signal"] == 9 or ended["code"] == 0, ended["said"]
            died += ended["signal"] == 9
            look(folder)
        write_world(str(folder))
        assert look(folder) == 2 * SHARDS and kept(folder) == whole
        round_ += 1
    assert round_ > 50
