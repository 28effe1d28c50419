"""The index: on disk, gone with its run, the same whatever the order, and true to the files it was made from."""

import contextlib
import gc
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from ingested import ingest, picture, refused, rows, texts
from small import ROOT, digests, environment

from pipeline.errors import InputError, ResourceError
from stages.ingest.index import Index
from stages.ingest.records import Caption, Image, Lost, caption
from stages.ingest.scratch import Scratch
from stages.ingest.sources.files import folders, image_files, locate
from stages.ingest.sources.json_stream import NotSuchJson, items


def indexed(folder: Path, records: list, shards: int = 3, deduplicate: bool = True) -> list:
    with Index(folder / "scratch", folder, shards) as index:
        index.add(records)
        index.settle(deduplicate)
        index.finish()
        return [index.shard(number) for number in range(shards)]


def everything(shards: list) -> tuple[list, list]:
    images, lost = [], []
    for shard in shards:
        with shard.open() as found:
            images += list(found.images())
            lost += list(found.lost())
    return sorted(images, key=lambda row: row["id"]), lost


def test_the_order_of_records_is_of_no_consequence(tmp_path):
    for number, name in enumerate(("a.png", "b.png", "c.png")):
        (tmp_path / name).write_bytes(picture(number // 2))
    records = [
        Caption("b", "7", "of b, before b is known"),
        Image("b", "b.png"),
        Image("a", "a.png"),
        Caption("a", "3", "of a"),
        Caption("x", "9", "of nobody"),
        Image("c", "c.png"),
        Lost("caption", "f:3", "bad_record", "why"),
    ]
    one, other = (indexed(tmp_path, order) for order in (records, records[::-1]))
    assert [shard.digest() for shard in one] == [shard.digest() for shard in other]
    images, lost = everything(one)
    assert [(row["id"], row["outcome"], row["captions"]) for row in images] == [
        ("a", None, [("3", "of a"), ("7", "of b, before b is known")]),
        ("b", "dropped", []),
        ("c", None, []),
    ]
    assert {row["reason"] for row in lost} == {"unknown_image", "bad_record"}


def test_captions_without_an_id_are_numbered_as_they_come(tmp_path):
    records = [Image("a", "a.png"), *(Caption("a", i, t) for i, t in ((None, "x"), ("own", "y"), (None, "z")))]
    images, _ = everything(indexed(tmp_path, [*records, Caption("a", "a#2", "has the id of z")]))
    assert images[0]["captions"] == [("a#0", "x"), ("a#2", "z"), ("own", "y")]


def test_names_that_cannot_be_stored_are_counted(tmp_path):
    records = [
        Image("caf\udce9.png", "caf\udce9.png"),
        Image("", "x.png"),
        Image("ok", "ok.png"),
        Caption("caf\udce9.png", None, "lost with it"),
        Caption("ok", "1", "lone \ud83d surrogate \0 and NUL"),
        caption("ok", None, None, "f:1"),
        caption("ok", None, 7, "f:2"),
    ]
    images, lost = everything(indexed(tmp_path, records))
    assert images[0]["captions"] == [("1", "lone   surrogate \0 and NUL")]
    assert sorted(row["reason"] for row in lost) == ["bad_encoding"] * 2 + ["bad_record"] * 3
    assert "caf\\udce9.png" in {row["id"] for row in lost}


def test_a_shard_s_hash_is_that_of_its_own_rows(tmp_path):
    (tmp_path / "0.png").write_bytes(picture(0))
    images = [Image(f"{number}", "0.png") for number in range(30)]
    before = [shard.digest() for shard in indexed(tmp_path, images, shards=4, deduplicate=False)]
    more = [*images, Caption("5", "1", "new")]
    after = [shard.digest() for shard in indexed(tmp_path, more, shards=4, deduplicate=False)]
    assert sum(a != b for a, b in zip(before, after, strict=True)) == 1
    (tmp_path / "0.png").write_bytes(picture(1))
    assert not set(before) & {shard.digest() for shard in indexed(tmp_path, images, shards=4, deduplicate=False)}


def test_the_index_is_gone_with_the_last_who_needs_it(tmp_path):
    shards = indexed(tmp_path, [Image("a", "a.png", data=picture(1))])
    assert [len(list(path.iterdir())) for path in (tmp_path / "scratch").iterdir()] == [2]
    del shards
    gc.collect()
    assert not list((tmp_path / "scratch").iterdir())


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_needs_is_not(tmp_path):
    code = (
        "import sys, os, time; from pathlib import Path; from stages.ingest.scratch import Scratch;"
        "held = Scratch(Path(sys.argv[1])); (held.path / 'spill').write_text('x'); print(held.path, flush=True);"
        "time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment(), cwd=ROOT
    )
    theirs = Path(child.stdout.readline().strip())
    mine = Scratch(tmp_path)
    assert (theirs / "spill").exists() and mine.path.is_dir()
    child.kill()
    child.wait()
    another = Scratch(tmp_path)
    assert not theirs.exists() and mine.path.is_dir() and another.path.is_dir()


def test_an_index_that_is_gone_says_so(tmp_path):
    (shard,) = indexed(tmp_path, [Image("a", "a.png")], shards=1)
    (shard.scratch.path / "index.sqlite").unlink()
    with pytest.raises(ResourceError, match="the index cannot be read any more"):
        shard.digest()


def test_a_scratch_folder_that_cannot_be_made_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match=r"set runtime\.scratch to a writable folder"):
        Scratch(tmp_path / "file/index")


def test_a_full_disk_is_told_as_one(tmp_path):
    """/dev/full answers every write as a full disk does."""
    with pytest.raises(ResourceError, match="No space left on device"), Index(tmp_path / "s", tmp_path, 1) as index:
        index._spilled.close()
        index._spilled = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115
        index.add([Image("a", "a#1", data=b"bytes")])
    with pytest.raises(ResourceError, match="database or disk is full"), Index(tmp_path / "s", tmp_path, 1) as index:
        index.db.execute("PRAGMA max_page_count = 20")
        index.add(Image(f"{number}", "a.png" * 100) for number in range(5000))


def test_a_file_that_changes_while_it_is_read_stops_the_run(tmp_path, monkeypatch):
    (tmp_path / "collection/images").mkdir(parents=True)
    image = tmp_path / "collection/images/a.png"
    image.write_bytes(picture(1))
    (tmp_path / "collection/captions.csv").write_text("image,caption\na.png,one\n")
    real = Index.finish
    monkeypatch.setattr(Index, "finish", lambda self: (real(self), image.write_bytes(picture(2))))
    with pytest.raises(InputError, match=r"images/a\.png: changed while the collection was read; run again"):
        ingest(tmp_path, "folder", "captions.csv")
    monkeypatch.setattr(Index, "finish", lambda self: (real(self), image.unlink()))
    with pytest.raises(InputError, match=r"a\.png: changed while the collection was read \(now: .*no such file\)"):
        ingest(tmp_path, "folder", "captions.csv")


def test_several_workers_write_the_same_bytes(tmp_path):
    (tmp_path / "collection/images").mkdir(parents=True)
    for number in range(12):
        (tmp_path / f"collection/images/{number}.png").write_bytes(picture(number))
    lines = "".join(f"{number}.png,number {number}\n" for number in range(12))
    (tmp_path / "collection/captions.csv").write_text(f"image,caption\n{lines}")
    ingest(tmp_path, "folder", "captions.csv")
    one = digests(tmp_path / "data")
    for path in (tmp_path / ".scratch/small/ingest").glob("*.json"):
        path.unlink()
    text = (tmp_path / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("workers: 1", "workers: 3"))
    command = [sys.executable, "-m", "stages.ingest"]
    subprocess.run(command, cwd=tmp_path, env=environment(), check=True, capture_output=True, timeout=120)
    assert digests(tmp_path / "data") == one
    assert not list((tmp_path / ".scratch/small/ingest/index").iterdir()), "the index goes with its run"


def test_fields_that_the_header_does_not_have_are_no_caption_cut_short(tmp_path):
    (tmp_path / "collection/images").mkdir(parents=True)
    (tmp_path / "collection/images/a.png").write_bytes(picture(1))
    lines = 'image,caption\na.png,red, with a comma\na.png,trailing,\na.png,"quoted, so"\n'
    (tmp_path / "collection/captions.csv").write_text(lines)
    ledger, drops = ingest(tmp_path, "folder", "captions.csv")
    assert ledger["caption"]["rejected"] == {"bad_record": 1}
    assert drops[0]["id"] == "captions.csv:2" and "needs quotes around it" in drops[0]["detail"]
    assert texts(tmp_path) == {"images/a.png": ["trailing", "quoted, so"]}


def test_image_folders_lie_inside_the_collection(tmp_path):
    (tmp_path / "collection").mkdir()
    (tmp_path / "collection/captions.csv").write_text("image,caption\n")
    for folder in ("/etc", "../elsewhere", "a/../../b"):
        said = refused(tmp_path, "folder", "captions.csv", images=[folder])
        assert "must be a folder inside ingest.path" in said

    class Section:
        path, images = "x", [".", "images/", "./a//b"]

    assert folders(Section) == ["", "images", "a/b"]


def test_images_are_found_in_folders_of_folders_but_not_through_links(tmp_path):
    (tmp_path / "images/deep/er").mkdir(parents=True)
    for name in ("images/a.PNG", "images/deep/er/b.jpeg", "images/deep/c.txt", "outside.png"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "images/loop").symlink_to(tmp_path / "images")
    assert sorted(image_files(tmp_path, "images")) == ["images/a.PNG", "images/deep/er/b.jpeg"]
    assert sorted(image_files(tmp_path, ""))[-1] == "outside.png"
    assert list(image_files(tmp_path, "nothing")) == []
    assert locate(tmp_path, ["images"], "a.PNG") == "images/a.PNG"
    assert locate(tmp_path, ["images"], "x" * 5000) == "images/" + "x" * 5000, "too long for a file, but no traceback"


@pytest.mark.parametrize("chunk", [1, 3, 7, 1 << 16])
def test_json_is_read_item_by_item_whatever_the_window(tmp_path, monkeypatch, chunk):
    from stages.ingest.sources import json_stream

    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    document = {
        "info": {"images": ["not these"], "n": [1, [2, {}]]},
        "images": [{"id": 1234567, "file_name": 'é"]}.png'}, 12, "x,y"],
        "none": None,
        "annotations": [],
        "last": -1.5e-7,
    }
    for indent in (None, 3):
        (tmp_path / "a.json").write_text("\ufeff" + json.dumps(document, indent=indent) + "\n\n", encoding="utf-8")
        found = list(items(tmp_path / "a.json", ("images", "annotations")))
        assert found == [("images", item) for item in document["images"]]
    text = json.dumps(document, indent=1)
    for length in range(len(text)):
        (tmp_path / "a.json").write_text(text[:length])
        with pytest.raises(InputError, match=f"a.json: line {text[:length].count(chr(10)) + 1}: not valid JSON"):
            list(items(tmp_path / "a.json", ("images", "annotations")))


def test_json_of_another_shape_is_told_apart_from_what_is_no_json(tmp_path):
    file = tmp_path / "a.json"
    for text, says in (("[1]", "no object"), ('{"images": 3}', "no list"), ('{"a": []}', "missing 'images'")):
        file.write_text(text)
        with pytest.raises(NotSuchJson, match=says):
            list(items(file, ("images",)))
    for text, line in (('{"images": [1 2]}', 1), ('{"images": []} x', 1), ("{\n\n1: 2}", 3), ("[" * 100_000, 1)):
        file.write_text(text if not text.startswith("[[") else '{"images": ' + text)
        with pytest.raises(InputError, match=f"line {line}: not valid JSON"):
            list(items(file, ("images",)))


def test_coco_captions_are_not_held_in_memory(tmp_path):
    """The window over the file stays small: an item is handed out long before the file is read to its end."""
    file = tmp_path / "a.json"
    file.write_text('{"images": [' + ", ".join(f'{{"id": {n}}}' for n in range(200_000)) + "]}")
    found = items(file, ("images",))
    next(found)
    assert _position(file) < file.stat().st_size / 5


def _position(file: Path) -> int:
    """How far this process has read a file that it holds open."""
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if descriptor.readlink() == file:
                told = Path("/proc/self/fdinfo", descriptor.name).read_text()
                return int(told.split("pos:")[1].split()[0])
    raise AssertionError(f"{file} is not open")


def test_rows_of_a_coco_file_that_are_no_coco_name_the_file(tmp_path):
    (tmp_path / "collection").mkdir()
    for text in ('{"images": [3], "annotations": []}', '{"images": [{"id": 1}], "annotations": []}', "\xff\xfe"):
        (tmp_path / "collection/captions.json").write_bytes(text.encode("latin-1"))
        assert "captions.json: " in refused(tmp_path, "coco", "captions.json")
    document = {
        "images": [{"id": 1, "file_name": "a.png"}] * 2,
        "annotations": [{"id": 1, "image_id": 1, "caption": 5}],
    }
    (tmp_path / "collection/a.png").write_bytes(picture(1))
    (tmp_path / "collection/captions.json").write_text(json.dumps(document | {"info": {}}))
    more = {"images": [], "annotations": [{"id": 2, "image_id": 1, "caption": "fine"}]}
    (tmp_path / "collection/captions_2.json").write_text(json.dumps(more))
    ledger, drops = ingest(tmp_path, "coco", "captions*.json")
    assert ledger["image"]["rejected"] == {"duplicate_id": 1} and ledger["caption"]["rejected"] == {"bad_record": 1}
    assert rows(tmp_path, "captions")[0]["id"] == "1#2"
    assert {drop["id"] for drop in drops} == {"1", "1#1"}


def test_a_file_that_is_not_the_stated_one_is_rejected_and_keeps_nobody_s_captions(tmp_path):
    for name, number in (("a.png", 1), ("b.png", 1), ("c.png", 2)):
        (tmp_path / name).write_bytes(picture(number))
    good, bad = (hashlib.sha256(picture(number)).hexdigest() for number in (1, 9))
    records = [
        Image("a", "a.png", stated=good, mention=True),
        Image("a", "a.png", stated=bad, mention=True),
        Image("b", "b.png", mention=True),
        Image("c", "c.png", stated=hashlib.sha256(picture(2)).hexdigest(), mention=True),
        *(Caption(key, None, f"of {key}") for key in "abc"),
    ]
    for order in (records, records[::-1]):
        images, _ = everything(indexed(tmp_path, order))
        assert [(row["id"], row["reason"], len(row["captions"])) for row in images] == [
            ("a", "sha256_differs", 1),
            ("b", None, 1),
            ("c", None, 1),
        ]
        assert images[0]["detail"] == f"a.png: the file has {good}, the collection states {bad}"
