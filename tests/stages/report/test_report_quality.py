"""Pairs against gold: what counts as right, what is found, why something is missed."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from html_page import Parsed
from tiny_world import CAPTIONS, HEIGHT, ODD_ID, WIDTH, World, mask

from pipeline.errors import InputError
from stages.common import rle
from stages.report import gold, quality
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
    world.change(report__gold_path=str(world.root / "gold"))
    return world


def write(folder: Path, phrases: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "phrases_tiny.json").write_text(json.dumps(phrases))
    document = {"images": [], "categories": [{"id": 1, "name": "thing"}], "annotations": OBJECTS}
    (folder / "instances_tiny.json").write_text(json.dumps(document))
    return folder


def measure(world: World) -> quality.Quality:
    return quality.measure(world.places.data, gold.read(world.root / "gold"), 0)


def test_every_pair_gets_its_verdict(known: World) -> None:
    found = measure(known)
    assert found.verdicts == {"right": 2, "other_object": 1, "denotes_nothing": 1, "off_mask": 1}
    assert (found.unjudged, found.misfits) == (0, 2)
    verdict = {case.id.split("@")[0]: (case.reason, case.measures.get("gold")) for case in found.faults}
    assert verdict["1#2"] == ("other_object", 0.0)
    assert verdict["2#1"] == ("denotes_nothing", None)
    assert verdict["2#2"][0] == "off_mask" and verdict["2#2"][1] == pytest.approx(0.25, abs=0.02)
    assert [case.measures.get("gold", 0.0) for case in found.faults] == sorted(
        case.measures.get("gold", 0.0) for case in found.faults
    )


def test_recall_leaves_pronouns_out_and_says_why_a_phrase_is_missed(known: World) -> None:
    found = measure(known)
    assert (found.whole.gold, found.whole.found) == (5, 2)
    assert found.missed == {("parse", "not_cut_out"): 1, ("align", "wrong_pair"): 2}
    assert {case.id.split("@")[0] for case in found.gaps} == {"1#1", "1#2", "2#2"}
    several = found.groups["several objects"]
    assert (several.gold, several.found, several.pairs, several.mean_iou) == (1, 1, 1, 1.0)
    assert sum(found.groups[name].gold for _, name in quality.SIZES) == 5
    assert found.whole.mean_iou == pytest.approx((1 + 1 + 0 + 0.25) / 4, abs=0.01)


def test_a_drop_tells_why(known: World) -> None:
    write(known.root / "gold", PHRASES | {"1#1": [], "2#1": [span("2#1", "look", 7)]})
    found = measure(known)
    # Of the caption as a whole parse says that no phrase was kept; its pair is of other words.
    assert found.missed["parse", "no_phrase"] == 1
    assert found.verdicts["denotes_nothing"] == 2


def test_captions_without_gold_are_not_judged(known: World) -> None:
    write(known.root / "gold", {ODD: PHRASES[ODD]})
    found = measure(known)
    assert (found.judged, found.unjudged, found.whole.found) == (1, 4, 1)
    assert found.faults == found.gaps == []


def test_overlap_decides_which_gold_phrase_a_pair_is_of(known: World) -> None:
    wide = span("1#1", "a red ball on grass", 2)
    write(known.root / "gold", {"1#1": [wide, span("1#1", "red ball", 1)]})
    assert measure(known).verdicts == {"right": 1}


def test_the_page_shows_figures_and_both_masks(known: World) -> None:
    page = build(known.params, known.places)
    parsed = Parsed(page)
    text = " ".join("".join(parsed.inside["section"]).split())
    assert "2 of 5 pairs are right" in text and "2 of 5 gold phrases" in text
    assert "precision 40.0 %" in text and "recall 40.0 %" in text
    assert len([path for path in parsed.of_class("gold") if path.get("d")]) == 2 + 3
    assert build(known.params, known.places) == page


def test_without_gold_the_section_says_what_would_make_it_appear(page: str) -> None:
    text = " ".join("".join(Parsed(page).inside["section"]).split())
    assert "There is no gold for this collection" in text and "report.gold_path" in text
    assert "precision" not in Parsed(page).inside["dt"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "not valid JSON"),
        ("[]", "not gold phrases"),
        ('{"1": [{"start": 0}]}', "not gold phrases"),
        ('{"1": [{"start": 0, "end": "x", "objects": []}]}', "not gold phrases"),
        ('{"1": 3}', "not gold phrases"),
    ],
)
def test_damaged_gold_ends_in_one_line(tmp_path: Path, content: str, told: str) -> None:
    write(tmp_path / "gold", {})
    (tmp_path / "gold" / "phrases_tiny.json").write_text(content)
    with pytest.raises(InputError, match=told) as raised:
        gold.read(tmp_path / "gold")
    assert "\n" not in str(raised.value)


def test_no_gold_is_an_empty_file_and_anything_else_is_told(tmp_path: Path) -> None:
    (tmp_path / "none.json").touch()
    assert gold.read(tmp_path / "none.json") is None
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match=re.escape("report.gold_path is a folder with phrases_*.json")):
            gold.read(path)
    (tmp_path / "none.json").write_text("x")
    with pytest.raises(InputError, match="no gold here"):
        gold.read(tmp_path / "none.json")
