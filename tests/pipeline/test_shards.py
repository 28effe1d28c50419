"""Shard files and the scratch store: whole or not there, and never believed without a look."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline import tables
from pipeline.errors import InputError, ResourceError
from pipeline.files import write_atomic, write_text
from pipeline.process import lock
from pipeline.shards import (
    Sidecar,
    Store,
    read_sidecar,
    read_table,
    scan,
    shard_numbers,
    shard_of,
    verified_hash,
    write_table,
)

LEDGER = {"caption": {"in": 2, "out": 2, "dropped": {}, "rejected": {}}}


def captions(number: int = 2):
    return tables.build(
        "captions",
        [{"id": f"c{i}", "image_id": "i", "text": f"a dog {i}", "split": "train"} for i in reversed(range(number))],
    )


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Store, str, Path]:
    """A store with one shard, linked into an output folder with its sidecar."""
    store = Store(tmp_path / "scratch", "parse")
    record = store.put("f" * 64, {"captions": captions()}, LEDGER, {})
    out = tmp_path / "out"
    store.link_into(record, out, 0)
    Sidecar(
        0, "ingest", 1, {"captions": {"sha256": record.files["captions"], "rows": 2}}, {}, LEDGER, None, {}, {}
    ).write(out / "sidecars" / "0000.json")
    return store, "f" * 64, out


def flip(path: Path, at: int) -> None:
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(bytes(data))


def test_rows_are_sorted_and_equal_content_gives_equal_bytes(tmp_path):
    write_table(tmp_path / "a", "captions", captions())
    write_table(tmp_path / "b", "captions", captions().take([1, 0]).sort_by("id"))
    assert captions().column("id").to_pylist() == ["c0", "c1"]
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_required_column_must_not_be_null():
    with pytest.raises(Exception, match="must not be null"):
        tables.build("captions", [{"id": "c", "image_id": None, "text": "t", "split": "train"}])


def test_shards_do_not_move_when_a_collection_grows():
    ids = [f"img{i}" for i in range(2000)]
    counts = [sum(shard_of(i, 64) == k for i in ids) for k in range(64)]
    assert min(counts) > 10 and max(counts) < 60
    assert shard_of("000000000139", 64) == shard_of("000000000139", 64)


@pytest.mark.fault("F12")
def test_done_means_record_and_content(stored):
    store, fingerprint, out = stored
    record = store.get(fingerprint)
    assert record.rows == {"captions": 2}
    assert store.has(fingerprint) and not store.has("0" * 64)
    flip(store.objects / record.files["captions"], 60)
    assert store.get(fingerprint) is None, "existence proves nothing"


@pytest.mark.fault("F12")
def test_an_edited_record_does_not_count(stored):
    store, fingerprint, _ = stored
    path = store.records / f"{fingerprint}.json"
    path.write_text(path.read_text().replace('"captions":2', '"captions":3'))
    assert store.get(fingerprint) is None


@pytest.mark.fault("F12")
def test_a_flipped_bit_in_a_shard_is_found(stored):
    _, _, out = stored
    shard = out / "captions" / "0000.parquet"
    assert verified_hash(out / "captions", 0)
    for at in (10, shard.stat().st_size // 2, shard.stat().st_size - 20):
        flip(shard, at)
        with pytest.raises(InputError, match="damaged"):
            verified_hash(out / "captions", 0)
        flip(shard, at)
    assert verified_hash(out / "captions", 0)


@pytest.mark.fault("F12")
def test_page_checksums_catch_what_parquet_itself_would_not(tmp_path):
    path = tmp_path / "captions.parquet"
    write_table(path, "captions", captions(500))
    caught = 0
    size = path.stat().st_size
    for at in range(20, size // 2, 97):
        flip(path, at)
        try:
            same = read_table(path, "captions").equals(captions(500))
        except InputError:
            caught += 1
        else:
            assert same, "wrong data was read without an error"
        flip(path, at)
    assert caught > 5


@pytest.mark.fault("F11", "F13")
def test_truncated_missing_and_foreign_files_give_one_line(stored, tmp_path):
    _, _, out = stored
    shard = out / "captions" / "0000.parquet"
    whole = shard.read_bytes()
    shard.unlink()
    with pytest.raises(InputError, match="sidecar"):
        shard_numbers(out / "captions")
    with pytest.raises(InputError, match="missing"):
        read_table(shard, "captions")
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="damaged"):
        read_table(shard, "captions")
    pq.write_table(captions().drop_columns("split"), shard)
    with pytest.raises(InputError, match="not a shard of `captions`"):
        read_table(shard, "captions")


@pytest.mark.fault("F14")
def test_an_edited_sidecar_is_refused(stored):
    _, _, out = stored
    path = out / "sidecars" / "0000.json"
    path.write_text(path.read_text().replace('"rows": 2', '"rows": 3'))
    with pytest.raises(InputError, match="own hash"):
        read_sidecar(path)
    with pytest.raises(InputError):
        list(scan(out / "captions"))


@pytest.mark.fault("F9")
def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path):
    target = tmp_path / "file"
    write_text(target, "old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(ResourceError, match="no space left"):
        write_atomic(target, fail)
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.fault("F5")
def test_a_second_run_is_refused_and_named(tmp_path):
    import subprocess
    import sys

    from small import environment

    script = (
        "import sys, time; from pathlib import Path; from pipeline.process import lock\n"
        "with lock(Path(sys.argv[1]), 'stage x'):\n    print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "x.lock")], stdout=subprocess.PIPE, env=environment()
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(ResourceError, match=f"already running as PID {holder.pid}"),
            lock(tmp_path / "x.lock", "stage x"),
        ):
            pass
    finally:
        holder.kill()
        holder.wait()
    with lock(tmp_path / "x.lock", "stage x"):
        pass
