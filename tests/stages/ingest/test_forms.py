"""One collection in every form gives the same captions and pixels."""

import csv
import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ingested import ingest, picture, rows

CAPTIONS = {
    1: ["one, with a comma", 'a "quoted" one'],
    2: ["  spaces and \U0001f469\u200d\U0001f680  ", "a\u0301 \u05d0\u05d1 <b>"],
    3: ["the third\tand a tab"],
}


def as_folder(root):
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["image", "caption"])
    table.writerows([f"{number}.png", caption] for number, several in CAPTIONS.items() for caption in several)
    (root / "captions.csv").write_text(text.getvalue(), encoding="utf-8-sig")
    _images(root)
    return "folder", "captions.csv"


def as_jsonl(root):
    lines = [json.dumps({"image": f"{number}.png", "captions": several}) for number, several in CAPTIONS.items()]
    (root / "captions.jsonl").write_text("\r\n".join(lines))
    _images(root)
    return "folder", "captions.jsonl"


def as_coco(root):
    images = [{"id": number, "file_name": f"{number}.png"} for number in CAPTIONS]
    flat = [(number, caption) for number, several in CAPTIONS.items() for caption in several]
    annotations = [{"id": place, "image_id": number, "caption": text} for place, (number, text) in enumerate(flat)]
    (root / "captions.json").write_text(json.dumps({"annotations": annotations, "images": images}))
    _images(root)
    return "coco", "captions.json"


def as_tokens(root):
    flat = [(number, place, text) for number, several in CAPTIONS.items() for place, text in enumerate(several)]
    lines = [f"{number}.png#{place}\t{text}\r\n" for number, place, text in flat]
    (root / "tokens.txt").write_text("".join(lines), encoding="utf-8", newline="")
    _images(root)
    return "flickr", "tokens.txt"


def as_parquet(root):
    images = [{"bytes": picture(number), "path": f"{number}.png"} for number in CAPTIONS]
    pq.write_table(pa.table({"image": images, "captions": list(CAPTIONS.values())}), root / "a.parquet")
    return "parquet", "*.parquet"


def as_webdataset(root):
    with tarfile.open(root / "a.tar", "w") as tar:
        for number, several in CAPTIONS.items():
            as_text = ("txt", "\n".join(several).encode())
            as_json = ("json", json.dumps({"captions": several}).encode())
            for extension, data in (("png", picture(number)), as_json if number == 2 else as_text):
                header = tarfile.TarInfo(f"{number}.{extension}")
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))
    return "webdataset", "*.tar"


def _images(root):
    (root / "images").mkdir()
    for number in CAPTIONS:
        (root / f"images/{number}.png").write_bytes(picture(number))


@pytest.mark.parametrize(
    "form", [as_folder, as_jsonl, as_coco, as_tokens, as_parquet, as_webdataset], ids=lambda form: form.__name__[3:]
)
def test_every_form_gives_the_same(tmp_path, form):
    (tmp_path / "collection").mkdir()
    source, captions = form(tmp_path / "collection")
    ledger, drops = ingest(tmp_path, source, captions)
    assert not drops and ledger["image"]["out"] == 3 and ledger["caption"]["out"] == 5
    bytes_of = {row["id"]: row["bytes"] for row in rows(tmp_path, "images")}
    found = {(bytes_of[row["image_id"]], row["text"]) for row in rows(tmp_path, "captions")}
    cleaned = {2: ["spaces and \U0001f469\u200d\U0001f680", "\u00e1 \u05d0\u05d1 <b>"], 3: ["the third and a tab"]}
    assert found == {(picture(n), text) for n, several in (CAPTIONS | cleaned).items() for text in several}
