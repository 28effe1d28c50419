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
from stages.evaluate.compare.runs import AVERAGE, arms_of, board, checkpoints, read_run
from tests.stages.evaluate.compare.kept import SEVEN, copied, drawn, lay, pairs_of, scored, told, write


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
    flat = write(tmp_path / "flat-0", pairs_of(gold, cosines), "flat", 0, scored(gold, cosines))
    assert board(arms_of([flat], [])).left_out["STS12"].startswith("STS12 is undefined in flat-0")
    with pytest.raises(InputError, match="other gold scores"):
        board(arms_of([one, flat], []))


def test_metrics_are_paired_with_the_folder_of_their_name(tmp_path):
    """Beside runs/a.json lie runs/a, which is its own, and runs/pairs.parquet, which is of runs/metrics.json."""
    (own,) = drawn(tmp_path / "runs", "simcse", range(3, 4))
    (other,) = drawn(tmp_path, "mcse", range(1))
    for file in ("pairs.parquet", "metrics.json"):
        shutil.copy(other / file, tmp_path / "runs" / file)
    (own / "metrics.json").rename(tmp_path / "runs/simcse-3.json")
    found = read_run(tmp_path / "runs/simcse-3.json")
    assert (found.path, found.seed) == (own, 3)
    assert read_run(tmp_path / "runs/metrics.json").path == tmp_path / "runs"
    shutil.rmtree(own)
    with pytest.raises(InputError, match="no pairs.parquet in .*simcse-3"):
        read_run(tmp_path / "runs/simcse-3.json")


def test_other_pooling_and_pairs_without_an_embedding_are_told(tmp_path):
    (one,), (two,) = drawn(tmp_path, "simcse", range(1)), drawn(tmp_path, "mcse", range(1))
    assert not board(arms_of([one, two], [])).caution
    tasks = json.loads((two / "metrics.json").read_text())["tasks"]
    told(two, pooling="cls", tasks=tasks | {"STS-B": tasks["STS-B"] | {"nan_pairs": 3}})
    pooling, without = board(arms_of([one, two], [])).caution
    assert pooling.startswith("pooling is not the same (mean in simcse; cls in mcse)")
    assert without.startswith("3 pairs of STS-B have no embedding in mcse-0")


def test_an_arm_with_a_seed_twice_has_no_seeds(tmp_path):
    """Three recipes of one seed under one name are no three seeds that others could be paired with."""
    runs = [drawn(tmp_path, name, range(1))[0] for name in ("mcse", "mcseo", "dalr")]
    (arm,) = arms_of([], [("new", runs)])
    assert [run.seed for run in arm.runs] == [0, 0, 0] and arm.seeds is None


# ------------------------------------------------------------ one checkpoint as several runs


@pytest.mark.parametrize("told_by", ["cosines", "model"])
def test_copies_under_other_seeds_are_refused(tmp_path, told_by):
    one, two = drawn(tmp_path, "simcse", range(2))
    if told_by == "cosines":
        copies = [copied(one, tmp_path / f"simcse-{seed}", seed=seed) for seed in (2, 3, 4)]
    else:  # scored by other hardware, or with other pooling
        copies = drawn(tmp_path, "simcse", range(2, 5))
        model = json.loads((one / "metrics.json").read_text())["model"]
        copies = [told(copy, model=model) for copy in copies]
    with pytest.raises(InputError) as refused:
        board(arms_of([one, two, *copies], []))
    named = str(refused.value)
    assert refused.value.code == 3 and "no 4 seeds of simcse" in named and "\n" not in named
    assert all(str(run) in named for run in (one, *copies)) and str(two) not in named


def test_a_cosine_apart_by_rounding_is_the_same_checkpoint(tmp_path):
    one, two = drawn(tmp_path, "simcse", range(2))
    copy = copied(one, tmp_path / "simcse-2", seed=2)
    table = pq.read_table(copy / "pairs.parquet")
    shaken = table["cosine"].to_numpy() + np.random.default_rng(0).normal(scale=1e-6, size=len(table))
    pq.write_table(table.set_column(3, "cosine", pa.array(shaken, pa.float32())), copy / "pairs.parquet")
    with pytest.raises(InputError, match="no 2 seeds of simcse"):
        board(arms_of([one, two, copy], []))


def test_real_seeds_are_each_a_checkpoint(tmp_path):
    runs = [lay(tmp_path, f"{recipe}-{seed}") for recipe in ("simcse", "untrained") for seed in range(5)]
    made = board(arms_of(runs, []))
    assert [len(checkpoints(made, arm)) for arm in made.arms] == [5, 5]


# ------------------------------------------------------------ refusals


def spoil(folder, how):
    """Makes a run one that cannot be compared."""
    file = folder / "pairs.parquet"
    table = pq.read_table(file)
    if how in ("fewer", "gold"):  # evaluated so: the score is of the other pairs
        told(folder, tasks={"STS12": {"all": None}, "STS-B": {"all": None}})
        for name in ("STS12", "STS-B"):
            (folder / f"{name}.json").unlink()
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
        told(folder, protocol="mteb")
    elif how == "dtype":
        told(folder, dtype="bf16")
    elif how == "no dtype":
        told(folder, dtype=None)
    elif how == "model":
        told(folder, model=["x"])
    elif how == "no STS":
        told(folder, tasks=None, transfer={"average": 80.0})
    elif how == "missing":
        told(folder, tasks={"STS12": {"missing": "no file"}, "STS-B": {"all": None}})
    elif how == "another's metrics":
        told(folder, tasks={"STS12": {"all": 0.02}, "STS-B": {"all": None}})
    elif how == "nameless":
        told(folder, recipe=None, seed=None)
    elif how == "same":
        told(folder, recipe="simcse")


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
    "dtype": "dtype bf16, but",
    "no dtype": "dtype not told, but",
    "model": "not what evaluate writes",
    "no STS": "no score of 'STS-B', but",
    "missing": "no score of 'STS12', but",
    "another's metrics": "says 2.00, but pairs.parquet beside it gives",
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
