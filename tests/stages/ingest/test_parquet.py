"""Source parquet: rows of Hugging Face datasets, whatever their columns are called."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ingested import ingest, picture, refused, rows, texts

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(folder, name="train-0000.parquet", row_group_size=2, **columns):
    (folder / "collection").mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), folder / "collection" / name, row_group_size=row_group_size)


def structs(*numbers):
    return pa.array([{"bytes": picture(n), "path": f"{n}.png"} for n in numbers], STRUCT)


def test_a_column_of_captions_and_one_of_lists(tmp_path):
    write(tmp_path, image=structs(1, 2, 3), caption=["one", "two", "three"])
    ledger, _ = ingest(tmp_path, "parquet", "*.parquet")
    assert ledger["image"]["out"] == 3
    assert texts(tmp_path) == {f"train-0000.parquet#{n}": [text] for n, text in enumerate(("one", "two", "three"))}
    images = {row["uri"]: row["bytes"] for row in rows(tmp_path, "images")}
    assert images == {f"train-0000.parquet#{n}": picture(n + 1) for n in range(3)}
    write(tmp_path, image=structs(1, 2), sentences=[["a", "b"], []], key=pa.array([7, None]))
    ledger, _ = ingest(tmp_path, "parquet", "*.parquet", columns={"image": None, "caption": None, "id": "key"})
    assert ledger["image"]["dropped"] == {"no_caption": 1} and texts(tmp_path) == {"7": ["a", "b"]}
    assert {row["id"] for row in rows(tmp_path, "captions")} == {"7#0", "7#1"}


def test_a_pattern_stands_for_several_columns_in_their_natural_order(tmp_path):
    many = {f"caption_{n}": [f"number {n}"] for n in (10, 2, 1)}
    write(tmp_path, jpg=pa.array([picture(1)]), **many)
    ingest(tmp_path, "parquet", "*.parquet")
    assert texts(tmp_path) == {"train-0000.parquet#0": ["number 1", "number 2", "number 10"]}
    ingest(tmp_path, "parquet", "*.parquet", columns={"image": "jpg", "caption": "caption_1*", "id": None})
    assert texts(tmp_path) == {"train-0000.parquet#0": ["number 1", "number 10"]}


def test_rows_without_bytes_are_looked_up_by_their_path(tmp_path):
    (tmp_path / "collection/images").mkdir(parents=True)
    (tmp_path / "collection/images/here.png").write_bytes(picture(5))
    paths = ["here.png", "../../evil.png", "/etc/passwd", "gone.png", None]
    images = pa.array([{"bytes": None, "path": path} for path in paths] + [None], STRUCT)
    write(tmp_path, image=images, text=["a", "b", "c", "d", "e", "f"])
    ledger, _ = ingest(tmp_path, "parquet", "*.parquet")
    assert ledger["image"]["rejected"] == {"outside_root": 2, "missing_file": 1, "bad_record": 2}
    assert ledger["caption"]["dropped"] == {"image_rejected": 5}
    (image,) = rows(tmp_path, "images")
    assert (image["id"], image["uri"], image["bytes"]) == ("train-0000.parquet#0", "images/here.png", picture(5))
    write(tmp_path, image_path=["here.png"], text=["of a path"])
    ingest(tmp_path, "parquet", "*.parquet")
    assert texts(tmp_path) == {"train-0000.parquet#0": ["of a path"]}


def test_bad_rows_are_counted(tmp_path):
    bad = pa.StringArray.from_buffers(3, *pa.array([b"good", b"caf\xe9", b"x"]).buffers()[1:])
    write(tmp_path, image=structs(1, 2, 3), caption=bad, key=["a", "b", "a"])
    write(tmp_path, "b.parquet", image=pa.array([b"", b"<html>", picture(4), picture(5)]), caption=["a", "b", None, ""])
    columns = {"image": None, "caption": None, "id": None}
    ledger, drops = ingest(tmp_path, "parquet", "*.parquet", columns=columns)
    assert ledger["image"]["rejected"] == {"empty_file": 1, "unreadable": 1}
    assert ledger["caption"]["rejected"] == {"bad_encoding": 1, "bad_record": 1, "empty": 1}
    assert "the caption is null, not text" in {drop["detail"] for drop in drops}
    (tmp_path / "collection/b.parquet").unlink()
    ledger, drops = ingest(tmp_path, "parquet", "*.parquet", columns=columns | {"id": "key"})
    assert ledger["image"]["rejected"] == {"duplicate_id": 1}
    assert any(drop["detail"] == "train-0000.parquet#2 and train-0000.parquet#0" for drop in drops)


def test_lists_with_nulls_and_dictionaries(tmp_path):
    captions = pa.array([["a", None, "b"], None], pa.list_(pa.string()))
    write(tmp_path, image=structs(1, 2), captions=captions)
    ledger, _ = ingest(tmp_path, "parquet", "*.parquet")
    assert ledger["caption"]["rejected"] == {"bad_record": 2} and texts(tmp_path) == {
        "train-0000.parquet#0": ["a", "b"]
    }
    write(tmp_path, image=structs(1, 2), captions=pa.array(["same", "same"]).dictionary_encode())
    ingest(tmp_path, "parquet", "*.parquet")
    assert texts(tmp_path) == {"train-0000.parquet#0": ["same"], "train-0000.parquet#1": ["same"]}


def test_equal_rows_become_one_image_with_all_captions(tmp_path):
    write(tmp_path, image=structs(1, 1, 2), caption=["one", "again", "two"])
    ledger, _ = ingest(tmp_path, "parquet", "*.parquet")
    assert ledger["image"]["dropped"] == {"duplicate": 1}
    assert texts(tmp_path)["train-0000.parquet#0"] == ["one", "again"]


def test_without_fitting_columns_it_says_what_there_is(tmp_path):
    write(tmp_path, pixels=structs(1), words=["a"])
    said = refused(tmp_path, "parquet", "*.parquet")
    assert "no image column (the usual names)" in said and "words (string)" in said
    assert "set ingest.columns.image" in said
    said = refused(tmp_path, "parquet", "*.parquet", columns={"image": "pixels", "caption": "text", "id": None})
    assert "no caption column (text)" in said
    said = refused(tmp_path, "parquet", "*.parquet", columns={"image": "pixels", "caption": "words", "id": "key"})
    assert "no column 'key'; there are pixels, words" in said


@pytest.mark.parametrize("damage", ["cut", "flipped", "html", "empty"])
def test_a_damaged_file_is_refused(tmp_path, damage):
    (tmp_path / "collection").mkdir()
    file = tmp_path / "collection/a.parquet"
    table = pa.table({"image": structs(*range(40)), "caption": [f"number {n}" for n in range(40)]})
    pq.write_table(table, file, write_page_checksum=True, compression="none")
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 3] ^= 0x10
    data = {"cut": whole[:-100], "flipped": whole, "html": b"<html></html>", "empty": b""}[damage]
    file.write_bytes(bytes(data))
    assert "a.parquet: damaged or no Parquet file" in refused(tmp_path, "parquet", "*.parquet")
