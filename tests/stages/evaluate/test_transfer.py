"""Transfer scores: the batched logistic regression against scikit-learn's, the protocol against the plain loop."""

import json
import sys
import warnings
from math import erf, sqrt

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedKFold

from model.errors import ModelError
from stages.evaluate import transfer
from stages.evaluate.place import Place
from stages.evaluate.transfer import logistic, protocol
from stages.evaluate.transfer.labelled import Labelled, Part


def classes_apart(count, width, distance, classes=2, seed=0):
    """Gaussian classes whose means lie `distance` apart: (float32 [count, width], int64 [count])."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=count)
    means = np.linalg.qr(rng.normal(size=(width, width)))[0][:classes] * distance / sqrt(2)
    return (rng.normal(size=(count, width)) + means[labels]).astype(np.float32), labels


def fitted(x, y, c, **how):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LogisticRegression(C=c, random_state=1111, **how).fit(x, y)


def scikit_nested(x, y):
    """SentEval's nested cross-validation as it stands: a refit a fold and regulariser. (acc, devacc)"""
    cut = StratifiedKFold(10, shuffle=True, random_state=1111)
    test, dev = [], []
    for rest, held in cut.split(x, y):
        means = [
            round(100 * np.mean([fitted(x[rest][a], y[rest][a], c).score(x[rest][b], y[rest][b]) for a, b in inner]), 2)
            for inner in [list(cut.split(x[rest], y[rest]))]
            for c in (0.25, 0.5, 1, 2, 4, 8)
        ]
        best = (0.25, 0.5, 1, 2, 4, 8)[int(np.argmax(means))]
        dev.append(max(means))
        test.append(round(100 * fitted(x[rest], y[rest], best).score(x[held], y[held]), 2))
    return np.mean(test), np.mean(dev)


@pytest.mark.parametrize("distance", [1.0, 2.5])
def test_nested_gives_what_scikit_learn_gives_and_what_the_classes_allow(distance):
    x, y = classes_apart(400, 8, distance)
    got = protocol.nested(x, y, 2)
    acc, dev = scikit_nested(x, y)
    assert got["acc"] == pytest.approx(acc, abs=0.3) and got["devacc"] == pytest.approx(dev, abs=0.3)
    possible = 50 * (1 + erf(distance / 2 / sqrt(2)))  # of the best rule there is
    assert possible - 5 < got["acc"] < possible + 4
    assert len(got["folds"]) == len(got["c"]) == 10 and got["acc"] == round(float(np.mean(got["folds"])), 2)


@pytest.mark.parametrize("classes", [2, 6])
def test_crossed_gives_what_scikit_learn_gives(classes):
    x, y = classes_apart(500, 12, 2.0, classes)
    got, hits = protocol.crossed(x, y, classes, 400)
    cut = list(StratifiedKFold(10, shuffle=True, random_state=1111).split(x[:400], y[:400]))
    grid = (0.5, 1, 2, 4, 8, 16, 32)
    dev = [round(100 * np.mean([fitted(x[a], y[a], c).score(x[b], y[b]) for a, b in cut]), 2) for c in grid]
    acc = 100 * fitted(x[:400], y[:400], got["c"]).score(x[400:], y[400:])
    assert got["devacc"] == pytest.approx(max(dev), abs=0.3) and got["acc"] == pytest.approx(acc, abs=0.3)
    assert dev[grid.index(got["c"])] == pytest.approx(max(dev), abs=0.3)
    assert len(hits) == 100 and got["acc"] == pytest.approx(100 * hits.mean())


def test_split_chooses_on_dev_and_is_scored_on_test():
    x, y = classes_apart(700, 12, 1.5, seed=5)
    got, hits = protocol.split(x, y, 2, 400, 100)
    scores = [round(100 * fitted(x[:400], y[:400], c).score(x[400:500], y[400:500]), 2) for c in protocol.STRENGTHS]
    assert got["devacc"] == max(scores) and got["c"] == protocol.STRENGTHS[int(np.argmax(scores))]
    assert got["acc"] == pytest.approx(100 * fitted(x[:400], y[:400], got["c"]).score(x[500:], y[500:]), abs=1e-6)
    assert len(hits) == 200


@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize("kind", ["plain", "unit", "uneven", "apart", "wide", "rare"])
def test_every_training_set_is_solved_to_scikit_learns_optimum(classes, kind):
    x, y = classes_apart(300, 300 if kind == "wide" else 20, 30.0 if kind == "apart" else 2.0, classes, seed=1)
    if kind == "unit":
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    if kind == "uneven":
        x *= np.geomspace(0.01, 30, x.shape[1], dtype=np.float32)
    if kind == "rare":
        keep = (y > 0) | (np.cumsum(y == 0) <= 4)
        x, y = x[keep], y[keep]
    train = np.random.default_rng(2).random((len(y), 3)) < 0.8
    tensors = torch.from_numpy(x), torch.from_numpy(y), classes, torch.from_numpy(train)
    for c, got in zip((0.25, 8.0), logistic.predictions(*tensors, (0.25, 8.0)), strict=True):
        for m in range(3):
            exact = {"tol": 1e-7, "max_iter": 2000, "solver": "lbfgs" if kind == "wide" else "newton-cholesky"}
            model = fitted(x[train[:, m]].astype(np.float64), y[train[:, m]], c, **exact)
            margin = model.decision_function(x)
            near = np.abs(margin) if classes == 2 else np.diff(np.sort(margin, axis=1)[:, -2:])[:, 0]
            sure = near > 0.02 * margin.std()
            assert sure.mean() > 0.8 and (got[:, m].numpy() == model.predict(x))[sure].all()


def test_rows_outside_of_the_training_sets_do_not_matter():
    x, y = classes_apart(200, 5, 2.0)
    train = torch.arange(200)[:, None] < 150
    first = list(logistic.predictions(torch.from_numpy(x), torch.from_numpy(y), 2, train, (1.0,)))[0][:150]
    x[150:], y[150:] = 100, 1
    again = list(logistic.predictions(torch.from_numpy(x), torch.from_numpy(y), 2, train, (1.0,)))[0][:150]
    assert torch.equal(first, again)


def test_without_scikit_learn_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.model_selection", None)
    with pytest.raises(ModelError, match="pip install scikit-learn"):
        protocol.folds(np.arange(40) % 2)


# ---------------------------------------------------------------- the suite


class Letters:
    """An embedder that knows letters: a vector counts them. `changes` are applied to all vectors of a call."""

    def __init__(self, folder, change=lambda texts, vectors: vectors):
        self.folder, self.change, self.calls = folder, change, []

    def __call__(self, texts):
        self.calls.append(texts)
        return self.change(texts, np.array([[t.count(c) for c in "abcdefgh"] for t in texts], np.float32) + 0.1)


def make_tasks(root, rng, without=()):
    """All seven tasks in SentEval's layout, small; the class shows in a letter of most sentences."""

    def sentences(letter, count):
        return ["".join(rng.choice(list("gh "), 12)) + letter * int(rng.random() < 0.8) for _ in range(count)]

    def put(name, lines):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(line + "\n" for line in lines), encoding="utf-8")

    stems = {"MR": "MR/rt-polarity.{}", "CR": "CR/custrev.{}", "MPQA": "MPQA/mpqa.{}"}
    for name, stem in stems.items():
        for letter, kind in (("a", "pos"), ("b", "neg")):
            put(stem.format(kind), sentences(letter, 60)) if name not in without else None
    put("SUBJ/subj.objective", sentences("a", 60))
    put("SUBJ/subj.subjective", sentences("b", 60))
    for split, count in (("train", 80), ("dev", 30), ("test", 30)):
        put(f"SST/binary/sentiment-{split}", [f"{s}\t{k}" for k in (0, 1) for s in sentences("ab"[k], count)])
    names = ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")
    for file, count in (("train_5500.label", 20), ("TREC_10.label", 10)):
        put(f"TREC/{file}", [f"{n}:x {s}" for n, c in zip(names, "abcdef", strict=True) for s in sentences(c, count)])
    for split, count in (("train", 40), ("test", 20)):
        rows = [f"{k}\t1\t2\ta{s}\t{'ab'[k]}{s}" for k in (0, 1) for s in sentences("c", count)]
        put(f"MRPC/msr_paraphrase_{split}.txt", ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", *rows])


@pytest.fixture
def place(tmp_path):
    make_tasks(tmp_path / "transfer", np.random.default_rng(0))
    return Place(data=tmp_path)


def test_seven_tasks_and_their_average(place, tmp_path):
    embed = Letters(tmp_path)
    result = transfer.run(embed, place)
    scores = result["tasks"]
    assert tuple(scores) == transfer.TASKS and result["withheld"] is None
    assert result["average"] == round(float(np.mean([s["acc"] for s in scores.values()])), 2)
    assert all(score["acc"] > 75 for name, score in scores.items() if name != "MRPC")
    assert scores["MRPC"]["f1"] > 80 and "f1" not in scores["MR"]
    assert scores["SST2"]["sentences"] == {"train": 160, "dev": 60, "test": 60}
    assert scores["MRPC"]["pairs"] == {"train": 80, "test": 40} and scores["TREC"]["classes"][0] == "ABBR"
    assert json.loads(json.dumps(result)) == result
    assert transfer.run(Letters(tmp_path), place) == result
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(threads, 2))
        assert transfer.run(Letters(tmp_path), place) == result
    finally:
        torch.set_num_threads(threads)


def test_a_missing_task_is_shown_and_the_average_withheld(tmp_path):
    make_tasks(tmp_path, np.random.default_rng(0), without=("MPQA",))
    known = {name: {"acc": 50.0} for name in transfer.TASKS}
    result = transfer.run(Letters(tmp_path), Place(data=tmp_path), known)
    assert list(result["tasks"]["MPQA"]) == ["missing"] and result["average"] is None
    assert result["withheld"].startswith("MPQA is missing: ")
    nowhere = transfer.run(Letters(tmp_path), Place())
    assert all("--data" in score["missing"] for score in nowhere["tasks"].values()) and transfer.tasks(Place()) == {}


def test_known_scores_are_taken_and_the_others_computed(place, tmp_path):
    hashes = transfer.tasks(place)
    assert list(hashes) == list(transfer.TASKS) and len(set(hashes.values())) == 7
    known = {name: {"acc": 50.0} for name in transfer.TASKS if name != "CR"}
    embed = Letters(tmp_path)
    result = transfer.run(embed, place, known)
    assert len(embed.calls) == 1 and result["tasks"]["MR"] == {"acc": 50.0} and result["tasks"]["CR"]["acc"] > 75
    file = tmp_path / "transfer/CR/custrev.pos"
    file.write_text(file.read_text() + "one more\n")
    assert [name for name, value in transfer.tasks(place).items() if value != hashes[name]] == ["CR"]


def cr(place):
    return transfer.find(place.data, "CR").read()


def test_embeddings_that_cannot_be_used_are_counted_and_taken_as_zeros(place, tmp_path):
    def spoil(texts, vectors):
        vectors[3], vectors[5, 2], vectors[7, 0] = 0, np.nan, np.inf
        return vectors

    score = transfer.score(cr(place), Letters(tmp_path, spoil))
    assert score["unusable"] == 3 and score["acc"] > 75


def test_embeddings_that_do_not_vary_have_no_score(place, tmp_path):
    for vector in (np.zeros(8), np.full(8, 3.0), np.full(8, np.nan)):
        embed = Letters(tmp_path, lambda texts, vectors, v=vector: np.tile(v, (len(vectors), 1)))
        score = transfer.score(cr(place), embed)
        assert score["acc"] is None and score["undefined"] == "the embeddings do not vary"
    scores = {name: {"acc": 50.0} for name in transfer.TASKS} | {"CR": score}
    assert transfer.average(scores) == (None, "CR is undefined: the embeddings do not vary")


def test_a_model_that_says_so_has_embeddings_of_unit_length(place, tmp_path):
    plain = transfer.features(cr(place), Letters(tmp_path))[0]
    (tmp_path / "modules.json").write_text(json.dumps([{"type": "a.b.Transformer"}, {"type": "a.b.Normalize"}]))
    unit = transfer.features(cr(place), Letters(tmp_path))[0]
    assert np.allclose(np.linalg.norm(unit, axis=1), 1) and np.ptp(np.linalg.norm(plain, axis=1)) > 0.1
    assert transfer.score(cr(place), Letters(tmp_path))["normalised"]
    (tmp_path / "modules.json").write_text("[1]")
    with pytest.raises(ModelError, match=r"modules\.json: cannot be read as a list of modules"):
        transfer.normalises(tmp_path)


def test_pair_features_and_f1():
    a, b = np.array([[1.0, -2.0]]), np.array([[3.0, 1.0]])
    assert transfer.pair_features(a, b).tolist() == [[2.0, 3.0, 3.0, -2.0]]
    rng = np.random.default_rng(1)
    labels, told = rng.integers(2, size=(2, 50))
    assert transfer.f1(labels, labels == told) == pytest.approx(100 * f1_score(labels, told), abs=0.005)
    assert transfer.f1(np.zeros(3, int), np.ones(3, bool)) == 0.0


def test_a_set_too_small_for_its_folds_is_refused(tmp_path):
    task = Labelled("CR", ("neg", "pos"), {"all": Part((list("abcdefghijklmnopqrst"),), np.arange(20) % 2)})
    with pytest.raises(ModelError, match="CR: class neg has 10 rows to learn from; the protocol needs 12"):
        transfer.score(task, Letters(tmp_path))
