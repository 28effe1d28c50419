"""The page in a real browser: filters, links, keyboard, widths, colours, and that no caption can act."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from html_page import Parsed
from tiny_world import BREAKOUT, CLOSING, LONG, SCRIPT, make

from benchmarks.browser import PROGRAM, QUIET
from benchmarks.made_collection import make as make_dataset
from stages.report.stage import build

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not PROGRAM, reason="no browser: none of chromium, chromium-browser, google-chrome is there"),
]
VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective));
"""
IDS = "[...document.querySelectorAll('.chunks .card .ids a')].map((link) => link.textContent)"
SHAPE = """
[...document.querySelectorAll(".chunks .card")].slice(0, 12).map((card) => [card, ...card.querySelectorAll("*")].map(
  (node) => [node.localName, [...node.childNodes].map((one) => (one.data ?? "").trim()).join(""),
    [...node.attributes].map((one) => [one.name, one.value.trim()]).sort()]))
"""


@pytest.fixture(scope="module")
def browser() -> Iterator:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=PROGRAM, args=QUIET)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser) -> Iterator:
    """Opens a page file; afterwards nothing may have been said on its console or refused by its policy."""
    opened, said = [], []

    def visit(path: Path, fragment: str = "", **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: request.url.startswith(("file:", "data:")) or said.append(request.url))
        page.add_init_script(VIOLATIONS)
        page.goto(path.as_uri() + fragment)
        opened.append((context, page, options.get("java_script_enabled", True)))
        return page

    yield visit
    for context, page, scripts in opened:
        if scripts:
            assert page.evaluate("window.violations") == []
        context.close()
    assert said == []


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the tiny dataset, whose captions would act if they could."""
    world = make(tmp_path_factory.mktemp("hostile"))
    return _written(world.places.out, build(world.params, world.places))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of 150 pairs of 60 photos, and 6 dropped candidates."""
    params, places = make_dataset(tmp_path_factory.mktemp("made"), 60, 150, 96, 72)
    return _written(places.out, build(params, places))


def _written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def columns(path: Path) -> list[dict]:
    """The gallery's cards as the page holds them, a dict a card."""
    held = json.loads(Parsed(path.read_text(encoding="utf-8")).inside["script"][0])
    return [dict(zip(held, row, strict=True)) for row in zip(*held.values(), strict=True)]


def choose(page, **values: str) -> None:
    for name, value in values.items():
        page.evaluate(
            """([name, value]) => {
              const field = document.querySelector("form.filter").elements.namedItem(name);
              field.value = value;
              field.dispatchEvent(new Event("input", { bubbles: true }));
            }""",
            [name, value],
        )


def until(page, expression: str) -> None:
    """Waits for it; Playwright's own way evaluates text inside the page, which the page's policy refuses."""
    for _ in range(200):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never came true: {expression}")


def listed(page) -> list[str]:
    """The ids of all cards that the filters let through, in order."""
    button = page.locator(".more button")
    if button.is_visible() and "all" in button.inner_text():
        button.click()
    found = []
    for chunk in range(page.locator(".chunks > .cards").count()):
        page.evaluate(f"document.querySelectorAll('.chunks > .cards')[{chunk}].scrollIntoView()")
        until(page, f"document.querySelectorAll('.chunks > .cards')[{chunk}].childElementCount > 0")
        found += page.evaluate(IDS.replace(".chunks", f".chunks > .cards:nth-child({chunk + 1})"))
    return found


@pytest.mark.fault("F41")
def test_captions_show_as_text_and_do_nothing(visit, hostile: Path) -> None:
    page = visit(hostile)
    choose(page, rows="both")
    assert page.evaluate("window.hacked") is None and page.title() == "tiny: object-phrase pairs"
    assert page.locator("img").count() == 0
    shown = page.locator("#section-gallery q.caption").all_inner_texts()
    for text in (SCRIPT, BREAKOUT, CLOSING, LONG):
        assert any(text in caption for caption in shown), text
    assert not re.search("[\u202a-\u202e\u200b]", page.locator("body").inner_text())


def test_a_long_word_does_not_widen_the_page(visit, hostile: Path) -> None:
    for width in (390, 1280):
        page = visit(hostile, viewport={"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_words_are_found_in_phrase_and_caption(visit, made: Path) -> None:
    page, cards = visit(made), columns(made)
    kept = [card for card in cards if card["reason"] is None]
    for wanted in ("Kite", "picture number 7", " red "):
        choose(page, words=wanted)
        needle = wanted.strip().lower()
        fits = [c["id"] for c in kept if needle in (c["before"] + c["phrase"] + c["after"]).lower()]
        assert 0 < len(fits) < len(kept)
        assert listed(page) == fits
        assert page.locator(".shown").inner_text() == f"{len(fits)} of {len(kept)}"
    choose(page, words="nothing like this")
    assert listed(page) == [] and page.locator(".none").is_visible()


def test_score_rows_and_reason(visit, made: Path) -> None:
    page, cards = visit(made), columns(made)
    dropped = [card for card in cards if card["reason"] is not None]
    assert len(dropped) == 6
    choose(page, score="0.7")
    assert listed(page) == [c["id"] for c in cards if c["reason"] is None and c["score"] >= 0.7]
    choose(page, score="0", rows="dropped")
    assert listed(page) == [card["id"] for card in dropped]
    choose(page, rows="both")
    assert listed(page) == [card["id"] for card in cards]
    choose(page, reason="1")
    assert listed(page) == [card["id"] for card in dropped if card["reason"] == 1]
    choose(page, rows="kept")
    assert len(listed(page)) == 150 and page.evaluate("document.querySelector('[name=reason]').value") == ""
    choose(page, reason="0")
    assert listed(page) == [card["id"] for card in dropped if card["reason"] == 0]
    label = page.locator("[name=reason] option").nth(1).inner_text()
    assert label.endswith(f"({len(listed(page))} of {len(listed(page))})")
    assert label.split(" (")[0] in page.locator(".verdict").first.inner_text()


@pytest.mark.parametrize("order", ["score", "area", "similarity", "phrase"])
def test_orders(visit, made: Path, order: str) -> None:
    page, cards = visit(made), columns(made)
    choose(page, rows="both", order=order)
    missing = float("inf") if order != "phrase" else ""
    ranked = sorted(cards, key=lambda card: card[order] if card[order] is not None else missing)
    assert listed(page) == [card["id"] for card in ranked]
    choose(page, order="drawn")
    assert listed(page) == [card["id"] for card in cards]


def test_mask_and_box_can_be_put_out(visit, made: Path) -> None:
    page = visit(made)
    for name in ("mask", "box"):
        drawn = page.locator(f".chunks .{name}").first
        assert drawn.is_visible()
        page.locator(f"#section-gallery-{name}").uncheck()
        assert not drawn.is_visible()


def test_a_link_leads_to_a_card_that_is_not_there_yet(visit, made: Path) -> None:
    cards = columns(made)
    last = [card["anchor"] for card in cards if card["reason"] is None][-1]
    page = visit(made, "#" + last.replace("#", "%23"))
    card = page.locator(".card.target")
    assert card.get_attribute("id") == last
    page.wait_for_timeout(200)
    assert card.evaluate("(node) => { const top = node.getBoundingClientRect().top; return top > 0 && top < 500; }")
    lost = cards[-1]["anchor"]
    choose(page, words="nothing like this")
    page.evaluate("(anchor) => { location.hash = encodeURIComponent(anchor); }", lost)
    page.wait_for_selector(".card.target.dropped")
    assert page.locator(".card.target").get_attribute("id") == lost


def test_cards_by_script_are_those_that_stand_without_it(visit, made: Path) -> None:
    bare, scripted = visit(made, java_script_enabled=False), visit(made)
    assert bare.locator(".chunks .card").count() == 12
    assert bare.locator("noscript").inner_text() and not bare.locator("form.filter").is_visible()
    shape = scripted.evaluate(SHAPE)
    assert len(shape) == 12 and shape == bare.evaluate(SHAPE)


def test_the_keyboard_reaches_every_control(visit, made: Path) -> None:
    page = visit(made)
    page.locator("nav a").last.focus()
    reached = []
    for _ in range(80):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("[document.activeElement].map((now) => now.name || now.id || now.parentElement.className)[0]")
        )
        if reached[-1] == "more":
            break
    assert [name for name in reached if name in ("words", "rows", "reason", "order", "score", "more")] == [
        "words",
        "rows",
        "reason",
        "order",
        "score",
        "more",
    ]
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('.chunks > .cards').length > 1")
    assert page.locator(".more button").inner_text() == "Show fewer"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(visit, made: Path, scheme: str) -> None:
    page = visit(made, color_scheme=scheme)
    paper = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (luminance(paper) > 0.5) == (scheme == "light")
    for place in ("h1", ".intro", ".step .cause", ".turn", ".verdict, .caption", ".ids", ".sum b", "th"):
        ink = page.evaluate("(place) => getComputedStyle(document.querySelector(place)).color", place)
        bright, dim = sorted((luminance(paper), luminance(ink)), reverse=True)
        assert (bright + 0.05) / (dim + 0.05) >= 4.5, (place, ink, paper)


def luminance(colour: str) -> float:
    """Relative luminance of an rgb() colour, as WCAG 2 defines it."""
    parts = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_ten_thousand_pairs_load_and_filter_with_few_cards_at_a_time(visit, tmp_path: Path) -> None:
    params, places = make_dataset(tmp_path, 4_000, 10_000, 48, 36)
    path = _written(places.out, build(params, places))
    page = visit(path)
    assert page.locator(".shown").inner_text() == "10,000 of 10,000"
    page.locator(".more button").click()
    assert page.locator(".chunks > .cards").count() == 417
    page.evaluate("document.querySelector('.chunks').lastChild.scrollIntoView()")
    until(page, "document.querySelector('.chunks').lastChild.childElementCount === 10000 % 24")
    until(page, "document.querySelectorAll('.chunks .card').length < 400")
    choose(page, words="violin", order="score")
    page.wait_for_timeout(200)
    fits = [card for card in columns(path) if card["reason"] is None and "violin" in card["phrase"]]
    assert page.locator(".shown").inner_text() == f"{len(fits):,} of 10,000"
    least = min(fits, key=lambda card: card["score"])
    assert page.locator(".chunks .ids a").first.inner_text() == least["id"]
