"""The recipe of the parser: parts that are done once, in order, and the files that training reads."""

from __future__ import annotations

import pytest

from demo.recipes import stanza_en
from demo.recipes import treebank as tb
from demo.recipes.stanza_en import arguments, do, done, prepare, same_settings
from demo.recipes.world_text import captions, pairs
from demo.sts import plain

TREES = """# text = A dog runs.
1\tA\ta\tDET\tDT\t_\t2\tdet\t_\t_
2\tdog\tdog\tNOUN\tNN\tNumber=Sing\t3\tnsubj\t_\t_
3\truns\trun\tVERB\tVBZ\t_\t0\troot\t_\tSpaceAfter=No
4\t.\t.\tPUNCT\t.\t_\t3\tpunct\t_\t_

"""


@pytest.fixture
def bank(tmp_path):
    folder = tmp_path / "bank"
    folder.mkdir()
    for split in ("train", "dev"):
        (folder / f"en_ewt-ud-{split}.conllu").write_text(TREES)
    return folder


def test_training_files_hold_the_treebank_and_world_captions_but_dev_does_not(bank, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    prepare(bank, work, seed=3, captions=25)
    texts = [s.text for s in tb.read_conllu(work / "train.conllu")]
    assert texts[0] == "A dog runs." and texts[-25:] == [c.text for c in captions(3, "trees", 25)]
    assert [s.text for s in tb.read_conllu(work / "dev.conllu")] == ["A dog runs."]
    assert {w.feats for s in tb.read_conllu(work / "train.tags.conllu") for w in s.words} == {"_"}
    text, labels = ((work / f"train.{kind}").read_text() for kind in ("txt", "labels"))
    assert [len(line) for line in text.splitlines()] == [len(line) for line in labels.splitlines()]


def test_a_part_is_done_once_and_a_stopped_one_again(tmp_path):
    calls = []

    def stopped(work):
        calls.append("stopped")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        do("preparation", stopped, tmp_path)
    assert done(tmp_path) == {}
    for _ in range(2):
        do("preparation", lambda work: calls.append("whole"), tmp_path)
    assert calls == ["stopped", "whole"] and set(done(tmp_path)) == {"preparation"}


def test_a_part_does_not_start_before_those_it_needs(tmp_path):
    with pytest.raises(SystemExit, match="parser-1 needs retagging"):
        do("parser-1", lambda work: None, tmp_path)
    order = list(stanza_en.PARTS)
    assert all(order.index(need) < order.index(name) for name, needs in stanza_en.NEEDS.items() for need in needs)


def test_parts_of_two_settings_are_not_mixed(tmp_path):
    given = ["--treebank", "x", "--work", str(tmp_path)]
    same_settings(tmp_path, arguments(given))
    same_settings(tmp_path, arguments(given))
    with pytest.raises(SystemExit, match=rf"steps_tagger {arguments(given).steps_tagger} there, 50 now"):
        same_settings(tmp_path, arguments([*given, "--steps", "50"]))


def test_text_comes_from_seed_and_stream_alone():
    texts = [c.text for c in captions(1, "train", 40)]
    assert texts == [c.text for c in captions(1, "train", 40)]
    assert texts[:20] == [c.text for c in captions(1, "train", 20)]
    assert texts != [c.text for c in captions(2, "train", 40)] and texts != [c.text for c in captions(1, "dev", 40)]
    assert len({plain(text) for text in texts}) == 40


def test_pairs_repeat_no_sentence_and_are_graded():
    found = pairs(4, "check", 24)
    sentences = [plain(s) for p in found for s in (p.first, p.second)]
    assert len(set(sentences)) == 48 and all(0 <= p.grade <= 5 for p in found) and len({p.genre for p in found}) > 9
