"""What the sharded stages left behind: their sidecars as one record a stage, and rows that did not come through."""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.files import sha256_json
from pipeline.ledger import total
from pipeline.rows import matching, verified
from pipeline.shards import SIDECARS, read_sidecars, shard_name, shard_numbers
from stages.common.ids import draw_key, place_of

UNITS = ("image", "caption", "sentence", "phrase", "box", "feature", "candidate")
EXAMPLES = 3


@dataclass(frozen=True)
class StageRecord:
    """A finished stage, summed over its shards.

    `ledger` is as in the sidecars; `rows` maps a table to its row count; `hashes` has for each input under `read`
    (`path`: weights or annotations), and for each table under `wrote`, one sha256 over those of all shards.
    """

    name: str
    version: int
    shards: int
    params: dict[str, Any]
    facts: dict[str, Any]
    ledger: dict[str, dict]
    rows: dict[str, int]
    hashes: dict[str, dict[str, str]]


@dataclass(frozen=True)
class Passage:
    """A caption around one of its phrases, for display; `phrase` is '' where no phrase is meant."""

    before: str
    phrase: str
    after: str


@dataclass(frozen=True)
class Example:
    """A unit that did not come through, with the caption it comes from where there is one."""

    id: str
    image_id: str | None
    detail: str
    passage: Passage | None


def read_stage(folder: Path) -> StageRecord:
    """The record of the stage whose output folder this is.

    Raises:
        InputError: it has not run, a sidecar is damaged, its shards come from different runs, or its ledger does not
            add up.
    """
    name = folder.name
    sidecars = read_sidecars(folder)
    first = sidecars[0]
    ledger = total(sorted(first.ledger, key=UNITS.index), (s.ledger for s in sidecars))
    for unit, counts in ledger.items():
        if counts["in"] != counts["out"] + sum(counts["dropped"].values()) + sum(counts["rejected"].values()):
            raise InputError(
                f"{folder}: the ledger of {unit} does not add up; delete {folder / SIDECARS} and run `dvc repro {name}`"
            )
    facts: dict = {}
    for sidecar in sidecars:
        facts.update(sidecar.facts)
    tables = sorted(first.tables)
    path_hashes = {s.path_hash for s in sidecars}
    read = {name: _over(sidecars, lambda s, n=name: s.inputs[n]) for name in sorted(first.inputs)}
    if path_hashes != {None}:
        # Weights are hashed whole, the same for all shards; annotations only as far as they concern a shard.
        read["path"] = path_hashes.pop() if len(path_hashes) == 1 else _over(sidecars, lambda s: s.path_hash)
    return StageRecord(
        name,
        first.version,
        len(sidecars),
        first.params,
        facts,
        ledger,
        {table: sum(s.tables[table]["rows"] for s in sidecars) for table in tables},
        {"read": read, "wrote": {table: _over(sidecars, lambda s, t=table: s.tables[t]["sha256"]) for table in tables}},
    )


def _over(sidecars: list, of: Any) -> str:
    return sha256_json({shard_name(s.shard): of(s) for s in sidecars})


def each_shard(table_dir: Path, columns: list[str] | None = None) -> Iterator[tuple[int, pa.Table]]:
    """Shard number and table, shard after shard, each verified against its sidecar."""
    for number in shard_numbers(table_dir):
        yield number, verified(table_dir, number, columns)


def pick(table_dir: Path, number: int, ids: Iterable[str], columns: list[str] | None = None) -> dict[str, dict]:
    """The rows of these ids in a shard, by id; ids that are not there are left out."""
    return {row["id"]: row for row in matching(table_dir, number, "id", ids, columns).to_pylist()}


def examples(data: Path, stage: str, seed: int, most: int = EXAMPLES) -> dict[tuple[str, str, str], list[Example]]:
    """A few drawn rows for every (unit, outcome, reason) of a stage's drops."""
    groups: dict[tuple[str, str, str], list[tuple]] = defaultdict(list)
    for number, table in each_shard(data / stage / "drops"):
        here: dict[tuple[str, str, str], list[tuple]] = defaultdict(list)
        for row in table.to_pylist():
            key = (row["unit"], row["outcome"], row["reason"])
            here[key].append((draw_key(seed, row["id"]), number, row["id"], row["detail"], row["image_id"]))
        for key, found in here.items():
            # Tuples without the image id, which may be null and has no order.
            groups[key] = heapq.nsmallest(most, groups[key] + found, key=lambda item: item[:4])
    texts = _captions(data, [item for found in groups.values() for item in found])
    return {
        key: [
            Example(identifier, image_id, detail, _passage(key[0], identifier, texts))
            for _, _, identifier, detail, image_id in found
        ]
        for key, found in sorted(groups.items())
    }


def _captions(data: Path, items: list[tuple]) -> dict[str, str]:
    wanted = defaultdict(set)
    for _, number, identifier, _, _ in items:
        place = place_of(identifier)
        wanted[number] |= {identifier, place[0]} if place else {identifier}
    texts = {}
    for number, ids in sorted(wanted.items()):
        texts.update(
            {key: row["text"] for key, row in pick(data / "ingest" / "captions", number, ids, ["id", "text"]).items()}
        )
    return texts


def _passage(unit: str, identifier: str, texts: dict[str, str]) -> Passage | None:
    if unit == "caption":
        return Passage(texts[identifier], "", "") if identifier in texts else None
    place = place_of(identifier) if unit in ("phrase", "box", "candidate") else None
    if not place or place[0] not in texts:
        return None
    return passage(texts[place[0]], place[1], place[2])


def passage(text: str, start: int, end: int) -> Passage:
    """A caption cut at its phrase; offsets as Python slices."""
    return Passage(text[:start], text[start:end], text[end:])
