"""The probes: files in SentEval's probing layout, the same classifier as the transfer tasks, errors name a line."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from model.errors import ModelError
from stages.evaluate import probes
from stages.evaluate.place import Place
from stages.evaluate.transfer.protocol import STRENGTHS


class Letters:
    """An embedder that knows letters: a vector counts them."""

    def __init__(self, folder, letters="abcdefgh"):
        self.folder, self.letters, self.calls = folder, letters, []

    def __call__(self, texts):
        self.calls.append(texts)
        return np.array([[t.count(c) for c in self.letters] for t in texts], np.float32) + 0.1


SIZES = {"tr": 90, "va": 30, "te": 30}


def rows(seed=0, share=0.8):
    """(split, class, sentence): the class shows in a letter of most sentences."""
    rng = np.random.default_rng(seed)
    made = []
    for split, size in SIZES.items():
        for i in range(size):
            letter = "abc"[i % 3]
            noise = "".join(rng.choice(list("abcgh"), 4))
            made.append((split, f"class {letter}", noise + 2 * letter * int(rng.random() < share)))
    return made


def put(root, name, lines, folder="probing"):
    (root / folder).mkdir(exist_ok=True)
    file = root / folder / f"{name}.txt"
    file.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")
    return file


def test_a_probe_is_scored_by_scikit_learns_regression_with_c_from_va(tmp_path):
    put(tmp_path, "letter", made := rows())
    embed = Letters(tmp_path)
    result = probes.run(embed, Place(data=tmp_path))
    (score,) = result["tasks"].values()
    assert list(result["tasks"]) == ["probe-letter"] and result["withheld"] is None
    x = {split: embed([text for s, _, text in made if s == split]) for split in SIZES}
    y = {split: [label for s, label, _ in made if s == split] for split in SIZES}
    fits = [LogisticRegression(C=c, max_iter=5000, tol=1e-8).fit(x["tr"], y["tr"]) for c in STRENGTHS]
    dev = [round(100 * fit.score(x["va"], y["va"]), 2) for fit in fits]
    best = int(np.argmax(dev))
    assert score["c"] == STRENGTHS[best] and score["devacc"] == dev[best]
    assert score["acc"] == round(100 * fits[best].score(x["te"], y["te"]), 2) == result["average"]
    assert 33.33 == score["chance"] < 60 < score["acc"] < 100
    assert score["sentences"] == {"train": 90, "dev": 30, "test": 30}
    assert score["classes"] == ["class a", "class b", "class c"]


def test_known_scores_are_taken_and_files_are_told_apart_by_content(tmp_path):
    put(tmp_path, "one", rows(1))
    put(tmp_path, "two", rows(2), folder="probing")
    place, embed = Place(data=tmp_path), Letters(tmp_path)
    hashes = probes.tasks(place)
    assert set(hashes) == {"probe-one", "probe-two"} and len(set(hashes.values())) == 2
    result = probes.run(embed, place, {"probe-one": {"acc": 50.0}})
    assert result["tasks"]["probe-one"] == {"acc": 50.0} and len(embed.calls) == 3
    assert result["average"] == round((50 + result["tasks"]["probe-two"]["acc"]) / 2, 2)
    put(tmp_path, "one", rows(3))
    assert [name for name, value in probes.tasks(place).items() if value != hashes[name]] == ["probe-one"]


def test_without_files_or_without_variance_there_is_no_average(tmp_path):
    for place in (Place(), Place(data=tmp_path)):
        result = probes.run(Letters(tmp_path), place)
        assert result["tasks"] == {} == probes.tasks(place) and result["average"] is None
        assert "probing" in result["withheld"]
    put(tmp_path, "letter", rows())
    result = probes.run(Letters(tmp_path, "z"), Place(data=tmp_path))
    assert result["average"] is None and result["withheld"] == "probe-letter is undefined: the embeddings do not vary"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (("xx", "class a", "b"), "letter.txt:151: split 'xx' is none of tr, va, te"),
        (("te", "class d", "b"), "letter.txt:151: class 'class d' is not in split tr"),
        (("te", "class a"), "letter.txt:151: 2 TAB-separated columns where 3 are needed"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    put(tmp_path, "letter", [*rows(), line])
    with pytest.raises(ModelError, match=message):
        probes.run(Letters(tmp_path), Place(data=tmp_path))


def test_a_file_needs_all_splits_and_two_classes(tmp_path):
    file = put(tmp_path, "letter", [row for row in rows() if row[0] != "va"])
    with pytest.raises(ModelError, match="no line of split va"):
        probes.run(Letters(tmp_path), Place(data=tmp_path))
    file.write_text("tr\ta\tb\nva\ta\tc\nte\ta\td\n")
    with pytest.raises(ModelError, match="one class only in split tr, 'a'"):
        probes.run(Letters(tmp_path), Place(data=tmp_path))
