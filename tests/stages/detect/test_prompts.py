"""What is asked of a detector, and which tokens are whose."""

import gzip
import random
import re

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vision import vocabulary

from pipeline.errors import InputError
from stages.detect.backends import Miss
from stages.detect.prompts import questions, safe, write_prompts
from stages.detect.vocabulary import MARKS, read_tokenizer

LIMIT = 256


@pytest.fixture(scope="module")
def tokenizer():
    return read_tokenizer(vocabulary().parent)


def rows(*captions, count=None):
    return [
        {"id": f"c{c}/{p}", "image_id": "i", "caption_id": f"c{c}", "text": text, "count": count}
        for c, texts in enumerate(captions)
        for p, text in enumerate(texts)
    ]


def texts(prompts):
    return [prompt.text for prompt in prompts]


def assert_exact(prompts, tokenizer):
    """Each prompt is what the tokenizer makes of its text, and each span is the phrase's own tokens."""
    for prompt in prompts:
        assert list(prompt.tokens) == tokenizer(prompt.text)["input_ids"]
        assert prompt.text.endswith(".") and len(prompt.tokens) <= LIMIT
        before = 1
        for asked in prompt.asked:
            assert asked.start == before
            assert (
                list(prompt.tokens[asked.start : asked.end])
                == tokenizer(asked.text, add_special_tokens=False)["input_ids"]
            )
            assert prompt.tokens[asked.end] == MARKS["."]
            before = asked.end + 1
        assert before == len(prompt.tokens) - 1
        marks = [token for token in prompt.tokens if token in MARKS.values()]
        assert marks == [MARKS["[CLS]"], *[MARKS["."]] * len(prompt.asked), MARKS["[SEP]"]]


def test_what_shares_a_prompt(tokenizer):
    phrases = rows(["A dog", "two men"], ["the dog", "A  DOG"], ["two men", "a dog"])
    prompts, misses = write_prompts(phrases, "per_image", tokenizer, LIMIT, 3)
    assert texts(prompts) == ["a dog. the dog. two men."] and not misses
    assert [asked.ids for asked in prompts[0].asked] == [("c0/0", "c1/1", "c2/1"), ("c1/0",), ("c0/1", "c2/0")]
    prompts, _ = write_prompts(phrases, "per_caption", tokenizer, LIMIT, 3)
    # The first and the third caption ask the same: once.
    assert texts(prompts) == ["a dog. the dog.", "a dog. two men."]
    assert [asked.ids for asked in prompts[1].asked] == [("c0/0", "c2/1"), ("c0/1", "c2/0")]
    prompts, _ = write_prompts(phrases, "per_phrase", tokenizer, LIMIT, 3)
    assert texts(prompts) == ["a dog.", "the dog.", "two men."]
    assert [len(prompt.asked[0].ids) for prompt in prompts] == [3, 1, 2]


@pytest.mark.parametrize("prompting", ["per_image", "per_caption", "per_phrase"])
def test_the_order_of_phrases_does_not_matter(tokenizer, prompting):
    phrases = rows(["a dog", "two men", "grass"], ["the sky", "a dog"], ["men", "grass", "a hat"])
    first = write_prompts(phrases, prompting, tokenizer, LIMIT, 3)
    for seed in range(5):
        random.Random(seed).shuffle(phrases)
        assert write_prompts(phrases, prompting, tokenizer, LIMIT, 3) == first


def test_a_counted_plural_wants_a_box_more_than_its_count(tokenizer):
    phrases = [*rows(["dogs"], count=4), rows(["dogs"])[0] | {"id": "other"}, rows(["a cat"])[0] | {"id": "cat"}]
    (prompt,), _ = write_prompts(phrases, "per_image", tokenizer, LIMIT, 3)
    assert [(asked.text, asked.most) for asked in prompt.asked] == [("a cat", 3), ("dogs", 5)]


def test_a_prompt_that_is_too_long_is_cut_between_phrases(tokenizer):
    phrases = rows([f"thing number {word}" for word in range(400)])
    prompts, misses = write_prompts(phrases, "per_image", tokenizer, LIMIT, 3)
    assert_exact(prompts, tokenizer)
    assert not misses and len(prompts) >= 5
    assert sorted(name for p in prompts for a in p.asked for name in a.ids) == sorted(row["id"] for row in phrases)
    # No prompt but the last has room for the next phrase.
    for prompt, following in zip(prompts, prompts[1:], strict=False):
        first = following.asked[0]
        assert len(prompt.tokens) + first.end - first.start + 1 > LIMIT


def test_a_phrase_longer_than_a_prompt_is_left_out(tokenizer):
    longest, longer = "x " * (LIMIT - 3), "x " * (LIMIT - 2)
    prompts, misses = write_prompts(rows([longest, longer, "a dog"]), "per_image", tokenizer, LIMIT, 3)
    assert_exact(prompts, tokenizer)
    assert [len(prompt.tokens) for prompt in prompts] == [5, LIMIT]
    assert misses == [("c0/1", Miss("phrase_too_long", "254 tokens, a prompt has room for 253"))]


@pytest.mark.fault("F36")
@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("St. Bernard", "st bernard"),
        ("what?", "what"),
        ("a U.S. flag...", "a u s flag"),
        ("the [SEP] dog", "the dog"),
        ("[cls][SEP]cat", "cat"),
        ("##van", "van"),
        ("a [UNK] [mask] [PAD][unused12] man", "a man"),
        ("two\nmen", "two men"),
    ],
)
def test_nothing_inside_a_phrase_ends_it(tokenizer, text, asked):
    assert safe(text) == asked
    prompts, misses = write_prompts(rows([text, "a hat"]), "per_image", tokenizer, LIMIT, 3)
    assert not misses and [a.text for a in prompts[0].asked] == sorted([asked, "a hat"])
    assert_exact(prompts, tokenizer)


@pytest.mark.fault("F36")
@pytest.mark.parametrize("text", [".", "?!?".replace("!", "?"), "[SEP]", "## ##", "\u0301"])
def test_a_phrase_of_marks_alone_is_left_out(tokenizer, text):
    prompts, misses = write_prompts(rows([text, "a hat"]), "per_image", tokenizer, LIMIT, 3)
    assert texts(prompts) == ["a hat."] and [(name, miss.reason) for name, miss in misses] == [("c0/0", "phrase_empty")]


@pytest.mark.fault("F36", "F37")
@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), min_size=1, max_size=12))
def test_spans_are_exact_for_any_text(tokenizer, given_texts):
    prompts, misses = write_prompts(rows(given_texts), "per_image", tokenizer, LIMIT, 3)
    assert_exact(prompts, tokenizer)
    answered = [name for p in prompts for a in p.asked for name in a.ids] + [name for name, _ in misses]
    assert sorted(answered) == sorted(f"c0/{n}" for n in range(len(given_texts)))


def test_spans_are_exact_for_1000_real_captions(tokenizer, shared):
    """Phrases by a plain rule (every run of words between function words), five captions an image."""
    with gzip.open(shared / "data/multi30k/task1/raw/val.en.gz", "rt", encoding="utf-8") as handle:
        lines = [line.strip() for line in handle][:1000]
    assert len(lines) == 1000
    between = r"(?i)\b(?:in|on|at|with|of|by|is|are|and|to|near|from|while|as|for|over)\b|[,;]"
    captions = [[part.strip() for part in re.split(between, line) if part.strip()] for line in lines]
    asked = 0
    for start in range(0, 1000, 5):
        phrases = rows(*captions[start : start + 5])
        for prompting in ("per_image", "per_caption"):
            prompts, misses = write_prompts(phrases, prompting, tokenizer, LIMIT, 3)
            assert_exact(prompts, tokenizer)
            assert {miss.reason for _, miss in misses} <= {"phrase_empty"}
            asked += sum(len(prompt.asked) for prompt in prompts)
    assert asked > 5000


def test_the_questions_of_a_shard(tokenizer):
    images = pa.table({"id": ["b", "i", "c"]})
    phrases = [*rows(["a dog"], ["..."]), rows(["a cat"])[0] | {"image_id": "c", "id": "d"}]
    asked, misses = questions(images, pa.Table.from_pylist(phrases), "per_image", tokenizer, LIMIT, 3)
    assert {row: texts(prompts) for row, prompts in asked.items()} == {1: ["a dog."], 2: ["a cat."]}
    assert [name for name, _ in misses] == ["c1/0"]


def test_a_vocabulary_that_numbers_the_marks_otherwise_is_refused(tmp_path):
    tokens = vocabulary().read_text(encoding="utf-8").split("\n")[:-1]
    for name, wrong, says in (
        ("moved", tokens[1:], r"\[CLS\] is 100, not 101"),
        ("twice", [*tokens, "dog"], "twice"),
        ("other", ["[PAD]", "a"], r"\[CLS\] is None"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vocab.txt").write_text("\n".join(wrong) + "\n", encoding="utf-8")
        with pytest.raises(InputError, match=says):
            read_tokenizer(tmp_path / name)
    with pytest.raises(InputError, match="no vocab.txt"):
        read_tokenizer(tmp_path)


def test_a_tokenizer_file_will_do_for_a_vocabulary(tokenizer, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes((vocabulary().parent / "tokenizer.json").read_bytes())
    assert read_tokenizer(tmp_path).get_vocab() == tokenizer.get_vocab()
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be read"):
        read_tokenizer(tmp_path)
