"""The page as a whole: what it shows, that it asks for nothing, and that data cannot act in it."""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from urllib.parse import unquote

import pytest
from html_page import Parsed
from tiny_world import BREAKOUT, CAPTIONS, DROPS, ODD_ID, ROOT, SCRIPT, World, make

from pipeline.errors import InputError
from pipeline.files import hash_path
from stages.report.stage import build


def cards(page: str) -> list[dict]:
    """The pairs' cards that stand in the page itself."""
    return Parsed(page).of_class("kept")


def blocks(page: str) -> list:
    """The inert blocks: the gallery's columns first, then the photos."""
    return [json.loads(text) for text in Parsed(page).inside["script"][:-1]]


def flat(text: str) -> str:
    return " ".join(text.split())


def test_every_pair_has_a_card_with_photo_mask_and_box(page: str) -> None:
    parsed = Parsed(page)
    assert len(parsed.of_class("kept")) == len(CAPTIONS)
    assert {card["id"] for card in parsed.of_class("kept")} >= {"1#1@38-48", f"{ODD_ID}#1@0-8"}
    paths = [path for path in parsed.of_class("mask") if "d" in path]
    assert len(paths) == len(CAPTIONS)
    assert all(path["d"].count("M") == 2 and path["d"].count("Z") == 2 for path in paths), "a ring is two rings"
    boxes = [box for box in parsed.of_class("box") if box["class"] == "box" and "x" in box]
    # 400 x 300 is shown at 320 x 240
    assert {(b["x"], b["y"], b["width"], b["height"]) for b in boxes} == {("96", "56", "128", "128")}


def test_a_photo_is_embedded_once(page: str) -> None:
    images = Parsed(page).all("image")
    assert len(images) == 3
    assert len({image["href"] for image in images}) == 3
    assert page.count("data:image/webp;base64,U") == 3 and blocks(page)[1:] == [[None, None, None]]
    assert len(Parsed(page).all("use")) >= len(CAPTIONS)


@pytest.mark.fault("F41")
def test_hostile_text_is_shown_and_cannot_act(page: str) -> None:
    parsed = Parsed(page)
    assert len([s for s in parsed.all("script") if "type" not in s]) == len(parsed.all("style")) == 1
    assert {s.get("type") for s in parsed.all("script")} == {None, "application/json"}
    assert not [text for text in parsed.inside["script"][:-1] if "<" in text or "\u2028" in text]
    assert not parsed.all("img")
    assert not [name for _, attributes in parsed.tags for name in attributes if name.startswith("on")]
    assert not [1 for _, attributes in parsed.tags if "style" in attributes]
    captions = parsed.inside["q"]
    assert any(SCRIPT in caption for caption in captions)
    assert BREAKOUT in parsed.inside["mark"]
    assert "onload" in page and "<svg onload" not in page
    assert "a note <b>" in flat("".join(parsed.inside["section"]))


def test_marks_that_do_not_show_are_left_out_and_joined_emoji_stay(page: str) -> None:
    assert not re.search("[\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]", page)
    assert "the ball" in Parsed(page).inside["mark"]
    assert "\U0001f468\u200d\U0001f469\u200d\U0001f467" in page


def test_the_page_asks_for_nothing(page: str) -> None:
    parsed = Parsed(page)
    assert not re.search(r"https?:|//[a-z0-9]+\.", re.sub(r"data:image/webp;base64,[\w+/=]+", "", page))
    assert not parsed.all("link") and not parsed.all("iframe")
    for tag, attributes in parsed.tags:
        for name in ("src", "href", "xlink:href", "srcset", "action", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/webp;base64,", "#")), (tag, value)
    assert "url(" not in parsed.inside["style"][0] and "@import" not in page


def test_links_lead_somewhere_and_ids_do_not_repeat(page: str) -> None:
    tags = Parsed(page).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [unquote(attributes["href"][1:]) for _, attributes in tags if attributes.get("href", "").startswith("#")]
    assert set(targets) <= set(ids) and len(targets) > 10


def test_the_policy_lets_only_the_pages_own_style_and_script_through(page: str) -> None:
    parsed = Parsed(page)
    policy = next(m["content"] for m in parsed.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy
    for element in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(parsed.inside[element][-1].encode()).digest()).decode()
        assert f"{element}-src 'sha256-{digest}'" in policy


def test_the_ledger_adds_up_before_the_readers_eyes(page: str) -> None:
    sums = [flat(text) for text in Parsed(page).inside["p"] if " rejected" in text and " = " in flat(text)]
    assert "4 images in = 3 through + 0 dropped + 1 rejected" in sums
    assert "7 phrases in = 5 through + 2 dropped + 0 rejected" in sums
    assert "5 boxes in = 5 through + 0 dropped + 0 rejected" in sums
    assert len(sums) == 9
    for line in sums:
        came, through, dropped, rejected = map(int, re.findall(r"\d+", line))
        assert came == through + dropped + rejected


def test_every_reason_is_listed_with_rows_of_it(page: str) -> None:
    parsed = Parsed(page)
    listed = [flat(text) for text in parsed.inside["summary"]]
    for drop in (drop for drops in DROPS.values() for drop in drops):
        assert any(f" {drop.reason} " in f"{line} " for line in listed), drop.reason
    assert any(line.startswith("2 28.6 % no_match no object of that category") for line in listed)
    rows = [flat(text) for text in parsed.inside["li"]]
    assert f"{SCRIPT} a red ball on grass no ball is annotated 1#1@38-48" in rows
    assert any("</script><svg onload=" in row for row in rows)


def test_random_weights_are_loud_and_trained_ones_are_not(world: World, page: str) -> None:
    assert page.count('class="banner loud"') == 1
    assert "RANDOM WEIGHTS" in flat(" ".join(Parsed(page).inside["p"])).upper()
    assert page.count("random vision<") == 2, "the row of mcseo in both tables"
    world.write(random_weights=False)
    assert 'class="banner loud"' not in build(world.params, world.places)


def test_scores_untrained_first_percent_and_dashes(page: str) -> None:
    rows = [flat(row) for row in Parsed(page).inside["tr"]]
    scores = [row for row in rows if row.count("50.00") >= 5]
    assert scores == [
        "untrained 0 50.00 – 50.00 50.00 50.00 50.00 – –",
        "mcseo random vision 0 50.00 – 50.00 50.00 50.00 50.00 – –",
    ]
    text = flat("".join(Parsed(page).inside["section"]))
    assert "One seed: no claim about a recipe." in text
    assert "Missing here: SICK-R." in text
    assert "a note <b>" in text and "mcseo: few sentences" in text


def test_leaks_are_shown_and_near_ones_can_be_left_out(world: World, page: str) -> None:
    def row(text: str) -> str:
        return next(line for line in map(flat, Parsed(text).inside["tr"]) if line.startswith("STS-B "))

    assert row(page) == "STS-B 4 1 25.0 % 0"
    exact_only = world.change(report__leak_jaccard=None, report__leak_distance=None)
    assert row(build(exact_only, world.places)) == "STS-B 4 1 25.0 % –"


def test_several_seeds_get_mean_and_spread(world: World) -> None:
    world.change(grid__seeds=[0, 1, 2])
    for recipe in ("mcseo", "untrained"):
        for seed in (1, 2):
            world.write_run(recipe, seed)
    page = build(world.params, world.places)
    assert any(flat(row).startswith("mcseo random vision 3 seeds 60.00 ± 10.00 –") for row in Parsed(page).inside["tr"])
    assert "no claim" not in page


def test_the_sample_is_drawn_by_seed_and_never_larger_than_asked(world: World) -> None:
    drawn = {}
    for seed in range(6):
        params = world.change(report__gallery=2, report__seed=seed)
        drawn[seed] = [card["id"] for card in cards(build(params, world.places))]
        assert len(drawn[seed]) == 2
    assert len({tuple(ids) for ids in drawn.values()}) > 1
    assert cards(build(world.change(report__gallery=0), world.places)) == []


def test_equal_inputs_give_equal_bytes_whatever_the_place_and_the_hash_seed(world: World, tmp_path) -> None:
    other = make(tmp_path / "elsewhere" / "deeper")
    pages = [run(w, PYTHONHASHSEED=str(n)).read_bytes() for n, w in enumerate((world, other, world))]
    assert pages[0] == pages[1] == pages[2]


def test_curves_take_the_pages_colours(page: str) -> None:
    charts = [
        attributes for name, attributes in Parsed(page).tags if name == "svg" and attributes.get("class") == "chart"
    ]
    assert len(charts) == 3, "dev, loss of pair batches, loss of text batches"
    assert "stroke-s1" in page and "#0000a" not in page


def test_what_it_ran_from_is_told_without_places(page: str, world: World) -> None:
    text = flat("".join(Parsed(page).inside["section"]))
    assert "cd" * 32 in text and 'words ["<i>", "b"]' in text and "learning_rate 0.001" in text
    assert str(ROOT) not in page and "demo/world" not in page and str(world.root) not in page
    assert f"STS tasks {hash_path(world.root / 'sts')}" in text


def run(world: World, code: int = 0, **environment: str):
    done = subprocess.run(
        [sys.executable, "-m", "stages.report"],
        cwd=world.root,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    if code:
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return world.places.out


def test_no_pairs_ends_with_one_line_and_exit_3(world: World) -> None:
    world.write(pairs=False)
    out = run(world, 3)
    assert not out.exists()
    assert '"code": 3' in (world.root / ".run/report.exit.json").read_text()


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        ("plots/tiny/train/mcseo-0.csv", "mcseo with seed 0 has not been trained; run `dvc repro train@mcseo-0`"),
        ("metrics/tiny/train/mcseo-0.json", "has not been trained"),
        ("metrics/tiny/evaluate/untrained-0.json", "has not been evaluated; run `dvc repro evaluate@untrained-0`"),
        ("data/tiny/embed/sidecars", "the stage embed has not run; run `dvc repro embed`"),
        ("data/tiny/align/pairs/0000.parquet", "lack their file or their sidecar"),
    ],
)
def test_what_is_missing_is_named(world: World, gone: str, told: str) -> None:
    path = world.root / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(InputError, match=re.escape(told)):
        build(world.params, world.places)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("plots/tiny/train/mcseo-0.csv", "step,kind,loss\n1,text,3\n"),
        ("plots/tiny/train/mcseo-0.csv", "step,kind,loss,dev\n1,text,nan,\n"),
        ("plots/tiny/train/mcseo-0.csv", "step,kind,loss,dev\nx,text,1,\n"),
        ("metrics/tiny/evaluate/mcseo-0.json", "{}"),
        ("metrics/tiny/evaluate/mcseo-0.json", '{"tasks": []}'),
        ("metrics/tiny/train/mcseo-0.json", "not JSON"),
    ],
)
def test_what_is_damaged_is_named(world: World, file: str, text: str) -> None:
    (world.root / file).write_text(text)
    with pytest.raises(InputError, match="not what (train|evaluate) writes"):
        build(world.params, world.places)


def test_a_damaged_shard_is_not_shown(world: World) -> None:
    shard = next(p for p in sorted((world.places.data / "align/pairs").iterdir()))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        build(world.params, world.places)
