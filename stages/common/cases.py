"""Cases: what a card of the page shows, and the file in which the stage `quality` hands its worst ones on."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.files import write_atomic

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Case:
    """What a card shows, before any pixel is read.

    `span` is the phrase in its caption (None: the caption as a whole); `mask` and `gold` are compressed counts in a
    `frame` of height and width, `box` and `gold_box` are x0, y0, x1, y1 in pixels. `outcome` is kept, dropped or
    rejected (measured against gold: right, wrong or missed), `stage` and `reason` say by whom and why, `measures` are
    the numbers under the picture by name.
    """

    id: str
    image_id: str
    shard: int
    caption_id: str
    span: tuple[int, int] | None
    frame: tuple[int, int] | None = None
    mask: bytes | None = None
    gold: bytes | None = None
    box: Box | None = None
    gold_box: Box | None = None
    outcome: str = "kept"
    stage: str = "align"
    reason: str = ""
    detail: str = ""
    measures: dict[str, float] = field(default_factory=dict)


_BOX = pa.list_(pa.float64(), 4)
SCHEMA = pa.schema(
    {
        "list": pa.string(),
        "place": pa.int32(),
        "id": pa.string(),
        "image_id": pa.string(),
        "shard": pa.int32(),
        "caption_id": pa.string(),
        "start": pa.int32(),
        "end": pa.int32(),
        "height": pa.int32(),
        "width": pa.int32(),
        "mask": pa.binary(),
        "gold": pa.binary(),
        "box": _BOX,
        "gold_box": _BOX,
        "outcome": pa.string(),
        "stage": pa.string(),
        "reason": pa.string(),
        "detail": pa.string(),
        "measures": pa.map_(pa.string(), pa.float64()),
    }
)


def write(path: Path, lists: dict[str, list[Case]]) -> None:
    """Lists of cases as one Parquet file, a row a case, in their order."""
    rows = [_row(name, place, case) for name, cases in lists.items() for place, case in enumerate(cases)]
    table = pa.Table.from_pylist(rows, SCHEMA)
    write_atomic(path, lambda temporary: pq.write_table(table, temporary, compression="zstd", write_page_checksum=True))


def read(path: Path) -> dict[str, list[Case]]:
    """The lists of cases of a file; one without cases is not among them.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        # A file object: a bare path under data/<dataset>/ would be read as part of a partitioned set.
        with pq.ParquetFile(path, page_checksum_verification=True) as handle:
            table = handle.read()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: no cases here ({str(error).splitlines()[0]}); run `dvc repro quality`") from None
    if not table.schema.equals(SCHEMA):
        raise InputError(f"{path}: not cases as this version writes them; run `dvc repro quality`")
    lists: dict[str, list[Case]] = {}
    for row in table.to_pylist(maps_as_pydicts="strict"):
        lists.setdefault(row["list"], []).append(_case(row))
    return lists


def _row(name: str, place: int, case: Case) -> dict:
    start, end = case.span or (None, None)
    height, width = case.frame or (None, None)
    own = {key: getattr(case, key) for key in SCHEMA.names if hasattr(case, key)}
    places = {"list": name, "place": place, "start": start, "end": end, "height": height, "width": width}
    return own | places | {"measures": list(case.measures.items())}


def _case(row: dict) -> Case:
    def together(keys: Iterable[str]) -> tuple | None:
        found = tuple(row[key] for key in keys)
        return None if None in found else found

    kept = {
        key: row[key]
        for key in ("id", "image_id", "shard", "caption_id", "mask", "gold", "outcome", "stage", "reason", "detail")
    }
    boxes = {key: tuple(row[key]) if row[key] is not None else None for key in ("box", "gold_box")}
    span, frame = together(("start", "end")), together(("height", "width"))
    return Case(**kept, **boxes, span=span, frame=frame, measures=row["measures"])
