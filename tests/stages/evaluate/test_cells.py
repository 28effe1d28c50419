"""train and evaluate as cells of the grid: real artifacts in, a model that other libraries load and scores out."""

import csv
import json
import shutil

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from small import ROOT, in_process, run_stage, write_params

CHAIN = ("ingest", "parse", "detect", "segment", "embed", "align")
STS = ROOT / "demo/world/sts"


@pytest.fixture(scope="module")
def mined(tmp_path_factory):
    from small import make_collection

    folder = tmp_path_factory.mktemp("cells")
    make_collection(folder / "collection", 24)
    write_cells(folder)
    for stage in CHAIN:
        in_process(stage, folder)
    return folder


def write_cells(folder, **changes):
    settings = {
        "embed__path": str(ROOT / "demo/checkpoints/vision_random"),
        "train__path": str(ROOT / "demo/checkpoints/bert_tiny"),
        "evaluate__path": str(STS),
        "train__batch_size": 8,
        "train__max_steps": 6,
        "train__eval_every": 3,
    }
    write_params(folder / "params.yaml", folder / "collection", **(settings | changes))


@pytest.fixture(scope="module")
def trained(mined):
    write_cells(mined)
    result = run_stage("train", mined, "--recipe", "mcseo", "--seed", "0")
    assert result.returncode == 0, result.stderr
    return mined, result.stderr


def test_a_cell_leaves_model_log_and_metrics(trained):
    folder, said = trained
    assert "RANDOM WEIGHTS" in said
    metrics = json.loads((folder / "metrics/small/train/mcseo-0.json").read_text())
    assert metrics["steps"] == 6 and metrics["random_vision"] and metrics["pairs"] == 96
    rows = list(csv.DictReader((folder / "plots/small/train/mcseo-0.csv").open()))
    assert len(rows) == 6 and {"step", "kind", "loss", "dev"} <= set(rows[0])
    pair_rows = [row for row in rows if row["kind"] == "pair"]
    assert pair_rows and all(row["image"] and row["object"] for row in pair_rows)
    assert json.loads((folder / ".run/train@mcseo-0.exit.json").read_text())["code"] == 0
    card = (folder / "data/small/models/mcseo-0/README.md").read_text()
    assert "random weights" in card


def test_the_model_loads_in_sentence_transformers(trained):
    from sentence_transformers import SentenceTransformer

    from model.encoder import load_encoder

    folder = trained[0] / "data/small/models/mcseo-0"
    texts = ["a red ball", "two blue boxes next to a kite"]
    theirs = SentenceTransformer(str(folder), device="cpu").encode(texts)
    np.testing.assert_allclose(load_encoder(folder).encode(texts), theirs, atol=1e-5)


def test_evaluate_scores_the_cell_and_keeps_every_pair(trained):
    folder, _ = trained
    result = run_stage("evaluate", folder, "--recipe", "mcseo", "--seed", "0")
    assert result.returncode == 0, result.stderr
    metrics = json.loads((folder / "metrics/small/evaluate/mcseo-0.json").read_text())
    assert set(metrics["tasks"]) == {"STS12", "STS13", "STS14", "STS15", "STS16", "STS-B", "SICK-R"}
    assert metrics["missing"] == [] and metrics["average"] is not None
    pairs = pq.read_table(folder / "data/small/scores/mcseo-0/pairs.parquet")
    assert pairs.num_rows == sum(task["pairs"] for task in metrics["tasks"].values())
    from scipy.stats import spearmanr

    own = pairs.filter(pc.equal(pairs.column("task"), "STS12"))
    assert spearmanr(own.column("cosine"), own.column("gold")).statistic == pytest.approx(
        metrics["tasks"]["STS12"]["all"], abs=1e-4
    )


def test_a_missing_task_is_shown_and_the_average_withheld(trained, tmp_path):
    folder, _ = trained
    shutil.copytree(STS, tmp_path / "sts")
    shutil.rmtree(tmp_path / "sts/STS14-en-test")
    model = folder / "data/small/models/mcseo-0"
    out = tmp_path / "out"
    result = run_stage("evaluate", folder, "--model", str(model), "--data", str(tmp_path / "sts"), "--out", str(out))
    assert result.returncode == 0 and "withheld" in result.stderr and "missing" in result.stderr
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["missing"] == ["STS14"] and metrics["average"] is None


@pytest.mark.parametrize(
    ("changes", "arguments", "code", "says"),
    [
        ({"train__path": "nowhere"}, ("mcseo", "0"), 3, "nowhere: no such folder"),
        ({"train__batch_size": 4000}, ("simcse", "0"), 2, "lower batch_size"),
        ({"train__temperature": -1.0}, ("simcse", "0"), 2, "train.temperature"),
    ],
)
def test_mistakes_end_in_one_line(mined, changes, arguments, code, says):
    write_cells(mined, **changes)
    result = run_stage("train", mined, "--recipe", arguments[0], "--seed", arguments[1])
    assert result.returncode == code and says in result.stderr and "Traceback" not in result.stderr, result.stderr


def test_pretrained_without_weights_names_the_folder(mined, tmp_path):
    bare = shutil.copytree(
        ROOT / "demo/checkpoints/bert_tiny", tmp_path / "bare", ignore=lambda *_: ["model.safetensors"]
    )
    write_cells(mined, train__init="pretrained", train__path=str(bare))
    result = run_stage("train", mined, "--recipe", "mcseo", "--seed", "0")
    assert result.returncode == 3 and str(bare) in result.stderr and "Traceback" not in result.stderr, result.stderr


def test_a_model_that_is_not_there_is_named(mined):
    write_cells(mined)
    result = run_stage("evaluate", mined, "--recipe", "simcse", "--seed", "7")
    assert result.returncode == 3 and "dvc repro train@simcse-7" in result.stderr
