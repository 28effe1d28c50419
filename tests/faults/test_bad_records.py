"""Records that contradict each other, and collections with nothing good in them: every one is counted or refused."""

import json

import pytest
from PIL import Image
from small import in_process, make_collection, run_stage, write_params

from pipeline.shards import read_all


@pytest.fixture
def folder(tmp_path):
    make_collection(tmp_path / "collection", 3)
    return tmp_path


def add(folder, *annotations: dict) -> None:
    path = folder / "collection/captions.json"
    document = json.loads(path.read_text())
    document["annotations"] += annotations
    path.write_text(json.dumps(document))


def ingested(folder, **changes) -> tuple[dict, list[dict], list[dict]]:
    write_params(folder / "params.yaml", folder / "collection", **{"ingest__max_reject_rate": 1.0} | changes)
    in_process("ingest", folder)
    ledger = json.loads((folder / "metrics/small/ingest.json").read_text())["ledger"]
    out = folder / "data/small/ingest"
    return ledger, read_all(out / "captions").to_pylist(), read_all(out / "drops").to_pylist()


def refused(folder, code: int, *says: str) -> None:
    done = run_stage("ingest", folder)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) <= 4, done.stderr
    assert json.loads((folder / ".run/ingest.exit.json").read_text())["code"] == code
    for text in says:
        assert text in done.stderr


@pytest.mark.fault("F42")
def test_two_captions_with_one_id(folder):
    add(folder, {"id": 10, "image_id": 1, "caption": "another box"})
    ledger, captions, drops = ingested(folder)
    assert ledger["caption"] == {"in": 7, "out": 6, "dropped": {}, "rejected": {"duplicate_id": 1}}
    (drop,) = drops
    kept = next(row for row in captions if row["id"] == "1#10")
    assert "another box" in drop["detail"] and kept["text"] in drop["detail"] and drop["id"] == "1#10"


@pytest.mark.fault("F43")
def test_a_caption_of_an_unknown_image(folder):
    add(folder, {"id": 77, "image_id": 404, "caption": "a box nobody has"})
    ledger, captions, drops = ingested(folder)
    assert ledger["caption"]["rejected"] == {"unknown_image": 1} and len(captions) == 6
    assert (drops[0]["id"], drops[0]["reason"]) == ("404#77", "unknown_image") and "404" in drops[0]["detail"]


@pytest.mark.fault("F44")
@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("", "empty"),
        (None, "bad_record"),
        (["a", "list"], "bad_record"),
        (7, "bad_record"),
        ("word " * 300, "too_long"),
    ],
)
def test_five_captions_one_bad(folder, bad, reason):
    texts = ["a red box", "the box", bad, "one box", "box"]
    rows = [{"id": 100 + i, "image_id": 2, "caption": text} for i, text in enumerate(texts)]
    add(folder, *rows)
    ledger, captions, drops = ingested(folder)
    kept = [row["text"] for row in captions if row["id"] in {f"2#{100 + i}" for i in range(5)}]
    assert sorted(kept) == sorted(text for text in texts if text is not bad)
    (drop,) = drops
    assert drop["reason"] == reason and drop["id"] == "2#102"
    counts = ledger["caption"]
    assert counts["in"] == 11 and counts["out"] == 10


@pytest.mark.fault("F45")
def test_an_empty_collection(folder):
    for name in ("captions.json", "instances.json", "marked.txt"):
        (folder / "collection" / name).write_text("")
    (folder / "collection/captions.json").write_text('{"images": [], "annotations": []}')
    write_params(folder / "params.yaml", folder / "collection")
    (folder / "collection/sentences.txt").write_text("")
    refused(folder, 3, "the collection is empty")
    assert not (folder / "data/small/ingest/images/0000.parquet").exists()


@pytest.mark.fault("F45")
def test_images_without_any_caption(folder):
    document = json.loads((folder / "collection/captions.json").read_text()) | {"annotations": []}
    (folder / "collection/captions.json").write_text(json.dumps(document))
    write_params(folder / "params.yaml", folder / "collection")
    refused(folder, 3, "none of 3 images came through: no_caption 3")


@pytest.mark.fault("F46")
@pytest.mark.parametrize(("rate", "code"), [(0.01, 4), (1.0, 3)])
def test_everything_is_rejected(folder, rate, code):
    for file in (folder / "collection/images").iterdir():
        file.write_bytes(b"<html>")
    write_params(folder / "params.yaml", folder / "collection", ingest__max_reject_rate=rate)
    refused(folder, code, "unreadable 3")


@pytest.mark.fault("F46")
def test_everything_is_dropped_later(folder):
    """Also further on nothing at all is no success: no phrase, no box, no pair."""
    ingested(folder)
    write_params(folder / "params.yaml", folder / "collection", parse__max_words=1)
    done = run_stage("parse", folder)
    assert done.returncode == 3 and "none of 6 captions came through: no_phrase 6" in done.stderr
    write_params(folder / "params.yaml", folder / "collection")
    in_process("parse", folder)
    document = json.loads((folder / "collection/instances.json").read_text()) | {"annotations": []}
    (folder / "collection/instances.json").write_text(json.dumps(document))
    done = run_stage("detect", folder)
    assert done.returncode == 3 and "came through: no_annotation 12" in done.stderr


@pytest.mark.fault("F42")
def test_two_images_with_one_id(folder):
    path = folder / "collection/captions.json"
    document = json.loads(path.read_text())
    Image.new("RGB", (40, 40), "red").save(folder / "collection/images/other.png")
    document["images"].append({"id": 1, "file_name": "other.png"})
    path.write_text(json.dumps(document))
    ledger, _, drops = ingested(folder)
    assert ledger["image"]["rejected"] == {"duplicate_id": 1}
    assert "other.png" in drops[0]["detail"] and "000001.png" in drops[0]["detail"]
