"""Noun phrases from hand-made dependency trees: what each construction gives, span by span."""

from __future__ import annotations

import random

import pytest

from stages.parse.phrases import PhraseOptions, Word, noun_phrases

NOUN, PLURAL, VERB, DET, ADP, ADJ, NUM = "NN", "NNS", "VBG", "DT", "IN", "JJ", "CD"
UPOS = {"NN": "NOUN", "NNS": "NOUN", "NNP": "PROPN", "VBG": "VERB", "VBZ": "VERB", "DT": "DET", "IN": "ADP",
        "JJ": "ADJ", "CD": "NUM", "CC": "CCONJ", "PRP": "PRON", "PRP$": "PRON", "WDT": "PRON", "EX": "PRON",
        "AUX": "AUX", "RB": "ADV", "POS": "PART", ".": "PUNCT", ",": "PUNCT", "HYPH": "PUNCT"}  # fmt: skip


def parsed(caption: str, *rows: tuple, offset: int = 0) -> list[Word]:
    """Rows (text, lemma, xpos, head, deprel); offsets are found by searching the caption from left to right."""
    words, position = [], offset
    for index, (text, lemma, xpos, head, deprel) in enumerate(rows, 1):
        position = caption.index(text, position)
        feats = {"NN": "Number=Sing", "NNS": "Number=Plur"}.get(xpos)
        words.append(Word(index, text, lemma, UPOS[xpos], xpos, feats, head, deprel, position, position + len(text)))
        position += len(text)
    return words


def run(caption: str, *sentences: list[Word], **options):
    kept, dropped = noun_phrases(caption, sentences, PhraseOptions(**options))
    for phrase in [*kept, *(d.phrase for d in dropped)]:
        assert caption[phrase.start : phrase.end] == phrase.text
    return kept, dropped


def texts(phrases) -> list[str]:
    return [p.text for p in phrases]


TWO_DOGS = "Two brown dogs run on the beach."
TWO_DOGS_ROWS = (
    ("Two", "two", NUM, 3, "nummod"), ("brown", "brown", ADJ, 3, "amod"), ("dogs", "dog", PLURAL, 4, "nsubj"),
    ("run", "run", "VBZ", 0, "root"), ("on", "on", ADP, 7, "case"), ("the", "the", DET, 7, "det"),
    ("beach", "beach", NOUN, 4, "obl"), (".", ".", ".", 4, "punct"),
)  # fmt: skip


def test_number_count_and_key():
    dogs, beach = run(TWO_DOGS, parsed(TWO_DOGS, *TWO_DOGS_ROWS))[0]
    assert (dogs.text, dogs.head, dogs.number, dogs.count, dogs.key, dogs.kind) == (
        "Two brown dogs", "dog", "plur", 2, "brown dog", "noun",
    )  # fmt: skip
    assert (beach.text, beach.start, beach.end) == ("the beach", 22, 31)
    assert (beach.number, beach.count, beach.key) == ("sing", None, "beach")


def test_coordinated_heads_are_two_phrases():
    caption = "a man and a woman"
    rows = [("a", "a", DET, 2, "det"), ("man", "man", NOUN, 0, "root"), ("and", "and", "CC", 5, "cc"),
            ("a", "a", DET, 5, "det"), ("woman", "woman", NOUN, 2, "conj")]  # fmt: skip
    for span in ("base", "maximal"):
        assert texts(run(caption, parsed(caption, *rows), span=span)[0]) == ["a man", "a woman"]


def test_bare_coordination_of_plurals():
    caption = "dogs and cats"
    rows = [("dogs", "dog", PLURAL, 0, "root"), ("and", "and", "CC", 3, "cc"), ("cats", "cat", PLURAL, 1, "conj")]
    kept, _ = run(caption, parsed(caption, *rows))
    assert [(p.text, p.key, p.number) for p in kept] == [("dogs", "dog", "plur"), ("cats", "cat", "plur")]


def test_coordinated_adjectives_stay_inside():
    caption = "A black and white dog"
    rows = [("A", "a", DET, 5, "det"), ("black", "black", ADJ, 5, "amod"), ("and", "and", "CC", 4, "cc"),
            ("white", "white", ADJ, 2, "conj"), ("dog", "dog", NOUN, 0, "root")]  # fmt: skip
    (dog,), _ = run(caption, parsed(caption, *rows))
    assert (dog.text, dog.key, dog.count) == (caption, "black and white dog", None)


@pytest.mark.parametrize(
    ("first", "second", "relation", "head"),
    [
        ("hot", "dog", "amod", "hot dog"),
        ("teddy", "bear", "compound", "teddy bear"),
        ("fire", "hydrant", "compound", "hydrant"),
    ],
)
def test_compounds(first, second, relation, head):
    caption = f"a {first} {second}"
    rows = [("a", "a", DET, 3, "det"), (first, first, ADJ if relation == "amod" else NOUN, 3, relation),
            (second, second, NOUN, 0, "root")]  # fmt: skip
    (phrase,), _ = run(caption, parsed(caption, *rows))
    assert (phrase.text, phrase.head, phrase.key) == (caption, head, f"{first} {second}")


def of_phrase(caption: str, det: str, outer: tuple[str, str, str], inner: tuple[str, str, str], of_governor: int = 2):
    rows = [(det, det.lower(), NUM if det == "two" else DET, 2, "nummod" if det == "two" else "det"),
            (*outer, 0, "root"), ("of", "of", ADP, 4, "case"), (*inner, of_governor, "nmod")]  # fmt: skip
    return run(caption, parsed(caption, *rows))


@pytest.mark.parametrize(
    ("det", "outer", "inner", "expected"),
    [
        # (head, number, count, key)
        ("A", ("group", "group", NOUN), ("men", "man", PLURAL), ("man", "plur", None, "man")),
        ("a", ("couple", "couple", NOUN), ("dogs", "dog", PLURAL), ("dog", "plur", 2, "dog")),
        ("two", ("pairs", "pair", PLURAL), ("shoes", "shoe", PLURAL), ("shoe", "plur", None, "shoe")),
        ("a", ("pair", "pair", NOUN), ("shoes", "shoe", PLURAL), ("shoe", "plur", 2, "shoe")),
        ("a", ("pair", "pair", NOUN), ("scissors", "scissors", PLURAL), ("scissors", "sing", None, "scissors")),
        ("a", ("slice", "slice", NOUN), ("pizza", "pizza", NOUN), ("pizza", "sing", None, "pizza")),
        ("two", ("slices", "slice", PLURAL), ("pizza", "pizza", NOUN), ("pizza", "plur", 2, "pizza")),
        ("a", ("herd", "herd", NOUN), ("sheep", "sheep", NOUN), ("sheep", "plur", None, "sheep")),
    ],
)
def test_quantity_and_portion_are_seen_through(det, outer, inner, expected):
    caption = f"{det} {outer[0]} of {inner[0]}"
    (phrase,), dropped = of_phrase(caption, det, outer, inner)
    assert phrase.text == caption
    assert (phrase.head, phrase.number, phrase.count, phrase.key) == expected
    assert dropped == []


def test_count_inside_a_group():
    caption = "a group of four elders"
    rows = [("a", "a", DET, 2, "det"), ("group", "group", NOUN, 0, "root"), ("of", "of", ADP, 5, "case"),
            ("four", "four", NUM, 5, "nummod"), ("elders", "elder", PLURAL, 2, "nmod")]  # fmt: skip
    (elders,), _ = run(caption, parsed(caption, *rows))
    assert (elders.text, elders.count, elders.key) == (caption, 4, "elder")


def test_mass_noun_after_a_quantity_stays_singular():
    (luggage,), _ = of_phrase("a lot of luggage", "a", ("lot", "lot", NOUN), ("luggage", "luggage", NOUN))
    assert (luggage.head, luggage.number, luggage.count) == ("luggage", "sing", None)


@pytest.mark.parametrize(
    ("caption", "tags", "expected"),
    [
        ("A giraffe stands by trees", ("DT", "NN", "NNS"), ["A giraffe", "trees"]),
        ("three men rest by trees", ("CD", "NNS", "NN"), ["three men", "trees"]),
        ("a girl snowboarding by trees", ("DT", "NN", "NN"), ["a girl", "trees"]),
        ("a jar full of juice", ("DT", "NN", "JJ"), ["a jar", "juice"]),
        ("the tennis players by trees", ("DT", "NN", "NNS"), ["the tennis players", "trees"]),
        ("a brick building by trees", ("DT", "NN", "NN"), ["a brick building", "trees"]),
        ("three sports cars by trees", ("CD", "NNS", "NNS"), ["three sports cars", "trees"]),
    ],
)
@pytest.mark.parametrize("det_head", [2, 3])
def test_verb_taken_for_a_noun(caption, tags, expected, det_head):
    det, noun, verb, by, trees = caption.split()
    rows = [(det, det, tags[0], det_head, "nummod" if tags[0] == "CD" else "det"), (noun, noun, tags[1], 3, "compound"),
            (verb, verb, tags[2], 0, "root"), (by, by, ADP, 5, "case"), (trees, trees, PLURAL, 3, "nmod")]  # fmt: skip
    kept, _ = run(caption, parsed(caption, *rows))
    assert texts(kept) == expected
    assert kept[0].number == ("plur" if noun in ("men", "tennis", "sports") else "sing")


def test_verb_with_its_object_taken_for_a_compound():
    caption = "a table eating food"
    rows = [("a", "a", DET, 4, "det"), ("table", "table", NOUN, 4, "compound"), ("eating", "eat", VERB, 4, "amod"),
            ("food", "food", NOUN, 0, "root")]  # fmt: skip
    kept, _ = run(caption, parsed(caption, *rows))
    assert [(p.text, p.head) for p in kept] == [("a table", "table"), ("food", "food")]
    kept, _ = run(caption, parsed(caption, *rows), span="maximal")
    assert texts(kept) == ["a table eating food", "food"]


def test_verb_after_a_quantity():
    caption = "a variety of signs point"
    rows = [("a", "a", DET, 2, "det"), ("variety", "variety", NOUN, 0, "root"), ("of", "of", ADP, 5, "case"),
            ("signs", "sign", PLURAL, 5, "compound"), ("point", "point", NOUN, 2, "nmod")]  # fmt: skip
    kept, _ = run(caption, parsed(caption, *rows))
    assert [(p.text, p.head, p.number) for p in kept] == [("a variety of signs", "sign", "plur")]


@pytest.mark.parametrize(("object_", "expected"), [("kites", ["A beach", "kites"]), ("area", ["A beach eating area"])])
def test_participle_between_nouns(object_, expected):
    verb = "flying" if object_ == "kites" else "eating"
    caption = f"A beach {verb} {object_}"
    rows = [("A", "a", DET, 4, "det"), ("beach", "beach", NOUN, 4, "compound"), (verb, verb, VERB, 4, "amod"),
            (object_, object_.rstrip("s"), PLURAL if object_ == "kites" else NOUN, 0, "root")]  # fmt: skip
    assert texts(run(caption, parsed(caption, *rows))[0]) == expected


def test_participle_after_another_noun_is_left_out():
    caption = "on the beach flying kites"
    rows = [("on", "on", ADP, 3, "case"), ("the", "the", DET, 3, "det"), ("beach", "beach", NOUN, 0, "root"),
            ("flying", "fly", VERB, 5, "amod"), ("kites", "kite", PLURAL, 3, "obj")]  # fmt: skip
    kept, _ = run(caption, parsed(caption, *rows))
    assert [(p.text, p.key) for p in kept] == [("the beach", "beach"), ("kites", "kite")]
    assert texts(run("flying kites", parsed("flying kites", *[(*r[:3], h, d) for r, h, d in
                 zip(rows[3:], (2, 0), ("amod", "root"), strict=True)]))[0]) == ["flying kites"]  # fmt: skip


def test_each_other_is_a_pronoun_and_men_are_men():
    caption = "Men facing each other"
    rows = [("Men", "Men", "NNP", 0, "root"), ("facing", "face", VERB, 1, "acl"), ("each", "each", DET, 4, "det"),
            ("other", "other", ADJ, 2, "obj")]  # fmt: skip
    kept, dropped = run(caption, parsed(caption, *rows))
    assert [(p.text, p.head, p.number, p.key) for p in kept] == [("Men", "man", "plur", "man")]
    assert [(d.phrase.text, d.reason) for d in dropped] == [("each other", "pronoun")]


def test_quantity_of_quantity():
    caption = "a lot of groups of people"
    rows = [("a", "a", DET, 2, "det"), ("lot", "lot", NOUN, 0, "root"), ("of", "of", ADP, 4, "case"),
            ("groups", "group", PLURAL, 2, "nmod"), ("of", "of", ADP, 6, "case"),
            ("people", "people", PLURAL, 4, "nmod")]  # fmt: skip
    (people,), _ = run(caption, parsed(caption, *rows))
    assert (people.text, people.head, people.number, people.key) == (caption, "people", "plur", "people")


def test_part_of_a_body_is_no_portion():
    caption = "the head of a giraffe"
    rows = [("the", "the", DET, 2, "det"), ("head", "head", NOUN, 0, "root"), ("of", "of", ADP, 5, "case"),
            ("a", "a", DET, 5, "det"), ("giraffe", "giraffe", NOUN, 2, "nmod")]  # fmt: skip
    assert texts(run(caption, parsed(caption, *rows))[0]) == ["the head", "a giraffe"]


def test_quantity_wrongly_attached_to_the_verb():
    caption = "a group of men"
    rows = [("a", "a", DET, 2, "det"), ("group", "group", NOUN, 0, "root"), ("of", "of", ADP, 4, "case"),
            ("men", "man", PLURAL, 0, "obl")]  # fmt: skip
    assert texts(run(caption, parsed(caption, *rows))[0]) == [caption]


def test_container_and_content_are_two_things():
    caption = "a cup of coffee"
    kept, _ = of_phrase(caption, "a", ("cup", "cup", NOUN), ("coffee", "coffee", NOUN))
    assert texts(kept) == ["a cup", "coffee"]


def test_numeral_of():
    caption = "One of the dogs sleeps"
    rows = [("One", "one", NUM, 5, "nsubj"), ("of", "of", ADP, 4, "case"), ("the", "the", DET, 4, "det"),
            ("dogs", "dog", PLURAL, 1, "nmod"), ("sleeps", "sleep", "VBZ", 0, "root")]  # fmt: skip
    (dog,), _ = run(caption, parsed(caption, *rows))
    assert (dog.text, dog.head, dog.number, dog.count) == ("One of the dogs", "dog", "sing", 1)


def test_owner_has_a_phrase_inside():
    caption = "the man's old hat"
    rows = [("the", "the", DET, 2, "det"), ("man", "man", NOUN, 5, "nmod:poss"), ("'s", "'s", "POS", 2, "case"),
            ("old", "old", ADJ, 5, "amod"), ("hat", "hat", NOUN, 0, "root")]  # fmt: skip
    kept, _ = run(caption, parsed(caption, *rows))
    assert [(p.text, p.key) for p in kept] == [("the man's old hat", "old hat"), ("the man", "man")]


HIS_BOARD = "He holds his surf board."
HIS_BOARD_ROWS = (
    ("He", "he", "PRP", 2, "nsubj"), ("holds", "hold", "VBZ", 0, "root"), ("his", "his", "PRP$", 5, "nmod:poss"),
    ("surf", "surf", NOUN, 5, "compound"), ("board", "board", NOUN, 2, "obj"), (".", ".", ".", 2, "punct"),
)  # fmt: skip


def test_pronouns_are_dropped_with_a_reason_or_kept():
    words = parsed(HIS_BOARD, *HIS_BOARD_ROWS)
    kept, dropped = run(HIS_BOARD, words)
    assert [(p.text, p.key) for p in kept] == [("his surf board", "surf board")]
    assert [(d.phrase.text, d.reason) for d in dropped] == [("He", "pronoun")]
    kept, dropped = run(HIS_BOARD, words, drop_pronouns=False)
    assert [(p.text, p.kind) for p in kept] == [("He", "pronoun"), ("his surf board", "noun")]
    assert dropped == []


def test_abstract_heads_are_dropped_and_the_thing_stays():
    caption = "in front of a tall building"
    rows = [("in", "in", ADP, 2, "case"), ("front", "front", NOUN, 0, "root"), ("of", "of", ADP, 6, "case"),
            ("a", "a", DET, 6, "det"), ("tall", "tall", ADJ, 6, "amod"),
            ("building", "building", NOUN, 2, "nmod")]  # fmt: skip
    kept, dropped = run(caption, parsed(caption, *rows), drop_heads=["front"])
    assert texts(kept) == ["a tall building"]
    assert [(d.phrase.text, d.reason) for d in dropped] == [("front", "abstract_head")]
    assert len(run(caption, parsed(caption, *rows))[0]) == 2


def test_too_long():
    kept, dropped = run(TWO_DOGS, parsed(TWO_DOGS, *TWO_DOGS_ROWS), max_words=2)
    assert texts(kept) == ["the beach"]
    assert [(d.phrase.text, d.reason) for d in dropped] == [("Two brown dogs", "too_long")]


RIDER = "A man in a red shirt riding a horse, who is smiling."
RIDER_ROWS = (
    ("A", "a", DET, 2, "det"), ("man", "man", NOUN, 0, "root"), ("in", "in", ADP, 6, "case"), ("a", "a", DET, 6, "det"),
    ("red", "red", ADJ, 6, "amod"), ("shirt", "shirt", NOUN, 2, "nmod"), ("riding", "ride", VERB, 2, "acl"),
    ("a", "a", DET, 9, "det"), ("horse", "horse", NOUN, 7, "obj"), (",", ",", ",", 13, "punct"),
    ("who", "who", "WDT", 13, "nsubj"), ("is", "be", "AUX", 13, "aux"), ("smiling", "smile", VERB, 2, "acl:relcl"),
    (".", ".", ".", 2, "punct"),
)  # fmt: skip


def test_base_and_maximal_spans():
    words = parsed(RIDER, *RIDER_ROWS)
    assert texts(run(RIDER, words)[0]) == ["A man", "a red shirt", "a horse"]
    kept, _ = run(RIDER, words, span="maximal")
    assert texts(kept) == ["A man in a red shirt riding a horse", "a red shirt", "a horse"]
    assert kept[0].key == "man in a red shirt riding a horse"
    assert kept[0].head == "man"


def test_predicate_noun_leaves_subject_and_copula_out():
    caption = "This is a very large dog"
    rows = [("This", "this", DET, 6, "nsubj"), ("is", "be", "AUX", 6, "cop"), ("a", "a", DET, 6, "det"),
            ("very", "very", "RB", 5, "advmod"), ("large", "large", ADJ, 6, "amod"),
            ("dog", "dog", NOUN, 0, "root")]  # fmt: skip
    for span in ("base", "maximal"):
        kept, dropped = run(caption, parsed(caption, *rows), span=span)
        assert [(p.text, p.key) for p in kept] == [("a very large dog", "very large dog")]
        assert [d.reason for d in dropped] == ["pronoun"]


def test_relative_and_expletive_pronouns_are_no_phrases():
    caption = "There is a dog that barks"
    rows = [("There", "there", "EX", 2, "expl"), ("is", "be", "VBZ", 0, "root"), ("a", "a", DET, 4, "det"),
            ("dog", "dog", NOUN, 2, "nsubj"), ("that", "that", "WDT", 6, "nsubj"),
            ("barks", "bark", "VBZ", 4, "acl:relcl")]  # fmt: skip
    kept, dropped = run(caption, parsed(caption, *rows), drop_pronouns=False)
    assert texts(kept) == ["a dog"]
    assert dropped == []


def test_hyphenated_head_keeps_its_hyphen_in_the_key():
    caption = "his blue t-shirts"
    rows = [("his", "his", "PRP$", 5, "nmod:poss"), ("blue", "blue", ADJ, 5, "amod"), ("t", "t", NOUN, 5, "compound"),
            ("-", "-", "HYPH", 3, "punct"), ("shirts", "shirt", PLURAL, 0, "root")]  # fmt: skip
    (shirt,), _ = run(caption, parsed(caption, *rows))
    assert (shirt.text, shirt.key, shirt.number) == (caption, "blue t-shirt", "plur")


def test_name_is_one_phrase_and_its_own_head():
    caption = "a bridge in San Francisco"
    rows = [("a", "a", DET, 2, "det"), ("bridge", "bridge", NOUN, 0, "root"), ("in", "in", ADP, 4, "case"),
            ("San", "San", "NNP", 2, "nmod"), ("Francisco", "Francisco", "NNP", 4, "flat")]  # fmt: skip
    kept, _ = run(caption, parsed(caption, *rows))
    assert [(p.text, p.head, p.kind) for p in kept] == [
        ("a bridge", "bridge", "noun"), ("San Francisco", "san francisco", "name"),
    ]  # fmt: skip


def test_age_is_not_a_count():
    caption = "a 5 year old boy"
    rows = [("a", "a", DET, 5, "det"), ("5", "5", NUM, 3, "nummod"), ("year", "year", NOUN, 4, "obl:unmarked"),
            ("old", "old", ADJ, 5, "amod"), ("boy", "boy", NOUN, 0, "root")]  # fmt: skip
    kept, _ = run(caption, parsed(caption, *rows))
    assert [(p.text, p.count, p.number) for p in kept] == [(caption, None, "sing")]


def test_uncertain_number_is_not_counted():
    caption = "two or three dogs"
    rows = [("two", "two", NUM, 4, "nummod"), ("or", "or", "CC", 3, "cc"), ("three", "three", NUM, 1, "conj"),
            ("dogs", "dog", PLURAL, 0, "root")]  # fmt: skip
    (dogs,), _ = run(caption, parsed(caption, *rows))
    assert (dogs.count, dogs.number, dogs.key) == (None, "plur", "dog")


def test_same_words_twice_are_two_spans_and_sentences_do_not_mix():
    caption = "A dog. A dog."
    first = parsed(caption, ("A", "a", DET, 2, "det"), ("dog", "dog", NOUN, 0, "root"), (".", ".", ".", 2, "punct"))
    second = parsed(
        caption, ("A", "a", DET, 2, "det"), ("dog", "dog", NOUN, 0, "root"), (".", ".", ".", 2, "punct"), offset=6
    )
    kept, _ = run(caption, first, second)
    assert [(p.start, p.end, p.text) for p in kept] == [(0, 5, "A dog"), (7, 12, "A dog")]


def test_nothing_in_nothing_out():
    assert noun_phrases("", [], PhraseOptions()) == ([], [])
    assert noun_phrases(" ", [[]], PhraseOptions()) == ([], [])


@pytest.mark.parametrize("seed", range(40))
def test_any_tree_gives_honest_spans(seed):
    """Random trees, cycles and self-loops included: spans slice back, stay apart or nest, and repeat never."""
    draw = random.Random(seed)
    size = draw.randint(1, 14)
    tags = ["NN", "NNS", "NNP", "DT", "JJ", "CD", "IN", "PRP", "VBG", "CC", ".", "POS"]
    relations = [
        "det",
        "amod",
        "compound",
        "nummod",
        "nmod",
        "nmod:poss",
        "conj",
        "cc",
        "case",
        "acl",
        "obl",
        "flat",
        "punct",
    ]
    words = [draw.choice(["of", "group", "dogs", "two", "a", "ß", "pair", "n\u00e9"]) for _ in range(size)]
    caption = " ".join(words)
    rows = [(w, w, draw.choice(tags), draw.randint(0, size), draw.choice(relations)) for w in words]
    for span in ("base", "maximal"):
        kept, dropped = run(caption, parsed(caption, *rows), span=span, max_words=6)
        spans = [(p.start, p.end) for p in [*kept, *(d.phrase for d in dropped)]]
        assert len(set(spans)) == len(spans)
        assert all(0 <= start < end <= len(caption) for start, end in spans)
