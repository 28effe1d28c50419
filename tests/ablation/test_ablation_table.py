"""The table and the plots, from made-up runs whose differences are known."""

import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small import ROOT, digests

from ablation import gains, matrix, table
from model.sts import SEVEN, spearman
from pipeline.errors import InputError

PAIRS, SEEDS = 120, [0, 1, 2, 3, 4]
# how much of a run's cosines is luck: less is better
NOISE = {"untrained": 2.0, "mcse": 1.0, "mcseo": 0.6, "mcseo-shuffled": 1.0}
WORSE = {"clean": 1.0, "noise60": 0.6, "swap50": 1.0}  # MCSEO's luck there


@cache
def gold() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {name: draw.uniform(0, 5, PAIRS) for name in SEVEN}


def write_run(folder: Path, recipe: str, seed: int, luck: float, data: int) -> None:
    """A scores folder as evaluate leaves it."""
    draw, columns, tasks = np.random.default_rng([seed, data]), [], {}
    for name, graded in gold().items():
        cosine = np.float32(graded / 5 + luck * draw.normal(size=PAIRS))
        columns.append(
            pa.table(
                {
                    "task": [name] * PAIRS,
                    "subset": ["all"] * PAIRS,
                    "pair": pa.array(range(PAIRS), pa.int32()),
                    "cosine": cosine,
                    "gold": np.float32(graded),
                }
            )
        )
        tasks[name] = {"all": spearman(cosine.astype(float), np.float32(graded).astype(float)), "absent": []}
    folder.mkdir(parents=True)
    pq.write_table(pa.concat_tables(columns), folder / "pairs.parquet", write_page_checksum=True)
    body = {"recipe": recipe, "seed": seed, "protocol": "senteval", "dtype": "fp32", "pooling": "mean"}
    (folder / "metrics.json").write_text(json.dumps(body | {"model": str(folder), "tasks": tasks}))


@pytest.fixture(scope="module")
def plan() -> matrix.Matrix:
    whole = matrix.load(ROOT / matrix.PARAMS)
    worlds = {name: whole.worlds[name] for name in ("clean", "noise30", "noise60")}
    grid = {"seeds": SEEDS, "untrained": SEEDS[:3], "recipes": ["mcse", "mcseo", "mcseo-shuffled"]}
    grid |= {"noise": ["clean", "noise60"], "sources": ["swap50"]}
    return replace(whole, worlds=worlds, base="noise30", sources={"swap50": {"kind": "swap", "share": 0.5}}, grid=grid)


@pytest.fixture(scope="module")
def data(plan, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    for number, (dataset, recipe) in enumerate(gains.cells(plan)):
        luck = WORSE.get(dataset, NOISE[recipe]) if recipe == "mcseo" else NOISE[recipe]
        for seed in SEEDS:
            write_run(root / "runs" / dataset / recipe / str(seed) / "scores", recipe, seed, luck, number)
    for name, precision in (("clean", 1.0), ("noise30", 1.0), ("noise60", 1.0), ("swap50", 0.52)):
        told = {"all": {"precision": precision, "recall": 0.9, "mean_iou": precision}}
        (root / "quality" / name).mkdir(parents=True)
        (root / "quality" / name / "align.json").write_text(json.dumps(told))
    return root


@pytest.fixture(scope="module")
def results(plan, data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("results")
    table.write(plan, data / "runs", data / "quality", out)
    return out


def average(data: Path, dataset: str, recipe: str) -> np.ndarray:
    """The runs' averages, by seed, from their own metrics."""
    files = [data / "runs" / dataset / recipe / str(seed) / "scores/metrics.json" for seed in SEEDS]
    return np.array(
        [[100 * task["all"] for task in json.loads(file.read_text())["tasks"].values()] for file in files]
    ).mean(1)


def test_a_gain_is_the_difference_of_the_runs_means(results, data):
    told = json.loads((results / "metrics.json").read_text())
    for dataset, base in (("noise30", "noise30"), ("clean", "clean"), ("noise60", "noise60"), ("swap50", "noise30")):
        mine, theirs = average(data, dataset, "mcseo"), average(data, base, "mcse")
        gain = told["gain"][f"{dataset}/mcseo - {base}/mcse"]
        assert gain["points"] == pytest.approx((mine - theirs).mean(), abs=0.001)
        assert gain["bootstrap"]["low"] < gain["points"] < gain["bootstrap"]["high"]
        assert told["average"][f"{dataset}/mcseo"]["sd"] == pytest.approx(mine.std(ddof=1), abs=0.001)


def test_what_was_put_in_is_found_and_nothing_else(results):
    told = json.loads((results / "metrics.json").read_text())["gain"]
    verdicts = {name: gain["verdict"] for name, gain in told.items()}
    assert verdicts == {
        "noise30/untrained - noise30/mcse": "lower",
        "noise30/mcseo - noise30/mcse": "higher",
        "noise30/mcseo-shuffled - noise30/mcse": "no difference shown",
        "swap50/mcseo - noise30/mcse": "no difference shown",
        "noise30/mcseo-shuffled - noise30/mcseo": "lower",
        "clean/mcseo - clean/mcse": "no difference shown",
        "noise60/mcseo - noise60/mcse": "higher",
    }


def test_holms_correction_is_over_every_difference_of_the_page(results):
    told = json.loads((results / "metrics.json").read_text())["gain"].values()
    for method in ("bootstrap", "seeds"):
        raw = sorted((gain[method]["p"], gain[method]["p_holm"]) for gain in told)
        least, count = raw[0]
        assert count == pytest.approx(min(1.0, least * len(raw)), abs=1e-3)


def test_the_page_has_a_row_for_every_arm_and_the_quality_of_its_pairs(results, plan):
    text = (results / "table.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    for name in ("untrained", "mcseo-shuffled", "clean", "noise60", "gold", "swap50"):
        assert any(line.startswith(f"| {name} |") for line in rows), name
    assert any(line.startswith("| swap50 | 52.0 | 90.0 | 52.0 |") for line in rows)
    assert "after Holm's correction over all 7 differences" in text


def test_the_plots_are_drawings_with_their_words(results):
    for name, words in (("gain_noise", "noise, %"), ("gain_quality", "precision of the pairs")):
        text = (results / f"{name}.svg").read_text()
        assert ElementTree.fromstring(text).tag.endswith("svg")
        assert words in text  # matplotlib names what it draws as glyphs in a comment


def test_the_same_runs_give_the_same_bytes(results, plan, data, tmp_path):
    table.write(plan, data / "runs", data / "quality", tmp_path)
    assert digests(tmp_path) == digests(results)


def test_a_run_or_a_measure_that_is_missing_is_told(plan, data, tmp_path):
    shutil.copytree(data, tmp_path / "less")
    shutil.rmtree(tmp_path / "less/runs/swap50/mcseo/3")
    with pytest.raises(InputError, match="swap50/mcseo/3"):
        table.write(plan, tmp_path / "less/runs", data / "quality", tmp_path / "out")
    (tmp_path / "less/quality/swap50/align.json").write_text('{"all": {"precision": null}}')
    with pytest.raises(InputError, match="swap50.*without precision"):
        table.write(plan, data / "runs", tmp_path / "less/quality", tmp_path / "out")
