"""Readers of the STS tasks: what is written is what is read, in every layout; 1,000 damaged files are told by line."""

import gzip
import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model import sts
from model.errors import ModelError

YEAR = "STS15-en-test"
HEADER = "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment"
# any text a cell can hold: quotes, other white space, other line ends, none at all
CELL = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\t\n\r"), max_size=12)
PAIRS = st.lists(st.tuples(CELL, CELL, st.none() | st.floats(0, 5, allow_nan=False)), min_size=1, max_size=8)
SLOW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def text_of(lines, end="\n", bom=False):
    return ("\ufeff" if bom else "").encode() + "".join(line + end for line in lines).encode()


def write_layout(root, layout, pairs, end="\n", bom=False):
    """The pairs as task files of a layout; returns (task, the files)."""
    said = ["" if gold is None else repr(gold) for _, _, gold in pairs]
    if layout == "year":
        files = {
            f"{YEAR}/STS.input.s.txt": text_of([f"{a}\t{b}" for a, b, _ in pairs], end, bom),
            f"{YEAR}/STS.gs.s.txt": text_of(said, end, bom),
        }
        task = "STS15"
    elif layout == "benchmark":
        lines = [f"g\tf\ty\t{n}\t{gold}\t{a}\t{b}" for n, ((a, b, _), gold) in enumerate(zip(pairs, said, strict=True))]
        files, task = {"STSBenchmark/sts-test.csv": text_of(lines, end, bom)}, "STS-B"
    elif layout == "sick":
        lines = [f"{n}\t{a}\t{b}\t{gold}\tX" for n, ((a, b, _), gold) in enumerate(zip(pairs, said, strict=True))]
        files, task = {"SICK/SICK_test_annotated.txt": text_of([HEADER, *lines], end, bom)}, "SICK-R-test"
    elif layout == "jsonl":
        lines = [
            json.dumps({"sentence1": a, "sentence2": b, "score": gold}, ensure_ascii=False) for a, b, gold in pairs
        ]
        files, task = {"mteb/sts15-sts/test.jsonl": text_of(lines, end, bom)}, "STS15"
    elif layout == "jsonl.gz":
        lines = [json.dumps({"sentence1": a, "sentence2": b, "score": gold}) for a, b, gold in pairs]
        files, task = {"stsbenchmark-sts/test.jsonl.gz": gzip.compress(text_of(lines, end))}, "STS-B"
    else:
        one, two, gold = zip(*pairs, strict=True)
        table = pa.table(
            {"score": pa.array(gold, pa.float64()), "sentence1": one, "sentence2": two, "n": range(len(one))}
        )
        file = root / "mteb__sts15-sts/data/test-00000-of-00001-0ab1.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, file)
        return "STS15", [file]
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return task, [root / name for name in files]


LAYOUTS = ("year", "benchmark", "sick", "jsonl", "jsonl.gz", "parquet")


@pytest.mark.parametrize("layout", LAYOUTS)
@SLOW
@given(PAIRS, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_what_is_written_is_what_is_read(tmp_path, layout, pairs, end, bom):
    task, _ = write_layout(tmp_path, layout, pairs, end, bom)
    kept = [pair for pair in pairs if pair[2] is not None]
    for protocol in sts.PROTOCOLS:
        if not kept:
            with pytest.raises(ModelError, match="no pair with a gold score"):
                sts.load_tasks(tmp_path, [task], protocol)
            continue
        (part,) = sts.load_tasks(tmp_path, [task], protocol)[task].subsets.values()
        assert part.dropped == len(pairs) - len(kept) and part.gold.tolist() == [gold for _, _, gold in kept]
        for read, written in ((part.sentences1, [p[0] for p in kept]), (part.sentences2, [p[1] for p in kept])):
            assert read == ([" ".join(x.split()) for x in written] if protocol == "senteval" else written)


def test_the_other_protocol_takes_all_of_sick_and_the_text_as_it_is(tmp_path):
    for split, n in (("train", 3), ("trial", 2), ("test_annotated", 4)):
        lines = [HEADER, *(f"{i}\t two  spaces {i}\tb\t{i}\tX" for i in range(n))]
        (tmp_path / "SICK").mkdir(exist_ok=True)
        (tmp_path / f"SICK/SICK_{split}.txt").write_bytes(text_of(lines))
    ours = sts.load_tasks(tmp_path, ["SICK-R"])["SICK-R"]
    theirs = sts.load_tasks(tmp_path, ["SICK-R"], "mteb")["SICK-R"]
    assert [len(s.gold) for s in ours.subsets.values()] == [4]
    assert ours.subsets["test"].sentences1[0] == "two spaces 0"
    assert sum(len(s.gold) for s in theirs.subsets.values()) == 9
    assert theirs.subsets["train"].sentences1[0] == " two  spaces 0"
    with pytest.raises(ModelError, match="protocol 'sent-eval' is unknown; known: senteval, mteb"):
        sts.load_tasks(tmp_path, ["SICK-R"], "sent-eval")


def write_jsonl(file, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        "".join(json.dumps(dict(zip(("sentence1", "sentence2", "score"), r, strict=True))) + "\n" for r in rows)
    )


def test_sick_without_its_splits_is_no_test_set_of_senteval(tmp_path):
    write_jsonl(tmp_path / "mteb/sickr-sts/test.jsonl", [("a", "b", 1), ("c", "d", 2)])
    task = sts.load_tasks(tmp_path, ["SICK-R"])["SICK-R"]
    assert "sickr-sts holds all 9,927 pairs without their splits, which is SICK-R of protocol mteb" in task.missing
    assert len(sts.load_tasks(tmp_path, ["SICK-R"], "mteb")["SICK-R"].subsets["test"].gold) == 2


def test_splits_revisions_and_shards_of_a_dataset(tmp_path):
    kept = tmp_path / "datasets--mteb--stsbenchmark-sts/snapshots/abc"
    write_jsonl(kept / "data/validation-00000-of-00002.jsonl", [("a", "b", 1)])
    write_jsonl(kept / "data/validation-00001-of-00002.jsonl", [("c", "d", 2)])
    write_jsonl(kept / "default/test/0000.jsonl", [("e", "f", 3)])
    tasks = sts.load_tasks(tmp_path, ["STS-B", "STS-B-dev", "STS-B-train"])
    assert tasks["STS-B"].subsets["test"].sentences1 == ["e"]
    assert tasks["STS-B-dev"].subsets["dev"].sentences1 == ["a", "c"]
    assert "has no .parquet or .jsonl file of the train split" in tasks["STS-B-train"].missing


@pytest.mark.parametrize(
    ("there", "missing"),
    [
        ((0, 2), "1 of 3 files are not there: test-00001-of-00003;"),
        ((1,), "2 of 3 files are not there: test-00000-of-00003, test-00002-of-00003;"),
        ((0, 1, 2), None),
        ((1, 2, 3), None),
    ],
)
def test_a_file_of_several_that_is_not_there_is_named(tmp_path, there, missing):
    folder = tmp_path / "stsbenchmark-sts"
    for n in there:
        write_jsonl(folder / f"data/test-{n:05}-of-00003.jsonl", [("a", "b", 1)])
    if missing is None:
        assert len(sts.load_tasks(tmp_path, ["STS-B"])["STS-B"].subsets["test"].gold) == 3
    else:
        with pytest.raises(ModelError, match=re.escape(f"{folder}/data: {missing}")):
            sts.load_tasks(tmp_path, ["STS-B"])


def test_however_many_files_a_name_claims_few_are_listed(tmp_path):
    write_jsonl(tmp_path / "sts12-sts/test-00000-of-999999999999.jsonl", [("a", "b", 1)])
    with pytest.raises(ModelError, match=r"-00005-of-999999999999 and 999999999993 more; get the others too"):
        sts.load_tasks(tmp_path, ["STS12"])


def test_subsets_that_a_file_does_not_tell_apart_have_no_mean(tmp_path):
    write_jsonl(tmp_path / "sts12-sts/test.jsonl", [("a", "b", 1), ("aa", "a", 5), ("b", "c", 2)])
    task = sts.load_tasks(tmp_path, ["STS12"], "mteb")["STS12"]
    embed = lambda texts: np.array([[x.count("a"), x.count("b"), x.count("c")] for x in texts], float)  # noqa: E731
    score = sts.score_task(task, embed)
    assert task.merged and score["all"] is not None and score["mean"] is score["wmean"] is None


def test_of_two_layouts_the_protocols_own_is_read(tmp_path):
    write_layout(tmp_path, "year", [("old", "x", 1.0)])
    write_layout(tmp_path, "jsonl", [("new", "x", 1.0)])
    for protocol, wanted in (("senteval", "old"), ("mteb", "new")):
        (part,) = sts.load_tasks(tmp_path, ["STS15"], protocol)["STS15"].subsets.values()
        assert part.sentences1 == [wanted]


@pytest.mark.parametrize(
    ("layout", "data", "says"),
    [
        ("year", b"a\tb\rc\td\r", r"STS\.input\.s\.txt:1: a carriage return inside the line"),
        ("year", "caf\u00e9\tb\n".encode("latin-1"), r"STS\.input\.s\.txt:1: not UTF-8"),
        ("year", b"a\tb\nc\td\n", r"STS\.gs\.s\.txt:1: the file ends here; STS\.input\.s\.txt has 2 lines"),
        ("benchmark", b"g\tf\ty\t1\t1_0\ta\tb\n", r"sts-test\.csv:1: gold score '1_0' is not a number"),
        ("jsonl", b'{"sentence1": "a", "sentence2": "b", "score": 1}\nnot\n', r"test\.jsonl:2: not JSON"),
        ("jsonl", b'{"sentence1": "a", "score": 1}\n', r"test\.jsonl:1: a JSON object with sentence1"),
        ("jsonl", b'{"sentence1": "a", "sentence2": null, "score": 1}\n', r"test\.jsonl:1: a sentence is missing"),
        ("jsonl", b'{"sentence1": "a", "sentence2": "b", "score": "5"}\n', r"test\.jsonl:1: gold score '5'"),
        ("jsonl", b'{"sentence1": "a", "sentence2": "b", "score": 1e999}\n', r"test\.jsonl:1: gold score inf"),
        (
            "jsonl",
            b'{"sentence1": "\\ud800", "sentence2": "b", "score": 1}\n',
            r"test\.jsonl:1: a sentence has half of",
        ),
        ("jsonl.gz", b"\x1f\x8bdamaged", r"test\.jsonl\.gz: cannot be read"),
        ("parquet", b"PAR1 damaged PAR1", r"\.parquet: not readable as Parquet"),
    ],
)
def test_a_bad_file_is_one_line_with_name_and_number(tmp_path, layout, data, says):
    task, files = write_layout(tmp_path, layout, [("a", "b", 1.0)])
    files[0].write_bytes(data)
    with pytest.raises(ModelError, match=says) as raised:
        sts.load_tasks(tmp_path, [task], "mteb")
    assert raised.value.code == 3 and "\n" not in str(raised.value)


def test_a_parquet_file_of_other_columns_is_named(tmp_path):
    task, (file,) = write_layout(tmp_path, "parquet", [("a", "b", 1.0)])
    pq.write_table(pa.table({"sentence1": ["a"], "label": [1]}), file)
    with pytest.raises(ModelError, match="no column sentence2, score; it has sentence1, label"):
        sts.load_tasks(tmp_path, [task])
    pq.write_table(pa.table({"sentence1": ["a", None], "sentence2": ["b", "c"], "score": [1.0, 2.0]}), file)
    with pytest.raises(ModelError, match=r"0ab1\.parquet:2: a sentence is missing"):
        sts.load_tasks(tmp_path, [task])
    late = pa.array([2**31 - 1], pa.int32()).cast(pa.date32())  # no date that Python has
    pq.write_table(pa.table({"sentence1": late, "sentence2": ["b"], "score": [1.0]}), file)
    with pytest.raises(ModelError, match=r"0ab1\.parquet: not readable as Parquet"):
        sts.load_tasks(tmp_path, [task])


PIECES = (
    *(b"\t", b"\n", b"\r", b"\r\n", b'"', b"\xff", b"\xe9", b"\xef\xbb\xbf", b"nan", b"-1e999", b"\x00", b" ", b"5"),
    *(b"{", b"}", b",", b"null", b"\t\t", b"\n\n", "\u2028é".encode(), b"\x1f\x8b"),
)


@pytest.mark.parametrize("layout", LAYOUTS[:-1])
def test_damaged_files_are_read_whole_or_told_by_line(tmp_path, layout):
    """200 a layout, 1,000 in all: no traceback, and no pair that is neither read nor counted nor told."""
    draw = np.random.default_rng(LAYOUTS.index(layout))
    pairs = [('a quoted " word', "b", 4.5), ("c", "", None), ("é", "d e", 0.0), ("f", "g", 3.25)]
    task, files = write_layout(tmp_path, layout, pairs)
    whole = {file: gzip.decompress(file.read_bytes()) if layout.endswith("gz") else file.read_bytes() for file in files}
    refused = 0
    for _ in range(200):
        for file, data in whole.items():
            file.write_bytes(gzip.compress(data) if layout.endswith("gz") else data)
        file = files[draw.integers(len(files))]
        data = bytearray(whole[file])
        for _ in range(draw.integers(1, 4)):
            at = int(draw.integers(len(data) + 1))
            data[at : at + int(draw.integers(4))] = PIECES[draw.integers(len(PIECES))]
        data = bytes(data)
        file.write_bytes(gzip.compress(data) if layout.endswith("gz") else data)
        try:
            (read,) = sts.load_tasks(tmp_path, [task])[task].subsets.values()
        except ModelError as error:
            assert re.search(rf"{re.escape(str(tmp_path))}\S*:\d+: ", str(error)) and "\n" not in str(error), str(error)
            refused += 1
            continue
        lines = data.removeprefix(b"\xef\xbb\xbf").removesuffix(b"\n").count(b"\n") + (layout != "sick")
        assert len(read.gold) + read.dropped == lines and np.isfinite(read.gold).all()
    assert 20 < refused < 200


def test_damaged_parquet_is_told_by_file(tmp_path):
    draw = np.random.default_rng(0)
    task, (file,) = write_layout(tmp_path, "parquet", [(f"a {i}", f"b {i}", i / 10) for i in range(40)])
    whole, refused = file.read_bytes(), 0
    for _ in range(100):
        data = bytearray(whole)
        for _ in range(draw.integers(1, 6)):
            data[int(draw.integers(len(data)))] = int(draw.integers(256))
        file.write_bytes(bytes(data[: int(draw.integers(len(data)))] if draw.random() < 0.3 else data))
        try:
            (read,) = sts.load_tasks(tmp_path, [task])[task].subsets.values()
            assert len(read.gold) + read.dropped > 0
        except ModelError as error:
            assert str(file) in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > 20
