"""Captions as people write them, and worse: counted rows, honest spans, and pairs that keep to their phrase."""

import json

import pytest
from small import ROOT, in_process, make_collection, write_params

from pipeline.shards import read_all

STAGES = ("parse", "detect", "segment", "embed", "align")
LONG = " ".join(["word"] * 10_000)


def captions_file(folder, name: str, data: bytes) -> dict[str, list]:
    """Ingests a collection of one image with this captions file; captions, drops and the ledger."""
    if not (folder / "collection").exists():
        make_collection(folder / "collection", 1)
    (folder / "collection" / name).write_bytes(data)
    write_params(
        folder / "params.yaml",
        folder / "collection",
        ingest__source="folder",
        ingest__captions=name,
        ingest__max_reject_rate=1.0,
    )
    in_process("ingest", folder)
    out = folder / "data/small/ingest"
    ledger = json.loads((folder / "metrics/small/ingest.json").read_text())["ledger"]["caption"]
    assert ledger["in"] == ledger["out"] + sum({**ledger["dropped"], **ledger["rejected"]}.values())
    drops = [row for row in read_all(out / "drops").to_pylist() if row["unit"] == "caption"]
    return {"texts": read_all(out / "captions").column("text").to_pylist(), "drops": drops, "ledger": ledger}


def csv(*lines: str) -> bytes:
    return "\n".join(["image,caption", *(f"000001.png,{line}" for line in lines), ""]).encode()


@pytest.mark.fault("F33")
def test_empty_captions(tmp_path):
    found = captions_file(tmp_path, "c.csv", csv("a box", "", "   ", '"\t"', "\u00a0\u2003"))
    assert found["texts"] == ["a box"] and found["ledger"]["rejected"] == {"empty": 4}


@pytest.mark.fault("F34")
def test_a_caption_of_ten_thousand_words(tmp_path):
    found = captions_file(tmp_path, "c.csv", csv("a box", LONG))
    assert found["texts"] == ["a box"] and found["ledger"]["dropped"] == {"too_long": 1}
    assert "10000 words" in found["drops"][0]["detail"]
    write_params(
        tmp_path / "params.yaml",
        tmp_path / "collection",
        ingest__source="folder",
        ingest__captions="c.csv",
        ingest__max_caption_words=10_000,
    )
    in_process("ingest", tmp_path)
    texts = read_all(tmp_path / "data/small/ingest/captions").column("text").to_pylist()
    assert sorted(texts) == ["a box", LONG], "where it is allowed, it is whole"


@pytest.mark.fault("F35")
@pytest.mark.parametrize("name", ["c.csv", "c.tsv", "c.jsonl"])
def test_bytes_that_are_not_utf8(tmp_path, name):
    mark = "," if name == "c.csv" else "\t"
    if name == "c.jsonl":
        lines = [b'{"image": "000001.png", "caption": "%s"}' % text for text in (b"one", b"caf\xe9", b"three")]
    else:
        lines = [f"image{mark}caption".encode()]
        lines += [f"000001.png{mark}".encode() + text for text in (b"one", b"caf\xe9", b"three")]
    found = captions_file(tmp_path, name, b"\n".join(lines) + b"\n")
    assert sorted(found["texts"]) == ["one", "three"]
    (drop,) = found["drops"]
    assert (drop["reason"], drop["id"]) == ("bad_encoding", f"{name}:{2 if name == 'c.jsonl' else 3}")


@pytest.mark.fault("F40")
def test_line_ends_marks_and_quotes(tmp_path):
    lines = 'a box\r\n000001.png,"two\r\nlines"\r\n000001.png,"he said ""box"", and left"\r\n000001.png,nul\0here\r\n'
    found = captions_file(tmp_path, "c.csv", b"\xef\xbb\xbf" + ("image,caption\r\n000001.png," + lines).encode())
    assert sorted(found["texts"]) == ["a box", 'he said "box", and left', "nul here", "two lines"]
    rows = [{"image": "000001.png", "caption": text} for text in ("a\r\nbox", "nul\0here", 'a "box"')]
    text = "\r\n".join(json.dumps(row) for row in rows)
    found = captions_file(tmp_path, "c.jsonl", b"\xef\xbb\xbf" + text.encode())
    assert sorted(found["texts"]) == ["a  box", 'a "box"', "nul here"]


ODD = {
    "dot": "a St. {thing}",
    "question": "a what? {thing}",
    "separator": "a [SEP] {thing}",
    "pieces": "a ##ing {thing}",
    "emoji": "a \U0001f469\u200d\U0001f680 {thing}",
    "flag": "\U0001f1e9\U0001f1ea {thing}",
    "marks": "a n\u0308\u0323o\u0301 {thing}",
    "hebrew": "\u05d4\u05b7\u05db\u05bc\u05b7\u05d3\u05d5\u05bc\u05e8 {thing}",
    "arabic": "\u0627\u0644\u0643\u0631\u0629 \u200f {thing}",
    "separators": "a\u2028line\u2029{thing}",
    "script": "a <script>alert(1)</script> {thing}",
    "percent": "a %s {{0}} $HOME {thing}",
}


@pytest.fixture(scope="module")
def mined(tmp_path_factory):
    """Twelve images; each has a caption that names its first thing in odd words, and one phrase twice."""
    folder = tmp_path_factory.mktemp("odd")
    make_collection(folder / "collection", len(ODD))
    document = json.loads((folder / "collection/captions.json").read_text())
    marked = (folder / "collection/marked.txt").read_text().splitlines()
    for number, pattern in enumerate(ODD.values(), 1):
        first = document["annotations"][2 * number - 2]["caption"].split(" next to ")[0]
        thing = first.split()[-1]
        phrase = pattern.format(thing=thing)
        document["annotations"] += [
            {"id": 5000 + number, "image_id": number, "caption": f"here is {phrase}!"},
            {"id": 6000 + number, "image_id": number, "caption": f"{first} and again {first} and {first}s"},
            {"id": 7000 + number, "image_id": number, "caption": f"running quickly {number}"},
        ]
        marked += [f"here is [/EN#9/other {phrase}]!"]
        marked += [f"[/EN#1/other {first}] and again [/EN#2/other {first}] and {first}s", f"running quickly {number}"]
    (folder / "collection/captions.json").write_text(json.dumps(document))
    (folder / "collection/marked.txt").write_text("\ufeff" + "\n".join(marked) + "\n", encoding="utf-8")
    write_params(
        folder / "params.yaml", folder / "collection", embed__path=str(ROOT / "demo/checkpoints/vision_random")
    )
    for stage in ("ingest", *STAGES):
        in_process(stage, folder)
    return folder


def table(folder, name: str) -> list[dict]:
    stage = {"captions": "ingest", "phrases": "parse", "boxes": "detect", "pairs": "align"}[name]
    return read_all(folder / "data/small" / stage / name).to_pylist()


def drops(folder, stage: str) -> list[dict]:
    return read_all(folder / "data/small" / stage / "drops").to_pylist()


@pytest.mark.fault("F36", "F37")
@pytest.mark.parametrize("number", range(1, len(ODD) + 1), ids=list(ODD))
def test_odd_words_stay_inside_their_phrase(mined, number):
    from stages.common.text import clean

    captions = {row["id"]: row["text"] for row in table(mined, "captions")}
    caption = captions[f"{number}#{5000 + number}"]
    (phrase,) = [row for row in table(mined, "phrases") if row["caption_id"] == f"{number}#{5000 + number}"]
    (pair,) = [row for row in table(mined, "pairs") if row["phrase_id"] == phrase["id"]]
    for row in (phrase, pair):
        assert caption[row["start"] : row["end"]] == row["text"]
    assert f"here is {pair['text']}!" == caption
    pattern = list(ODD.values())[number - 1]
    assert pair["text"] == clean(pattern.format(thing=pair["head"])) and pair["head"] in pair["key"]


@pytest.mark.fault("F39")
def test_one_phrase_twice_is_two_spans_each_with_its_own_boxes(mined):
    phrases = {row["id"]: row for row in table(mined, "phrases")}
    boxes, pairs = table(mined, "boxes"), table(mined, "pairs")
    for number in range(1, len(ODD) + 1):
        caption = f"{number}#{6000 + number}"
        first, second = sorted(
            (row for row in phrases.values() if row["caption_id"] == caption), key=lambda r: r["start"]
        )
        assert first["text"] == second["text"] and first["end"] < second["start"] and first["id"] != second["id"]
        own = {row["phrase_id"]: row for row in pairs if row["caption_id"] == caption}
        assert set(own) == {first["id"], second["id"]}
        for phrase in (first, second):
            found = [row for row in boxes if row["phrase_id"] == phrase["id"]]
            assert found and all(row["id"].startswith(phrase["id"]) for row in found)
            pair = own[phrase["id"]]
            assert (pair["start"], pair["end"]) == (phrase["start"], phrase["end"])


@pytest.mark.fault("F38")
def test_a_caption_without_a_phrase_stays_an_image_caption_pair(mined, tmp_path):
    lost = [row for row in drops(mined, "parse") if row["unit"] == "caption"]
    assert {row["reason"] for row in lost} == {"no_phrase"} and len(lost) == len(ODD)
    from model.recipes import resolve
    from stages.train.data import training_data

    places = {"sentences": "ingest", "captions": "ingest", "features": "embed", "pairs": "align"}
    inputs = {name: mined / "data/small" / stage / name for name, stage in places.items()}
    data = training_data(inputs, resolve("mcseo"), tmp_path)
    rows = [row for row, text in enumerate(data.captions) if text.startswith("running quickly")]
    assert len(rows) == len(ODD) and all(not data.pairs[row] for row in rows)
    assert all(data.pairs[row] for row, text in enumerate(data.captions) if text.startswith("here is"))
    assert len(data.image_features) == len(ODD)
