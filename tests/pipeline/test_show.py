"""show: everything known of one record, by whatever id; captions are data; an unknown id gets near ones."""

import json
import sys

import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline import picture, show
from pipeline.files import sha256_file
from pipeline.shards import read_all, shard_name


@pytest.fixture(scope="module")
def data(finished):
    return finished / "data/small"


@pytest.fixture(scope="module")
def pair(data) -> dict:
    return read_all(data / "align/pairs").to_pylist()[0]


def test_a_pair_leads_to_its_image_caption_boxes_and_makers(data, pair):
    found = show.find(data, pair["id"])
    assert (found.kind, found.pairs) == ("pair", [pair])
    image = next(row for row in read_all(data / "ingest/images").to_pylist() if row["id"] == pair["image_id"])
    assert found.image == {name: value for name, value in image.items() if name != "bytes"}
    assert image["sha256"] == sha256_file(data.parents[1] / "collection" / image["uri"])
    caption = found.captions[0]
    assert caption["text"][pair["start"] : pair["end"]] == pair["text"] == found.phrases[0]["text"]
    assert [mask["counts"] for mask in found.masks] == [pair["counts"]]
    assert [made.stage for made in found.made] == ["ingest", "parse", "detect", "segment", "embed", "align"]
    by_stage = {made.stage: made for made in found.made}
    assert by_stage["align"].params["max_per_caption"] == 1
    assert all(by_stage[stage].path_hash for stage in ("parse", "detect", "segment", "embed"))
    shard = data / "align/pairs" / f"{shard_name(found.shard)}.parquet"
    assert by_stage["align"].tables["pairs"]["sha256"] == sha256_file(shard)


def test_every_id_is_found_and_leads_to_the_same_image(data, pair):
    box = f"{pair['id']}/0"
    for identifier, kind in (
        (pair["image_id"], "image"),
        (pair["caption_id"], "caption"),
        (pair["id"], "pair"),
        (box, "box"),
        (pair["feature_id"], "feature"),
        (pair["image_feature_id"], "feature"),
    ):
        found = show.find(data, identifier)
        assert (found.kind, found.image["id"]) == (kind, pair["image_id"])
    sentence = read_all(data / "ingest/sentences").to_pylist()[3]
    assert show.find(data, sentence["id"]).sentence == sentence


def test_what_was_lost_is_told_with_its_reason(data, command, finished):
    drop = next(row for row in read_all(data / "align/drops").to_pylist() if row["reason"] == "caption_cap")
    phrase = drop["id"].split("/")[0]
    found = show.find(data, phrase)
    assert (found.kind, found.pairs) == ("phrase", [])
    assert [(loss.stage, loss.id, loss.reason) for loss in found.losses] == [("align", drop["id"], "caption_cap")]
    for identifier in (phrase, drop["id"], phrase.split("@")[0], drop["image_id"]):
        code, out, _ = command(finished, "show", identifier)
        assert code == 0
        assert "dropped by align: caption_cap (the caption has align.max_per_caption better pairs)" in out
        assert sum(line.count(f"{drop['id']} ") for line in out.splitlines()[1:]) == 1, "once, beside its box"


def test_an_id_that_says_nothing_of_its_image_is_searched_for(data, monkeypatch):
    """Captions may have ids of their own (a JSONL file's `id`)."""
    assert list(show.owners("a#b.jpg#1@0-3/0")) == ["a#b.jpg#1@0-3/0", "a#b.jpg#1", "a#b.jpg"]
    captions = read_all(data / "ingest/captions").to_pylist()
    expected = {row["id"]: show.find(data, row["id"]).shard for row in captions}
    assert set(expected.values()) == {0, 1, 2, 3}
    monkeypatch.setattr(show, "owners", lambda identifier: iter(()))
    for row in captions[::5]:
        found = show.find(data, row["id"])
        assert (found.shard, found.image["id"]) == (expected[row["id"]], row["image_id"])


def test_the_text_marks_the_phrase_and_reads_plain(command, finished, pair):
    code, out, _ = command(finished, "show", pair["id"])
    assert code == 0
    assert f"[{pair['text']}]" in out
    assert "kept: this is the pair's" in out
    assert "\x1b" not in out
    assert all(label in out for label in ("image ", "sha256 ", "caption ", "detect ", "segment "))


def test_json_has_it_all(command, finished, pair):
    code, out, _ = command(finished, "show", pair["id"], "--json")
    told = json.loads(out)
    assert code == 0
    assert told["pairs"][0]["counts"].encode() == pair["counts"]
    assert told["made"][2]["params"]["backend"] == "annotations"


def test_an_unknown_id_names_near_ones(command, finished, pair):
    code, _, err = command(finished, "show", pair["id"][:-1] + "9")
    assert code == 3
    assert pair["id"] in err.split("near it: ")[1]
    code, _, err = command(finished, "show", "no such thing at all")
    assert (code, err.count("\n")) == (3, 1)
    assert "ids look like" in err
    assert command(finished, "show", pair["id"], "--dataset", "other")[::2] == (
        3,
        "data/other: no such dataset; there are small\n",
    )


def test_a_damaged_shard_is_told(command, mine, pair):
    shard = next(
        p for p in (mine / "data/small/ingest/images").glob("*.parquet")
        if pair["image_id"] in pq.read_table(p).column("id").to_pylist()
    )  # fmt: skip
    raw = bytearray(shard.read_bytes())
    raw[len(raw) // 2] ^= 1
    shard.unlink()
    shard.write_bytes(raw)
    code, _, err = command(mine, "show", pair["id"])
    assert code == 3
    assert "damaged" in err


def test_nothing_in_a_caption_steers_the_terminal(finished, data, pair, capsys):
    from rich.console import Console

    from pipeline.show_text import render

    found = show.find(data, pair["id"])
    found.captions[0]["text"] = "\x1b[31m[bold]\u202e" + found.captions[0]["text"][9:]
    found.image["uri"] = "a\nb\x07"
    render(found, Console(highlight=False, markup=False))
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\u202e" not in out and "\x07" not in out
    assert "[bold]" in out
    assert "a�b�" in out


def test_the_picture_shows_mask_box_and_words(command, finished, data, pair, tmp_path):
    target = tmp_path / "pair.png"
    code, out, _ = command(finished, "show", pair["id"], "--picture", str(target))
    assert code == 0
    assert out.splitlines()[-1] == f"picture: {target}"
    drawn = Image.open(target).convert("RGB")
    found = show.find(data, pair["id"])
    stored = Image.open(finished / "collection" / found.image["uri"]).convert("RGB").resize((900, 675), Image.LANCZOS)
    scale = 900 / found.image["width"]
    x, y = (pair["x0"] + pair["x1"]) / 2, (pair["y0"] + pair["y1"]) / 2
    inside, outside = (int(x * scale), int(y * scale)), (int(1.5 * scale), int(1.5 * scale))
    assert drawn.getpixel(inside) != stored.getpixel(inside)
    assert drawn.getpixel(outside) == stored.getpixel(outside)
    assert drawn.height > 675
    words = drawn.crop((0, 675, 900, drawn.height)).getcolors(100_000)
    assert any(r > 150 and g < 120 and b < 120 for _, (r, g, b) in words), "the phrase has the colour of its mask"


def test_a_lost_image_has_no_picture(data):
    found = show.Found("image", "x", "small", 0)
    with pytest.raises(show.InputError, match="no picture"):
        show.image_bytes(data, found)


def test_the_viewer_is_started_where_there_is_one(command, mine, pair, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    viewer = tmp_path / "bin" / "xdg-open"
    viewer.parent.mkdir()
    viewer.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    viewer.chmod(0o755)
    monkeypatch.setenv("PATH", f"{viewer.parent}:/bin:/usr/bin")
    started = []
    real = picture.subprocess.Popen
    monkeypatch.setattr(picture.subprocess, "Popen", lambda *a, **k: started.append(real(*a, **k)))
    code, out, _ = command(mine, "show", pair["id"], "--open")
    assert code == 0
    assert "picture:" not in out
    started[0].wait(30)
    assert (tmp_path / "opened").read_text().strip() == ".run/show.png"
    monkeypatch.delenv("DISPLAY")
    assert command(mine, "show", pair["id"], "--open")[1].splitlines()[-1] == "picture: .run/show.png"
