"""Flipped bits, cut-off files, edited sidecars, missing shards: refused in one line, or made again, never believed."""

import json
import random
import shutil
from pathlib import Path

import pytest
from faults.inject import changed, flip
from faults.nursery import nursery
from small import digests, in_process, make_collection, run_stage, write_params

from pipeline.errors import InputError
from pipeline.shards import Store, read_sidecar, read_table, shard_numbers, sidecar_path, verified_hash

FUZZED = 1000


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """A folder in which ingest, parse and detect have run."""
    folder = tmp_path_factory.mktemp("damaged")
    make_collection(folder / "collection", 6)
    write_params(folder / "params.yaml", folder / "collection", ingest__shards=2)
    for stage in ("ingest", "parse", "detect"):
        in_process(stage, folder)
    return folder


@pytest.fixture
def whole(done):
    """The folder, looked over afterwards: a test leaves it as it was."""
    before = digests(done / "data")
    yield done
    assert digests(done / "data") == before


def take(table: Path) -> int:
    """What a stage does before it believes a table; the rows it would read.

    Raises:
        InputError: it does not believe it.
    """
    rows = 0
    for number in shard_numbers(table):
        verified_hash(table, number)
        rows += read_table(table / f"{number:04d}.parquet", table.name).num_rows
    return rows


def refused(table: Path, *says: str) -> str:
    with pytest.raises(InputError) as told:
        take(table)
    assert "\n" not in str(told.value) and all(text in str(told.value) for text in says), told.value
    return str(told.value)


def spots(path: Path, most: int) -> range:
    size = path.stat().st_size
    return range(0, size, max(1, size // most))


@pytest.mark.fault("F11")
def test_a_shard_cut_off_anywhere(whole):
    shard = whole / "data/small/parse/phrases/0000.parquet"
    data = shard.read_bytes()
    for at in spots(shard, 150):
        with changed(shard, data[:at]):
            assert "0000.parquet" in refused(shard.parent, "damaged", "dvc")
    with changed(shard, data[: len(data) // 2]):
        ended = run_stage("detect", whole)
        assert ended.returncode == 3 and "damaged" in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.fault("F11", "F12")
def test_without_its_sidecar_a_damaged_shard_still_gives_one_line_or_the_right_rows(done, tmp_path):
    """Parquet by itself, page checksums on: whatever is done to the file, it is refused or reads as it was."""
    with nursery("faults.test_damaged_files") as young:
        for table in ("parse/phrases", "ingest/images"):
            shard = done / "data/small" / table / "0000.parquet"
            ended = young.run("faults.test_damaged_files:read_fuzzed", shard, tmp_path)
            assert (ended["code"], ended["signal"]) == (0, 0), ended["said"]


def read_fuzzed(shard: str, scratch: str) -> None:
    """In a child, because a Parquet reader may crash on what it is given."""
    from faults.mutate import mutated

    data, name = Path(shard).read_bytes(), Path(shard).parent.name
    right = read_table(Path(shard), name)
    file = Path(scratch) / "fuzzed.parquet"
    draw = random.Random(0)
    refusals = 0
    for _ in range(FUZZED // 2):
        file.write_bytes(mutated(draw, data))
        try:
            read = read_table(file, name)
        except InputError as error:
            assert "\n" not in str(error), error
            refusals += 1
        else:
            assert read.equals(right), "other rows were read without an error"
    assert refusals > FUZZED // 4


@pytest.mark.fault("F12")
@pytest.mark.parametrize("table", ["ingest/images", "ingest/captions", "parse/phrases"])
def test_a_flipped_bit_in_a_shard(whole, table):
    shard = whole / "data/small" / table / "0001.parquet"
    for at in spots(shard, 100):
        flip(shard, at)
        try:
            refused(shard.parent, "damaged", "0001.parquet")
        finally:
            flip(shard, at)
    assert take(shard.parent)


@pytest.mark.fault("F12", "F14")
def test_a_flipped_bit_in_a_sidecar(whole):
    table = whole / "data/small/parse/phrases"
    sidecar = sidecar_path(table, 0)
    before = read_sidecar(sidecar)
    believed = 0
    for at in spots(sidecar, 400):
        flip(sidecar, at)
        try:
            refused(table, "0000.json")
        except pytest.fail.Exception:
            # White space between the values may change; what they say may not.
            assert read_sidecar(sidecar) == before
            believed += 1
        finally:
            flip(sidecar, at)
    assert believed < 100


@pytest.mark.fault("F12")
def test_a_flipped_bit_in_the_store_is_found_and_the_shard_made_again(done, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(done, folder)
    store = Store(folder / ".scratch/small", "parse")
    right = digests(folder / "data/small/parse")
    records = sorted(store.records.glob("*.json"))
    assert len(records) == 2 and all(store.get(path.stem) for path in records)
    for data in (b"[]", b"null", b'{"files": ["x"]}', b'{"files": null}', b"\xff"):
        with changed(records[0], data):
            assert store.get(records[0].stem) is None and not store.has(records[0].stem)
    record = store.get(records[0].stem)
    for path in (records[0], store.objects / record.files["phrases"], store.objects / record.files["drops"]):
        for at in spots(path, 60):
            flip(path, at)
            found = store.get(records[0].stem)
            flip(path, at)
            assert found is None or found == record, (path, at)
    flip(store.objects / record.files["phrases"], 100)
    assert "1 shards computed, 1 from the scratch store" in in_process("parse", folder)
    assert digests(folder / "data/small/parse") == right
    flip(records[1], 20)
    assert "1 shards computed, 1 from the scratch store" in in_process("parse", folder)
    assert digests(folder / "data/small/parse") == right


@pytest.mark.fault("F12")
def test_a_truncated_or_emptied_store_is_no_store(done, tmp_path):
    for number, data in enumerate((b"", b"{}", b"[]", b"null", b"\xff\xfe", b'{"files": {"phrases": "x"}, "self": 1}')):
        folder = tmp_path / str(number)
        shutil.copytree(done, folder)
        for record in (folder / ".scratch/small/parse").glob("*.json"):
            record.write_bytes(data)
        assert "2 shards computed" in in_process("parse", folder)
    shutil.rmtree(folder / ".scratch/small/objects")
    assert "2 shards computed" in in_process("parse", folder)
    assert digests(folder / "data") == digests(done / "data")


@pytest.mark.fault("F13")
def test_a_deleted_shard(done, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(done, folder)
    shard = folder / "data/small/parse/phrases/0001.parquet"
    shard.unlink()
    refused(shard.parent, "[1]", "run the stage")
    ended = run_stage("detect", folder)
    assert ended.returncode == 3 and "lack their file or their sidecar" in ended.stderr
    assert "0 shards computed, 2 from the scratch store" in in_process("parse", folder)
    assert digests(folder / "data") == digests(done / "data")


@pytest.mark.fault("F14")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"rows": ', '"rows": 1'),
        ('"dropped": {}', '"dropped": {"low_score": 1}'),
        ('"max_words": 8', '"max_words": 9'),
        ('"self": "', '"self": "0'),
        ('"stage": "parse"', '"stage": "ingest"'),
    ],
)
def test_an_edited_sidecar(done, tmp_path, old, new):
    folder = tmp_path / "copy"
    shutil.copytree(done, folder)
    table = folder / "data/small/parse/phrases"
    sidecar = sidecar_path(table, 0)
    text = sidecar.read_text()
    assert old in text
    sidecar.write_text(text.replace(old, new))
    refused(table, "its content does not match its own hash")
    in_process("parse", folder)
    assert sidecar.read_text() == text


@pytest.mark.fault("F14")
@pytest.mark.parametrize("data", ["", "{", "[]", "null", '"text"', "7", '{"self": 1}', '{"shard": 0, "self": "x"}'])
def test_a_sidecar_that_is_none(whole, data):
    table = whole / "data/small/parse/phrases"
    with changed(sidecar_path(table, 0), data.encode()):
        refused(table, "damaged", "0000.json")


@pytest.mark.fault("F14")
def test_a_sidecar_with_a_forged_hash_of_its_own(whole):
    """Even one whose own hash was made to fit is refused where it does not fit the shard, or what a sidecar holds."""
    from pipeline.files import sha256_json

    table = whole / "data/small/parse/phrases"
    path = sidecar_path(table, 0)
    body = json.loads(path.read_text())
    body.pop("self")
    for change in (
        {"tables": {"phrases": {"sha256": "0" * 64, "rows": 1}}},
        {"tables": {}},
        {"tables": None},
        {"x": 1},
    ):
        forged = body | change
        with changed(path, json.dumps(forged | {"self": sha256_json(forged)}).encode()):
            refused(table)
    forged = {key: value for key, value in body.items() if key != "shard"}
    with changed(path, json.dumps(forged | {"self": sha256_json(forged)}).encode()):
        refused(table, "not a sidecar")
