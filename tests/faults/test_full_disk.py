"""A full disk, a read-only folder: exit 5 and one line, nothing bad left behind, and what is finished is used."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from faults.inject import bound_by_permissions, small_disk, told
from faults.nursery import nursery
from small import digests, in_process, make_collection, run_stage, write_params

from pipeline import entry, process, runner
from pipeline.errors import InputError
from pipeline.shards import Store, verified_hash

STAGE = "ingest"
SHARDS = 2


def stage(name: str, folder: str) -> None:
    """A stage as its process runs it, exit code and all."""
    os.chdir(folder)
    made = runner.load_stage(name)
    arguments = entry.parser(name, made.reads, "").parse_args([])
    process.run(name, lambda: runner.run_stage(made, entry.context(name, made.reads, arguments)))


def warm() -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        prepare(Path(folder))
        with contextlib.chdir(folder), contextlib.suppress(SystemExit):
            stage(STAGE, folder)


def prepare(folder: Path) -> Path:
    make_collection(folder / "collection", 6)
    write_params(folder / "params.yaml", folder / "collection", ingest__shards=SHARDS)
    return folder


def copy_of(prepared: Path, folder: Path) -> Path:
    folder.mkdir()
    shutil.copyfile(prepared / "params.yaml", folder / "params.yaml")
    return folder


def done_before(folder: Path) -> int:
    """How many shards the store has; each of them holds what its name says."""
    store = Store(folder / ".scratch/small", STAGE)
    records = list((folder / ".scratch/small" / STAGE).glob("[0-9a-f]*.json"))
    assert all(store.get(path.stem) for path in records)
    return len(records)


def good_or_nothing(folder: Path) -> None:
    """Every sidecar that is there tells the truth of its shard."""
    for table in ("images", "captions", "sentences"):
        for sidecar in (folder / f"data/small/{STAGE}/sidecars").glob("[0-9]*.json"):
            assert verified_hash(folder / f"data/small/{STAGE}/{table}", int(sidecar.stem))


def one_line(said: str) -> None:
    assert "Traceback" not in said and said.startswith(f"{STAGE}: ") and len(said.strip().splitlines()) <= 4, said


@pytest.fixture(scope="module")
def young():
    with nursery("faults.test_full_disk:warm") as made:
        yield made


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    return prepare(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def whole(prepared, tmp_path_factory) -> dict[str, str]:
    folder = copy_of(prepared, tmp_path_factory.mktemp("whole") / "run")
    in_process(STAGE, folder)
    return digests(folder / "data")


@pytest.mark.fault("F9")
@pytest.mark.parametrize(("kind", "first", "step"), [("full", 1, 2), ("blink", 2, 4)])
def test_the_disk_is_full_at_any_call(young, prepared, whole, tmp_path, kind, first, step):
    """From the n-th call on, or at the n-th alone, for many n; then there is space again, and the stage finishes."""
    call = "faults.test_full_disk:stage"
    points = young.run(call, STAGE, copy_of(prepared, tmp_path / "counted"))["points"]
    assert points > 100
    codes, kept = set(), set()
    for at in range(first, points + 1, step):
        folder = copy_of(prepared, tmp_path / str(at))
        ended = young.run(call, STAGE, folder, at=at, kind=kind)
        codes.add(ended["code"])
        # Only the file that tells the exit, written last of all, may be lost without an error.
        assert ended["code"] == 5 or not ended["code"] and digests(folder / "data") == whole, (at, ended)
        if ended["code"]:
            one_line(ended["said"])
            assert "no space left" in ended["said"].lower()
        good_or_nothing(folder)
        before = done_before(folder)
        kept.add(before)
        assert f"{before} from the scratch store" in in_process(STAGE, folder)
        assert digests(folder / "data") == whole, at
        shutil.rmtree(folder)
    assert codes >= {5} and kept == set(range(SHARDS + 1))


@pytest.mark.fault("F9")
def test_a_disk_that_is_really_full(tmp_path):
    with small_disk(tmp_path / "disk", 4) as mounted:
        if not mounted:
            pytest.skip("no right to mount a small disk here")
        folder = tmp_path / "disk"
        make_collection(tmp_path / "collection", 12)
        big = 0
        for file in sorted((tmp_path / "collection/images").iterdir()):
            file.write_bytes(file.read_bytes() + os.urandom(150_000))
            big += 150_000
        write_params(folder / "params.yaml", tmp_path / "collection", ingest__shards=6)
        (folder / "ballast").write_bytes(bytes(3_000_000))
        done = run_stage(STAGE, folder)
        assert done.returncode == 5 and "no space left" in done.stderr.lower(), done.stderr
        one_line(done.stderr)
        good_or_nothing(folder)
        before = done_before(folder)
        assert 0 < before < 6
        (folder / "ballast").unlink()
        again = run_stage(STAGE, folder)
        assert again.returncode == 0 and f"{before} from the scratch store" in again.stderr
        assert told(folder, STAGE)["code"] == 0


@pytest.mark.fault("F10")
@pytest.mark.parametrize("closed", ["data/small/ingest", ".scratch", ".scratch/small/objects", "metrics/small", "data"])
def test_a_read_only_folder(tmp_path, closed):
    prepare(tmp_path)
    (tmp_path / closed).mkdir(parents=True)

    def run() -> None:
        said = refused_by_permissions(tmp_path)
        assert closed in said and "writable" in said

    bound_by_permissions(tmp_path, run, closed=(tmp_path / closed,))
    assert told(tmp_path, STAGE)["code"] == 5
    good_or_nothing(tmp_path)
    bound_by_permissions(tmp_path, lambda: in_process(STAGE, tmp_path))


def refused_by_permissions(folder: Path) -> str:
    """What the stage says, in one line and with exit 5."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), pytest.raises(SystemExit) as ended:
        stage(STAGE, str(folder))
    assert ended.value.code == 5, said.getvalue()
    one_line(said.getvalue())
    return said.getvalue()


@pytest.mark.fault("F10")
def test_a_checkout_that_is_read_only_as_a_whole(tmp_path):
    """Not even the exit can be told: one line all the same."""
    prepare(tmp_path)
    (tmp_path / ".run").mkdir()
    (tmp_path / ".run/ingest.exit.json").write_text('{"code": 75, "message": "of an earlier run"}')
    closed = (tmp_path, tmp_path / ".run")
    bound_by_permissions(tmp_path, lambda: refused_by_permissions(tmp_path), closed=closed)


@pytest.mark.fault("F10")
def test_a_disk_mounted_read_only(prepared, tmp_path):
    with small_disk(tmp_path / "disk", 8) as mounted:
        if not mounted:
            pytest.skip("no right to mount a small disk here")
        copy_of(prepared, tmp_path / "disk/run")
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True)
        done = run_stage(STAGE, tmp_path / "disk/run")
        assert done.returncode == 5 and "Read-only file system" in done.stderr
        one_line(done.stderr)


def test_a_reader_refuses_what_a_full_disk_left(prepared, tmp_path):
    """A copy of the tables that broke off (no sidecars yet) is not taken by the next stage."""
    folder = copy_of(prepared, tmp_path / "run")
    in_process(STAGE, folder)
    shutil.rmtree(folder / "data/small/ingest/sidecars")
    with pytest.raises(InputError, match="lack their file or their sidecar"):
        in_process("parse", folder)
    assert json.loads((folder / "metrics/small/ingest.json").read_text())["shards"] == SHARDS
