"""The presets as a user meets them: filled in, over a collection laid out as their comments say."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw
from small import ROOT, in_process, run_stage

from pipeline import params, presets
from pipeline.shards import read_all
from pipeline.weights.manifest import of_folder

CAPTIONS = {
    "dog.jpg": "a black dog runs over the green grass",
    "ball.jpg": "a red ball lies beside a small cup",
}


def photo(name: str) -> bytes:
    made = Image.new("RGB", (160, 120), (90, 160, 90))
    pen = ImageDraw.Draw(made)
    pen.ellipse((40, 30, 110, 90), fill="black" if name == "dog.jpg" else "red")
    data = io.BytesIO()
    made.save(data, "JPEG", quality=90)
    return data.getvalue()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder that has what ships (demo/, presets/), and an empty folder `data` for a collection."""
    for name in ("demo", "presets"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def photos(root: Path, folder: str) -> None:
    (root / folder).mkdir()
    for name in CAPTIONS:
        (root / folder / name).write_bytes(photo(name))


def folder(root: Path) -> None:
    photos(root, "images")
    lines = "".join(f"{name},{text}\n" for name, text in CAPTIONS.items())
    (root / "captions.csv").write_text(f"image,caption\n{lines}")


def flickr30k(root: Path) -> None:
    photos(root, "flickr30k-images")
    lines = "".join(f"{name}#0\t{text}\n" for name, text in CAPTIONS.items())
    (root / "results_20130124.token").write_text(lines)


def flickr8k(root: Path) -> None:
    flickr30k(root)
    (root / "results_20130124.token").rename(root / "Flickr8k.token.txt")
    (root / "flickr30k-images").rename(root / "Flicker8k_Dataset")


def parquet(root: Path) -> None:
    (root / "train").mkdir()
    images = [{"bytes": photo(name), "path": name} for name in CAPTIONS]
    table = pa.table({"image": images, "caption": list(CAPTIONS.values())})
    pq.write_table(table, root / "train/0000.parquet")


def webdataset(root: Path) -> None:
    with tarfile.open(root / "0.tar", "w") as tar:
        for name, text in CAPTIONS.items():
            for member, data in ((name, photo(name)), (name.replace("jpg", "txt"), text.encode())):
                header = tarfile.TarInfo(member)
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))


FORMS = [folder, flickr30k, flickr8k, parquet, webdataset]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_a_preset_reads_what_its_comments_describe(place, form):
    form(place / "data")
    presets.use(form.__name__, Path("params.yaml"), place / "data", {}, force=True)
    in_process("ingest", place)
    out = Path("data") / params.load(Path("params.yaml")).dataset / "ingest"
    assert sorted(read_all(out / "captions").column("text").to_pylist()) == sorted(CAPTIONS.values())
    assert read_all(out / "images").num_rows == 2


@pytest.mark.parametrize("name", [name for name in presets.names() if name.startswith("paper-")])
def test_the_papers_presets_read_what_their_comments_describe(place, name):
    """A collection, sentences and triplets laid out as said; every weights folder is one that `weights get` fills."""
    data = place / "data"
    if "coco" in name:
        (data / "coco/annotations").mkdir(parents=True)
        photos(data / "coco", "train2014")
        images = [{"id": n, "file_name": file} for n, file in enumerate(CAPTIONS)]
        texts = [{"id": n, "image_id": n, "caption": text} for n, text in enumerate(CAPTIONS.values())]
        captions = {"images": images, "annotations": texts}
        (data / "coco/annotations/captions_train2014.json").write_text(json.dumps(captions))
    else:
        (data / "flickr30k").mkdir()
        flickr30k(data / "flickr30k")
    (data / "wiki1m_for_simcse.txt").write_text("One sentence.\nAnother one.\n")
    presets.use(name, Path("params.yaml"), data, {}, force=True)
    in_process("ingest", place)
    made = params.load(Path("params.yaml"))
    out = data / made.dataset / "ingest"
    assert read_all(out / "images").num_rows == 2 and read_all(out / "sentences").num_rows == 2
    assert sorted(read_all(out / "captions").column("text").to_pylist()) == sorted(CAPTIONS.values())
    for section in (made.parse, made.detect, made.segment, made.embed, made.train):
        assert of_folder(Path(section.path)), section.path
    assert {part for line in presets._source(name).splitlines() if "weights get" in line for part in line.split()} >= {
        of_folder(Path(section.path)) for section in (made.detect, made.segment, made.embed, made.train)
    }


def test_flickr30k_as_multi30k_has_it(place):
    photos(place / "data", "images")
    (place / "data/task2/raw").mkdir(parents=True)
    (place / "data/task2/image_splits").mkdir()
    (place / "data/task2/raw/train.1.en.gz").write_bytes(gzip.compress(("\n".join(CAPTIONS.values()) + "\n").encode()))
    (place / "data/task2/image_splits/train_images.txt").write_text("\n".join(CAPTIONS) + "\n")
    settings = {"ingest.captions": "task2/raw/*.en.gz", "ingest.lists": "task2/image_splits/*_images.txt"}
    text = presets._source("flickr30k")
    for key, value in settings.items():
        assert f"{key}={value}" in text, "the preset's comment says how"
    presets.use("flickr30k", Path("params.yaml"), place / "data", settings, force=True)
    in_process("ingest", place)
    assert read_all(place / "data/flickr30k/ingest/captions").num_rows == 2


def test_own_photos_with_own_boxes_become_pairs(place):
    """Preset `folder`: photos, a CSV file and an instances file become pairs; without the last it says what to do."""
    folder(place / "data")
    presets.use("folder", Path("params.yaml"), place / "data", {}, force=True)
    for stage in ("ingest", "parse"):
        in_process(stage, place)
    result = run_stage("detect", place)
    assert result.returncode == 3 and "Traceback" not in result.stderr
    assert "no annotation file here that matches 'instances*.json'; put a COCO instances file there" in result.stderr
    box = [40, 30, 110, 90]
    square = [box[0], box[1], box[2], box[1], box[2], box[3], box[0], box[3]]
    instances = {
        "images": [{"id": n, "file_name": f"images/{name}"} for n, name in enumerate(CAPTIONS)],
        "categories": [{"id": n, "name": name.split(".")[0]} for n, name in enumerate(CAPTIONS)],
        "annotations": [
            {"id": n, "image_id": n, "category_id": n, "bbox": [40, 30, 70, 60], "segmentation": [square], "area": 4200}
            for n in range(len(CAPTIONS))
        ],
    }
    (place / "data/instances.json").write_text(json.dumps(instances))
    for stage in ("detect", "segment", "embed", "align"):
        in_process(stage, place)
    pairs = read_all(place / "data/folder/align/pairs").to_pylist()
    assert {(pair["image_id"], pair["head"]) for pair in pairs} == {
        ("images/dog.jpg", "dog"),
        ("images/ball.jpg", "ball"),
    }
    assert all((pair["x0"], pair["y0"], pair["x1"], pair["y1"]) == (40, 30, 110, 90) for pair in pairs)
