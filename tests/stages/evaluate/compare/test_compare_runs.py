"""Reading of runs: which recipe and seed each is, and every reason not to compare them, in a line."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError, ParamsError
from stages.evaluate.compare.runs import AVERAGE, arms_of, board, read_run
from tests.stages.evaluate.compare.kept import SEVEN, drawn, lay, pairs_of, write


def test_runs_are_arms_by_recipe_in_the_order_of_their_seeds(tmp_path):
    runs = [*drawn(tmp_path, "mcse", range(2, 4)), *drawn(tmp_path, "simcse", range(1))]
    runs.reverse()
    arms = arms_of(runs, [])
    assert [(arm.name, arm.seeds) for arm in arms] == [("simcse", (0,)), ("mcse", (2, 3))]


@pytest.mark.parametrize("given_as", ["folder", "pairs", "metrics", "file beside", "graph", "graph's metrics"])
def test_a_run_may_be_named_by_its_folder_or_metrics(tmp_path, given_as):
    (folder,) = drawn(tmp_path, "simcse", range(3, 4))
    metrics = folder / "metrics.json"
    if given_as.startswith("graph"):
        place = tmp_path / "data/demo/scores/simcse-3"
        shutil.copytree(folder, place)
        told = tmp_path / "metrics/demo/evaluate/simcse-3.json"
        told.parent.mkdir(parents=True)
        (place / "metrics.json").rename(told)
        path = place if given_as == "graph" else told
    elif given_as == "file beside":
        path = metrics.rename(tmp_path / "simcse-3.json")
    else:
        path = {"folder": folder, "pairs": folder / "pairs.parquet", "metrics": metrics}[given_as]
    run = read_run(path)
    assert (run.recipe, run.seed) == ("simcse", 3) and set(run.tasks) == {"STS12", "STS-B"}
    assert (run.path / "pairs.parquet").is_file()


def test_a_folder_of_file_json_finds_the_metrics_beside_it(tmp_path):
    (folder,) = drawn(tmp_path, "simcse", range(3, 4))
    (folder / "metrics.json").rename(tmp_path / "simcse-3.json")
    assert read_run(folder).seed == 3


def test_pairs_are_matched_by_name_and_not_by_their_order(tmp_path):
    one, two = drawn(tmp_path, "simcse", range(2))
    table = pq.read_table(two / "pairs.parquet")
    turned = table.take(np.random.default_rng(0).permutation(len(table)))
    pq.write_table(turned, two / "pairs.parquet")
    found = board(arms_of([one, two], []))
    before = table.filter(pa.compute.equal(table["task"], "STS12")).column("cosine").to_numpy()
    np.testing.assert_array_equal(found.cosines["STS12"][1], before.astype(np.float64))


def test_the_average_is_of_the_seven_and_withheld_otherwise(tmp_path):
    runs = [lay(tmp_path, f"simcse-{seed}") for seed in range(2)]
    whole = board(arms_of(runs, []))
    assert whole.withheld is None and list(whole.points) == [*SEVEN, AVERAGE]
    np.testing.assert_allclose(whole.points[AVERAGE], np.mean([whole.points[name] for name in SEVEN], axis=0))
    part = board(arms_of(runs, []), ["STS12"])
    assert part.withheld and list(part.points) == ["STS12"]
    (runs[1] / "STS13.json").write_text(json.dumps({"all": None, "absent": ["FNWN"]}))
    assert board(arms_of(runs, [])).withheld == "STS13 lacks FNWN in simcse-1"


def test_a_task_that_one_run_lacks_is_left_out_and_said(tmp_path):
    (one,) = drawn(tmp_path, "simcse", range(1), tasks=("STS12", "STS13"))
    (two,) = drawn(tmp_path, "mcse", range(1), tasks=("STS12",))
    found = board(arms_of([one, two], []))
    assert list(found.points) == ["STS12"] and found.left_out == {"STS13": "STS13 is missing in mcse-0"}
    assert found.withheld == "STS13 is missing in mcse-0"
    with pytest.raises(InputError, match="STS13 is missing in mcse-0"):
        board(arms_of([one, two], []), ["STS13"])


def test_constant_cosines_are_undefined_and_left_out(tmp_path):
    (one,) = drawn(tmp_path, "simcse", range(1))
    gold = {name: np.arange(80.0) for name in ("STS12", "STS-B")}
    cosines = {"STS12": np.ones(80), "STS-B": np.arange(80.0)}
    flat = write(tmp_path / "flat-0", pairs_of(gold, cosines), "flat", 0, {})
    assert board(arms_of([flat], [])).left_out["STS12"].startswith("STS12 is undefined in flat-0")
    with pytest.raises(InputError, match="other gold scores"):
        board(arms_of([one, flat], []))


# ------------------------------------------------------------ refusals


def spoil(folder, how):
    """Makes a run one that cannot be compared."""
    file = folder / "pairs.parquet"
    table = pq.read_table(file)
    if how == "no pairs":
        file.unlink()
    elif how == "cut":
        file.write_bytes(file.read_bytes()[:-40])
    elif how == "flipped":
        data = bytearray(file.read_bytes())
        data[len(data) // 3] ^= 0xFF
        file.write_bytes(data)
    elif how == "other columns":
        pq.write_table(table.drop_columns(["gold"]), file)
    elif how == "empty":
        pq.write_table(table.slice(0, 0), file)
    elif how == "fewer":
        pq.write_table(table.slice(1), file)
    elif how == "twice":
        pq.write_table(pa.concat_tables([table, table.slice(0, 1)]), file)
    elif how == "gold":
        gold = table["gold"].to_numpy().copy()
        gold[3] += 1
        pq.write_table(table.drop_columns(["gold"]).append_column("gold", pa.array(gold)), file)
    elif how == "nan":
        cosine = table["cosine"].to_numpy().copy()
        cosine[3] = np.nan
        pq.write_table(table.drop_columns(["cosine"]).append_column("cosine", pa.array(cosine)), file)
    elif how == "metrics":
        (folder / "metrics.json").write_text("{")
    elif how == "seed":
        (folder / "metrics.json").write_text(json.dumps({"recipe": "mcse", "seed": "one"}))
    elif how == "score":
        (folder / "STS12.json").write_text(json.dumps({"all": 0.01}))
    elif how == "protocol":
        (folder / "metrics.json").write_text(json.dumps({"recipe": "mcse", "seed": 0, "protocol": "mteb"}))
    elif how == "nameless":
        (folder / "metrics.json").write_text(json.dumps({"recipe": None, "seed": None}))
    elif how == "same":
        (folder / "metrics.json").write_text(json.dumps({"recipe": "simcse", "seed": 0, "protocol": "senteval"}))


REFUSED = {
    "no pairs": "no pairs.parquet",
    "cut": "damaged",
    "flipped": "damaged",
    "other columns": "damaged",
    "empty": "no pairs",
    "fewer": "has 79 pairs of STS12, but",
    "twice": "has a pair twice",
    "gold": "other gold scores of STS12",
    "nan": "not a number",
    "metrics": "damaged, no JSON",
    "seed": "not what evaluate writes",
    "score": "says 1.00, but pairs.parquet beside it gives",
    "protocol": "protocol mteb, but",
    "nameless": "--arm NAME=",
    "same": "simcse, seed 0, is in arm simcse already",
}


@pytest.mark.parametrize("how", REFUSED)
def test_what_cannot_be_compared_is_refused(tmp_path, how):
    (one,), (two,) = drawn(tmp_path, "simcse", range(1)), drawn(tmp_path, "mcse", range(1))
    spoil(two, how)
    with pytest.raises(InputError) as refused:
        board(arms_of([one, two], []))
    assert REFUSED[how] in str(refused.value) and "mcse-0" in str(refused.value) and "\n" not in str(refused.value)


def test_a_run_counts_once(tmp_path):
    (one,) = drawn(tmp_path, "simcse", range(1))
    for given_twice in ([one, one], [one, tmp_path / "x/../simcse-0"]):
        (tmp_path / "x").mkdir(exist_ok=True)
        with pytest.raises(InputError, match="given twice"):
            arms_of(given_twice, [])
    with pytest.raises(InputError, match="given twice"):
        arms_of([], [("a", [one]), ("b", [one])])
    with pytest.raises(ParamsError, match="choose another name"):
        arms_of(drawn(tmp_path / "more", "a", range(1)), [("a", [one])])
    with pytest.raises(InputError, match="no such run"):
        arms_of([tmp_path / "nowhere"], [])


def test_named_arms_take_what_tells_no_recipe(tmp_path):
    one, two = drawn(tmp_path, "simcse", range(2))
    spoil(two, "nameless")
    (tmp_path / "simcse-1" / "metrics.json").unlink()
    arms = arms_of([], [("mine", [one]), ("theirs", [two])])
    assert [(arm.name, arm.seeds) for arm in arms] == [("mine", (0,)), ("theirs", None)]


@settings(deadline=None)
@given(seed=st.integers(0, 100_000))
def test_a_damaged_table_is_a_line_and_never_a_traceback(tmp_path_factory, seed):
    folder = tmp_path_factory.mktemp("fuzz")
    (run,) = drawn(folder, "simcse", range(1), pairs=12)
    draw, file = np.random.default_rng(seed), run / "pairs.parquet"
    whole = file.read_bytes()
    data = bytearray(whole[: draw.integers(0, len(whole) + 1)] if draw.random() < 0.3 else whole)
    for place in draw.integers(0, max(1, len(data)), draw.integers(1, 6)):
        if data:
            data[place] = draw.integers(256)
    file.write_bytes(data)
    try:
        read_run(run)
    except InputError as refused:
        assert "\n" not in str(refused) and str(file) in str(refused)
