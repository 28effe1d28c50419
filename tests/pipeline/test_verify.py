"""verify finds every kind of damage, says where and what to do, and changes nothing."""

import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from small import digests

from pipeline.files import sha256_json


def flip(path: Path) -> None:
    """One bit of the first page, without a new size or time; other names of the file keep the old bytes."""
    stat = path.stat()
    raw = bytearray(path.read_bytes())
    raw[6] ^= 1
    path.unlink()
    path.write_bytes(raw)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def edit(path: Path, honest: bool = False, **changes: object) -> None:
    """Changes a sidecar or record; `honest`: with the hash of itself renewed, as a tool of its own would."""
    body = json.loads(path.read_text())
    own = body.pop("self")
    body |= changes
    path.unlink()
    path.write_text(json.dumps({**body, "self": sha256_json(body) if honest else own}))


def faults(command, folder: Path, *options: str) -> list[str]:
    before = digests(folder)
    code, out, _ = command(folder, "verify", *options)
    assert digests(folder) == before, "verify changes nothing"
    *lines, last = out.splitlines()
    assert last.endswith("no faults" if code == 0 else "fault" if len(lines) == 1 else "faults")
    assert code == (0 if not lines else 3)
    return lines


@pytest.mark.parametrize("options", [(), ("--fast",)])
def test_a_good_checkout_has_no_fault(command, finished, options):
    code, out, _ = command(finished, "verify", *options)
    assert code == 0
    objects = len(list((finished / ".scratch/small/objects").iterdir()))
    assert f"24 shards, 56 files, {objects} objects, 24 records" in out
    assert "cache objects: no faults" in out


def test_a_flipped_bit_is_found_wherever_it_is(command, mine):
    places = [
        next((mine / "data/small/segment/masks").glob("*.parquet")),
        next((mine / ".scratch/small/objects").iterdir()),
        next(p for p in (mine / ".dvc/cache/files/md5").glob("*/*") if not p.name.endswith(".dir")),
    ]
    for place in places:
        flip(place)
    found = faults(command, mine)
    assert [line.split(":")[0] for line in found] == [str(place.relative_to(mine)) for place in places[:2]] + [
        str(places[2])
    ]
    assert all("damaged" in line and "; delete it" in line for line in found)
    assert faults(command, mine, "--fast") == [], "no contents are hashed"


def test_missing_and_strange_files_are_found(command, mine):
    stage = mine / "data/small/parse"
    (stage / "phrases/0001.parquet").unlink()
    (stage / "sidecars/0002.json").unlink()
    (stage / "phrases/0009.parquet").write_bytes(b"PAR1")
    for options in ((), ("--fast",)):
        said = "\n".join(faults(command, mine, *options))
        assert "phrases/0001.parquet: missing, though its sidecar is there; run `dvc checkout`" in said
        assert "phrases/0002.parquet: no sidecar speaks of it" in said
        assert "phrases/0009.parquet: no sidecar speaks of it" in said
        assert "data/small/parse: has 3 shards, other stages 4" in said


def test_an_edited_sidecar_is_found_even_if_its_own_hash_is_right(command, mine):
    folder = mine / "data/small/align/sidecars"
    edit(folder / "0000.json", params={})
    body = json.loads((folder / "0001.json").read_text())
    edit(folder / "0001.json", honest=True, inputs=body["inputs"] | {"masks": "0" * 64})
    ledger = body["ledger"]["candidate"]
    edit(folder / "0002.json", honest=True, ledger={"candidate": ledger | {"in": 1 + ledger["in"]}})
    said = faults(command, mine)
    assert any("sidecars/0000.json: damaged" in line for line in said)
    assert any("`masks` it was made from is not the one that segment has there now" in line for line in said)
    assert any("the ledger of candidate does not add up" in line for line in said)


def test_a_truncated_shard_and_wrong_rows_are_found(command, mine):
    shard = mine / "data/small/detect/boxes/0003.parquet"
    whole = shard.read_bytes()
    shard.unlink()
    shard.write_bytes(whole[:-20])
    sidecar = mine / "data/small/segment/sidecars/0000.json"
    tables = json.loads(sidecar.read_text())["tables"]
    tables["masks"]["rows"] += 1
    edit(sidecar, honest=True, tables=tables)
    said = "\n".join(faults(command, mine, "--fast"))
    assert "boxes/0003.parquet: cannot be read" in said
    rows = pq.read_metadata(mine / "data/small/segment/masks/0000.parquet").num_rows
    assert f"masks/0000.parquet: has {rows} rows, its sidecar says {rows + 1}" in said


def test_drops_that_the_ledger_does_not_know_are_found(command, mine):
    sidecar = mine / "data/small/align/sidecars/0000.json"
    ledger = json.loads(sidecar.read_text())["ledger"]
    count = ledger["candidate"]["dropped"].pop("caption_cap")
    ledger["candidate"]["dropped"]["ambiguous"] = count
    edit(sidecar, honest=True, ledger=ledger)
    assert any(f"has 0 rows `candidate dropped ambiguous`, the ledger says {count}" in f for f in faults(command, mine))


def test_the_stores_records_are_checked(command, mine):
    first, second, third, *_ = sorted((mine / ".scratch/small/embed").glob("*.json"))
    edit(first, facts={})
    second.unlink()
    second.write_text("{")
    lost = json.loads(third.read_text())["files"]["features"]
    (mine / ".scratch/small/objects" / lost).unlink()
    said = faults(command, mine, "--fast")
    assert [line.split(": ", 1)[1].split(";")[0] for line in said] == [
        "damaged: its content does not match its own hash",
        "not a record of a shard",
        f"names an object that is not there ({lost[:16]}...)",
    ]


def test_left_overs_and_a_missing_cache_are_remarks(command, mine):
    (mine / "data/small/parse/phrases/.0001.parquet.999999.tmp").write_bytes(b"half")
    (mine / ".scratch/small/objects/.draft-999999-phrases").write_bytes(b"half")
    for path in (mine / ".dvc/cache/files/md5").glob("*/*.dir"):
        path.unlink()
    code, out, _ = command(mine, "verify", "--fast")
    assert code == 0
    assert out.count("`python -m pipeline clean` removes it") == 2
    assert out.count("not in DVC's cache; `dvc pull` or `dvc repro` brings it") == 6


def test_a_lost_part_of_the_cache_is_a_fault(command, mine):
    listing = next((mine / ".dvc/cache/files/md5").glob("*/*.dir"))
    part = json.loads(listing.read_text())[0]
    (mine / ".dvc/cache/files/md5" / part["md5"][:2] / part["md5"][2:]).unlink()
    said = faults(command, mine, "--fast")
    assert said and all("missing; it is data/small/" in line for line in said)
