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
from demo.graded import graded_sentences
from demo.lexicon import NAMES, PATTERN_WORDS, SIZE_WORDS
from demo.plans import Knobs
from demo.render import render
from demo.scenes import COLOURS, KINDS, MIN_VISIBLE, PATTERNED, PATTERNS, sample_scene
from demo.sts import plain

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
    made = build.text_files(build.Settings(SEED, SCENES))
    for path, text in made.items():
        assert hashlib.sha256(text.encode()).hexdigest() == HASHES["text"][path], path
    assert set(HASHES["text"]) == {*made, "annotations/instances_world.json", "README.md"}
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


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


SMALL = {"seed": 3, "scenes": 19, "sentences": 30, "sts": False}


def test_any_number_of_workers_writes_the_same_bytes(tmp_path):
    build.build(**SMALL, out=tmp_path / "one")
    build.build(**SMALL, out=tmp_path / "three", workers=3)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "three")
    assert len(files_of(tmp_path / "one")) == 19 + 7 and not (tmp_path / "one/sts").exists()


def test_check_finds_what_is_not_as_the_seed_says(tmp_path):
    knobs = Knobs(image_noise=0.5, synonymy=0.0)
    build.build(**SMALL, out=tmp_path, knobs=knobs)
    assert build.differences(tmp_path) == []
    with Image.open(tmp_path / "images" / build.image_name(2)) as image:
        image.putpixel((5, 5), (1, 2, 3))
        image.save(tmp_path / "images" / build.image_name(2))
    (tmp_path / "images" / build.image_name(4)).unlink()
    (tmp_path / "sentences.txt").write_text("a ball\n")
    (tmp_path / "other.txt").write_text("")
    wrong = [f"images/{build.image_name(2)}", f"images/{build.image_name(4)}", "other.txt", "sentences.txt"]
    assert build.differences(tmp_path) == wrong
    (tmp_path / "other.txt").unlink()
    build.build(**SMALL | {"scenes": 5}, out=tmp_path, knobs=knobs)
    assert build.differences(tmp_path) == [] and len(list((tmp_path / "images").iterdir())) == 5


def test_a_world_says_nothing_that_it_is_told_to_avoid(tmp_path):
    build.build(**SMALL, out=tmp_path)
    captions = json.loads((tmp_path / "annotations/captions_world.json").read_text())
    said = {plain(row["caption"]) for row in captions["annotations"]}
    said |= {plain(text) for text in (tmp_path / "sentences.txt").read_text().splitlines()}
    avoid = frozenset(sorted(said)[::2])
    build.build(**SMALL, out=tmp_path, avoid=avoid)
    info = json.loads((tmp_path / "annotations/captions_world.json").read_text())
    text = {plain(row["caption"]) for row in info["annotations"]}
    text |= {plain(line) for line in (tmp_path / "sentences.txt").read_text().splitlines()}
    assert not text & avoid and info["info"]["avoided"] == len(avoid)


def test_the_graded_sentences_of_the_world_are_none_to_train_on():
    graded = graded_sentences(WORLD)
    pairs = sum((WORLD / path).read_text().count("\n") for path in HASHES["text"] if path.startswith("sts/STS1"))
    assert len(graded) > pairs and "sentence_a" not in graded
    trained = {plain(line) for line in (WORLD / "sentences.txt").read_text().splitlines()}
    assert not graded & (trained | {plain(row["caption"]) for row in load("captions_world.json")["annotations"]})


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
    patterned = [row for row in rows if row["pattern"] is not None]
    assert {row["pattern"] for row in patterned} == set(PATTERNS)
    assert {names[row["category_id"]] for row in patterned} <= PATTERNED


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
            assert len(denoted) == len(row["objects"])
            if row["role"] == "pronoun":  # of what was named before, shown or not
                named = [r for r in rows if r["kind"] == row["kind"] and r["objects"] == row["objects"]]
                assert named[0]["role"] in ("object", "invention") and named[0]["end"] <= row["start"]
            else:
                assert bool(denoted) == (row["role"] == "object")
            words = row["text"].lower().replace(",", "").split()
            for thing in denoted:
                assert names[thing["category_id"]] == row["kind"]
                colour = [w for w in words if w in COLOURS]
                assert not colour or colour == [thing["colour"]]
                pattern = [said for said, forms in PATTERN_WORDS.items() if set(forms) & set(words)]
                assert not pattern or pattern == [thing["pattern"]]
            if row["role"] == "object":
                assert row["head"] in {n.head for n in NAMES[row["kind"]]}
                assert (len(denoted) > 1) == (row["number"] == "plur") and row["count"] in (None, len(denoted))
            if row["role"] == "invention":
                assert row["kind"] not in {names[o["category_id"]] for o in shown}


def test_a_phrase_that_fits_other_objects_says_so(captions, phrases, instances):
    """Colour, size, pattern and kind pick out the denoted objects, or the phrase is marked ambiguous."""
    names = {c["id"]: c["name"] for c in instances.loadCats(instances.getCatIds())}
    sizes = {form: size for size, forms in SIZE_WORDS.items() for form in forms}
    patterns = {form: pattern for pattern, forms in PATTERN_WORDS.items() for form in forms}
    for caption_id, rows in phrases.items():
        shown = instances.imgToAnns[captions[caption_id]["image_id"]]
        for row in (r for r in rows if r["role"] == "object"):
            words = row["text"].lower().replace(",", "").split()
            colour, size = ({w for w in words if w in COLOURS}, {sizes[w] for w in words if w in sizes})
            pattern = {patterns[w] for w in words if w in patterns}
            fitting = {
                o["id"]
                for o in shown
                if names[o["category_id"]] == row["kind"]
                and colour <= {o["colour"]}
                and size <= {o["size_word"]}
                and pattern <= {o["pattern"]}
            }
            assert set(row["objects"]) <= fitting
            assert row["ambiguous"] == (set(row["objects"]) != fitting)


def captions_with(knobs: Knobs, number: int = 250) -> list[tuple]:
    """(scene, caption) pairs of one seed."""
    scenes = [sample_scene(5, index) for index in range(number)]
    return [(scene, caption_for(5, scene, index, knobs=knobs)) for index, scene in enumerate(scenes)]


def test_captions_leave_out_and_invent_as_the_knobs_say():
    def shares(knobs: Knobs) -> tuple[float, float]:
        pairs = captions_with(knobs)
        told = sum(len({i for p in caption.phrases for i in p.objects}) for _, caption in pairs)
        invented = sum(any(p.role == "invention" for p in caption.phrases) for _, caption in pairs)
        return told / sum(len(scene.objects) for scene, _ in pairs), invented / len(pairs)

    told, invented = shares(Knobs(image_noise=0.0, caption_noise=0.0))
    told_less, invented_more = shares(Knobs(image_noise=0.6, caption_noise=0.5))
    assert told > told_less + 0.2 and invented == 0 and 0.4 < invented_more < 0.6
    assert shares(Knobs(image_noise=1.0, caption_noise=1.0))[1] == 1


def test_without_synonymy_things_and_sizes_have_their_plain_names():
    def words(knobs: Knobs) -> set[str]:
        phrases = [p for _, caption in captions_with(knobs) for p in caption.phrases if p.kind and p.role != "pronoun"]
        assert all(p.head in {name.head for name in NAMES[p.kind]} for p in phrases)
        return {word for p in phrases for word in p.text.lower().replace(",", "").split()}

    plain_words = {word for name, *_ in NAMES.values() for form in (name.one, name.many) for word in form.split()}
    others = {word for names in NAMES.values() for n in names for f in (n.one, n.many) for word in f.split()}
    others = (
        others | {w for forms in (*SIZE_WORDS.values(), *PATTERN_WORDS.values()) for w in forms[1:]}
    ) - plain_words
    assert not words(Knobs(synonymy=0.0)) & others
    assert words(Knobs(synonymy=0.0)) & {forms[0] for forms in SIZE_WORDS.values()}
    assert len(words(Knobs(synonymy=1.0)) & others) > 0.8 * len(others)


def test_attributes_are_dropped_as_the_knob_says():
    def said(knobs: Knobs) -> Counter:
        found: Counter = Counter()
        for scene, caption in captions_with(knobs):
            for mention in caption.plan.mentions:
                shown = [scene.objects[i] for i in mention.objects]
                if len(shown) == 1:
                    found.update(colour=mention.colour is not None, colours=1)
                    found.update(size=mention.size is not None, sizes=shown[0].size != "medium")
                    found.update(pattern=mention.pattern is not None, patterns=shown[0].pattern is not None)
        return found

    every, few = said(Knobs(attribute_dropout=0.0)), said(Knobs(attribute_dropout=1.0))
    for name in ("colour", "size", "pattern"):
        assert every[name] == every[f"{name}s"] > 20  # all that there is
        assert few[name] < 0.3 * few[f"{name}s"]  # only where nothing else tells things apart


def test_every_caption_has_its_tree(captions):
    blocks = (WORLD / "annotations" / "trees_world.conllu").read_text().strip().split("\n\n")
    assert len(blocks) == len(captions)
    for block in blocks:
        number, text, *rows = block.splitlines()
        words = [row.split("\t") for row in rows]
        assert text == f"# text = {captions[int(number.removeprefix('# sent_id = '))]['caption']}"
        spaced = "".join(w[1] + ("" if w[9] == "SpaceAfter=No" else " ") for w in words)
        assert spaced.rstrip() == text.removeprefix("# text = ") and all(len(w) == 10 for w in words)
        assert [w[6] for w in words].count("0") == 1


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
