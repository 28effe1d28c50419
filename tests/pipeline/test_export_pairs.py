"""What is exported opens with the tools it is for, says the same as the pairs, and is whole or not there."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from checkout import checkout_environment
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from small import digests

from pipeline.export import coco, folder, hf, walk
from pipeline.shards import read_all


@pytest.fixture(scope="module")
def data(finished):
    return finished / "data/small"


@pytest.fixture(scope="module")
def pairs(data) -> dict[str, dict]:
    return {row["id"]: row for row in read_all(data / "align/pairs").to_pylist()}


@pytest.fixture(scope="module")
def images(data) -> dict[str, dict]:
    return {row["id"]: row for row in read_all(data / "ingest/images").to_pylist()}


@pytest.fixture(scope="module")
def texts(data) -> dict[str, str]:
    return {row["id"]: row["text"] for row in read_all(data / "ingest/captions").to_pylist()}


def pixels(pair: dict) -> np.ndarray:
    return coco_mask.decode({"counts": pair["counts"], "size": [pair["height"], pair["width"]]})


@pytest.fixture(scope="module")
def as_coco(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("coco") / "out"
    assert coco.write(data, out)[1] == len(read_all(data / "align/pairs"))
    return out


def test_pycocotools_opens_coco_and_its_masks_are_the_pairs(as_coco, pairs, texts):
    opened = COCO(str(as_coco / "annotations/instances.json"))
    assert len(opened.anns) == len(pairs)
    for annotation in opened.loadAnns(opened.getAnnIds()):
        pair = pairs[annotation["pair_id"]]
        assert np.array_equal(opened.annToMask(annotation), pixels(pair))
        assert annotation["area"] == pixels(pair).sum()
        assert annotation["bbox"] == [pair["x0"], pair["y0"], pair["x1"] - pair["x0"], pair["y1"] - pair["y0"]]
        assert opened.cats[annotation["category_id"]]["name"] == pair["head"]
        assert annotation["caption"] == texts[pair["caption_id"]]
        assert annotation["caption"][annotation["start"] : annotation["end"]] == annotation["phrase"] == pair["text"]
        assert str(annotation["image_id"]) == pair["image_id"], "numbers of the collection stay"


def test_coco_images_are_the_stored_bytes_and_captions_are_all_there(as_coco, images, texts, pairs):
    opened = COCO(str(as_coco / "annotations/instances.json"))
    for image in opened.imgs.values():
        stored = images[image["source_id"]]
        assert (as_coco / "images" / image["file_name"]).read_bytes() == stored["bytes"]
        assert (image["source_sha256"], image["width"]) == (stored["sha256"], stored["width"])
    captions = COCO(str(as_coco / "annotations/captions.json"))
    shown = {pair["image_id"] for pair in pairs.values()}
    assert {a["caption_id"]: a["caption"] for a in captions.anns.values()} == {
        key: text for key, text in texts.items() if key.split("#")[0] in shown
    }
    assert set(captions.imgs) == set(opened.imgs)


def test_provenance_names_every_stage(as_coco):
    made = json.loads((as_coco / "provenance.json").read_text())
    assert list(made["stages"]) == sorted(["ingest", "parse", "detect", "segment", "embed", "align"])
    assert made["stages"]["align"]["params"]["max_per_caption"] == 1
    assert made["stages"]["detect"]["path_sha256"]
    assert json.loads((as_coco / "annotations/instances.json").read_text())["info"]["provenance"] == made


def test_datasets_opens_hf_both_ways(data, tmp_path, pairs, images, texts, monkeypatch):
    import datasets

    out = tmp_path / "out"
    hf.write(data, out)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    cache = str(tmp_path / "cache")
    by_folder = datasets.load_dataset(str(out), cache_dir=cache)
    files = {"train": str(out / "data/train-*.parquet")}
    by_files = datasets.load_dataset("parquet", data_files=files, cache_dir=cache)
    for opened in (by_folder, by_files):
        assert list(opened) == ["train"]
        assert isinstance(opened["train"].features["image"], datasets.Image)
        assert {row["id"] for row in opened["train"].select_columns("id")} == set(pairs)
    for row in by_folder["train"]:
        pair = pairs[row["id"]]
        stored = Image.open(io.BytesIO(images[row["image_id"]]["bytes"]))
        assert np.array_equal(np.asarray(row["image"]), np.asarray(stored))
        assert np.array_equal(coco_mask.decode(row["mask"]), pixels(pair))
        assert row["bbox"] == [pair["x0"], pair["y0"], pair["x1"], pair["y1"]]
        assert row["caption"] == texts[pair["caption_id"]]
        assert row["caption"][row["start"] : row["end"]] == row["phrase"]
    card = (out / "README.md").read_text()
    assert "Licence: **TO BE FILLED IN**" in card
    assert f"| train | {len({p['image_id'] for p in pairs.values()})} | {len(pairs)} |" in card
    assert "| segment | 1 | `" in card


def test_hf_stores_an_image_once_for_all_its_pairs(data, tmp_path, monkeypatch):
    """Ten pairs of one image of 300 kB: one copy in the file, and small row groups."""
    number = next(iter(walk.pictures(data))).shard
    picture = next(iter(walk.pictures(data)))
    noise = os.urandom(300_000)
    many = walk.Picture(number, picture.image | {"bytes": noise}, picture.captions, picture.pairs[:1] * 10)
    with hf._Rows(tmp_path / "one.parquet") as rows:
        rows.add(many)
    assert (tmp_path / "one.parquet").stat().st_size < 400_000
    monkeypatch.setattr(hf, "_BYTES_PER_GROUP", 1_000_000)
    with hf._Rows(tmp_path / "two.parquet") as rows:
        rows.add(many)
    assert pq.read_metadata(tmp_path / "two.parquet").num_row_groups == 3
    stored = pq.read_table(tmp_path / "two.parquet").column("image").to_pylist()
    assert [row["bytes"] for row in stored] == [noise] * 10


def test_other_ids_get_numbers(data, monkeypatch, tmp_path):
    real = walk.pictures

    def renamed(folder: Path):
        for picture in real(folder):
            yield walk.Picture(picture.shard, picture.image | {"id": f"a/{picture.image['id']}.jpg"},
                               picture.captions, picture.pairs)  # fmt: skip

    monkeypatch.setattr(coco, "pictures", renamed)
    monkeypatch.setattr(coco, "outline", lambda folder: walk.Outline(walk.outline(folder).heads, False, 1))
    coco.write(data, tmp_path / "out")
    shown = json.loads((tmp_path / "out/annotations/instances.json").read_text())["images"]
    assert [image["id"] for image in shown] == list(range(1, len(shown) + 1))
    assert all(image["source_id"].endswith(".jpg") for image in shown)


@pytest.mark.parametrize("kind", ["coco", "hf"])
def test_a_folder_is_not_overwritten_by_accident(kind, finished, command, tmp_path):
    out = tmp_path / "out"
    assert command(finished, "export", kind, str(out))[1].startswith("32 pairs of 16 images: in ")
    first = digests(out)
    code, _, err = command(finished, "export", kind, str(out))
    assert (code, "add --force" in err) == (2, True)
    assert command(finished, "export", kind, str(out), "--force")[0] == 0
    assert digests(out) == first, "equal pairs, equal bytes"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/photo.jpg").write_bytes(b"precious")
    code, _, err = command(finished, "export", kind, str(tmp_path / "mine"), "--force")
    assert (code, "is no earlier export" in err) == (2, True)
    assert command(finished, "export", kind, str(tmp_path / "mine/photo.jpg"))[0] == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "out"]


@pytest.mark.parametrize("kind", ["coco", "hf"])
def test_a_full_disk_ends_with_one_line_and_leaves_nothing(kind, finished, command, tmp_path, monkeypatch):
    full = OSError(errno.ENOSPC, "No space left on device")

    def fail(*_: object, **__: object) -> None:
        raise full

    monkeypatch.setattr(coco, "_annotation", fail)
    monkeypatch.setattr(hf, "_row", fail)
    code, out, err = command(finished, "export", kind, str(tmp_path / "out"))
    assert (code, out) == (5, "")
    assert err.count("\n") == 1 and "No space left on device" in err
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_shard_is_not_exported(mine, command, tmp_path):
    shard = mine / "data/small/align/pairs/0003.parquet"
    raw = bytearray(shard.read_bytes())
    raw[6] ^= 1
    shard.unlink()
    shard.write_bytes(raw)
    code, _, err = command(mine, "export", "hf", str(tmp_path / "out"))
    assert (code, "damaged" in err) == (3, True)
    assert not list(tmp_path.glob("*out*")), "nothing half is left"


def test_stages_of_different_runs_are_not_exported(data):
    picture = next(iter(walk.pictures(data)))
    pair = picture.pairs[0]
    for wrong in (
        walk.Picture(0, picture.image, [], [pair]),
        walk.Picture(0, picture.image | {"height": 1}, picture.captions, [pair]),
        walk.Picture(0, picture.image, picture.captions, [pair | {"start": pair["start"] + 1}]),
    ):
        with pytest.raises(walk.InputError, match="different runs"):
            walk._check(data, wrong)


def test_a_killed_export_leaves_nothing_half(finished, tmp_path):
    """SIGKILL in the middle; the place stays empty and the next export clears what was left beside it."""
    out = tmp_path / "out"
    slow = (
        "import sys, time; from pipeline import cli; from pipeline.export import coco, walk\n"
        "real = walk.pictures\n"
        "def slowly(data):\n    for p in real(data):\n        time.sleep(0.2); print('one', flush=True); yield p\n"
        f"coco.pictures = slowly; cli.main(['export', 'coco', {str(out)!r}])"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", slow], cwd=finished, env=checkout_environment(finished), stdout=subprocess.PIPE
    )
    running.stdout.readline()
    running.stdout.readline()
    running.send_signal(signal.SIGKILL)
    running.wait(30)
    assert not out.exists()
    assert len(list(tmp_path.glob(".out.*.part"))) == 1
    with folder.fresh(out, force=False) as draft:
        (draft / folder.MARK).write_text('{"stages": {}}')
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_export_killed_while_it_took_its_place_loses_nothing(tmp_path):
    out, before = tmp_path / "out", tmp_path / ".out.4194399.before"
    before.mkdir()
    (before / folder.MARK).write_text('{"stages": {"old": 1}}')
    with pytest.raises(folder.ParamsError, match="add --force"), folder.fresh(out, force=False):
        pass
    assert (out / folder.MARK).is_file() and not before.exists()
    with pytest.raises(ZeroDivisionError), folder.fresh(out, force=True):
        raise ZeroDivisionError
    assert json.loads((out / folder.MARK).read_text()) == {"stages": {"old": 1}}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
