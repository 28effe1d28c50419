"""Rows of finished shards, found by id or walked through; each shard is verified against its sidecar first."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.shards import damaged, read_table, shard_name, verified_hash


def shard_file(table_dir: Path, number: int) -> Path:
    return table_dir / f"{shard_name(number)}.parquet"


def verified(table_dir: Path, number: int, columns: list[str] | None = None) -> pa.Table:
    """One shard of a table, whole.

    Raises:
        InputError: it is missing, or is not what its sidecar says.
    """
    verified_hash(table_dir, number)
    return read_table(shard_file(table_dir, number), table_dir.name, columns)


def matching(
    table_dir: Path, number: int, column: str, values: Iterable[str], columns: list[str] | None = None
) -> pa.Table:
    """The rows of a shard whose `column` is one of `values`, in the shard's order."""
    table = verified(table_dir, number, columns)
    return table.filter(pc.is_in(table.column(column), pa.array(sorted(set(values)), pa.string())))


def stream(table_dir: Path, number: int, columns: list[str], rows: int = 16) -> Iterator[dict]:
    """Row after row of a shard, a few in memory at a time: for images, whose rows are large."""
    verified_hash(table_dir, number)
    path = shard_file(table_dir, number)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as handle:
            for batch in handle.iter_batches(rows, columns=columns):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, str(error).splitlines()[0]) from error


def stored_images(table_dir: Path, number: int, ids: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Id and stored bytes of these images in a shard, a row group at a time: a shard may hold gigabytes of pixels."""
    wanted = set(ids)
    verified_hash(table_dir, number)
    path = shard_file(table_dir, number)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as handle:
            for group in range(handle.num_row_groups):
                found = handle.read_row_group(group, ["id"]).column(0).to_pylist()
                rows = [row for row, identifier in enumerate(found) if identifier in wanted]
                stored = handle.read_row_group(group, ["bytes"]).column(0).take(rows) if rows else ()
                yield from ((found[row], data.as_py()) for row, data in zip(rows, stored, strict=True))
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, str(error).splitlines()[0]) from error
