"""The stage as it is run: what it leaves behind, how a mistake ends, and that a killed one goes on."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pytest
from small import digests, environment
from transformers import BertConfig, BertForMaskedLM

from model.encoder import load_encoder
from model.recipes import NAMES, resolve

TRIPLETS = "".join(f"a red {t}\tthere is a {t}\tno {t} is here\n" for t in ("ball", "box", "kite", "cup")) * 4


@pytest.fixture(scope="module")
def teachers(tmp_path_factory, tiny_bert):
    """A folder with all teachers: random weights, the tokenizer of the student."""
    folder = tmp_path_factory.mktemp("teachers")
    for name in ("simcse", "diffcse", "generator"):
        shutil.copytree(tiny_bert, folder / name)
        model = load_encoder(tiny_bert, "scratch", len(name), "cls").model
        model.save_pretrained(folder / name)
    config = BertConfig.from_pretrained(tiny_bert)
    BertForMaskedLM(config).save_pretrained(folder / "generator")
    return folder


@pytest.fixture
def every(teachers, tmp_path):
    """Parameters that give every recipe what it wants, beside features."""
    (tmp_path / "triplets.tsv").write_text(TRIPLETS)
    return {"train__teachers_path": str(teachers), "train__triplets_path": str(tmp_path / "triplets.tsv")}


# dalr-code compares z with image features as they are, which here have another width: refused, below
@pytest.mark.parametrize("recipe", [n for n in NAMES if n not in ("untrained", "dalr-code")])
def test_every_recipe_leaves_a_model_a_log_and_metrics(with_text, train, every, recipe):
    code, said = train(with_text, recipe, train__pooling=None, train__max_steps=4, **every)
    assert code == 0, said
    cell = f"{recipe}-0"
    encoder = load_encoder(with_text / "data/small/models" / cell)
    assert encoder.pooling == ("cls_mlp" if recipe == "simcse-sup" else "cls")
    assert np.isfinite(encoder.encode(["a red ball"])).all()
    rows = list(csv.DictReader((with_text / f"plots/small/train/{cell}.csv").open()))
    assert [row["step"] for row in rows] == ["1", "2", "3", "4"]
    for term in resolve(recipe).terms:
        assert any(row[term.name] for row in rows if row["kind"] in term.kinds), term.name
    metrics = json.loads((with_text / f"metrics/small/train/{cell}.json").read_text())
    assert metrics["steps"] == 4 and metrics["sts_b_dev"] is not None
    record = json.loads((with_text / "data/small/models" / cell / "recipe.json").read_text())
    assert record["seed"] == 0 and record["recipe"]["name"] == recipe
    assert {"captions", "sentences", "pairs", "features", "text_encoder"} <= set(record["data"])
    assert ("teachers" in record["data"]) == ("diffcse" in recipe or "dalr" in recipe)
    assert ("triplets" in record["data"]) == (recipe == "simcse-sup")
    assert not (with_text / ".scratch/small/train" / cell).exists(), "the checkpoints of a finished cell are gone"
    assert ("RANDOM WEIGHTS" in said) == metrics["random_vision"]


def test_normalised_vectors_if_asked(mined, train):
    from sentence_transformers import SentenceTransformer

    code, said = train(mined, "simcse", seed=5, train__normalize=True, train__max_steps=1)
    assert code == 0, said
    model = SentenceTransformer(str(mined / "data/small/models/simcse-5"), device="cpu")
    np.testing.assert_allclose(np.linalg.norm(model.encode(["a cup", "two kites"]), axis=1), 1, atol=1e-6)


def _no_train(table):
    return table.set_column(3, table.schema.field("split"), pa.array(["dev"] * table.num_rows))


def _with_nan(table):
    vectors = table.column("vector").to_pylist()
    row = next(n for n, kind in enumerate(table.column("kind").to_pylist()) if kind == "image")
    vectors[row] = np.float16("nan").tobytes() + vectors[row][2:]
    return table.set_column(3, table.schema.field("vector"), pa.array(vectors, table.schema.field("vector").type))


@pytest.mark.parametrize(
    ("recipe", "changes", "code", "says"),
    [
        ("mcse", {"train__batch_size": 4000}, 2, "batch_size is 4000 but there are only 48 sentences"),
        ("mcse", {"train__settings": {"mcse": {"taus": 1}}}, 2, "recipe mcse: setting 'taus' is unknown; known: tau,"),
        ("mcse", {"train__settings": {"mcse": {"batch_size": 1.5}}}, 2, "batch_size is 1.5 but must be a whole number"),
        ("mcse", {"train__settings": {"mcsee": {}}}, 2, "train.settings.mcsee"),
        ("mcse", {"train__path": "nowhere"}, 3, "nowhere: no such folder; set train.path"),
        ("mcse", {"evaluate__path": "nowhere"}, 3, "nowhere: no such folder; give the one that holds STS12-en-test"),
        ("kdmcse", {}, 3, "set embed.path to a CLIP checkpoint and embed.text to true"),
        ("simcse-sup", {"train__pooling": None}, 3, "set train.triplets_path"),
        ("simcse-sup", {"train__triplets_path": "none.csv"}, 3, "none.csv: no such file; set train.triplets_path"),
        ("dalr", {}, 3, "needs frozen text teachers (simcse, diffcse)"),
        ("diffcse", {}, 3, "needs a frozen generator (generator)"),
    ],
)
def test_a_mistake_ends_in_one_line(mined, train, recipe, changes, code, says):
    ended, said = train(mined, recipe, **changes)
    assert ended == code and says in said, said
    told = [line for line in said.splitlines() if "RANDOM WEIGHTS" not in line]
    assert len(told) == (2 if "1 mistake" in said else 1), said


def test_an_unknown_recipe(mined, train):
    code, said = train(mined, "mcsea")
    assert code == 2 and "--recipe (one of untrained, simcse, " in said


def test_what_does_not_fit_each_other_is_told_before_a_step(with_text, train, every):
    code, said = train(with_text, "dalr-code", **every)
    assert code == 2 and "compares the text encoder's vectors with image features as they are" in said


def test_nothing_to_train_on(changed, train):
    changed("ingest/captions", _no_train, everywhere=True)
    folder = changed("ingest/sentences", lambda table: table.slice(0, 0), everywhere=True)
    assert train(folder, "simcse")[0] == 3
    code, said = train(folder, "mcse")
    assert code == 3 and "nothing to train on" in said


def test_a_feature_that_is_not_finite(changed, train):
    code, said = train(changed("embed/features", _with_nan), "mcse")
    assert code == 3 and "holds NaN or infinity; embed it again" in said


def test_features_that_are_not_there(changed, train):
    folder = changed("embed/features", lambda table: table)
    shutil.rmtree(folder / "data/small/embed")
    code, said = train(folder, "mcse")
    assert code == 3 and "run `dvc repro embed`" in said
    assert train(folder, "simcse")[0] == 3, "what the card says of its data is not there either"


LONG = {"train__max_steps": 60, "train__eval_every": 4}


def _start(folder, *before):
    arguments = ["stages.train", "--recipe", "mcseo", "--seed", "3"]
    return subprocess.Popen(
        [sys.executable, *before, "-m", *arguments], cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True
    )


@pytest.mark.fault("F54")
def test_killed_it_goes_on_and_ends_as_if_it_had_not_been(mined, train, tmp_path):
    assert train(mined, "mcseo", seed=3, **LONG)[0] == 0
    places = [mined / "data/small/models/mcseo-3", mined / "plots/small/train", mined / "metrics/small/train"]
    wanted = [digests(place) for place in places]
    shutil.rmtree(places[0])
    running = _start(mined)
    last = mined / ".scratch/small/train/mcseo-3/last.safetensors"
    until = time.monotonic() + 120
    while not last.exists() and running.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(running.pid, signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL and last.exists() and not places[0].exists()
    code, said = train(mined, "mcseo", seed=3, **LONG)
    assert code == 0 and "training goes on from step" in said, said
    assert [digests(place) for place in places] == wanted


def test_a_damaged_checkpoint_is_refused_and_left(mined, train):
    last = mined / ".scratch/small/train/mcse-4/last.safetensors"
    last.parent.mkdir(parents=True)
    last.write_bytes(b"not a checkpoint")
    code, said = train(mined, "mcse", seed=4)
    assert code == 3 and str(last.relative_to(mined)) in said and last.read_bytes() == b"not a checkpoint"
    last.unlink()
    assert train(mined, "mcse", seed=4)[0] == 0


def test_two_processes_write_one_model(mined, train):
    """torchrun: one lock, one exit, one folder."""
    assert train(mined, "mcseo", seed=3)[0] == 0
    one = digests(mined / "data/small/models/mcseo-3")
    shutil.rmtree(mined / "data/small/models/mcseo-3")
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    running = _start(mined, *launch)
    said = running.communicate(timeout=300)[1]
    assert running.returncode == 0, said
    two = digests(mined / "data/small/models/mcseo-3")
    assert set(one) == set(two) and said.count("-> data/small/models/mcseo-3") == 1
    assert json.loads((mined / ".run/train@mcseo-3.exit.json").read_text())["code"] == 0
