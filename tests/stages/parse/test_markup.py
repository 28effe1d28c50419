"""parse: marked captions and the shipped parser give spans that slice back."""

import json

import pytest
from small import ROOT, in_process, run_stage, write_params

from pipeline.errors import InputError
from pipeline.shards import read_all
from stages.common.markup import unmark
from stages.parse.markup import MarkupParser, singular

LINE = "[/EN#1/people Two brown dogs] and [/EN#0/notvisual it] near [/EN#2/other a group of men] ."


def test_markup_is_taken_off_and_spans_slice_back():
    text, spans = unmark(LINE)
    assert text == "Two brown dogs and it near a group of men ."
    assert [text[mark.start : mark.end] for mark in spans] == ["Two brown dogs", "it", "a group of men"]
    assert [mark.chain for mark in spans] == ["1", "0", "2"]
    assert [mark.types for mark in spans] == [("people",), ("notvisual",), ("other",)]
    with pytest.raises(ValueError, match="not closed"):
        unmark("[/EN#1/people Two dogs")


def test_head_number_count_and_key(tmp_path):
    (tmp_path / "marked.txt").write_text(LINE + "\n")
    ((kept, dropped),) = MarkupParser(tmp_path / "marked.txt", [], 8).parse([unmark(LINE)[0]])
    dogs, men = kept
    assert (dogs.head, dogs.number, dogs.count, dogs.key) == ("dog", "plur", 2, "brown dog")
    assert (men.head, men.number, men.count) == ("man", "plur", None)
    assert [item.reason for item in dropped] == ["not_visual"]


@pytest.mark.parametrize(
    ("word", "lemma"),
    [("dogs", "dog"), ("women", "woman"), ("glass", "glass"), ("boxes", "box"), ("puppies", "puppy"), ("bus", "bus")],
)
def test_singular(word, lemma):
    assert singular(word)[0] == lemma


def test_a_broken_file_is_named_with_its_line(tmp_path):
    (tmp_path / "marked.txt").write_text("fine\n[/EN#1/people open\n")
    with pytest.raises(InputError, match="line 2"):
        MarkupParser(tmp_path / "marked.txt", [], 8)


def test_the_ledger_counts_captions_and_phrases(small):
    in_process("ingest", small)
    write_params(small / "params.yaml", small / "collection", parse__drop_heads=["ball"])
    in_process("parse", small)
    ledger = json.loads((small / "metrics/small/parse.json").read_text())["ledger"]
    assert ledger["caption"]["in"] == 48 and ledger["phrase"]["in"] == 96
    assert ledger["phrase"]["out"] + ledger["phrase"]["dropped"]["abstract_head"] == 96


def test_the_shipped_parser_reads_odd_captions_and_spans_slice_back(small):
    odd = [
        "",
        "Two dogs run. A man watches them!",
        "A \U0001f600 dog\u200d and a caf\u00e9 \u05d0\u05d1",
        "###",
        "DON'T feed the birds",
    ]
    document = json.loads((small / "collection/captions.json").read_text())
    document["annotations"] += [{"id": 90000 + i, "image_id": 1, "caption": text} for i, text in enumerate(odd)]
    (small / "collection/captions.json").write_text(json.dumps(document))
    write_params(
        small / "params.yaml",
        small / "collection",
        parse__backend="stanza",
        parse__path=str(ROOT / "demo/checkpoints/stanza_en"),
        ingest__max_reject_rate=1.0,
    )
    in_process("ingest", small)
    in_process("parse", small)
    captions = {row["id"]: row["text"] for row in read_all(small / "data/small/ingest/captions").to_pylist()}
    phrases = read_all(small / "data/small/parse/phrases").to_pylist()
    for row in phrases:
        assert captions[row["caption_id"]][row["start"] : row["end"]] == row["text"]
    texts = {row["text"] for row in phrases if row["caption_id"] == "1#90001"}
    assert {"Two dogs", "A man"} <= texts
    heads = {row["head"] for row in phrases}
    assert {"ball", "box", "kite", "cup"} <= heads


def test_missing_or_swapped_parser_weights_are_refused(small):
    in_process("ingest", small)
    write_params(small / "params.yaml", small / "collection", parse__backend="stanza", parse__path=str(small / "empty"))
    (small / "empty").mkdir()
    result = run_stage("parse", small)
    assert result.returncode == 3 and "no Stanza models here" in result.stderr and "Traceback" not in result.stderr
    import shutil

    shutil.copytree(ROOT / "demo/checkpoints/stanza_en", small / "swapped")
    shutil.copyfile(small / "swapped/lemma.pt", small / "swapped/pos.pt")
    write_params(
        small / "params.yaml", small / "collection", parse__backend="stanza", parse__path=str(small / "swapped")
    )
    result = run_stage("parse", small)
    assert result.returncode == 3 and "sha256 differs" in result.stderr
