"""Shard files and the scratch store: atomic, checksummed, fingerprinted, resumable.

A stage's output is a folder `data/<dataset>/<stage>` with one Parquet file a table and shard, `<table>/0003.parquet`,
and one sidecar a shard, `sidecars/0003.json`, written last. Sidecars stand apart from the tables so that a later
stage, whose DVC dependency is the folder of the tables it reads, is not run again when only a parameter's record has
changed.

The scratch store lies outside DVC's outputs (DVC deletes a stage's outputs before it starts it). It is addressed by
content: `objects/<sha256>` holds files, `<stage>/<fingerprint>.json` says which of them a shard consists of. A shard
is *done* when its fingerprint is there and every file still hashes to its name.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import tables
from pipeline.errors import InputError, StageError
from pipeline.files import canonical_json, link, sha256_file, sha256_json, write_atomic, write_json

SIDECARS = "sidecars"
SHARDED = tuple(dict.fromkeys(tables.WRITER.values()))  # the stages that write shards, in order


def shard_of(identifier: str, shards: int) -> int:
    """The shard an image (or a sentence) falls in: a hash of its id, so that a grown dataset moves nothing."""
    return int.from_bytes(hashlib.sha256(identifier.encode()).digest()[:8], "big") % shards


def shard_name(number: int) -> str:
    return f"{number:04d}"


def write_table(target: Path, name: str, table: pa.Table) -> None:
    """Writes one Parquet shard atomically, with page checksums, and re-reads its footer before it takes its name."""

    def write(temporary: Path) -> None:
        pq.write_table(
            table,
            temporary,
            compression="zstd",
            write_page_checksum=True,
            use_dictionary=name != "images",
            row_group_size=tables.IMAGE_ROWS_PER_GROUP if name == "images" else tables.ROWS_PER_GROUP,
        )

    def check(temporary: Path) -> None:
        footer = pq.ParquetFile(temporary)
        if footer.metadata.num_rows != table.num_rows or not tables.matches(name, footer.schema_arrow):
            raise InputError(f"{target}: the written shard does not read back; the disk or the memory is faulty")

    write_atomic(target, write, check)


def read_table(path: Path, name: str, columns: list[str] | None = None) -> pa.Table:
    """Reads one shard with its page checksums verified.

    Raises:
        InputError: the file is missing, truncated, damaged, or not of the contract's schema.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as handle:
            if not tables.matches(name, handle.schema_arrow):
                raise InputError(
                    f"{path}: is not a shard of `{name}` as this version writes it; run the stage that makes it"
                )
            return handle.read(columns=columns)
    except FileNotFoundError:
        raise InputError(f"{path}: missing; run `dvc repro {tables.WRITER[name]}` or `dvc pull`") from None
    except StageError:
        raise
    except Exception as error:  # Arrow's readers raise nearly anything on damaged data
        raise damaged(path, (str(error).splitlines() or [type(error).__name__])[0]) from error


def damaged(path: Path, why: str) -> InputError:
    return InputError(f"{path}: damaged ({why}); delete it and run `dvc checkout` (or `dvc repro`) to get a good copy")


@dataclass(frozen=True)
class Sidecar:
    """What is known of one shard of one stage; `tables` maps a table to its sha256 and rows."""

    shard: int
    stage: str
    version: int
    tables: dict[str, dict]
    inputs: dict[str, str]
    ledger: dict[str, dict]
    path_hash: str | None
    params: dict
    facts: dict

    def write(self, path: Path) -> None:
        body = self.__dict__
        write_json(path, {**body, "self": sha256_json(body)})


def read_sidecar(path: Path) -> Sidecar:
    """Reads a sidecar and checks its own hash.

    Raises:
        InputError: it is missing, or was edited or damaged.
    """
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        own = body.pop("self")
        sidecar = Sidecar(**body)
    except FileNotFoundError:
        raise InputError(f"{path}: the shard has no sidecar, so it was never finished; run its stage again") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise damaged(path, "not a sidecar") from None
    if own != sha256_json(body):
        raise damaged(path, "its content does not match its own hash")
    return sidecar


def read_sidecars(folder: Path) -> list[Sidecar]:
    """All sidecars of a stage's output folder, in order of the shards.

    Raises:
        InputError: the stage has not run, a sidecar is damaged, or its shards come from different runs.
    """
    name = folder.name
    sidecars = [read_sidecar(file) for file in sorted((folder / SIDECARS).glob("[0-9]*.json"))]
    if not sidecars:
        raise InputError(f"{folder}: the stage {name} has not run; run `dvc repro {name}` or `dvc pull` first")
    first = sidecars[0]
    if any((s.version, s.params) != (first.version, first.params) for s in sidecars):
        raise InputError(f"{folder}: its shards come from different runs; run `dvc repro {name}` to make them agree")
    return sidecars


def sidecar_path(table_dir: Path, number: int) -> Path:
    """Where the sidecar of a table's shard lies: `<stage folder>/sidecars/0003.json`."""
    return table_dir.parent / SIDECARS / f"{shard_name(number)}.json"


def shard_numbers(table_dir: Path) -> list[int]:
    """The shards of a table, ascending.

    Raises:
        InputError: there are none, or a table and its sidecars do not name the same shards.
    """
    name = table_dir.name
    numbers = {int(p.stem) for p in table_dir.glob("[0-9]*.parquet")}
    described = {int(p.stem) for p in (table_dir.parent / SIDECARS).glob("[0-9]*.json")}
    if not described and not numbers:
        hint = f"run `dvc repro {tables.WRITER.get(name, name)}` first"
        raise InputError(f"{table_dir}: no shards here; {hint}")
    if odd := sorted(described ^ numbers):
        raise InputError(
            f"{table_dir}: shards {odd[:5]} lack their file or their sidecar; run the stage that makes them again"
        )
    return sorted(numbers)


def verified_hash(table_dir: Path, number: int) -> str:
    """The sha256 of a shard file as it lies there, checked against its sidecar.

    Raises:
        InputError: file or sidecar is missing, or they disagree.
    """
    path = table_dir / f"{shard_name(number)}.parquet"
    sidecar = sidecar_path(table_dir, number)
    try:
        stated = read_sidecar(sidecar).tables[table_dir.name]["sha256"]
    except (KeyError, TypeError):
        raise damaged(sidecar, f"it does not tell of `{table_dir.name}`") from None
    if not path.is_file():
        raise InputError(f"{path}: missing though its sidecar is there; run `dvc checkout` or `dvc repro`")
    if sha256_file(path) != stated:
        raise damaged(path, "its sha256 is not the one in its sidecar")
    return stated


def scan(table_dir: Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Every shard of a table in order, each verified against its sidecar before it is read."""
    for number in shard_numbers(table_dir):
        verified_hash(table_dir, number)
        yield read_table(table_dir / f"{shard_name(number)}.parquet", table_dir.name, columns)


def read_all(table_dir: Path, columns: list[str] | None = None) -> pa.Table:
    """The whole table, shard after shard."""
    return pa.concat_tables(scan(table_dir, columns))


@dataclass(frozen=True)
class Record:
    """A finished shard in the store: `files` maps a table to its sha256, `rows` to its row count."""

    files: dict[str, str]
    rows: dict[str, int]
    ledger: dict[str, dict]
    facts: dict


class Store:
    """The scratch store of one stage. Safe for several processes: files are named by content, records are renamed
    into place.
    """

    def __init__(self, root: Path, stage: str):
        self.objects = root / "objects"
        self.records = root / stage

    def get(self, fingerprint: str) -> Record | None:
        """The finished shard of this fingerprint, or None if there is none or one of its files no longer holds."""
        path = self.records / f"{fingerprint}.json"
        try:
            body = json.loads(path.read_text(encoding="utf-8"))
            own = body.pop("self")
            record = Record(**body)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        if own != sha256_json(body):
            return None
        for digest in record.files.values():
            file = self.objects / digest
            if not file.is_file() or sha256_file(file) != digest:
                return None
        with contextlib.suppress(OSError):
            os.utime(path)  # its last use, by which `clean` judges it
        return record

    def has(self, fingerprint: str) -> bool:
        """Whether a finished shard is on record (the plan's quick look: contents are not hashed)."""
        try:
            body = json.loads((self.records / f"{fingerprint}.json").read_text(encoding="utf-8"))
            return all((self.objects / digest).is_file() for digest in body["files"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False

    def put(self, fingerprint: str, written: dict[str, pa.Table], ledger: dict, facts: dict) -> Record:
        """Writes a shard's tables, then its record; only then does the shard count as done."""
        files = {name: self._put_table(name, table) for name, table in written.items()}
        record = Record(files, {name: table.num_rows for name, table in written.items()}, ledger, facts)
        body = record.__dict__
        text = canonical_json({**body, "self": sha256_json(body)})
        write_atomic(self.records / f"{fingerprint}.json", lambda p: p.write_text(text, encoding="utf-8"))
        return record

    def _put_table(self, name: str, table: pa.Table) -> str:
        draft = self.objects / f".draft-{os.getpid()}-{name}"
        try:
            write_table(draft, name, table)
            digest = sha256_file(draft)
            target = self.objects / digest
            if target.is_file() and sha256_file(target) == digest:
                return digest
            draft.replace(target)
            return digest
        finally:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)

    def link_into(self, record: Record, out: Path, number: int) -> None:
        """Puts a finished shard's tables into the stage's output folder."""
        for name, digest in record.files.items():
            link(self.objects / digest, out / name / f"{shard_name(number)}.parquet")
