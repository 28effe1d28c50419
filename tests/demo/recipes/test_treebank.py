"""Treebank reading and the caption-like copies that the parser recipe trains on."""

from __future__ import annotations

import gzip

import pytest

from demo.recipes import treebank as tb
from demo.recipes import world_text

CONLLU = """# newpar id = p1
# text = Don't pet the big dog of Ann.
1-2\tDon't\t_\t_\t_\t_\t_\t_\t_\t_
1\tDo\tdo\tAUX\tVB\t_\t3\taux\t_\t_
2\tn't\tnot\tPART\tRB\t_\t3\tadvmod\t_\t_
3\tpet\tpet\tVERB\tVB\t_\t0\troot\t_\t_
4\tthe\tthe\tDET\tDT\t_\t6\tdet\t_\t_
5\tbig\tbig\tADJ\tJJ\t_\t6\tamod\t_\t_
6\tdog\tdog\tNOUN\tNN\tNumber=Sing\t3\tobj\t_\t_
6.1\tghost\t_\t_\t_\t_\t_\t_\t_\t_
7\tof\tof\tADP\tIN\t_\t8\tcase\t_\t_
8\tAnn\tAnn\tPROPN\tNNP\t_\t6\tnmod\t_\tSpaceAfter=No
9\t.\t.\tPUNCT\t.\t_\t3\tpunct\t_\t_

# text = It bites.
1\tIt\tit\tPRON\tPRP\t_\t2\tnsubj\t_\t_
2\tbites\tbite\tVERB\tVBZ\t_\t0\troot\t_\tSpaceAfter=No
3\t.\t.\tPUNCT\t.\t_\t2\tpunct\t_\t_
"""


@pytest.fixture(params=["plain", "gzip"])
def sentences(request, tmp_path):
    path = tmp_path / ("t.conllu" if request.param == "plain" else "t.conllu.gz")
    path.write_bytes(CONLLU.encode() if request.param == "plain" else gzip.compress(CONLLU.encode()))
    return tb.read_conllu(path)


def test_contractions_are_split_and_empty_nodes_left_out(sentences):
    assert [w.form for w in sentences[0].words[:3]] == ["Do", "n't", "pet"]
    assert sentences[0].text == "Don't pet the big dog of Ann."
    assert [s.new_paragraph for s in sentences] == [True, False]


def test_written_and_read_again_is_the_same(sentences, tmp_path):
    tb.write_conllu(tmp_path / "copy.conllu", sentences)
    again = tb.read_conllu(tmp_path / "copy.conllu")
    assert [s.words for s in again] == [s.words for s in sentences]
    tb.write_conllu(tmp_path / "bare.conllu", sentences, features=False)
    assert {w.feats for s in tb.read_conllu(tmp_path / "bare.conllu") for w in s.words} == {"_"}


def test_noun_phrase_becomes_a_sentence(sentences):
    (phrase,) = tb.noun_phrases(sentences[0])
    assert phrase.text == "the big dog of Ann"
    assert [(w.head, w.deprel) for w in phrase.words] == [
        (3, "det"), (3, "amod"), (0, "root"), (5, "case"), (3, "nmod"),
    ]  # fmt: skip
    stopped = tb.with_full_stop(phrase)
    assert stopped.text == "the big dog of Ann."
    assert stopped.words[-1].head == 3


def test_final_punctuation_goes_only_where_nothing_hangs_on_it(sentences):
    assert tb.without_final_punctuation(sentences[1]).text == "It bites"
    bare = tb.without_final_punctuation(sentences[1])
    assert tb.without_final_punctuation(bare) == bare


def test_copies_are_trees_in_their_own_paragraph(sentences):
    copies = tb.caption_like(sentences * 40, share=0.5, phrase_share=0.5, seed=3)
    assert {"it bites", "it bites.", "the big dog of ann", "The big dog of Ann."} <= {c.text for c in copies}
    for copy in copies:
        assert copy.new_paragraph
        assert [w.head for w in copy.words].count(0) == 1
        assert all(0 <= w.head <= len(copy.words) for w in copy.words)
    assert copies == tb.caption_like(sentences * 40, share=0.5, phrase_share=0.5, seed=3)


def test_tokenizer_labels_mark_every_word_end(sentences, tmp_path):
    text, labels = tmp_path / "t.txt", tmp_path / "t.labels"
    tb.write_tokenizer_files(text, labels, sentences)
    assert text.read_text() == "Don't pet the big dog of Ann. It bites.\n\n"
    pieces, start = [], 0
    for index, label in enumerate(labels.read_text().rstrip("\n")):
        if label in "12":
            pieces.append(text.read_text()[start : index + 1].strip() + ("|" if label == "2" else ""))
            start = index + 1
    assert pieces == ["Do", "n't", "pet", "the", "big", "dog", "of", "Ann", ".|", "It", "bites", ".|"]


def test_distinct_words_come_once(sentences):
    words = [w for s in tb.distinct_words(sentences + sentences, per_sentence=4) for w in s.words]
    assert len(words) == len({(w.form, w.upos, w.lemma) for w in words}) == 10


def test_a_caption_s_tree_reads_back_as_its_text(tmp_path):
    captions = world_text.captions(5, "trees", 60)
    made = [tb.of_caption(caption) for caption in captions]
    assert [s.text for s in made] == [c.text for c in captions]
    assert all([w.head for w in s.words].count(0) == 1 and s.new_paragraph for s in made)
    tb.write_conllu(tmp_path / "w.conllu", made)
    assert [s.words for s in tb.read_conllu(tmp_path / "w.conllu")] == [s.words for s in made]
