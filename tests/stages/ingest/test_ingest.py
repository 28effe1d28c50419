"""ingest: dirty collections give counted rows, never a traceback, and nothing is lost."""

import json

import pyarrow as pa
import pytest
from PIL import Image
from small import in_process, run_stage, write_params

from pipeline.shards import read_all
from stages.ingest.places import path_fault
from stages.ingest.stage import split_of


@pytest.fixture
def folder(tmp_path):
    """A folder collection with one good image; tests add what they need and call `ingest`."""
    (tmp_path / "collection/images").mkdir(parents=True)
    Image.new("RGB", (40, 30), "red").save(tmp_path / "collection/images/good.png")
    return tmp_path


def captions(folder, *lines):
    text = "image,caption\ngood.png,a red square\n" + "".join(f"{line}\n" for line in lines)
    (folder / "collection/captions.csv").write_text(text)


def ingest(folder, **changes):
    write_params(
        folder / "params.yaml",
        folder / "collection",
        ingest__source="folder",
        ingest__captions=changes.pop("captions", "captions.csv"),
        ingest__max_reject_rate=changes.pop("max_reject_rate", 1.0),
        **changes,
    )
    in_process("ingest", folder)
    ledger = json.loads((folder / "metrics/small/ingest.json").read_text())["ledger"]
    drops = read_all(folder / "data/small/ingest/drops").to_pylist()
    return ledger, drops


def test_every_bad_image_is_a_counted_row_with_its_reason(folder):
    images = folder / "collection/images"
    (images / "empty.jpg").write_bytes(b"")
    (images / "page.jpg").write_bytes(b"<html>not an image</html>")
    Image.new("RGB", (200, 200), "blue").save(images / "whole.jpg")
    (images / "half.jpg").write_bytes((images / "whole.jpg").read_bytes()[:400])
    Image.new("RGB", (12, 40)).save(images / "thin.png")
    Image.new("RGB", (20, 900)).save(images / "long.png")
    Image.new("1", (20000, 10000)).save(images / "bomb.png")
    (images / "link.png").symlink_to("/etc/hostname")
    names = [
        "empty.jpg",
        "page.jpg",
        "half.jpg",
        "thin.png",
        "long.png",
        "bomb.png",
        "link.png",
        "missing.png",
        "../evil.png",
        "/etc/x.png",
    ]
    captions(folder, *(f"{name},a thing" for name in names))
    ledger, drops = ingest(folder)
    reasons = {d["detail"].split(":")[0].split("/")[-1]: d["reason"] for d in drops if d["unit"] == "image"}
    assert reasons["empty.jpg"] == "empty_file" and reasons["page.jpg"] == "unreadable"
    assert reasons["half.jpg"] in ("truncated", "unreadable") and reasons["thin.png"] == "too_small"
    assert reasons["long.png"] == "aspect" and reasons["bomb.png"] == "too_many_pixels"
    assert reasons["link.png"] == "outside_root" and reasons["missing.png"] == "missing_file"
    assert ledger["image"]["rejected"]["outside_root"] == 3
    assert ledger["caption"]["dropped"] == {"image_rejected": 10}, "captions go with their image, and say so"
    assert ledger["image"]["dropped"] == {"no_caption": 1}, "whole.jpg has no caption"
    assert ledger["image"]["out"] == 1


def test_unusual_images_are_rewritten_once_as_plain_rgb(folder):
    images = folder / "collection/images"
    turned = Image.new("RGB", (60, 40), "green")
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(images / "turned.jpg", exif=exif)
    wide = Image.new("I;16", (40, 30))
    wide.putdata([i * 50 for i in range(1200)])
    wide.save(images / "deep.png")
    hidden = Image.new("RGBA", (40, 30), (255, 0, 0, 0))
    hidden.save(images / "alpha.png")
    Image.new("CMYK", (40, 30), (0, 255, 255, 0)).save(images / "cmyk.jpg")
    Image.new("P", (40, 30)).save(images / "palette.gif")
    names = ["turned.jpg", "deep.png", "alpha.png", "cmyk.jpg", "palette.gif"]
    captions(folder, *(f"{name},a thing" for name in names))
    ledger, _ = ingest(folder, ingest__deduplicate=False)
    assert ledger["image"]["out"] == 6
    from stages.common.images import decode

    rows = {r["uri"].split("/")[-1]: r for r in read_all(folder / "data/small/ingest/images").to_pylist()}
    assert (rows["turned.jpg"]["width"], rows["turned.jpg"]["height"]) == (40, 60)
    assert rows["turned.jpg"]["rewritten"] == "exif_rotation" and rows["good.png"]["rewritten"] == ""
    assert rows["good.png"]["bytes"] == (images / "good.png").read_bytes()
    assert decode(rows["alpha.png"]["bytes"]).getpixel((5, 5)) == (255, 255, 255), "colour under alpha 0 stays hidden"
    deep = decode(rows["deep.png"]["bytes"])
    assert deep.getpixel((39, 29))[0] == round(1199 * 50 / 257), "16 bits are scaled, not clipped"
    red = decode(rows["cmyk.jpg"]["bytes"]).getpixel((5, 5))
    assert red[0] > 200 and red[1] < 60
    for row in rows.values():
        picture = decode(row["bytes"])
        assert picture.size == (row["width"], row["height"]) and picture.mode == "RGB"


def test_equal_images_become_one_and_keep_all_captions(folder):
    good = (folder / "collection/images/good.png").read_bytes()
    (folder / "collection/images/again.png").write_bytes(good)
    captions(folder, "again.png,the same square")
    ledger, drops = ingest(folder)
    assert ledger["image"] == {"in": 2, "out": 1, "dropped": {"duplicate": 1}, "rejected": {}}
    rows = read_all(folder / "data/small/ingest/captions").to_pylist()
    assert {r["image_id"] for r in rows} == {"images/again.png"} and len(rows) == 2
    assert next(d for d in drops if d["reason"] == "duplicate")["detail"].startswith("byte-equal to images/again.png")


def test_bad_captions_are_counted_rows(folder):
    words = " ".join(["word"] * 10_000)
    captions(folder, "good.png,", "good.png,   ", f"good.png,{words}", ",no image", 'good.png,"quoted, with ""comma"""')
    path = folder / "collection/captions.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"good.png,caf\xe9\r\n")
    ledger, drops = ingest(folder)
    counts = ledger["caption"]
    assert counts["rejected"] == {"bad_encoding": 1, "bad_record": 1, "empty": 2}
    assert counts["dropped"] == {"too_long": 1} and counts["out"] == 2
    assert any("10000 words" in d["detail"] for d in drops)
    texts = set(read_all(folder / "data/small/ingest/captions").column("text").to_pylist())
    assert texts == {"a red square", 'quoted, with "comma"'}


def test_repeated_caption_ids_name_both(folder):
    lines = [
        {"image": "good.png", "caption": "first", "id": "7"},
        {"image": "good.png", "caption": "second", "id": "7"},
    ]
    text = "\n".join(json.dumps(line) for line in lines) + '\n{"image": 3}\nnot json\n'
    (folder / "collection/captions.jsonl").write_text(text)
    ledger, drops = ingest(folder, captions="captions.jsonl")
    assert ledger["caption"]["rejected"] == {"bad_record": 2, "duplicate_id": 1}
    detail = next(d for d in drops if d["reason"] == "duplicate_id")["detail"]
    assert "'second'" in detail and "'first'" in detail


def test_text_is_cleaned_and_nothing_else(folder):
    captions(
        folder, "good.png,  a\u0065\u0301 caf\u0000\u0007 \U0001f600 \u05d0 ", "good.png,<script>alert(1)</script>"
    )
    ingest(folder)
    texts = read_all(folder / "data/small/ingest/captions").column("text").to_pylist()
    assert "a\u00e9 caf   \U0001f600 \u05d0" in texts and "<script>alert(1)</script>" in texts


def test_an_empty_collection_and_one_without_captions_file_end_in_one_line(folder):
    write_params(
        folder / "params.yaml", folder / "collection", ingest__source="folder", ingest__captions="captions.csv"
    )
    result = run_stage("ingest", folder)
    assert result.returncode == 3 and "no captions file matches 'captions.csv'" in result.stderr
    (folder / "collection/images/good.png").unlink()
    (folder / "collection/captions.csv").write_text("image,caption\n")
    (folder / "collection/sentences.txt").write_text("")
    result = run_stage("ingest", folder)
    assert result.returncode == 3 and "the collection is empty" in result.stderr and "Traceback" not in result.stderr
    (folder / "collection/captions.csv").write_text("file;text\n")
    result = run_stage("ingest", folder)
    assert result.returncode == 3 and "the header must name the columns image and caption" in result.stderr


def test_too_many_rejects_end_with_exit_4_and_the_commonest_reasons(folder):
    captions(folder, *(f"missing{i}.png,a thing" for i in range(5)))
    write_params(
        folder / "params.yaml", folder / "collection", ingest__source="folder", ingest__captions="captions.csv"
    )
    result = run_stage("ingest", folder)
    assert result.returncode == 4 and "missing_file 5" in result.stderr and "Traceback" not in result.stderr


def test_everything_rejected_is_no_empty_success(folder):
    (folder / "collection/images/good.png").unlink()
    captions(folder)
    write_params(
        folder / "params.yaml",
        folder / "collection",
        ingest__source="folder",
        ingest__captions="captions.csv",
        ingest__max_reject_rate=1.0,
    )
    result = run_stage("ingest", folder)
    assert result.returncode == 3 and "none of 1 images came through: missing_file 1" in result.stderr


def test_coco_names_what_is_not_coco(small):
    for text, says in (("{", "line 1"), ('{"images": []}', "missing 'annotations'"), ('[{"a": 1}]', "not COCO")):
        (small / "collection/captions.json").write_text(text)
        result = run_stage("ingest", small)
        assert result.returncode == 3 and says in result.stderr and "Traceback" not in result.stderr, result.stderr


def test_sentences_alone_are_a_collection(small):
    (small / "lines.txt").write_bytes(b"a dog runs\r\n\r\na dog runs\r\nb\xff\r\n\xc3\xa9t\xc3\xa9\r\n")
    write_params(
        small / "params.yaml",
        small / "collection",
        ingest__source="sentences",
        ingest__path=str(small / "lines.txt"),
        ingest__max_reject_rate=1.0,
        ingest__sentences_path="/dev/null",
    )
    in_process("ingest", small)
    assert set(read_all(small / "data/small/ingest/sentences").column("text").to_pylist()) == {"a dog runs", "été"}
    ledger = json.loads((small / "metrics/small/ingest.json").read_text())["ledger"]["sentence"]
    assert ledger == {"in": 5, "out": 2, "dropped": {"duplicate": 1, "empty": 1}, "rejected": {"bad_encoding": 1}}


def test_splits_follow_the_id_and_the_shares():
    from pipeline.sections import Splits

    splits = Splits(train=0.8, dev=0.1, test=0.1)
    drawn = [split_of(f"image-{i}", splits) for i in range(4000)]
    assert abs(drawn.count("train") / 4000 - 0.8) < 0.03 and abs(drawn.count("dev") / 4000 - 0.1) < 0.02
    assert split_of("image-1", splits) == split_of("image-1", splits)


@pytest.mark.parametrize("uri", ["a/../../b.png", "/a.png", "C:\\x.png", "a\nb.png", "..\\b.png", "a\0.png"])
def test_paths_that_leave_the_root_are_never_opened(tmp_path, uri):
    assert path_fault(tmp_path, uri, tmp_path)[0] == "outside_root"


def test_stored_rows_are_of_the_contract(small):
    in_process("ingest", small)
    table = read_all(small / "data/small/ingest/images")
    assert table.schema.field("bytes").type == pa.binary() and table.num_rows == 24
