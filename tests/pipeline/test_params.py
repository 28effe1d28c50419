"""params.yaml: strict, every mistake at once, one writer that keeps comments."""

from pathlib import Path

import pytest
from small import ROOT

from pipeline import params
from pipeline.errors import InputError, ParamsError
from pipeline.mistakes import keys


@pytest.fixture
def file(tmp_path: Path) -> Path:
    copy = tmp_path / "params.yaml"
    copy.write_text((ROOT / "params.yaml").read_text())
    return copy


def test_the_committed_file_is_valid(file):
    assert params.load(file).dataset == "demo"


@pytest.mark.fault("F56")
def test_every_mistake_is_told_at_once_with_its_path(file):
    text = file.read_text().replace("top_k: 3", "top_q: 3").replace("min_score: 0.3", "min_score: 1.7")
    text = text.replace("backend: stanza", "backend: spacy").replace("shards: 8", "shards: eight")
    file.write_text(text)
    with pytest.raises(ParamsError) as caught:
        params.load(file)
    message = str(caught.value)
    assert message.splitlines()[0].endswith("4 mistakes")
    assert "detect.top_q: unknown parameter; did you mean detect.top_k?" in message
    assert "align.min_score: must be less than or equal to 1 (is 1.7)" in message
    assert "parse.backend: must be 'stanza' or 'markup' (is 'spacy')" in message
    assert "ingest.shards: must be a valid integer (is 'eight')" in message
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [1", "line 1"),
        ("- 1\n- 2\n", "must be a mapping"),
        ("dataset: demo\n", "ingest: missing"),
        ("dataset: ../evil\n", "dataset: "),
    ],
)
def test_broken_files_name_the_place(file, text, says):
    file.write_text(text)
    with pytest.raises(ParamsError, match=says):
        params.load(file)


def test_a_missing_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="no such parameter file"):
        params.load(tmp_path / "none.yaml")


def test_shares_of_the_splits_must_add_up(file):
    file.write_text(file.read_text().replace("train: 0.8", "train: 0.9"))
    with pytest.raises(ParamsError, match=r"ingest\.splits: the shares train \+ dev \+ test must add up to 1"):
        params.load(file)


def test_update_keeps_comments_and_order_and_changes_one_line(file):
    before = file.read_text().splitlines()
    params.update(file, {"align.min_score": 0.5})
    after = file.read_text().splitlines()
    changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert changed == [("  min_score: 0.3", "  min_score: 0.5")]


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("ingest.splits", {"train": 0.5, "dev": 0.5, "test": 0.0}, None),
        ("parse.drop_heads", ["top"], None),
        ("align.min_similarity", 0.25, "  min_similarity: 0.25"),
        ("train.temperature", None, "  temperature: null # null: the recipe's own"),
        ("evaluate.note", "a: b # c", "  note: 'a: b # c'"),
        ("dataset", "other", "dataset: other # artifacts go to data/demo/"),
        ("ingest.deduplicate", False, "  deduplicate: false"),
    ],
)
def test_update_writes_any_value_and_reads_it_back(file, key, value, line):
    first = params.update(file, {key: value, "runtime.workers": 3})
    assert params.load(file) == first and first.runtime.workers == 3
    assert line is None or line in file.read_text().splitlines()
    assert "# the text-only stream" in file.read_text(), "comments stay"


def test_update_refuses_what_is_unknown_or_wrong_and_leaves_the_file(file):
    before = file.read_text()
    for changes in ({"align.min_scor": 0.5}, {"align.min_score": "high"}, {"nothing": 1}):
        with pytest.raises(ParamsError):
            params.update(file, changes)
        assert file.read_text() == before


def test_replace_refuses_an_edited_file_and_keeps_a_backup(file):
    original = file.read_text()
    new = original.replace("min_score: 0.3", "min_score: 0.4")
    with pytest.raises(ParamsError, match="--force"):
        params.replace(file, new, force=False)
    backup = params.replace(file, new, force=True)
    assert backup.read_text() == original
    assert params.load(file).align.min_score == 0.4
    again = params.replace(file, original, force=True)
    assert again != backup and again.read_text() == new


def test_overrides_are_read_as_yaml():
    assert params.parse_overrides(["a.b=3", "c=null", "d=[1, 2]", "e=x=y"]) == {
        "a.b": 3,
        "c": None,
        "d": [1, 2],
        "e": "x=y",
    }
    with pytest.raises(ParamsError):
        params.parse_overrides(["a.b"])


@pytest.mark.fault("F57")
def test_no_parameter_is_named_as_dvc_ignores():
    """DVC's run cache leaves keys named `size` and `nfiles` out of its hash, at any depth: results would go stale."""
    names = {part for key in keys(params.Params) for part in key.split(".")}
    assert not names & {"size", "nfiles"}
