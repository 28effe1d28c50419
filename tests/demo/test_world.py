"""The committed demo world: rebuilt, equal, and true to its own gold."""

import hashlib
import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

from demo import build
from demo.captions import caption_for
from demo.lexicon import NAMES
from demo.plans import Knobs
from demo.render import render
from demo.scenes import COLOURS, KINDS, MIN_VISIBLE, sample_scene

WORLD = Path(build.__file__).parent / "world"
HASHES = json.loads((WORLD / "hashes.json").read_text())
SEED, SCENES = HASHES["seed"], HASHES["scenes"]


def load(name: str) -> dict:
    return json.loads((WORLD / "annotations" / name).read_text())


@pytest.fixture(scope="module")
def captions() -> dict[int, dict]:
    return {row["id"]: row for row in load("captions_world.json")["annotations"]}


@pytest.fixture(scope="module")
def phrases() -> dict[int, list[dict]]:
    return {int(key): rows for key, rows in load("phrases_world.json").items()}


@pytest.fixture(scope="module")
def instances() -> COCO:
    return COCO(WORLD / "annotations" / "instances_world.json")


def test_all_text_is_what_the_seed_says():
    for path, text in build.text_files(SEED, SCENES).items():
        assert hashlib.sha256(text.encode()).hexdigest() == HASHES["text"][path], path
    for path, digest in HASHES["text"].items():
        assert hashlib.sha256((WORLD / path).read_bytes()).hexdigest() == digest, path


def test_pixels_and_masks_are_what_the_seed_says(instances):
    for index in range(0, SCENES, 20):
        scene, image_id = build.scene_for(SEED, index), index + 1
        picture = render(scene)
        name = build.image_name(image_id)
        assert build.pixel_hash(picture.image) == HASHES["pixels"][name]
        first = instances.imgToAnns[image_id][0]["id"]
        assert build.instance_rows(scene, picture, image_id, first) == instances.imgToAnns[image_id]


def test_every_committed_image_decodes_to_its_hash():
    assert sorted(p.name for p in (WORLD / "images").iterdir()) == sorted(HASHES["pixels"])
    for name, digest in HASHES["pixels"].items():
        with Image.open(WORLD / "images" / name) as image:
            assert image.size == (128, 128) and image.mode == "RGB"
            assert build.pixel_hash(image) == digest, name


def test_another_seed_is_another_world():
    assert build.scene_for(SEED + 1, 0) != build.scene_for(SEED, 0)
    assert build.pixel_hash(render(build.scene_for(SEED + 1, 0)).image) != HASHES["pixels"][build.image_name(1)]


def test_masks_are_disjoint_and_fit_their_boxes_and_areas(instances):
    for rows in instances.imgToAnns.values():
        taken = np.zeros((128, 128), dtype=int)
        for row in rows:
            mask = instances.annToMask(row)
            ys, xs = np.nonzero(mask)
            assert mask.sum() == row["area"] == rle.area(row["segmentation"]) >= 100
            assert row["bbox"] == [xs.min(), ys.min(), xs.max() - xs.min() + 1, ys.max() - ys.min() + 1]
            assert isinstance(row["segmentation"]["counts"], str) and row["iscrowd"] == 0
            taken += mask
        assert taken.max() == 1 and 2 <= len(rows) <= 5


def test_no_object_is_mostly_hidden():
    for index in range(60):
        picture = render(sample_scene(99, index))
        for mask, whole in zip(picture.masks, picture.whole, strict=True):
            assert mask.histogram()[255] >= MIN_VISIBLE * whole


def test_kinds_colours_and_sizes_are_all_there(instances):
    rows = instances.loadAnns(instances.getAnnIds())
    names = {c["id"]: c["name"] for c in instances.loadCats(instances.getCatIds())}
    seen = Counter(names[row["category_id"]] for row in rows)
    assert set(seen) == set(KINDS) and len(KINDS) >= 12 and min(seen.values()) >= 15
    assert set(COLOURS) == {row["colour"] for row in rows} and len(COLOURS) == 8
    assert {row["size_word"] for row in rows} == {"small", None, "large"}


def test_gold_phrases_slice_back_and_do_not_overlap(captions, phrases):
    assert set(phrases) == set(captions)
    for caption_id, rows in phrases.items():
        text, end = captions[caption_id]["caption"], 0
        for row in rows:
            assert text[row["start"] : row["end"]] == row["text"] and row["start"] >= end
            end = row["end"]


def test_phrases_denote_what_they_say(captions, phrases, instances):
    names = {c["id"]: c["name"] for c in instances.loadCats(instances.getCatIds())}
    for caption_id, rows in phrases.items():
        shown = instances.imgToAnns[captions[caption_id]["image_id"]]
        for row in rows:
            denoted = [o for o in shown if o["id"] in row["objects"]]
            assert len(denoted) == len(row["objects"]) and bool(denoted) == (row["role"] in ("object", "pronoun"))
            words = row["text"].lower().replace(",", "").split()
            for thing in denoted:
                assert names[thing["category_id"]] == row["kind"]
                colour = [w for w in words if w in COLOURS]
                assert not colour or colour == [thing["colour"]]
            if row["role"] == "object":
                assert row["head"] in {n.head for n in NAMES[row["kind"]]}
                assert (len(denoted) > 1) == (row["number"] == "plur") and row["count"] in (None, len(denoted))
            if row["role"] == "invention":
                assert row["kind"] not in {names[o["category_id"]] for o in shown}


def test_a_phrase_that_fits_other_objects_says_so(captions, phrases, instances):
    """Colour word, size word and kind pick out the denoted objects, or the phrase is marked ambiguous."""
    names = {c["id"]: c["name"] for c in instances.loadCats(instances.getCatIds())}
    sizes = {"small": "small", "little": "small", "tiny": "small", "large": "large", "big": "large"}
    for caption_id, rows in phrases.items():
        shown = instances.imgToAnns[captions[caption_id]["image_id"]]
        for row in (r for r in rows if r["role"] == "object"):
            words = row["text"].lower().replace(",", "").split()
            colour, size = ({w for w in words if w in COLOURS}, {sizes[w] for w in words if w in sizes})
            fitting = {
                o["id"]
                for o in shown
                if names[o["category_id"]] == row["kind"] and colour <= {o["colour"]} and size <= {o["size_word"]}
            }
            assert set(row["objects"]) <= fitting
            assert row["ambiguous"] == (set(row["objects"]) != fitting)


def test_captions_leave_out_and_invent_as_the_knobs_say():
    def shares(knobs: Knobs) -> tuple[float, float]:
        told = shown = invented = 0
        for index in range(250):
            scene = sample_scene(5, index)
            caption = caption_for(5, scene, index, knobs=knobs)
            told += len({i for p in caption.phrases for i in p.objects})
            shown += len(scene.objects)
            invented += any(p.role == "invention" for p in caption.phrases)
        return told / shown, invented / 250

    told, invented = shares(Knobs(image_noise=0.0, caption_noise=0.0))
    told_less, invented_more = shares(Knobs(image_noise=0.6, caption_noise=0.5))
    assert told > told_less + 0.2 and invented == 0 and 0.4 < invented_more < 0.6


def test_three_different_captions_an_image_and_fresh_sentences(captions):
    texts: dict[int, set[str]] = {}
    for row in captions.values():
        texts.setdefault(row["image_id"], set()).add(row["caption"])
    assert len(texts) == SCENES and all(len(found) == 3 for found in texts.values())
    sentences = (WORLD / "sentences.txt").read_text().splitlines()
    assert len(set(sentences)) == len(sentences) >= 6000


def test_coco_loads_the_captions():
    coco = COCO(WORLD / "annotations" / "captions_world.json")
    image_id = random.Random(0).choice(coco.getImgIds())
    assert (WORLD / "images" / coco.loadImgs(image_id)[0]["file_name"]).is_file()
    assert len(coco.loadAnns(coco.getAnnIds(imgIds=image_id))) == 3


def test_the_world_stays_small():
    assert sum(path.stat().st_size for path in WORLD.rglob("*") if path.is_file()) <= 6_000_000
