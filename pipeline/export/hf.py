"""export hf: the pairs as a Hugging Face dataset, a row a pair, that `datasets.load_dataset(OUT)` opens.

OUT/README.md                   the dataset card
OUT/data/train-00000.parquet    a file a split and shard
OUT/provenance.json
"""

import json
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.export.card import card
from pipeline.export.coco import suffix
from pipeline.export.folder import MARK
from pipeline.export.walk import Picture, outline, pictures, provenance
from pipeline.files import write_json

_TEXT, _INT, _REAL = pa.string(), pa.int32(), pa.float32()
SCHEMA = pa.schema(
    [
        ("id", _TEXT),
        ("image", pa.struct([("bytes", pa.binary()), ("path", _TEXT)])),
        ("image_id", _TEXT),
        ("image_sha256", _TEXT),
        ("caption_id", _TEXT),
        ("caption", _TEXT),
        ("phrase", _TEXT),
        ("start", _INT),
        ("end", _INT),
        ("head", _TEXT),
        ("key", _TEXT),
        ("objects", _INT),
        ("bbox", pa.list_(_REAL)),
        ("mask", pa.struct([("size", pa.list_(_INT)), ("counts", _TEXT)])),
        ("area", _REAL),
        ("score", _REAL),
        ("predicted_iou", _REAL),
        ("stability", _REAL),
        ("mask_box_iou", _REAL),
        ("similarity", _REAL),
    ],
    # What `datasets` reads to take the struct for an image; the other columns speak for themselves.
    metadata={"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}}}})},
)
_ROWS_PER_GROUP, _BYTES_PER_GROUP = 100, 1 << 26
# An image is stored again for each of its pairs; a dictionary over a row group keeps one copy on disk.
_DICTIONARY_BYTES = 1 << 28


def write(data: Path, out: Path) -> tuple[int, int]:
    """Fills a folder; returns how many images and pairs it holds.

    Raises:
        InputError: a shard is damaged, stages do not fit together, or there is no pair.
    """
    outline(data)
    made = provenance(data)
    (out / "data").mkdir(parents=True)
    counts: dict[str, Counter] = {}
    shard, writers = None, {}
    with ExitStack() as stack:
        for picture in pictures(data):
            if picture.shard != shard:
                stack.pop_all().close()
                shard, writers = picture.shard, {}
            split = picture.image["split"]
            if split not in writers:
                target = out / "data" / f"{split}-{shard:05d}.parquet"
                writers[split] = stack.enter_context(_Rows(target))
            writers[split].add(picture)
            counts.setdefault(split, Counter()).update(images=1, pairs=len(picture.pairs))
    write_json(out / MARK, made)
    (out / "README.md").write_text(card(made, counts, SCHEMA), encoding="utf-8")
    return sum(c["images"] for c in counts.values()), sum(c["pairs"] for c in counts.values())


class _Rows:
    """One Parquet file, a row group at a time in memory."""

    def __init__(self, target: Path):
        self.writer = pq.ParquetWriter(
            target,
            SCHEMA,
            compression="zstd",
            write_page_checksum=True,
            use_dictionary=["image.bytes", "image.path", "image_id", "image_sha256", "caption", "head", "key"],
            dictionary_pagesize_limit=_DICTIONARY_BYTES,
        )
        self.rows: list[dict] = []
        self.bytes = 0

    def __enter__(self) -> "_Rows":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self._flush()
        self.writer.close()

    def add(self, picture: Picture) -> None:
        for pair in picture.pairs:
            self.rows.append(_row(picture, pair))
            self.bytes += len(picture.image["bytes"])
            if len(self.rows) >= _ROWS_PER_GROUP or self.bytes >= _BYTES_PER_GROUP:
                self._flush()

    def _flush(self) -> None:
        if self.rows:
            self.writer.write_table(pa.Table.from_pylist(self.rows, schema=SCHEMA))
            self.rows, self.bytes = [], 0


def _row(picture: Picture, pair: dict) -> dict:
    image = picture.image
    name = Path(image["uri"]).stem + suffix(image["bytes"])
    return {
        "id": pair["id"],
        "image": {"bytes": image["bytes"], "path": name},
        "image_id": image["id"],
        "image_sha256": image["sha256"],
        "caption_id": pair["caption_id"],
        **picture.words_of(pair),
        "bbox": [pair["x0"], pair["y0"], pair["x1"], pair["y1"]],
        "mask": {"size": [pair["height"], pair["width"]], "counts": pair["counts"].decode("ascii")},
        **{name: pair[name] for name in ("area", "score", "predicted_iou", "stability", "mask_box_iou", "similarity")},
    }
