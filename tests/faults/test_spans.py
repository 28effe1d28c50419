"""Any caption at all: what ingest cleans, parse marks and align pairs slices back to its phrase."""

import random
import unicodedata

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from small import ROOT

from pipeline import tables
from pipeline.runner import Task
from stages.common.markup import unmark
from stages.common.text import clean
from stages.parse import markup, stage
from stages.parse.phrases import PhraseOptions, Word, noun_phrases

# The same examples every time, kept nowhere: a test that fails fails again.
settings.register_profile(
    "faults", derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
MANY = settings(settings.get_profile("faults"), max_examples=400)

NASTY = (
    "\U0001f600",
    "\U0001f469\u200d\U0001f467",
    "\U0001f1e9\U0001f1ea",
    "\U0001f44d\U0001f3fd",
    "e\u0301",
    "a\u0308\u0323",
    "\u0301",
    "\u05d0\u05b7",
    "\u0639\u0631\u0628",
    "\u202e",
    "\u200f",
    "\u200b",
    "\ufeff",
    "\0",
    "\u0007",
    "\x85",
    "\u2028",
    "\u2029",
    "\u00a0",
    "\u3000",
    "\u00ad",
    ".",
    "?",
    "!",
    "##",
    "[SEP]",
    "[CLS]",
    "[/EN#",
    "]",
    "[",
    "'",
    '"',
    "n't",
    "'s",
    "-",
    "\u2019",
    "...",
    "<script>",
    "&amp;",
    "\ufdfa",
    "\u1100\u1161",
    "\u0958",
    "\U0001d504",
    "\ufffd",
    "\uffff",
    "\U0010ffff",
    "\u212b",
    "dogs",
    "a",
    "the",
    "dog",
    "two",
    "of",
    "group",
    "red",
    "cannot",
    "gonna",
    "St.",
    "U.S.",
    "5,000",
    "3.5",
    "it's",
    "\r\n",
    "\t",
    " ",
    "  ",
)
pieces = st.lists(st.one_of(st.sampled_from(NASTY), st.text(max_size=4)), min_size=1, max_size=12)
captions = st.builds(lambda parts, gap: gap.join(parts), pieces, st.sampled_from((" ", "", "\u00a0")))


@pytest.mark.fault("F37", "F40")
@MANY
@given(captions)
def test_cleaned_text_is_stable_and_can_be_stored(text):
    made = clean(text)
    assert clean(made) == made and made == made.strip()
    assert not any(unicodedata.category(c) in ("Cc", "Cs") for c in made)
    assert unicodedata.is_normalized("NFC", made)
    assert made.encode("utf-8").decode("utf-8") == made
    (row,) = tables.build("sentences", [{"id": "s", "text": made}]).to_pylist()
    assert row["text"] == made


@pytest.mark.fault("F36", "F37")
@MANY
@given(st.lists(st.tuples(captions, captions), min_size=1, max_size=4))
@example([("a", "[SEP] dog"), ("]", "[")])
@example([("e", "\u0301dog"), ("x", "\u0323")])
def test_marked_phrases_slice_back(parts):
    """What the marks say, in any words: spans slice back, or the caption has none."""
    line = " ".join(f"{before} [/EN#{i}/other {phrase}]" for i, (before, phrase) in enumerate(parts))
    try:
        plain, spans = unmark(clean(line))
    except ValueError as error:
        assert "is not closed" in str(error)
        return
    assert all(0 <= mark.start <= mark.end <= len(plain) for mark in spans)
    if spans:
        assert clean(plain) == plain
    for mark in spans:
        phrase = markup.describe(plain, mark.start, mark.end, mark.types[-1])
        assert plain[phrase.start : phrase.end] == phrase.text


@pytest.mark.fault("F36", "F37")
@MANY
@given(st.lists(st.sampled_from([n for n in NASTY if "[" not in n and "]" not in n]), min_size=1, max_size=6))
def test_marked_phrases_are_found_whatever_their_words(words):
    phrase = clean(" ".join(words))
    wanted = clean(f"here {phrase} there")
    plain, spans = unmark(clean(f"here [/EN#1/other {phrase}] there"))
    if plain == wanted and phrase and clean(plain) == plain:
        (mark,) = spans
        assert plain[mark.start : mark.end] == phrase


RELATIONS = ("det", "amod", "compound", "nummod", "nmod", "nmod:poss", "conj", "cc", "case", "acl", "obl", "flat",
             "punct", "nsubj", "obj", "root")  # fmt: skip
WORDS = st.tuples(
    st.one_of(st.sampled_from([w for w in NASTY if w.strip()]), st.text(min_size=1, max_size=5)),
    st.sampled_from(["NN", "NNS", "NNP", "DT", "JJ", "CD", "IN", "PRP", "VBG", "CC", ".", "POS", "SYM"]),
    st.integers(0, 14),
    st.sampled_from(RELATIONS),
    st.sampled_from(["", " ", " ", " ", "\u200b", "\u00a0"]),
)
UPOS = {"NN": "NOUN", "NNS": "NOUN", "NNP": "PROPN", "DT": "DET", "JJ": "ADJ", "CD": "NUM", "IN": "ADP", "PRP": "PRON",
        "VBG": "VERB", "CC": "CCONJ", ".": "PUNCT", "POS": "PART", "SYM": "SYM"}  # fmt: skip


@pytest.mark.fault("F36", "F37", "F39")
@MANY
@given(st.lists(WORDS, min_size=1, max_size=14), st.sampled_from(["base", "maximal"]))
def test_any_parse_of_any_words_gives_honest_spans(rows, span):
    """Words of any characters under any tree, as a parser may return them."""
    caption, words = "", []
    for number, (text, tag, head, relation, gap) in enumerate(rows, 1):
        start = len(caption)
        caption += text
        words.append(Word(number, text, text.lower(), UPOS[tag], tag, None, head, relation, start, len(caption)))
        caption += gap
    kept, dropped = noun_phrases(caption, [words], PhraseOptions(span=span, max_words=6))
    found = [*kept, *(item.phrase for item in dropped)]
    for phrase in found:
        assert 0 <= phrase.start < phrase.end <= len(caption)
        assert caption[phrase.start : phrase.end] == phrase.text
    assert len({(p.start, p.end) for p in found}) == len(found)


def drawn(count: int) -> list[str]:
    """Captions of English with the nasty things in between, as cleaned as ingest leaves them."""
    draw = random.Random(7)
    sentence = "a red dog chases two cats of the old man's group on the grass near a white house"
    english = sentence.split()
    made = []
    while len(made) < count:
        words = draw.sample(english, draw.randint(2, 8)) + draw.choices(NASTY, k=draw.randint(1, 5))
        draw.shuffle(words)
        text = clean(draw.choice((" ", " ", " ", "")).join(words))
        if text:
            made.append(text)
    return made


class Section:
    """The parameters of the stage parse that the parser reads."""

    span, drop_pronouns, drop_heads, max_words = "base", True, (), 8
    path = str(ROOT / "demo/checkpoints/stanza_en")


@pytest.mark.fault("F36", "F37")
def test_the_shipped_parser_over_400_such_captions():
    """The real parser through the real stage: every caption is accounted for, every phrase slices back to its own."""
    from stages.parse.stanza_parser import StanzaParser

    texts = [
        *drawn(400),
        ".",
        "?",
        "\u2028",
        "\u2029\u2029",
        "\u200b",
        "\ufeff",
        "\u3000a\u3000",
        "[SEP]",
        "##",
        "\u0301",
        "a\u2028\u2028dog",
    ]
    rows = [{"id": f"c{i}", "image_id": "i", "text": text, "split": "train"} for i, text in enumerate(texts)]
    table = tables.build("captions", rows)
    output = stage.process(StanzaParser(Section, "cpu", 1, 32), Task(0, {}, {}), {"captions": table})
    text_of = {row["id"]: row["text"] for row in rows}
    for row in output.tables["phrases"]:
        assert text_of[row["caption_id"]][row["start"] : row["end"]] == row["text"]
    through = {row["caption_id"] for row in output.tables["phrases"]}
    lost = {drop.id for drop in output.drops if drop.unit == "caption"}
    assert through | lost == set(text_of) and not through & lost
    assert len(through) > 200


@pytest.mark.fault("F37")
def test_the_shipped_parser_gives_every_caption_its_own_words():
    """Captions are parsed together; a sign in one must not shift the words of the next."""
    from stages.parse.stanza_parser import StanzaParser

    texts = drawn(120)
    for caption, words in zip(texts, StanzaParser(Section, "cpu", 1, 32)._trees(texts), strict=True):
        spans = [(word.start_char, word.end_char) for word in words]
        for word, (start, end) in zip(words, spans, strict=True):
            assert 0 <= start < end <= len(caption)
            # The parts of a contraction share the span of the whole.
            said = "".join(caption[start:end].split())
            assert said == "".join(word.text.split()) or spans.count((start, end)) > 1, (caption, word)
        covered = {index for start, end in spans for index in range(start, end)}
        assert all(c.isspace() or i in covered for i, c in enumerate(caption)), caption
