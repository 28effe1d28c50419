"""What the suites read of a collection: the tables that earlier stages wrote below data/<dataset>."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError
from pipeline.files import sha256_json
from pipeline.rows import verified
from pipeline.shards import read_all, read_sidecar, scan, shard_numbers, sidecar_path
from pipeline.tables import WRITER


def table_dir(collection: Path, table: str) -> Path:
    return collection / WRITER[table] / table


def lacking(collection: Path | None, tables: Iterable[str]) -> str:
    """Why a suite cannot read these tables, or ""."""
    if collection is None:
        return "no collection is given (--collection, the folder data/<dataset>)"
    absent = [table_dir(collection, table) for table in tables if not table_dir(collection, table).is_dir()]
    return f"{', '.join(map(str, absent))}: not there; run the stages that write it" if absent else ""


def digest(collection: Path, tables: Iterable[str]) -> str:
    """A content hash of these tables, of what the sidecars say of their shards."""
    return sha256_json(
        {
            table: [
                read_sidecar(sidecar_path(table_dir(collection, table), number)).tables[table]["sha256"]
                for number in shard_numbers(table_dir(collection, table))
            ]
            for table in tables
        }
    )


def rows(collection: Path, table: str, columns: list[str]) -> list[dict]:
    """The rows of a table, shard after shard; within a shard in the table's own order."""
    return read_all(table_dir(collection, table), columns).to_pylist()


def image_names(collection: Path) -> list[tuple[str, str]]:
    """(id, uri) of the images."""
    found = []
    for table in scan(table_dir(collection, "images"), ["id", "uri"]):
        found += zip(table.column("id").to_pylist(), table.column("uri").to_pylist(), strict=True)
    return found


def features(collection: Path, kind: str, wanted: Iterable[str]) -> tuple[list[str], np.ndarray]:
    """(ids, float16 [n, d]) of the wanted features of a kind that are there; [0, 0] if none is.

    Raises:
        InputError: the shards hold vectors of several widths.
    """
    ids, parts, names = [], [], pa.array(sorted(set(wanted)), pa.string())
    folder = table_dir(collection, "features")
    for number in shard_numbers(folder):
        table = verified(folder, number, ["id", "kind", "vector"])
        table = table.filter(pc.and_(pc.equal(table.column("kind"), kind), pc.is_in(table.column("id"), names)))
        if table.num_rows:
            width = table.schema.field("vector").type.byte_width // 2
            stored = b"".join(table.column("vector").to_pylist())
            parts.append(np.frombuffer(stored, "<f2").reshape(-1, width))
            ids += table.column("id").to_pylist()
    if len({part.shape[1] for part in parts}) > 1:
        raise InputError(f"{folder}: vectors of several widths; the shards come from different runs, `dvc repro embed`")
    return ids, np.concatenate(parts) if parts else np.zeros((0, 0), np.float16)
