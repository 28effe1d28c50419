"""Readers of gold: what each kind says of a caption, and that damage ends in one clear line."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from stages.quality.gold import image_names, moved
from stages.quality.sources import open_gold

MARKED = (
    "[/EN#10/people A man 's dog] sees [/EN#0/notvisual it] near [/EN#11/bodyparts/people two arms] at "
    "[/EN#12/scene sea] ."
)
PLAIN = "A man's dog sees it near two arms at sea."
BOXES = """<annotation><filename>7.jpg</filename>
<object><name>10</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>10</xmax><ymax>20</ymax></bndbox></object>
<object><name>11</name><name>10</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>6</xmax><ymax>6</ymax></bndbox></object>
<object><name>12</name><scene>1</scene><nobndbox>0</nobndbox></object>
</annotation>"""
SQUARE = [[0, 0, 4, 0, 4, 4, 0, 4]]


def entities(root: Path) -> Path:
    for name, file, text in (("Sentences", "7.txt", MARKED + "\n\nNo phrase .\n"), ("Annotations", "7.xml", BOXES)):
        (root / name).mkdir(parents=True)
        (root / name / file).write_text(text)
    return root


def instances(root: Path, *things: tuple, **more: object) -> Path:
    """`things`: (image id, category, crowd)."""
    root.mkdir(parents=True, exist_ok=True)
    categories = ["person", "dog"]
    found = [
        {"id": n, "image_id": image, "category_id": categories.index(name), "bbox": [n, 0, 4, 4], "iscrowd": crowd}
        for n, (image, name, crowd) in enumerate(things)
    ]
    images = [{"id": 139, "file_name": "000000000139.jpg"}]
    document = {"images": images, "categories": [{"id": n, "name": name} for n, name in enumerate(categories)]}
    (root / "instances_val.json").write_text(json.dumps(document | {"annotations": found} | more))
    return root


def caption(text: str, image: str, identifier: str = "c") -> dict:
    return {"id": identifier, "image_id": image, "text": text}


def row(text: str, phrase: str, number: str = "sing", count: int | None = None) -> dict:
    start = text.index(phrase)
    head = {"dogs": "dog", "men": "man"}.get(phrase.split()[-1], phrase.split()[-1])
    span = {"start": start, "end": start + len(phrase), "text": phrase}
    return {**span, "head": head, "key": head, "number": number, "count": count}


@pytest.mark.parametrize("image", ["7", "7.jpg", "photos/7.jpg"])
@pytest.mark.parametrize("text", [PLAIN, "A man 's dog sees it near two arms at sea ."])
def test_entities_say_spans_types_and_boxes(tmp_path, image, text):
    gold = open_gold(entities(tmp_path), {})
    found = gold.caption(caption(text, image), [])
    assert found.whole and gold.names == ["Flickr30k Entities"]
    dog, it, arms, sea = found.phrases
    said = [re.sub(r"\s", "", text[one.start : one.end]) for one in found.phrases]
    assert said == ["Aman'sdog", "it", "twoarms", "sea"]
    # Pixels from 1 to 10 are those from 0 to 9; a chain may have several boxes, a box several chains.
    assert [thing.box for thing in dog.objects] == [(0, 1, 10, 20), (4, 4, 6, 6)]
    assert [thing.box for thing in arms.objects] == [(4, 4, 6, 6)] and arms.types == ("bodyparts", "people")
    assert it.objects == () and sea.objects is None, "it shows nothing; of the sea nobody says where it is"
    assert len(gold.things(image)) == 3
    assert gold.caption(caption("Another caption", image), []) is None
    assert gold.caption(caption(text, "8"), []) is None


def test_marked_captions_alone_say_spans_but_no_boxes(tmp_path):
    (tmp_path / "marked.txt").write_text(MARKED + "\n")
    found = open_gold(tmp_path / "marked.txt", {}).caption(caption(PLAIN, "any"), [])
    assert [one.objects for one in found.phrases] == [None, (), None, None]


@given(st.text("ab  \t", max_size=30), st.data())
def test_spans_move_between_texts_that_differ_in_white_space_only(text, data):
    other = "".join(data.draw(st.sampled_from(("", " ", "  "))) + c for c in text if not c.isspace()) + " "
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    a, b = moved(start, end, text, other)
    assert re.sub(r"\s", "", other[a:b]) == re.sub(r"\s", "", text[start:end])
    assert a == b or not (other[a].isspace() or other[b - 1].isspace())


def test_a_referring_expression_is_the_gold_of_its_first_phrase(tmp_path):
    text = "the man beside a dog"
    items = [
        {"image": "val2017/000000000139.jpg", "normal_caption": text, "solution": [1, 2, 3.5, 4]},
        {"image": "val2017/000000000139.jpg", "normal_caption": "a cat", "solution": None},
        {"image": "val2017/000000000139.jpg", "normal_caption": "dog", "solution": [0, 0, 1, 1]},
        {"image": "val2017/000000000139.jpg", "normal_caption": "dog", "solution": [5, 5, 9, 9]},
    ]
    (tmp_path / "referring_val.json").write_text(json.dumps(items))
    gold = open_gold(tmp_path, {})
    rows = [row(text, "a dog"), row(text, "the man")]
    for image in ("139", "000000000139.jpg", "COCO_val2014_000000000139.jpg"):
        found = gold.caption(caption(text, image), rows)
        assert not found.whole, "it says nothing of where the phrases of a caption end"
        assert [(one.start, one.objects is None) for one in found.phrases] == [(15, True), (0, False)]
        assert found.phrases[1].objects[0].box == (1, 2, 3.5, 4)
    assert gold.caption(caption("a cat", "139"), [row("a cat", "a cat")]).phrases[0].objects == ()
    assert gold.caption(caption("dog", "139"), [row("dog", "dog")]).phrases[0].objects is None, "which of the two?"
    (uncut,) = gold.caption(caption(text, "139"), []).phrases
    assert (uncut.start, uncut.end, len(uncut.objects)) == (0, len(text), 1)
    assert gold.caption(caption("the man", "139"), []) is None


def test_refcocos_records_name_the_objects_of_instances(tmp_path):
    instances(tmp_path, (139, "dog", 0), segmentation=None)
    refs = [{"image_id": 139, "ann_id": 0, "file_name": "x_0.jpg", "sentences": [{"sent": "left dog"}, {"raw": "It"}]}]
    (tmp_path / "refs_unc.json").write_text(json.dumps(refs))
    gold = open_gold(tmp_path, {})
    assert gold.names == ["referring expressions", "COCO instances"]
    for text in ("left dog", "It"):
        (one,) = gold.caption(caption(text, "139"), [row(text, text)]).phrases
        assert one.objects[0].id == "139/0"
    refs[0]["ann_id"] = 5
    (tmp_path / "refs_unc.json").write_text(json.dumps(refs))
    with pytest.raises(InputError, match=re.escape("no instances_*.json beside it has the object 139/5")):
        open_gold(tmp_path, {})


@pytest.mark.parametrize(
    ("phrase", "number", "count", "objects"),
    [
        ("a man", "sing", None, 1),
        ("a dog", "sing", None, None),  # which of the two?
        ("two dogs", "plur", 2, 2),
        ("three dogs", "plur", 3, None),
        ("dogs", "plur", None, 2),
        ("a cat", "sing", None, None),  # no category
    ],
)
def test_instances_say_what_a_phrase_denotes_if_their_number_is_the_phrases(tmp_path, phrase, number, count, objects):
    gold = open_gold(instances(tmp_path, (139, "person", 0), (139, "dog", 0), (139, "dog", 0)), {"person": ["man"]})
    found = gold.caption(caption(phrase, "000000000139.jpg"), [row(phrase, phrase, number, count)])
    (one,) = found.phrases
    assert not found.whole and (None if one.objects is None else len(one.objects)) == objects


def test_instances_say_where_there_is_nothing_and_nothing_of_crowds(tmp_path):
    gold = open_gold(instances(tmp_path, (139, "person", 1), (139, "person", 0), (140, "person", 0)), {})
    (dog,) = gold.caption(caption("a dog", "139"), [row("a dog", "a dog")]).phrases
    assert dog.objects == ()
    (person,) = gold.caption(caption("a person", "139"), [row("a person", "a person")]).phrases
    assert person.objects is None
    assert gold.caption(caption("a person", "141"), [row("a person", "a person")]) is None, "not annotated at all"


def test_no_gold_is_an_empty_file_and_anything_else_is_told(tmp_path):
    (tmp_path / "none.json").touch()
    assert open_gold(tmp_path / "none.json", {}) is None
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match=re.escape("quality.gold_path is a folder with phrases_*.json")):
            open_gold(path, {})
    (tmp_path / "none.json").write_text("x")
    with pytest.raises(InputError, match="no gold here"):
        open_gold(tmp_path / "none.json", {})
    (tmp_path / "phrases_a.json").write_text("{}")
    with pytest.raises(InputError, match="phrases without the objects they denote"):
        open_gold(tmp_path, {})


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("phrases_a.json", "{", "line 1: not valid JSON"),
        ("phrases_a.json", "[]", "not gold"),
        ("phrases_a.json", '{"1": [{"start": 0}]}', "not gold"),
        ("phrases_a.json", '{"1": [{"start": 0, "end": "x", "objects": []}]}', "not gold"),
        ("phrases_a.json", '{"1": [{"start": 5, "end": 2, "objects": []}]}', "start 5 and end 2 are no span"),
        ("phrases_a.json", '{"1": [{"start": 0, "end": 1e999, "objects": []}]}', "not gold"),
        ("phrases_a.json", '{"1": [{"start": 0, "end": 2, "objects": "12"}]}', "objects must be a list"),
        ("phrases_a.json", "[" * 100_000, "cannot be read"),
        ("phrases_a.json", '{"1": 3}', "not gold"),
        ("referring.json", "{}", "not a list"),
        ("referring.json", '[{"image": "1", "solution": null}]', "record 1 has no text"),
        ("referring.json", '[{"image": "1", "caption": "a", "solution": [1, 2, NaN, 4]}]', "is no box"),
        ("referring.json", '[{"image": "1", "caption": "a", "solution": [1, 2]}]', "not gold"),
        ("referring.json", '[{"caption": "a", "solution": null}]', "record 1 names no image"),
        ("instances_a.json", "{}", "not COCO instances"),
        ("marked.txt", "a\n[/EN#1/people Two dogs\n", "line 2: the bracket of phrase #1 is not closed"),
        ("marked.txt", b"\xff\xfe", "cannot be read"),
    ],
)
def test_damaged_gold_ends_in_one_line(tmp_path, file, content, told):
    if file.startswith("phrases"):
        instances(tmp_path)
    (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=re.escape(told)) as raised:
        open_gold(tmp_path, {})
    assert "\n" not in str(raised.value) and str(tmp_path / file) in str(raised.value)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("</annotation>", "", "line 5: not valid XML"),
        ("<xmin>5</xmin>", "", "the box of object 2 is no box"),
        ("<xmax>10</xmax>", "<xmax>nan</xmax>", "the box of object 1 is no box"),
        ("<xmax>10</xmax>", "<xmax>0</xmax>", "the box of object 1 is no box"),
    ],
)
def test_damaged_boxes_of_entities_end_in_one_line(tmp_path, old, new, told):
    gold = open_gold(entities(tmp_path), {})
    file = tmp_path / "Annotations/7.xml"
    file.write_text(BOXES.replace(old, new))
    with pytest.raises(InputError, match=told) as raised:
        gold.caption(caption(PLAIN, "7"), [])
    assert "\n" not in str(raised.value) and str(file) in str(raised.value)


FORMS = {
    "phrases_a.json": b'{"1": [{"start": 0, "end": 4, "objects": [1, 2], "text": "a do", "role": "object"}], "2": []}',
    "instances_a.json": b'{"images": [{"id": 1, "file_name": "a.jpg"}], "categories": [{"id": 1, "name": "dog"}], '
    b'"annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4], "segmentation": [[0, 0, 4, 0, '
    b"4, 4]]}]}",
    "referring_a.json": b'[{"image": "a/1.jpg", "normal_caption": "a dog", "solution": [0, 1, 2, 3]}, '
    b'{"image_id": 1, "ann_id": 1, "sentences": [{"sent": "dog"}]}]',
    "marked.txt": MARKED.encode(),
    "Sentences/1.txt": MARKED.encode(),
    "Annotations/1.xml": BOXES.encode(),
}


@st.composite
def damaged(draw: st.DrawFn, text: bytes) -> bytes:
    """A file with some of its bytes cut, doubled, overwritten, or put elsewhere."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 12)))
        piece = draw(
            st.sampled_from(
                (
                    b"",
                    text[start:end] * 2,
                    b"null",
                    b"-1",
                    b"1e999",
                    b"NaN",
                    b"[]",
                    b"{}",
                    b'"',
                    b"\xff",
                    b"\x00",
                    b"\n",
                )
            )
        )
        text = text[:start] + piece + text[end:]
    return text


@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=170, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_thousand_damaged_files_are_read_or_end_in_one_line_that_names_the_file(tmp_path, name, data):
    """Never another error, and never a value that the measures could not take."""
    root = tmp_path / "gold"
    beside = {"phrases_a.json": ["instances_a.json"], "referring_a.json": ["instances_a.json"]}.get(name, [])
    both = ["Sentences/1.txt", "Annotations/1.xml"] if "/" in name else [name, *beside]
    for file in both:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(FORMS[file])
    (root / name).write_bytes(data.draw(damaged(FORMS[name])))
    try:
        gold = open_gold(root if "/" in name or beside else root / name, {})
        for text in (PLAIN, "a dog", "dog"):
            found = gold and gold.caption(caption(text, "1", "1"), [row("a dog", "a dog")])
            for one in found.phrases if found else ():
                assert 0 <= one.start < one.end
                assert all(len(thing.box) == 4 for thing in one.objects or ())
    except InputError as error:
        assert "\n" not in str(error) and str(root / name) in str(error)


def test_an_image_goes_by_its_id_its_file_its_stem_and_cocos_number():
    assert image_names("139") == ["139"]
    assert image_names("a/000000000139.jpg") == ["a/000000000139.jpg", "000000000139.jpg", "000000000139", "139"]
    assert image_names("COCO_val2014_000000000139.jpg")[-1] == "139"
    assert image_names("36979.jpg")[-1] == "36979"
    assert image_names("1007129816_e794419615.jpg")[-1] == "1007129816_e794419615"


def test_the_samples_of_flickr30k_entities(shared, tmp_path):
    """Eight photos, forty captions as their authors marked them."""
    text = (shared / "data/flickr30k_entities_samples/data_samples.md").read_text()
    lines = [line for line in text.splitlines() if "[/EN#" in line]
    (tmp_path / "marked.txt").write_text("\n".join(lines))
    gold = open_gold(tmp_path, {})
    plain = [re.sub(r"\[/EN#\d+\S* ([^\]]*)\]", r"\1", line) for line in lines]
    found = [gold.caption(caption(line, "x"), []) for line in plain]
    assert len(found) == 40 and all(found)
    assert sum(len(one.phrases) for one in found) == sum(line.count("[/EN#") for line in lines) > 100
    types = {kind for one in found for phrase in one.phrases for kind in phrase.types}
    assert types >= {"people", "clothing", "bodyparts", "scene", "other", "notvisual"}


def test_the_referring_expressions_of_coco_and_its_instances(shared):
    folder = shared / "data/coco/annotations"
    gold = open_gold(folder, {"person": ["man", "woman"]})
    items = json.loads((folder / "referring_val2017.json").read_text())
    right = nothing = 0
    for item in items:
        text = item["normal_caption"]
        image = str(int(Path(item["image"]).stem))
        found = gold.caption(caption(text.strip(), image), [])
        assert found is not None, text
        (one,) = found.phrases
        right += bool(one.objects)
        nothing += one.objects == ()
        if one.objects and item["solution"]:
            assert one.objects[0].box == tuple(item["solution"])
    assert (right, nothing) == (247, 9)
    document = json.loads((folder / "instances_val2017_subset.json").read_text())
    assert all(gold.things(str(item["image_id"])) for item in document["annotations"][:50])
