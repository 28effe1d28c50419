"""detect by annotations: the words of a phrase decide which annotated objects it takes."""

import json

import pyarrow as pa
import pytest
from small import in_process, run_stage, write_params

from pipeline import tables
from pipeline.errors import InputError
from pipeline.shards import read_all
from stages.common.annotations import Annotations
from stages.detect.backends import AnnotatedDetector, Found, Miss
from stages.detect.stage import best

CATEGORIES = ("person", "dog", "hot dog", "mouse", "dining table", "baseball bat")
SYNONYMS = {"person": ["man", "tennis player"], "dining table": ["table"], "not annotated": ["woman"]}


@pytest.fixture
def detector(tmp_path):
    categories = [{"id": i, "name": name} for i, name in enumerate(CATEGORIES)]
    objects = [
        {"id": i, "image_id": 1, "category_id": category, "bbox": [i, 0, 10, 10 + i], "iscrowd": 0}
        for i, category in enumerate((0, 1, 2, 4, 1))
    ]
    (tmp_path / "instances.json").write_text(json.dumps({"categories": categories, "annotations": objects}))
    return AnnotatedDetector(Annotations(tmp_path / "instances.json", ""), SYNONYMS)


def phrase(key, head, image="1"):
    row = {"id": "p", "image_id": image, "caption_id": "c", "start": 0, "end": 1, "text": "x", "head": head}
    return tables.build("phrases", [row | {"number": "sing", "count": None, "key": key, "kind": "noun"}])


def found(detector, key, head, image="1"):
    images = pa.table({"id": [image]})
    ((_, result),) = detector.detect(images, phrase(key, head, image))
    return result


@pytest.mark.parametrize(
    ("key", "head", "category"),
    [
        ("brown dog", "dog", "dog"),
        ("hot dog", "dog", "hot dog"),
        ("large hot dog", "hot dog", "hot dog"),
        ("old man", "man", "person"),
        ("tennis player", "player", "person"),
        ("player", "player", None),
        ("wooden table", "table", "dining table"),
        ("bat", "bat", None),
        ("wooden baseball bat", "bat", "baseball bat"),
        ("woman", "woman", None),
    ],
)
def test_the_longest_words_at_the_end_of_the_key_decide(detector, key, head, category):
    assert detector.categories.named(key, head) == category


def test_all_objects_of_the_category_are_found_with_pixel_boxes(detector):
    boxes = found(detector, "dog", "dog")
    assert [b.box for b in boxes] == [(1, 0, 11, 11), (4, 0, 14, 14)]
    assert [b.object_id for b in boxes] == ["1/1", "1/4"] and {b.score for b in boxes} == {1.0}


def test_misses_say_why(detector):
    assert found(detector, "cat", "cat") == Miss("no_category", "cat")
    assert found(detector, "mouse", "mouse").reason == "no_match"
    assert found(detector, "dog", "dog", image="2").reason == "no_annotation"


def test_best_orders_by_score_then_size_then_id():
    boxes = [Found((0, 0, 5, 5), 0.5, "a", "2"), Found((0, 0, 9, 9), 0.5, "a", "3"), Found((0, 0, 1, 1), 0.9, "a", "1")]
    assert [b.object_id for b in best(boxes, 2)] == ["1", "3"]


def test_a_counted_plural_keeps_one_box_more_than_its_count(small):
    write_params(small / "params.yaml", small / "collection", detect__top_k=1)
    for stage in ("ingest", "parse"):
        in_process(stage, small)
    path = small / "data/small/parse/phrases"
    assert read_all(path).num_rows == 96
    in_process("detect", small)
    assert read_all(small / "data/small/detect/boxes").column("rank").to_pylist() == [0] * 96


@pytest.mark.parametrize(
    ("text", "says"),
    [("{", "line 1"), ("[]", "not COCO instances"), ('{"categories": [], "annotations": [{"bbox": [1]}]}', "not COCO")],
)
def test_broken_annotation_files_are_named(tmp_path, text, says):
    (tmp_path / "instances.json").write_text(text)
    with pytest.raises(InputError, match=says):
        Annotations(tmp_path / "instances.json", "")


def test_missing_files_and_folders_end_in_one_line(small):
    for stage in ("ingest", "parse"):
        in_process(stage, small)
    write_params(small / "params.yaml", small / "collection", detect__path=str(small / "none.json"))
    result = run_stage("detect", small)
    assert result.returncode == 3 and "no annotation file here" in result.stderr
    for backend in ("transformers", "groundingdino"):
        write_params(small / "params.yaml", small / "collection", detect__backend=backend)
        with pytest.raises(InputError, match=r"no config\.json of detect\.path \(Grounding DINO\) here"):
            in_process("detect", small)


def test_nothing_found_at_all_is_no_empty_success(small):
    for stage in ("ingest", "parse"):
        in_process(stage, small)
    (small / "collection/instances.json").write_text('{"categories": [{"id": 1, "name": "zebra"}], "annotations": []}')
    result = run_stage("detect", small)
    assert result.returncode == 3 and "none of 96 phrases came through: no_annotation 96" in result.stderr
