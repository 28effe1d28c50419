"""The notation of templates, the trees it gives, and how these compare with UD English EWT."""

from collections import Counter
from functools import cache
from itertools import pairwise

import pytest

from demo import trees
from demo.captions import Caption, caption_for, realise
from demo.lexicon import TAGS
from demo.plans import Bond, Knobs, Mention, Plan
from demo.recipes.noun_phrases import EVERYTHING, f1
from demo.recipes.treebank import read_conllu
from demo.scenes import rng_for, sample_scene
from demo.templates import PLACES, RELATIONS, SENTENCES
from demo.trees import Item, Node, Part, TemplateError, Token, assemble, parse, spelled, tokens, word
from stages.parse.phrases import Word, noun_phrases

BEAR, CAT, CATS, CAR = Mention("bear"), Mention("cat"), Mention("cat", 2), Mention("car", colour="red")
KITE = Mention("kite", zone="any")


@cache
def captions() -> tuple[Caption, ...]:
    """Of many scenes, with many inventions, so that every template has its turn."""
    knobs = Knobs(caption_noise=0.2)
    return tuple(caption_for(8, sample_scene(8, i), i, knobs=knobs) for i in range(600))


# --- the notation ----------------------------------------------------------------------------------------------------


def test_an_item_says_word_relation_head_and_bracket():
    assert parse("to:case>left/NOUN [the:det>left/NOUN left/NOUN:top] *:nmod>left/NOUN") == (
        Item("to", False, "case", "left/NOUN", False, False),
        Item("the", False, "det", "left/NOUN", True, False),
        Item("left/NOUN", False, "top", None, False, True),
        Item("*", True, "nmod", "left/NOUN", False, False),
    )
    assert parse("{r B}:acl:relcl>A {A}:root")[0] == Item("r B", True, "acl:relcl", "A", False, False)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{A}:root sideways:advmod>A", "no tag"),
        ("{A}:root {r B}:near>A", "unknown relation"),
        ("{A}:root {r B}:mod>C", "there 0 times"),
        ("{A}:root and:cc>B and:cc>and {B}:conj>A", "there 2 times"),
        ("{A}:root {B}:conj", "must have a head"),
        ("{A}:root>A", "must have a head"),
        ("{A}:root {B}:root", "one root"),
        ("{A}:nsubj>B {B}:conj>A", "one root"),
        ("[a:det>picture picture:root", "every bracket"),
        ("[a:det>picture [picture:root]", "brackets within"),
        ("{A} :root", "cannot read"),
        ("picture", "cannot read"),
    ],
)
def test_a_mistake_in_a_template_is_named(line, complaint):
    with pytest.raises(TemplateError, match=complaint):
        parse(line)


def stub(item: Item) -> Part:
    """Some words for a slot: a noun, a verb, or a preposition and a noun."""
    name, *complement = item.name.split()
    if name == "hold" or name.endswith((".v", ".ing")):
        node = word("holding")
    elif name.endswith((".is", ".has")):
        node = word(name.split(".")[1])
    else:
        node = Node("cat", TAGS["picture"])
    if complement:
        on = word("on", "case", node)
        return Part([on, node], node, labels={complement[0]: node})
    return Part([node], node)


def assert_tree(tree: tuple[Token, ...]) -> None:
    """One root, everything below it, no crossing branches."""
    heads = {t.id: t.head for t in tree}
    assert [t.id for t in tree] == list(range(1, len(tree) + 1)) and list(heads.values()).count(0) == 1
    for token in tree:
        seen, at = set(), token.id
        while at:
            assert at not in seen, "a cycle"
            seen.add(at)
            at = heads[at]
        assert (token.head == 0) == (token.deprel == "root") and token.deprel in trees.RELATIONS
        low, high = sorted((token.id, token.head))
        for between in range(low + 1, high) if token.head else ():
            assert low <= heads[between] <= high, f"{token.form} crosses {tree[between - 1].form}"


@pytest.mark.parametrize("line", SENTENCES, ids=lambda line: " ".join(item.name for item in line))
def test_every_sentence_is_a_tree(line):
    part = assemble(line, stub, lambda text: text)
    assert_tree(tokens(part))
    for text, first, last in part.marks:
        assert spelled(part.nodes[part.nodes.index(first) : part.nodes.index(last) + 1]) == text


def test_every_relation_and_place_is_a_tree():
    lines = [line for ways in RELATIONS.values() for pair in ways for line in pair]
    lines += [line for ways in PLACES.values() for places in ways.values() for line in places]
    for line in lines:
        assert_tree(tokens(assemble(line, stub, lambda text: text)))


# --- what comes out --------------------------------------------------------------------------------------------------


def bonded(name: str, a: Mention, b: Mention) -> Plan:
    return Plan((a, b), (Bond(name, 0, 1),))


# sentence, and its words' relations with the heads' numbers, as UD English EWT has such sentences
KNOWN = [
    (Plan((CATS,)), "two cats can be seen", "nummod>2 nsubj:pass>5 aux>5 aux:pass>5 root>0"),
    (Plan((CATS,)), "a pair of cats", "det>2 root>0 case>4 nmod>2"),
    (Plan((CAT,)), "there is a cat", "expl>2 root>0 det>4 nsubj>2"),
    (Plan((CAR,), place="snow"), "a red car is parked in the snow",
     "det>3 amod>3 nsubj:pass>5 aux:pass>5 root>0 case>8 det>8 obl>5"),
    (Plan((CAR,), place="room"), "a red car parked inside a room", "det>3 amod>3 root>0 acl>3 case>7 det>7 obl>4"),
    (Plan((KITE,), place="room"), "a kite indoors", "det>2 root>0 advmod>2"),
    (bonded("left of", CAT, CAR), "a cat to the left of a red car",
     "det>2 root>0 case>5 det>5 nmod>2 case>9 det>9 amod>9 nmod>5"),
    (bonded("left of", CAT, CAR), "a cat is left of a red car",
     "det>2 nsubj>4 cop>4 root>0 case>8 det>8 amod>8 obl>4"),
    (bonded("next to", CAT, CAR), "a cat sits next to a red car",
     "det>2 nsubj>3 root>0 advmod>3 case>8 det>8 amod>8 obl>4"),
    (bonded("next to", CAT, CAR), "a cat next to a red car", "det>2 root>0 case>7 case>7 det>7 amod>7 nmod>2"),
    (bonded("on", CAT, CAR), "a cat that is on a red car",
     "det>2 root>0 nsubj>8 cop>8 case>8 det>8 amod>8 acl:relcl>2"),
    (bonded("on", CAT, CAR), "a red car with a cat on it", "det>3 amod>3 root>0 mark>8 det>6 nsubj>8 case>8 acl>3"),
    (bonded("on", CAT, CAR), "on a red car is a cat", "case>4 det>4 amod>4 root>0 cop>4 det>7 nsubj>4"),
    (bonded("holding", BEAR, KITE), "a bear is holding a kite", "det>2 nsubj>4 aux>4 root>0 det>6 obj>4"),
    (bonded("holding", BEAR, KITE), "a bear holds a kite", "det>2 nsubj>3 root>0 det>5 obj>3"),
    (bonded("holding", BEAR, KITE), "a kite is held by a bear",
     "det>2 nsubj:pass>4 aux:pass>4 root>0 case>7 det>7 obl:agent>4"),
    (bonded("holding", BEAR, KITE), "a bear carrying a kite", "det>2 root>0 acl>2 det>5 obj>3"),
    (Plan((CAT, CAR)), "there is a cat as well as a red car",
     "expl>2 root>0 det>4 nsubj>2 cc>10 fixed>5 fixed>5 det>10 amod>10 conj>4"),
    (Plan((CAT, CAR)), "both a cat and a red car can be seen",
     "cc:preconj>3 det>3 nsubj:pass>10 cc>7 det>7 amod>7 conj>3 aux>10 aux:pass>10 root>0"),
]  # fmt: skip


@pytest.mark.parametrize(("plan", "text", "expected"), KNOWN, ids=[text for _, text, _ in KNOWN])
def test_trees_a_person_can_check(plan, text, expected):
    lots = (realise(plan, rng_for(0, i), Knobs(synonymy=0)) for i in range(4000))
    found = next(c for c in lots if c.text.lower() == text)
    assert " ".join(f"{t.deprel}>{t.head}" for t in found.tree) == expected


def test_every_caption_is_a_tree_over_its_own_text():
    for caption in captions():
        assert_tree(caption.tree)
        assert all(caption.text[t.start : t.end] == t.form for t in caption.tree)
        gaps = [caption.text[a.end : b.start] for a, b in pairwise(caption.tree)]
        assert set(gaps) <= {"", " "} and caption.tree[-1].end == len(caption.text)


def test_a_gold_phrase_is_a_piece_of_its_tree():
    """Its words stand together, and all of them but one have their heads among them."""
    for caption in captions():
        for phrase in caption.phrases:
            inside = [t for t in caption.tree if phrase.start <= t.start and t.end <= phrase.end]
            assert (inside[0].start, inside[-1].end) == (phrase.start, phrase.end)
            ids = {t.id for t in inside}
            tops = [t for t in inside if t.head not in ids]
            assert len(tops) == 1, (caption.text, phrase.text)
            if phrase.role in ("object", "invention") and " of " not in phrase.text:
                assert tops[0].lemma == phrase.head and (tops[0].xpos == "NNS") == (phrase.number == "plur")


def test_the_phrases_of_the_trees_are_the_gold_phrases():
    found, gold = [], []
    for caption in captions():
        words = [Word(*t[:6], t.head, t.deprel, t.start, t.end) for t in caption.tree]
        kept, _ = noun_phrases(caption.text, [words], EVERYTHING)
        found.append({(p.start, p.end) for p in kept})
        gold.append({(p.start, p.end) for p in caption.phrases})
    assert f1(found, gold)["f1"] > 99.5


def test_conllu_comes_back_from_a_reader_as_it_went():
    CoNLL = pytest.importorskip("stanza.utils.conll").CoNLL
    block = "".join(trees.conllu(caption, i) for i, caption in enumerate(captions()[:100]))
    document = CoNLL.conll2doc(input_str=block)
    for i, (caption, sentence) in enumerate(zip(captions(), document.sentences, strict=False)):
        assert sentence.text == caption.text and sentence.sent_id == str(i)
        read = [(w.id, w.text, w.lemma, w.upos, w.xpos, w.feats or "_", w.head, w.deprel) for w in sentence.words]
        assert read == [t[:8] for t in caption.tree]
    assert len(document.sentences) == 100


# --- beside the treebank ---------------------------------------------------------------------------------------------

CLOSED = {"ADP", "AUX", "CCONJ", "DET", "NUM", "PART", "PRON", "PUNCT", "SCONJ"}


def test_words_and_relations_are_those_of_the_treebank(shared):
    rows: Counter[tuple[str, ...]] = Counter()
    relations: Counter[tuple[str, str]] = Counter()
    for part in sorted((shared / "data" / "ud_ewt").glob("*.conllu*")):
        for sentence in read_conllu(part):
            rows.update((w.form.lower(), w.lemma.lower(), w.upos, w.xpos) for w in sentence.words)
            relations.update((w.upos, w.deprel) for w in sentence.words)
    if not rows:
        pytest.skip(f"no treebank in {shared / 'data' / 'ud_ewt'}")
    for caption in captions():
        for t in caption.tree:
            assert relations[t.upos, t.deprel], f"{t.upos} is never {t.deprel} there: {caption.text}"
            if t.upos in CLOSED and t.form.lower() != "underneath":  # an adverb in its two places there
                assert rows[t.form.lower(), t.lemma, t.upos, t.xpos], f"{t[:5]} in {caption.text}"
