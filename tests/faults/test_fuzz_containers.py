"""2,000 damaged COCO files and Parquet files, and some tars: a line of refusal or counted rows."""

import io
import json
import random
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faults.fuzz import fuzz
from faults.mutate import as_json, misshapen, mutated
from small import make_collection


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    make_collection(folder, 3)
    return folder


def test_coco(collection, tmp_path):
    document = json.loads((collection / "captions.json").read_text())

    def make(draw: random.Random) -> bytes:
        data = as_json(misshapen(draw, document) if draw.random() < 0.6 else document)
        return mutated(draw, data) if draw.random() < 0.5 else data

    seen = fuzz(tmp_path, "coco", "captions.json", 1000, make)
    assert seen["refused"] > 200 and seen["rows lost"] > 50 and sum(seen.values()) == 1000


def table(collection, draw: random.Random) -> pa.Table:
    """Rows with a struct of image bytes and path, and captions; sometimes of types nobody expects."""
    files = sorted((collection / "images").iterdir())
    images = [{"bytes": file.read_bytes() if draw.random() < 0.8 else None, "path": file.name} for file in files]
    captions: list = [[f"a thing {n}", "another"] for n in range(len(files))]
    if draw.random() < 0.3:
        captions[draw.randrange(3)] = draw.choice((None, [], [None], ["", "\0"]))
    if draw.random() < 0.2:
        images[draw.randrange(3)] = draw.choice((None, {"bytes": b"", "path": None}, {"bytes": None, "path": "../x"}))
    columns: dict[str, object] = {"image": images, "caption": captions, "id": list(range(3))}
    if draw.random() < 0.15:
        columns[draw.choice(("image", "caption"))] = draw.choice(
            ([1, 2, 3], [1.5, None, 2.0], [True, False, None], [b"x", b"\xff", b""])
        )
    if draw.random() < 0.05:
        columns.pop(draw.choice(("image", "caption")))
    return pa.table(columns)


def test_parquet(collection, tmp_path):
    def make(draw: random.Random) -> bytes:
        buffer = io.BytesIO()
        options = {"compression": draw.choice(("none", "snappy", "zstd")), "write_page_checksum": draw.random() < 0.5}
        pq.write_table(table(collection, draw), buffer, **options)
        return mutated(draw, buffer.getvalue()) if draw.random() < 0.8 else buffer.getvalue()

    seen = fuzz(tmp_path, "parquet", "rows.parquet", 1000, make)
    assert seen["refused"] > 200 and seen["rows lost"] > 50 and seen["whole"] > 50 and sum(seen.values()) == 1000


def test_a_column_whose_name_is_not_utf8(collection, tmp_path):
    buffer = io.BytesIO()
    pq.write_table(table(collection, random.Random(1)), buffer, compression="none")
    data = buffer.getvalue().replace(b"path", b"pa\xffh")
    assert data != buffer.getvalue()
    assert fuzz(tmp_path, "parquet", "rows.parquet", 1, lambda draw: data) == {"refused": 1}


def test_tars(collection, tmp_path):
    def make(draw: random.Random) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(
            fileobj=buffer, mode="w", format=draw.choice((tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT))
        ) as tar:
            for file in sorted((collection / "images").iterdir()):
                parts = {".png": file.read_bytes(), ".txt": b"a thing\nanother\n", ".json": b'{"caption": "a third"}'}
                for suffix, data in parts.items():
                    member = tarfile.TarInfo(file.stem + suffix)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
        return mutated(draw, buffer.getvalue())

    seen = fuzz(tmp_path, "webdataset", "rows.tar", 300, make)
    assert seen["refused"] > 50 and sum(seen.values()) == 300
