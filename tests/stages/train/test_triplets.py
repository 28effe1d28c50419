"""Files of triplets as people have them."""

import pytest
from small import ROOT

from pipeline.errors import InputError
from stages.train.triplets import read_triplets

TWO = [("a man eats", "a person eats", "nobody eats"), ("a dog, black", 'it is "black"', "it is white")]
CSV = 'a man eats,a person eats,nobody eats\n"a dog, black","it is ""black""",it is white\n'
TSV = 'a man eats\ta person eats\tnobody eats\na dog, black\tit is "black"\tit is white\n'


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", CSV),
        ("a.csv", "sent0,sent1,hard_neg\n" + CSV),
        ("a.csv", "\ufeffPremise,Entailment,Contradiction\n" + CSV),
        ("a.tsv", TSV),
        ("a.tsv", "contradiction\tpremise\tentailment\n" + "".join(f"{c}\t{a}\t{b}\n" for a, b, c in TWO)),
        ("a.txt", TSV.replace("\n", "\r\n") + "\n"),
    ],
)
def test_layouts(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    assert read_triplets(tmp_path / name) == (TWO, 0)


def test_an_empty_file_holds_none_and_so_does_the_one_that_ships(tmp_path):
    (tmp_path / "none.tsv").write_text("")
    assert read_triplets(tmp_path / "none.tsv") == ([], 0)
    assert read_triplets(ROOT / "presets/no_triplets.tsv") == ([], 0)


def test_a_few_bad_rows_are_left_out_and_counted(tmp_path):
    rows = [f"one {n}\ttwo {n}\tthree {n}" for n in range(300)]
    (tmp_path / "a.tsv").write_text("\n".join([*rows[:100], "only one", *rows[100:200], "a\t \tc", *rows[200:]]))
    found, bad = read_triplets(tmp_path / "a.tsv")
    assert (len(found), bad) == (300, 2) and found[250] == ("one 250", "two 250", "three 250")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", TSV.encode(), "2 of 2 rows are not three texts .the first in line 1.; .* separated by commas"),
        ("a.tsv", CSV.encode(), "separated by tabs"),
        ("a.tsv", b"one\ttwo\t\xff\xfe\n", "cannot be read as tab-separated UTF-8"),
        ("a.csv", b'"never closed' + b"x" * 200_000, "cannot be read as comma-separated UTF-8"),
    ],
)
def test_what_is_no_such_table_is_refused_in_one_line(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        read_triplets(tmp_path / name)
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"set train\.triplets_path"):
        read_triplets(tmp_path / "none.csv")
