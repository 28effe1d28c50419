"""Runs ingest over a collection and reads what came of it."""

import io
import json
import re
from pathlib import Path

from PIL import Image
from small import in_process, run_stage, write_params

from pipeline.shards import read_all

# What a run of more than a few seconds tells on its way.
PROGRESS = re.compile(r"ingest: \d+/\d+ shards, .*")
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange")


def picture(number: int, side: int = 40) -> bytes:
    """A PNG file with a picture of its own for every number."""
    made = Image.new("RGB", (side, side - 8), COLOURS[number % 6])
    for bit in range(16):
        if number >> bit & 1:
            made.paste("white", (2 * bit, 4, 2 * bit + 2, 12))
    data = io.BytesIO()
    made.save(data, "PNG")
    return data.getvalue()


def ingest(folder: Path, source: str, captions: str, **changes) -> tuple[dict, list[dict]]:
    """The ledger and the drops of the collection in `folder/collection`."""
    _write(folder, source, captions, {"max_reject_rate": 1.0} | changes)
    in_process("ingest", folder)
    ledger = json.loads((folder / "metrics/small/ingest.json").read_text())["ledger"]
    return ledger, rows(folder, "drops")


def refused(folder: Path, source: str, captions: str, **changes) -> str:
    """What ingest, as a process, says of a collection that it refuses with exit code 3."""
    _write(folder, source, captions, changes)
    result = run_stage("ingest", folder)
    assert result.returncode == 3 and "Traceback" not in result.stderr, result.stderr
    told = [line for line in result.stderr.splitlines() if not PROGRESS.fullmatch(line)]
    assert len(told) == 1, result.stderr
    return told[0]


def rows(folder: Path, table: str) -> list[dict]:
    return read_all(folder / "data/small/ingest" / table).to_pylist()


def texts(folder: Path) -> dict[str, list[str]]:
    """Captions by the id of their image, in order of their ids."""
    found: dict[str, list[str]] = {}
    for row in sorted(rows(folder, "captions"), key=lambda row: row["id"]):
        found.setdefault(row["image_id"], []).append(row["text"])
    return found


def _write(folder: Path, source: str, captions: str, changes: dict) -> None:
    (folder / "collection").mkdir(exist_ok=True)
    (folder / "collection/sentences.txt").write_text("")
    named = {f"ingest__{key}": value for key, value in changes.items()}
    write_params(
        folder / "params.yaml",
        folder / "collection",
        ingest__source=source,
        ingest__captions=captions,
        **named,
    )
