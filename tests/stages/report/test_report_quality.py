"""The section on quality: figures, groups, reasons and the worst cases with both outlines."""

import json
from pathlib import Path

import numpy as np
import pytest
from html_page import Parsed
from tiny_world import CAPTIONS, HEIGHT, ODD_ID, WIDTH, World, mask

from pipeline.errors import InputError
from stages.common import rle
from stages.report import quality
from stages.report.stage import build

TEXT = {caption: text for _, caption, text, _ in CAPTIONS}
PHRASE = {caption: phrase for _, caption, _, phrase in CAPTIONS}
ODD = f"{ODD_ID}#1"


def span(caption: str, phrase: str, *objects: int, **more: object) -> dict:
    start = TEXT[caption].index(phrase)
    return {"start": start, "end": start + len(phrase), "text": phrase, "objects": list(objects), **more}


def thing(number: int, image: str, pixels: np.ndarray) -> dict:
    counts = rle.encode(pixels).decode()
    segmentation = {"size": list(pixels.shape), "counts": counts}
    return {"id": number, "image_id": image, "category_id": 1, "bbox": [0, 0, 1, 1], "segmentation": segmentation}


def half(left: bool) -> np.ndarray:
    return mask() & ((np.arange(WIDTH) < 200) == left)[None, :]


def corner() -> np.ndarray:
    made = np.zeros((HEIGHT, WIDTH), bool)
    made[:40, :40] = True
    return made


OBJECTS = [
    thing(1, "1", mask()),
    thing(2, "1", corner()),
    thing(5, ODD_ID, half(True)),
    thing(6, ODD_ID, half(False)),
    thing(7, "2", half(True) & (np.arange(HEIGHT) < 150)[:, None]),  # a quarter of the ring
    thing(8, "2", np.zeros((10, 10), bool) | True),  # of another size than its image
]
PHRASES = {
    "1#1": [span("1#1", "a red ball", 1), span("1#1", "grass", 2)],
    "2": [span("1#2", PHRASE["1#2"], 2), span("1#2", "too", 1, role="pronoun")],  # by its id in the COCO file
    "2#1": [span("2#1", "look")],
    ODD: [span(ODD, "two dogs", 5, 6)],
    "2#2": [span("2#2", "a blue ball", 7), span("2#2", "www", 8), {**span("2#2", "www", 7), "text": "vvv"}],
}


@pytest.fixture
def known(world: World) -> World:
    write(world.root / "gold", PHRASES)
    world.change(quality__gold_path=str(world.root / "gold"))
    world.measure()
    return world


def write(folder: Path, phrases: object, objects: list[dict] = OBJECTS) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "phrases_tiny.json").write_text(json.dumps(phrases))
    document = {"images": [], "categories": [{"id": 1, "name": "thing"}], "annotations": objects}
    (folder / "instances_tiny.json").write_text(json.dumps(document))
    return folder


def text_of(page: str) -> str:
    return " ".join("".join(Parsed(page).inside["section"]).split())


def test_the_page_shows_figures_and_both_masks(known: World) -> None:
    page = build(known.params, known.places)
    text = text_of(page)
    assert "2 of 5 pairs are right" in text and "2 of 5 gold phrases" in text
    assert "align: precision 40.0 %" in text and "align: recall 40.0 %" in text
    # Masks: three wrong pairs, of which one denotes nothing, three gold phrases without a right pair, and as many right
    # boxes as have a mask that is off.
    found = quality.read(known.places.metrics / "quality", known.places.data / "quality")
    golds = sum(case.gold is not None for case in found.cases)
    assert len(found.lists["pairs"]) == 3 and golds >= 2 + 3
    assert len([path for path in Parsed(page).of_class("gold") if path.get("d")]) == golds
    assert build(known.params, known.places) == page


def test_every_stage_has_its_figures_groups_and_worst_cases(known: World) -> None:
    text = text_of(build(known.params, known.places))
    for words in (
        "What four stages found, against gold (phrases and their objects)",
        "parse: phrase F1",
        "detect: accuracy",
        "detect: box recall",
        "segment: mean mask IoU",
        "one object",
        "several objects",
        "nothing shown",
        "larger than 10 %",
        "2 words",
        "2 gold phrases do not fit their caption or image",
        "the mask is another annotated object’s",
    ):
        assert words in text, words
    found = quality.read(known.places.metrics / "quality", known.places.data / "quality")
    for name, title in quality.LISTS.items():
        assert (title in text) == bool(found.lists.get(name)), name
        assert all(quality.why(case.stage, case.reason) != case.reason for case in found.lists.get(name, ()))


def test_boxes_of_gold_are_drawn_where_there_are_no_masks(known: World) -> None:
    write(known.root / "gold", PHRASES, [{**item, "segmentation": None, "bbox": [10, 20, 30, 40]} for item in OBJECTS])
    known.measure()
    page = build(known.params, known.places)
    assert "not measured: the gold has boxes but no masks" in text_of(page)
    drawn = [shape for shape in Parsed(page).of_class("gold") if shape.get("width")]
    found = quality.read(known.places.metrics / "quality", known.places.data / "quality")
    assert len(drawn) == sum(case.gold_box is not None for case in found.cases) > 0
    # 320 of 400 pixels wide
    assert {(one["x"], one["y"], one["width"], one["height"]) for one in drawn} >= {("8", "16", "24", "32")}


def test_gold_that_knows_no_caption_makes_no_figure(known: World) -> None:
    write(known.root / "gold", {"elsewhere": []})
    known.measure()
    text = text_of(build(known.params, known.places))
    assert "0 captions have gold, 5 have none and are not judged" in text and "precision 0" not in text


def test_without_gold_the_section_says_what_would_make_it_appear(page: str) -> None:
    text = text_of(page)
    assert "There is no gold for this collection" in text and "quality.gold_path" in text
    assert "align: precision" not in text


def test_metrics_that_are_missing_or_damaged_are_told(known: World) -> None:
    file = known.places.metrics / "quality/detect.json"
    for content in ("{", "[]", "{}"):
        file.write_text(content)
        with pytest.raises(InputError, match="detect.json: no metrics of quality .*run `dvc repro quality`"):
            build(known.params, known.places)
    file.unlink()
    with pytest.raises(InputError, match="detect.json: no metrics of quality"):
        build(known.params, known.places)
