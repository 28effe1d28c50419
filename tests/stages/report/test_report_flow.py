"""The ledger as a flow: numbers, widths, reasons."""

import re

import pytest
from html_page import Parsed

from stages.report import flow
from stages.report.records import StageRecord


def record(name: str, **units: tuple[int, dict, dict]) -> StageRecord:
    ledger = {
        unit: {"in": came, "out": came - sum(dropped.values()) - sum(rejected.values()), "dropped": dropped}
        | {"rejected": rejected}
        for unit, (came, dropped, rejected) in units.items()
    }
    return StageRecord(name, 1, 1, {}, {}, ledger, {}, {})


RECORDS = [
    record("ingest", image=(100, {"duplicate": 10}, {"truncated": 5}), caption=(400, {}, {}), sentence=(9, {}, {})),
    record("parse", caption=(400, {"no_phrase": 40}, {}), phrase=(800, {"pronoun": 30, "abstract_head": 70}, {})),
    record("detect", phrase=(700, {"no_match": 200}, {})),
    record("segment", box=(600, {}, {})),
    record("embed", feature=(5, {}, {})),
    record("align", candidate=(640, {"ambiguous": 139, "caption_cap": 1}, {})),
]


def width(path: str) -> float:
    """How wide a stream is where its step begins."""
    return float(re.match(r"M0,0L([\d.]+),0", path)[1])


def test_every_number_of_the_way_is_there_in_order() -> None:
    told = [(s.kind, s.number, s.unit, s.reason) for s in flow.steps(RECORDS) if s.kind != "turn"]
    assert told == [
        ("level", 100, "images", ""),
        ("branch", 10, "images", "duplicate"),
        ("branch", 5, "images", "truncated"),
        ("level", 400, "captions", ""),
        ("branch", 40, "captions", "no_phrase"),
        ("level", 800, "phrases", ""),
        ("branch", 70, "phrases", "abstract_head"),
        ("branch", 30, "phrases", "pronoun"),
        ("branch", 200, "phrases", "no_match"),
        ("level", 600, "boxes", ""),
        ("level", 640, "candidates", ""),
        ("branch", 139, "candidates", "ambiguous"),
        ("branch", 1, "candidate", "caption_cap"),
        ("level", 500, "pairs", ""),
    ]
    truncated = next(s for s in flow.steps(RECORDS) if s.reason == "truncated")
    assert (truncated.outcome, truncated.stage, truncated.whole) == ("rejected", "ingest", 100)


def test_widths_are_to_one_scale_and_the_stream_has_no_breaks() -> None:
    steps = flow.steps(RECORDS)
    levels = {step.unit: width(step.stream) for step in steps if step.kind == "level"}
    assert levels["phrases"] == flow.STREAM
    for unit, number in (("images", 100), ("captions", 400), ("boxes", 600), ("pairs", 500)):
        assert levels[unit] == pytest.approx(flow.STREAM * number / 800, abs=0.01)
    for step, after in zip(steps, steps[1:], strict=False):
        bottom = float(re.search(r" ([\d.]+),100L0,100Z", step.stream)[1])
        # A branch leaves at the top of its own step, so the stream is narrower there by just that.
        left = width(after.branch.replace("M", "M0,0L", 1)) if after.kind == "branch" else width(after.stream)
        gone = flow.STREAM * after.number / 800 if after.kind == "branch" else 0
        assert bottom == pytest.approx(left + gone, abs=0.02), (step, after)


def test_nothing_at_all_draws_nothing() -> None:
    empty = [record("ingest", image=(0, {}, {}), caption=(0, {}, {})), record("align", candidate=(0, {}, {}))]
    assert {width(step.stream) for step in flow.steps(empty)} == {0.0}


def test_the_page_shows_the_flow_with_its_reasons_in_words(page: str) -> None:
    steps = [" ".join(text.split()) for text in Parsed(page).inside["li"] if " by " in text]
    assert any(line.startswith("2 phrases dropped by detect 28.6 % no_match no object of that") for line in steps)
    assert any("1 image rejected by ingest 25.0 % truncated the image file ends too early" in line for line in steps)
    assert len([step for step in Parsed(page).of_class("step") if "level" in step["class"]]) == 6
