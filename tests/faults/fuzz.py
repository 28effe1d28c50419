"""Ingest over damaged collections, by its own functions: a refusal of one line, or rows that add up."""

import contextlib
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from small import make_collection, write_params

from pipeline import ledger, params, runner, tables
from pipeline.errors import StageError

STAGE = runner.load_stage("ingest")


def context(folder: Path, source: str, captions: str, **changes: object) -> runner.Context:
    """The stage's context over `folder`/collection; run it with `folder` as the working folder."""
    if not (folder / "collection/images").exists():
        make_collection(folder / "collection", 3)
    file = write_params(
        folder / "params.yaml",
        Path("collection"),
        base=folder,
        ingest__source=source,
        ingest__captions=captions,
        ingest__shards=1,
        ingest__sentences_path="/dev/null",
        **changes,
    )
    made = params.load(file)
    return runner.Context(made, made.ingest, {}, folder / "out", folder / "metrics.json")


def ingest(given: runner.Context) -> tuple[str | None, dict[str, dict], dict[str, list[dict]]]:
    """One run of the stage without the store: (what it was refused with or None, the ledger, rows by table).

    Raises:
        Exception: anything but a StageError of one line; a ledger that does not add up.
    """
    totals, rows = [], {"images": [], "captions": [], "drops": []}
    try:
        for task in STAGE.tasks(given):
            output = STAGE.process(STAGE.open(given), task, {})
            drops = [drop.__dict__ for drop in output.drops]
            written = {name: tables.build(name, made) for name, made in {**output.tables, "drops": drops}.items()}
            totals.append(ledger.count(STAGE.units, output.seen, written))
            for name in rows:
                rows[name] += written[name].to_pylist()
    except StageError as error:
        said = str(error)
        assert said and "\n" not in said and "this is a bug" not in said, said
        return said, {}, rows
    return None, ledger.total(STAGE.units, totals), rows


def fuzz(folder: Path, source: str, name: str, files: int, make: Callable[[random.Random], bytes]) -> Counter:
    """Ingests `files` damaged files one after another; how many were refused, cost rows, or went through whole."""
    seen: Counter = Counter()
    given = context(folder, source, name)
    with contextlib.chdir(folder):
        for seed in range(files):
            data = make(random.Random(seed))
            Path("collection", name).write_bytes(data)
            try:
                refused, counts, rows = ingest(given)
            except Exception as error:
                raise AssertionError(
                    f"seed {seed}: {type(error).__name__}: {error}; the file: {data[:2000]!r}"
                ) from error
            if refused:
                seen["refused"] += 1
                continue
            lost = sum(sum(unit[side].values()) for unit in counts.values() for side in ("dropped", "rejected"))
            assert lost == len(rows["drops"]) and all(row["reason"] for row in rows["drops"]), seed
            known = {row["id"] for row in rows["images"]}
            assert all(row["image_id"] in known and row["text"].strip() for row in rows["captions"]), seed
            seen["rows lost" if lost else "whole"] += 1
    return seen
