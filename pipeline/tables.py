"""The Arrow schema of every artifact: the contract between the stages.

Ids are strings and rows are sorted by the columns named in `SORT`, so that equal content means equal bytes.
Pixel coordinates are in the frame of the image as ingest stored it (after EXIF rotation): x to the right, y down,
origin at the outer corner of the top left pixel; boxes are x0, y0, x1, y1 in pixels with x1 and y1 exclusive.
Masks are COCO run-length encodings at image resolution (`counts`, compressed), column-major as pycocotools defines
them.
"""

import hashlib

import pyarrow as pa

_TEXT, _INT, _REAL = pa.string(), pa.int32(), pa.float32()


def _schema(**columns: pa.DataType | tuple[pa.DataType, bool]) -> pa.Schema:
    """Columns are required unless given as (type, True)."""
    return pa.schema(
        [
            pa.field(name, t[0], nullable=True) if isinstance(t, tuple) else pa.field(name, t, nullable=False)
            for name, t in columns.items()
        ]
    )


_BOX = {"x0": _REAL, "y0": _REAL, "x1": _REAL, "y1": _REAL}

TABLES: dict[str, pa.Schema] = {
    # An image as every later stage sees it: `bytes` is a JPEG, PNG or WEBP file in plain RGB, upright. `sha256` is
    # the hash of the file that was read, `rewritten` says why `bytes` differs from that file (empty: it does not),
    # `split` is train, dev or test, `phash` the perceptual hash of its pixels (stages/common/phash.py).
    "images": _schema(
        id=_TEXT,
        sha256=_TEXT,
        bytes=pa.binary(),
        width=_INT,
        height=_INT,
        uri=_TEXT,
        split=_TEXT,
        rewritten=_TEXT,
        phash=pa.uint64(),
    ),
    # `text` is the caption as it was given, NFC-normalised, control characters replaced by spaces, ends stripped.
    "captions": _schema(id=_TEXT, image_id=_TEXT, text=_TEXT, split=_TEXT),
    # Text without an image; the text-only stream of training.
    "sentences": _schema(id=_TEXT, text=_TEXT),
    # A phrase of a caption: caption.text[start:end] == text (Python string offsets). `head` is the lemma of its head
    # noun, `number` sing or plur, `count` the number it states ("two dogs": 2) or null, `key` the canonical form that
    # two phrases for the same sort of thing share, `kind` the phrase type.
    "phrases": _schema(
        id=_TEXT,
        image_id=_TEXT,
        caption_id=_TEXT,
        start=_INT,
        end=_INT,
        text=_TEXT,
        head=_TEXT,
        number=_TEXT,
        count=(_INT, True),
        key=_TEXT,
        kind=_TEXT,
    ),
    # The best boxes of a phrase, best first by `rank`. `object_id` names the annotated object (backend annotations
    # only).
    "boxes": _schema(
        id=_TEXT, image_id=_TEXT, phrase_id=_TEXT, rank=_INT, **_BOX, score=_REAL, label=_TEXT, object_id=(_TEXT, True)
    ),
    # `box_id` is null for masks found without a box prompt. `area` in pixels; `predicted_iou` and `stability` as SAM
    # defines them (1 for annotated masks).
    "masks": _schema(
        id=_TEXT,
        image_id=_TEXT,
        box_id=(_TEXT, True),
        height=_INT,
        width=_INT,
        counts=pa.binary(),
        area=_INT,
        predicted_iou=_REAL,
        stability=_REAL,
    ),
    # `id` is `image:<image id>`, `object:<digest of image id and mask>`, `caption:<caption id>` or `phrase:<text>`.
    # `vector` is little-endian float16, fixed width (`features_schema`).
    "features": _schema(id=_TEXT, kind=_TEXT, image_id=(_TEXT, True), vector=pa.binary(2)),
    # An object-phrase pair. `area` is the mask's share of the image; `mask_box_iou` is the IoU of the mask's own
    # bounding box with the detected box; `similarity` is the cosine of crop and phrase where the encoder has a text
    # tower.
    "pairs": _schema(
        id=_TEXT,
        image_id=_TEXT,
        caption_id=_TEXT,
        phrase_id=_TEXT,
        start=_INT,
        end=_INT,
        text=_TEXT,
        head=_TEXT,
        key=_TEXT,
        objects=_INT,
        **_BOX,
        height=_INT,
        width=_INT,
        counts=pa.binary(),
        area=_REAL,
        score=_REAL,
        predicted_iou=_REAL,
        stability=_REAL,
        mask_box_iou=_REAL,
        similarity=(_REAL, True),
        feature_id=_TEXT,
        image_feature_id=_TEXT,
    ),
    # Every unit that did not come through, with its reason: `outcome` is dropped (a rule) or rejected (a bad record).
    "drops": _schema(unit=_TEXT, id=_TEXT, image_id=(_TEXT, True), outcome=_TEXT, reason=_TEXT, detail=_TEXT),
}

SORT: dict[str, tuple[str, ...]] = {
    "phrases": ("caption_id", "start", "end"),
    "boxes": ("phrase_id", "rank"),
    "pairs": ("caption_id", "start", "end"),
    "drops": ("unit", "id", "reason", "detail"),
}

# Which stage writes a table; with it the default place of every artifact: data/<dataset>/<stage>/<table>.
WRITER: dict[str, str] = {
    "images": "ingest",
    "captions": "ingest",
    "sentences": "ingest",
    "phrases": "parse",
    "boxes": "detect",
    "masks": "segment",
    "features": "embed",
    "pairs": "align",
}

IMAGE_ROWS_PER_GROUP = 100
ROWS_PER_GROUP = 20_000


def features_schema(dim: int) -> pa.Schema:
    """The schema of `features` for vectors of `dim` float16 numbers."""
    schema = TABLES["features"]
    return schema.set(schema.get_field_index("vector"), pa.field("vector", pa.binary(2 * dim), nullable=False))


def matches(name: str, schema: pa.Schema) -> bool:
    """Whether a file's schema is the contract's; the width of feature vectors is free."""
    if name == "features":
        width = schema.field("vector").type if "vector" in schema.names else None
        if not (pa.types.is_fixed_size_binary(width) and width.byte_width % 2 == 0):
            return False
        return schema.equals(features_schema(width.byte_width // 2))
    return schema.equals(TABLES[name])


def schema_hash(names: tuple[str, ...]) -> str:
    """A digest of the named schemas and their sort order; part of every fingerprint."""
    text = "\n".join(f"{name}\n{TABLES[name]}\n{SORT.get(name, ('id',))}" for name in sorted(names))
    return hashlib.sha256(text.encode()).hexdigest()


def build(name: str, rows: list[dict], schema: pa.Schema | None = None) -> pa.Table:
    """A table of the contract from row dicts, sorted.

    Raises:
        pyarrow.ArrowInvalid: a value does not fit its column, or a required one is missing.
    """
    return ordered(name, pa.Table.from_pylist(rows, schema=schema or TABLES[name]))


def ordered(name: str, table: pa.Table) -> pa.Table:
    """A table that was built column by column, checked and sorted as `build` does it.

    Raises:
        pyarrow.ArrowInvalid: a required value is missing.
    """
    for field in table.schema:
        if not field.nullable and table.column(field.name).null_count:
            raise pa.ArrowInvalid(f"table {name}: column {field.name} must not be null")
    return table.sort_by([(column, "ascending") for column in SORT.get(name, ("id",))])
