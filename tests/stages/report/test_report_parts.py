"""Outlines, display text, curves, reasons."""

import re

import numpy as np
import pytest
from tiny_world import ROOT

from stages.report import curves, reasons
from stages.report.outline import outline, thin
from stages.report.page import fixed, share, visible
from stages.report.scores import Log


def rings(path: str) -> list[np.ndarray]:
    return [np.array([pair.split(",") for pair in ring.split("L")], float) for ring in re.findall(r"M([^Z]+)Z", path)]


def area(ring: np.ndarray) -> float:
    x, y = ring.T
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(np.roll(x, -1), y))) / 2


def test_outline_of_a_rectangle_lies_on_its_edges() -> None:
    mask = np.zeros((40, 60), bool)
    mask[10:30, 20:50] = True
    (ring,) = rings(outline(mask, 60, 40))
    assert ring.min(0) == pytest.approx((20, 10), abs=0.05)
    assert ring.max(0) == pytest.approx((50, 30), abs=0.05)
    assert area(ring) == pytest.approx(600, rel=0.01)
    assert len(ring) <= 8


def test_outline_reaches_the_border_of_the_image_and_keeps_holes() -> None:
    mask = np.ones((60, 80), bool)
    mask[20:40, 30:50] = False
    outer, hole = rings(outline(mask, 40, 30))
    assert outer.min(0) == pytest.approx((0, 0), abs=0.05)
    assert outer.max(0) == pytest.approx((40, 30), abs=0.05)
    assert area(outer) - area(hole) == pytest.approx(1200 - 100, rel=0.01)


def test_outline_of_a_hairline_is_not_lost() -> None:
    mask = np.zeros((600, 800), bool)
    mask[300, 100:700] = True
    assert rings(outline(mask, 320, 240))
    assert outline(np.zeros((10, 10), bool), 10, 10) == ""


def test_outline_of_a_disc_keeps_its_area_with_few_points() -> None:
    y, x = np.mgrid[:480, :640]
    mask = np.hypot(x - 300, y - 250) < 150
    (ring,) = rings(outline(mask, 320, 240))
    assert area(ring) == pytest.approx(mask.sum() / 4, rel=0.01)
    assert len(ring) < 80


def test_thin_keeps_what_is_further_off_than_the_tolerance() -> None:
    points = np.array([[0, 0], [1, 0.1], [2, 0], [3, 2], [4, 0]], float)
    assert thin(points, 0.2).tolist() == [[0, 0], [2, 0], [3, 2], [4, 0]]
    closed = np.array([[0, 0], [5, 0], [5, 5], [0, 5], [0, 0]], float)
    assert len(thin(closed, 0.2)) == 5


def test_visible_drops_what_hides_and_keeps_what_scripts_need() -> None:
    assert visible("a\u202eb\u2066c\u200bd\ufeff\x00\x1be\u00ad") == "abcde"
    assert visible("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \U0001f469\u200d\U0001f680 \u05e9") == (
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \U0001f469\u200d\U0001f680 \u05e9"
    )


def test_numbers() -> None:
    assert fixed(None) == "–" and fixed(-0.126) == "−0.13"
    assert share(1, 3) == "33.3" and share(0, 5) == "0.0" and share(1, 100_000) == "<0.1" and share(0, 0) == "0.0"


def test_bins_are_means() -> None:
    assert curves.binned([(1, 1.0), (2, 3.0), (3, 8.0)], 2) == [(1.5, 2.0), (3.0, 8.0)]


def test_a_chart_has_no_style_no_outside_and_no_time() -> None:
    log = Log("mcse", 0, {"text": [(s, 1.0 / s) for s in range(1, 400)]}, [(100, 40.0), (200, 50.0)])
    first, second = (curves.charts([log], ["untrained", "mcse"]) for _ in range(2))
    assert [chart.svg for chart in first] == [chart.svg for chart in second]
    for chart in first:
        assert not re.search(r"style=|http|<metadata|<style|xlink|ns0", chart.svg)
        assert "stroke-s1" in chart.svg
        assert len(chart.svg) < 30_000
    assert "mean of 4 such batches" in first[1].note


def test_reasons_explained_are_reasons_that_exist() -> None:
    source = "".join(file.read_text() for file in (ROOT / "stages").rglob("*.py") if "report" not in file.parts)
    for code in reasons.MEANING:
        bare = code.rsplit(".", 1)[-1]
        given = re.search(rf"[\"']{bare}[\"']", source)
        assert given or bare.startswith("image_"), f"{code} is explained but never given"
    assert reasons.meaning("ingest", "too_small") != reasons.meaning("align", "too_small")
    assert reasons.meaning("ingest", "unheard_of") == ""
