"""Annotations are found by an image's id, and by its file name where the collection has no other id."""

import json

from stages.common.annotations import Annotations


def test_an_image_goes_by_its_id_and_by_its_file_name(tmp_path):
    document = {
        "images": [{"id": 7, "file_name": "images/dog.jpg"}, {"id": 8}],
        "categories": [{"id": 1, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4]},
            {"id": 2, "image_id": 8, "category_id": 1, "bbox": [1, 2, 3, 4]},
            {"id": 3, "image_id": "images/cat.jpg", "category_id": 1, "bbox": [1, 2, 3, 4]},
        ],
    }
    (tmp_path / "instances.json").write_text(json.dumps(document))
    found = Annotations(tmp_path, "*.json")
    for image, things in (("7", ["7/1"]), ("images/dog.jpg", ["7/1"]), ("8", ["8/2"]), ("dog.jpg", [])):
        assert [thing.id for thing in found.of_image.get(image, ())] == things
    assert [thing.id for thing in found.of_image["images/cat.jpg"]] == ["images/cat.jpg/3"]
    assert found.digest(["images/dog.jpg"]) == found.digest(["7"]) != found.digest(["8"])
