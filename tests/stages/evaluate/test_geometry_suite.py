"""The suite on STS-B: what is measured, over which pairs, in which order; anisotropy against its definition."""

import numpy as np
import pytest

from model import geometry, sts
from stages.evaluate.geometry import anisotropy, measure, run, senteval_order, tasks
from stages.evaluate.place import Place


def task(rows, name="STS-B"):
    first, second, gold = zip(*rows, strict=True)
    return sts.Task(name, {"test": sts.Subset(list(first), list(second), np.array(gold, float))})


def vectors(texts, seed=0, dim=6):
    """A vector a text, the same wherever it occurs."""
    made = {text: np.random.default_rng([seed, *text.encode()]).normal(size=dim) for text in texts}
    return np.array([made[text] for text in texts], np.float32)


ROWS = [(f"{'w ' * (n % 5)}a {n}", f"{'v ' * (n % 3)}b {n % 150}", (n * 7 % 51) / 10) for n in range(300)]


def test_both_ways_are_measured_and_told_apart():
    found = measure(vectors, task(ROWS))
    order = senteval_order(task(ROWS).subsets["test"])
    x, y = (geometry.unit_rows(vectors([ROWS[row][side] for row in order])) for side in (0, 1))
    gold = np.array([ROWS[row][2] for row in order])
    whole, batches = geometry.of_set(x, y, gold), geometry.of_batches(x, y, gold)
    assert found["dataset"] == {"alignment": whole.alignment, "uniformity": whole.uniformity}
    assert found["per_batch"] == {
        "alignment": batches.alignment,
        "uniformity": batches.uniformity,
        "batch_size": 128,
    }
    assert found["dataset"]["uniformity"] != pytest.approx(found["per_batch"]["uniformity"], abs=1e-6)
    assert (found["pairs"], found["sentences"], found["unusable_pairs"]) == (300, 450, 0)
    assert found["positives"] == sum(gold >= 4)


def test_pairs_are_sorted_as_sentevals_copies_sort_them():
    rows = [("a b", "c", 1), ("a", "b c d", 2), ("a", "b c", 5), ("b", "b c", 3), ("a", "b c", 3)]
    assert senteval_order(task(rows).subsets["test"]) == [3, 4, 2, 1, 0]


def test_embeddings_that_are_none_are_left_out_and_counted():
    def broken(texts):
        made = vectors(texts)
        made[[text == "b 3" for text in texts]] = np.nan
        made[[text.endswith("a 10") for text in texts]] = 0
        return made

    found = measure(broken, task(ROWS))
    lost = [row for row in ROWS if row[1] == "b 3" or row[0].endswith("a 10")]
    assert found["unusable_pairs"] == len(lost) > 1
    rest = measure(vectors, task([row for row in ROWS if row not in lost]))
    assert found == {**rest, "unusable_pairs": len(lost)}


def test_a_constant_embedding_has_no_variance_to_share():
    found = measure(lambda texts: np.ones((len(texts), 3), np.float32), task(ROWS))
    assert found["dataset"] == {"alignment": 0.0, "uniformity": pytest.approx(0)}
    assert found["anisotropy"] == {
        "mean_cosine": pytest.approx(1),
        **{f"variance_first_{k}": None for k in (1, 3, 10)},
    }
    nothing = measure(lambda texts: np.zeros((len(texts), 3), np.float32), task(ROWS))
    assert nothing["pairs"] == 0 and nothing["dataset"] == {"alignment": None, "uniformity": None}
    assert nothing["anisotropy"]["mean_cosine"] is None


def test_anisotropy_is_the_mean_over_all_pairs_and_the_shares_of_principal_directions():
    rows = geometry.unit_rows(np.random.default_rng(0).normal(size=(40, 12)) + 0.5)
    found = anisotropy(rows)
    cosine = rows @ rows.T
    assert found["mean_cosine"] == pytest.approx(cosine[np.triu_indices(40, 1)].mean())
    values = np.linalg.svd(rows - rows.mean(0), compute_uv=False) ** 2
    for k in (1, 3, 10):
        assert found[f"variance_first_{k}"] == pytest.approx(values[:k].sum() / values.sum())
    drawn = np.random.default_rng(1).integers(40, size=(20_000, 2))
    random_pairs = cosine[tuple(drawn[drawn[:, 0] != drawn[:, 1]].T)].mean()
    assert found["mean_cosine"] == pytest.approx(random_pairs, abs=0.02)
    assert geometry.mean_cosine(rows[:1]) is None and geometry.variance_shares(rows[:1]) is None


def test_sets_that_are_not_there_are_missing_and_the_hash_is_of_what_is_read(tmp_path):
    folder = tmp_path / "STSBenchmark"
    folder.mkdir()
    line = "g\tf\ty\t{}\t{}\t{}\t{}\n"
    file = folder / "sts-test.csv"
    file.write_text("".join(line.format(n, g, a, b) for n, (a, b, g) in enumerate(ROWS)))
    place = Place(data=tmp_path)
    found = run(vectors, place, {})["tasks"]
    assert "missing" in found["geometry-STS-B-dev"]
    assert found["geometry-STS-B-test"] == measure(vectors, task([(a.strip(), b, g) for a, b, g in ROWS]))
    before = tasks(place)
    assert set(before) == {"geometry-STS-B-test"}
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert tasks(place) == before
    file.write_text(file.read_text().replace("a 7", "a 8"))
    assert tasks(place) != before
    assert run(vectors, place, {"geometry-STS-B-test": {"x": 1}})["tasks"]["geometry-STS-B-test"] == {"x": 1}
