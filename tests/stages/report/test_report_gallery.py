"""What the gallery holds: the samples, the photos, the blocks of data."""

import json
from collections import Counter

import pytest
from html_page import Parsed
from tiny_world import CAPTIONS, ODD_ID, World

from pipeline.errors import InputError
from stages.report import cards, gallery, sample
from stages.report.page import data
from stages.report.stage import build


def held(page: str) -> list:
    """The inert blocks of a page: the cards' columns, then the photos."""
    return [json.loads(text) for text in Parsed(page).inside["script"][:-1]]


def test_dropped_are_drawn_evenly_over_their_reasons(world: World) -> None:
    drawn = {}
    for most in (1, 3, 100):
        found = sample.dropped(world.places.data, most, 0)
        assert found.totals == {
            ("parse", "no_phrase"): 1,
            ("detect", "no_match"): 2,
            ("align", "ambiguous"): 1,
            ("align", "odd"): 1,
        }
        drawn[most] = Counter((case.stage, case.reason) for case in found.cases)
    assert drawn[1].total() == 1
    assert drawn[3] == {("parse", "no_phrase"): 1, ("detect", "no_match"): 1, ("align", "ambiguous"): 1}
    # `odd` belongs to no image, so there is nothing to show of it.
    assert drawn[100] == {("parse", "no_phrase"): 1, ("detect", "no_match"): 2, ("align", "ambiguous"): 1}


def test_a_dropped_candidate_has_mask_box_and_numbers_and_a_phrase_has_none(world: World) -> None:
    found = sample._found(world.places.data, shard_with(world, "1#1@38-48/0"), {"1#1@38-48/0"})
    case = found["1#1@38-48/0"]
    assert case["frame"] == (300, 400) and case["box"] == (120.0, 70.0, 280.0, 230.0)
    assert case["measures"]["score"] == pytest.approx(0.9) and case["measures"]["area"] == pytest.approx(
        0.1437, abs=0.01
    )
    phrase = next(c for c in sample.dropped(world.places.data, 9, 0).cases if c.stage == "detect")
    assert (phrase.mask, phrase.box, phrase.measures) == (None, None, {}) and phrase.span == (38, 48)


def shard_with(world: World, box: str) -> int:
    from stages.report.records import each_shard

    boxes = each_shard(world.places.data / "detect/boxes", ["id"])
    return next(number for number, table in boxes if box in table.column("id").to_pylist())


def test_reasons_are_listed_with_how_many_are_shown(page: str) -> None:
    labels = [" ".join(text.split()) for text in Parsed(page).inside["option"]]
    assert "detect: no_match (2 of 2)" in labels and "align: ambiguous (1 of 1)" in labels
    assert not any("odd" in label for label in labels)


def test_without_a_sample_of_dropped_only_pairs_are_there(world: World) -> None:
    page = build(world.change(report__dropped=0), world.places)
    columns = held(page)[0]
    assert len(columns["id"]) == len(CAPTIONS) and set(columns["reason"]) == {None}
    assert "disabled" in next(tag for tag in Parsed(page).all("select") if tag["name"] == "reason")


def test_columns_hold_what_the_cards_show(page: str) -> None:
    columns = held(page)[0]
    assert {len(column) for column in columns.values()} == {len(columns["id"])}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    odd = next(row for row in rows if row["id"] == f"{ODD_ID}#1@0-8")
    assert (odd["before"], odd["phrase"], odd["after"]) == ("", "two dogs", "")
    assert odd["score"] == 0.9 and odd["box"] == [96.0, 56.0, 128.0, 128.0] and odd["mask"].count("M") == 2
    lost = [row for row in rows if row["reason"] is not None]
    assert [row["id"] for row in lost if row["mask"]] == []
    assert len({row["anchor"] for row in rows}) == len(rows)


def test_every_photo_is_there_once_wherever_it_stands(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "FIRST", 1)
    monkeypatch.setattr(gallery, "BLOCK", 2)
    page = build(world.params, world.places)
    standing = [image["href"].partition(",")[2] for image in Parsed(page).all("image")]
    photos = [photo for block in held(page)[1:] for photo in block]
    assert len(standing) == 1 and len(photos) == 3 and photos[0] is None
    urls = [*standing, *(url for _, _, url in photos[1:])]
    assert len(set(urls)) == 3 and all(page.count(url) == 1 for url in urls)


def test_many_photos_are_smaller(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = sample.kept(world.places.data, 9, 0).cases
    assert {photo.width for photo in cards.draw(world.places.data, cases)[0]} == {cards.SIDE}
    monkeypatch.setattr(cards, "MANY", 2)
    photos, drawn = cards.draw(world.places.data, cases)
    assert {photo.width for photo in photos} == {cards.SMALL_SIDE}
    assert drawn[0].box[2] == pytest.approx(160 * cards.SMALL_SIDE / 400)


def test_data_cannot_leave_its_block() -> None:
    value = {
        "a": ["</script><!--<script>", "x & y\u2028\u2029", 1.5, None],
        "b": "e\u202e\u0301 \U0001f468\u200d\U0001f469",
    }
    text = data(value)
    assert not set("<>&\u2028\u2029\u202e") & set(text)
    back = json.loads(text)
    assert back["a"] == value["a"] and back["b"] == "e\u0301 \U0001f468\u200d\U0001f469"


def test_a_pair_without_its_image_is_told(world: World) -> None:
    (case, *_) = sample.kept(world.places.data, 1, 0).cases
    other = cards.replace(case, image_id="nowhere")
    with pytest.raises(InputError, match="has no image or caption in shard"):
        cards.draw(world.places.data, [other])
