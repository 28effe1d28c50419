"""The files of the transfer tasks: every line is a sentence or an error that names it."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import ModelError
from stages.evaluate.transfer import read
from stages.evaluate.transfer.labelled import Labelled, Part
from stages.evaluate.transfer.read import Found, find

# what a line may hold: quotes, odd spaces, controls, but no TAB, no end of line
SENTENCE = st.text(st.characters(blacklist_characters="\t\r\n", blacklist_categories=["Cs"]), max_size=12)
LATIN = st.text(st.characters(max_codepoint=255, blacklist_characters="\r\n"), max_size=12)
ENDS = st.sampled_from(["\n", "\r\n", "\r"])


def words(text: str) -> str:
    return " ".join(text.split())


def one_class(folder, **files) -> Found:
    """A CR whose files hold these bytes."""
    (folder / "CR").mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / "CR" / f"custrev.{name}").write_bytes(data)
    return find(folder, "CR")


@settings(max_examples=60)
@given(rows=st.lists(st.tuples(SENTENCE, st.sampled_from("01")), min_size=1, max_size=6), bom=st.booleans(), end=ENDS)
def test_sst2_gives_every_line_back(tmp_path_factory, rows, bom, end):
    file = tmp_path_factory.mktemp("sst") / "sentiment-train"
    text = "".join(f"{sentence}\t{label}{end}" for sentence, label in rows)
    file.write_bytes((b"\xef\xbb\xbf" if bom else b"") + text.encode())
    part = read.read_sst(file)
    expected = [words(sentence) for sentence, _ in rows]
    expected[0] = words(rows[0][0] if bom else rows[0][0].removeprefix("\ufeff"))
    assert part.texts == (expected,) and part.labels.tolist() == [int(label) for _, label in rows]
    assert part.empty == expected.count("")


@settings(max_examples=60)
@given(rows=st.lists(LATIN, min_size=1, max_size=6), end=ENDS)
def test_latin_1_is_read_as_latin_1_whatever_the_bytes(tmp_path_factory, rows, end):
    data = "".join(row + end for row in rows).encode("latin-1")
    found = one_class(tmp_path_factory.mktemp("cr"), neg=b"bad\n", pos=b"\xef\xbb\xbf" + data)
    part = found.read().parts["all"]
    assert part.texts == (["bad", *map(words, rows)],) and part.labels.tolist() == [0] + [1] * len(rows)


@settings(max_examples=60)
@given(rows=st.lists(st.tuples(SENTENCE, SENTENCE, st.sampled_from("01")), min_size=1, max_size=6), end=ENDS)
def test_mrpc_gives_every_pair_back(tmp_path_factory, rows, end):
    file = tmp_path_factory.mktemp("mrpc") / "msr_paraphrase_train.txt"
    lines = ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", *(f"{y}\t1\t2\t{a}\t{b}" for a, b, y in rows)]
    file.write_bytes(b"\xef\xbb\xbf" + "".join(line + end for line in lines).encode())
    part = read.read_mrpc(file)
    assert part.texts == ([words(a) for a, _, _ in rows], [words(b) for _, b, _ in rows])
    assert part.labels.tolist() == [int(y) for *_, y in rows]


def test_empty_sentences_quotes_and_tabs_stay_where_they_are(tmp_path):
    found = one_class(tmp_path, neg=b"bad\n\n\n", pos=b'"good\tone""\n \xe9t\xe9 \n')
    part = found.read().parts["all"]
    assert part.texts == (["bad", "", "", '"good one""', "\xe9t\xe9"],)
    assert part.labels.tolist() == [0, 0, 0, 1, 1] and part.empty == 2


@pytest.mark.parametrize(
    ("reader", "data", "line", "said"),
    [
        (read.read_sst, b"a\t1\nb\n", 2, "1 TAB-separated columns where 2"),
        (read.read_sst, b"a\t1\nb\t\n", 2, "no label"),
        (read.read_sst, b"a\t1\nb\tc\t0\n", 2, "3 TAB-separated columns where 2"),
        (read.read_sst, b"a\t1\n\nb\t0\n", 2, "1 TAB-separated columns"),
        (read.read_sst, b"a\t1\nb\t2\n", 2, "label '2' is none of 0, 1"),
        (read.read_sst, b"a\t1\nb\t-1\n", 2, "label '-1' is none of 0, 1"),
        (read.read_sst, "a\t1\nb\t\u00b9\n".encode(), 2, "label '\u00b9' is none of"),
        (read.read_sst, b"a\t1\n\xe9\t0\n", 2, "not UTF-8"),
        (read.read_sst, b"", 1, "empty"),
        (read.read_sst, b"\xef\xbb\xbf", 1, "empty"),
        (read.read_trec, b"NUM:dist How far ?\nWhat ?\n", 2, "no `CLASS:detail`"),
        (read.read_trec, b"NUM:dist How far ?\n\n", 2, "no `CLASS:detail`"),
        (read.read_trec, b"NUM:dist How far ?\nTIME:x When ?\n", 2, "'TIME' is none of ABBR"),
        (read.read_mrpc, b"1\t1\t2\ta\tb\n", 1, "header"),
        (read.read_mrpc, b"Quality\tA\tB\tC\tD\n", 1, "no pair"),
        (read.read_mrpc, b"Quality\tA\tB\tC\tD\n1\t1\t2\ta\tb\n\t1\t2\ta\tb\n", 3, "no label"),
        (read.read_mrpc, b"Quality\tA\tB\tC\tD\n1\t1\t2\ta\n", 2, "4 TAB-separated columns where 5"),
    ],
)
def test_what_cannot_be_taken_is_named_by_file_and_line(tmp_path, reader, data, line, said):
    file = tmp_path / "file"
    file.write_bytes(data)
    with pytest.raises(ModelError) as raised:
        reader(file)
    assert str(raised.value).startswith(f"{file}:{line}: ") and said in str(raised.value)


def test_a_trec_question_may_be_empty_and_have_colons(tmp_path):
    file = tmp_path / "TREC_10.label"
    file.write_bytes(b"DESC:def What is : this ?\nENTY:other\n")
    part = read.read_trec(file)
    assert part.texts == (["What is : this ?", ""],) and part.labels.tolist() == [1, 2] and part.empty == 1


SEEDS = {
    "sst": (read.read_sst, "a film\t1\n``quoted''\t0\n\t1\ncaf\u00e9 s\t0\n"),
    "trec": (read.read_trec, "NUM:dist How far ?\nHUM:desc Who ?\nABBR:exp What : is ?\nLOC:x Where\n"),
    "mrpc": (read.read_mrpc, 'Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t1\t2\tA "b\tc\n0\t3\t4\td\te\n'),
    "cr": (None, "good .\n\n``so''\tso\ncaf\u00e9\n"),
}
NOISE = [b"\t", b"\n", b"\r\n", b"\r", b'"', b"\xef\xbb\xbf", b"\xe9", b"\x00", b"\x85", b" ", b"", b"7", b":", b"\xff"]


@pytest.mark.parametrize("kind", SEEDS)
def test_fuzzed_files_are_read_whole_or_refused_in_a_line(tmp_path, kind):
    """250 files of each kind, 1,000 in all: every line becomes a row, or one line of text names the line at fault."""
    reader, text = SEEDS[kind]
    rng = np.random.default_rng(7)
    outcomes = {"read": 0, "refused": 0}
    for n in range(250):
        data = bytearray(text.encode(["utf-8", "latin-1"][n % 2]))
        for _ in range(rng.integers(1, 4)):
            at, width = rng.integers(0, len(data) + 1), rng.integers(0, 3)
            data[at : at + width] = NOISE[rng.integers(len(NOISE))]
        data = data[: rng.integers(0, len(data) + 1)] if n % 5 == 0 else data
        try:
            if reader is None:
                part = one_class(tmp_path, pos=bytes(data), neg=b"bad\n").read().parts["all"]
                rows = len(part.labels) - 1
            else:
                file = tmp_path / "file"
                file.write_bytes(data)
                part = reader(file)
                rows = len(part.labels) + (kind == "mrpc")
        except ModelError as error:
            assert re.match(rf"{re.escape(str(tmp_path))}\S*:\d+: \S", str(error)) and "\n" not in str(error)
            outcomes["refused"] += 1
        else:
            lines = re.split(rb"\r\n|\n|\r", bytes(data).removeprefix(b"\xef\xbb\xbf"))
            assert rows == len(lines) - (lines[-1] == b"")
            assert all(len(column) == len(part.labels) for column in part.texts)
            outcomes["read"] += 1
    assert outcomes["read"] > 10 and outcomes["refused"] > (0 if kind == "cr" else 50)


# ---------------------------------------------------------------- Parquet


def write(file, **columns):
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), file)


def test_parquet_splits_are_put_together_as_the_protocol_wants_them(tmp_path):
    for split, text in (("test", "c"), ("train", "a"), ("validation", "b")):
        write(tmp_path / f"transfer/mr/data/{split}-00000-of-00001.parquet", text=[text, "d"], label=[0, 1])
        write(tmp_path / f"SST-2/{split}.parquet", sentence=[text, "d"], label=[0, 1], idx=[0, 1])
        write(tmp_path / f"mrpc/default/{split}/0000.parquet", text1=[text, "x"], text2=["y", "z"], label=[1, 0])
    part = find(tmp_path, "MR").read().parts["all"]
    assert part.texts == (["a", "d", "b", "d", "c", "d"],) and part.labels.tolist() == [0, 1] * 3
    parts = find(tmp_path, "SST2").read().parts
    assert {name: part.texts[0][0] for name, part in parts.items()} == {"train": "a", "dev": "b", "test": "c"}
    parts = find(tmp_path, "MRPC").read().parts
    assert {name: part.texts[0] for name, part in parts.items()} == {"train": ["a", "x", "b", "x"], "test": ["c", "x"]}
    assert parts["test"].labels.tolist() == [1, 0]


def test_a_parquet_file_of_several_that_is_not_there_is_named(tmp_path):
    for number in (0, 2):
        write(tmp_path / f"MR/train-0000{number}-of-00003-0ab{number}.parquet", text=["a", "b"], label=[0, 1])
    said = f"{tmp_path / 'MR'}: 1 of 3 files are not there: train-00001-of-00003"
    with pytest.raises(ModelError, match=re.escape(said)):
        find(tmp_path, "MR").read()
    write(tmp_path / "MR/train-00001-of-00003.parquet", text=["a", "b"], label=[0, 1])
    assert len(find(tmp_path, "MR").read().parts["all"].labels) == 6


def test_parquet_labels_may_be_text(tmp_path):
    write(tmp_path / "TREC/train.parquet", text=list("abcdef"), **{"label-coarse": list("FEDCBA")})
    write(tmp_path / "TREC/test.parquet", text=["g"], **{"label-coarse": ["B"]})
    task = find(tmp_path, "TREC").read()
    assert task.classes == tuple("ABCDEF") and task.parts["test"].labels.tolist() == [1]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"text": ["a", "b"]}, "needs the columns text or sentence, and label; it has text"),
        ({"text": ["a", "b"], "label": [1, None]}, "row 2: no label (None)"),
        ({"text": ["a", "b"], "label": [1, -1]}, "row 2: no label (-1)"),
        ({"text": ["a", None], "label": [1, 0]}, "row 2: text is NoneType"),
        ({"text": [b"a", b"b"], "label": [1, 0]}, "row 1: text is bytes"),
        ({"text": ["a", "b"], "label": [1.0, 0.0]}, "row 1: label is float"),
        ({"text": ["a", "b", "c"], "label": [0, 1, 2]}, "MR has 2 classes, but 3 labels are here: 0, 1, 2"),
        ({"text": pa.array([], pa.string()), "label": pa.array([], pa.int64())}, "no row"),
    ],
)
def test_parquet_that_cannot_be_taken(tmp_path, columns, said):
    write(tmp_path / "MR/train.parquet", **columns)
    with pytest.raises(ModelError) as raised:
        find(tmp_path, "MR").read()
    assert str(tmp_path / "MR") in str(raised.value) and said in str(raised.value)


def test_fuzzed_parquet_is_refused_in_a_line(tmp_path):
    write(tmp_path / "MR/train.parquet", text=["a", "b", "caf\u00e9"] * 9, label=[0, 1, 1] * 9)
    good = (tmp_path / "MR/train.parquet").read_bytes()
    rng = np.random.default_rng(3)
    refused = 0
    for _ in range(150):
        data = bytearray(good)
        for _ in range(rng.integers(1, 5)):
            data[rng.integers(len(data))] = rng.integers(256)
        (tmp_path / "MR/train.parquet").write_bytes(
            data[: len(data) if rng.random() < 0.7 else rng.integers(len(data))]
        )
        try:
            find(tmp_path, "MR").read()
        except ModelError as error:
            assert str(tmp_path / "MR") in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > 60


# ---------------------------------------------------------------- where things lie


def test_what_is_missing_is_said(tmp_path):
    assert find(tmp_path, "MPQA") == f"{tmp_path} has no MPQA (nor transfer/MPQA) with mpqa.neg, mpqa.pos"
    (tmp_path / "downstream/TREC").mkdir(parents=True)
    (tmp_path / "downstream/TREC/TREC_10.label").write_text("NUM:x a\n")
    assert find(tmp_path, "TREC") == f"{tmp_path / 'downstream/TREC'} has no train_5500.label"


def test_rows_are_ordered_by_words_then_label_then_place():
    part = Part((["b b", "a", "", "c", "d"],), np.array([0, 1, 1, 0, 1])).in_order()
    assert part.texts == (["", "c", "a", "d", "b b"],) and part.labels.tolist() == [1, 0, 1, 1, 0]
    part = Part((["a", "b"], ["x x", "y"]), np.array([0, 1])).in_order()
    assert part.texts == (["b", "a"], ["y", "x x"]) and part.labels.tolist() == [1, 0]


def test_the_real_sets_have_the_published_numbers(shared):
    root = shared / "data"
    tasks: dict[str, Labelled] = {name: find(root, name).read() for name in read.TASKS if name != "MPQA"}
    sizes = {name: {k: len(p.labels) for k, p in task.parts.items()} for name, task in tasks.items()}
    assert sizes == {
        "MR": {"all": 10662},
        "CR": {"all": 3775},
        "SUBJ": {"all": 10000},
        "SST2": {"train": 67349, "dev": 872, "test": 1821},
        "TREC": {"train": 5452, "test": 500},
        "MRPC": {"train": 4076, "test": 1725},
    }
    assert tasks["CR"].parts["all"].empty == 4
    assert np.bincount(tasks["MRPC"].parts["test"].labels).tolist() == [578, 1147]
    assert np.bincount(tasks["TREC"].parts["test"].labels).tolist() == [9, 138, 94, 65, 81, 113]
