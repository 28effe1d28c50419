"""The leak check: planted leaks are found, exact and near, and nothing else; the near search is exact."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import tables
from pipeline.errors import InputError
from pipeline.files import sha256_file
from pipeline.shards import Sidecar, shard_name, sidecar_path, write_table
from stages.report.leaks import ImageMatch, TextMatch, check, read_sets
from stages.report.near_text import FEWEST_WORDS, Texts, plain

HASH = 0x0F1E2D3C4B5A6978
TRAINING = [
    ("train/a", "train", ["A brown dog runs across the wide green field.", "Two cats"]),
    ("train/b", "train", ["Une fille, très «étonnée», saute !", "<script>alert(1)</script> & more"]),
]
JUDGED = [
    ("dev/a", "dev", ["a brown dog runs across the  wide green field"]),
    ("dev/b", "dev", ["A brown dog runs across the wide green lawn."]),
    ("test/a", "test", ["a red kite in a blue sky over the sea", "two cats"]),
]


def write(folder, name, rows, number=0):
    table = tables.build(name, rows)
    path = folder / "ingest" / name / f"{shard_name(number)}.parquet"
    write_table(path, name, table)
    return {name: {"sha256": sha256_file(path), "rows": table.num_rows}}


def dataset(folder, entries, sentences=(), hashes=None, files=None):
    """data/<dataset> with these (image id, split, captions), one shard each."""
    hashes, files = hashes or {}, files or {}
    for number, (image, split, captions) in enumerate(entries):
        own = {"id": image, "sha256": files.get(image, f"sha of {image}"), "bytes": b"", "width": 1, "height": 1}
        own |= {"uri": image, "split": split, "rewritten": "", "phash": hashes.get(image, 0)}
        rows = [
            {"id": f"{image}#{n}", "image_id": image, "text": text, "split": split} for n, text in enumerate(captions)
        ]
        texts = [{"id": str(n), "text": text} for n, text in enumerate(sentences)] if number == 0 else []
        wrote = write(folder, "images", [own], number) | write(folder, "captions", rows, number)
        wrote |= write(folder, "sentences", texts, number)
        path = sidecar_path(folder / "ingest" / "images", number)
        Sidecar(number, "ingest", 1, wrote, {}, {}, None, {}, {}).write(path)
    return folder


def sts(folder, pairs, golds=None):
    year = folder / "STS14-en-test"
    year.mkdir(parents=True)
    (year / "STS.input.images.txt").write_text("".join(f"{a}\t{b}\n" for a, b in pairs), encoding="utf-8")
    golds = golds or ["3.0"] * len(pairs)
    (year / "STS.gs.images.txt").write_text("".join(f"{gold}\n" for gold in golds))
    (year / "STS.input.ALL.txt").write_text("two cats\ttwo cats\n")
    return folder


def counts(leaks):
    return {leak.name: (leak.sentences, leak.exact, leak.near) for leak in leaks}


def test_planted_texts_are_found_and_others_are_not(tmp_path):
    pairs = [("UNE FILLE TRÈS étonnée saute", "a man eats"), ("the sea was calm and very blue", "two cats")]
    sets = sts(tmp_path / "sts", [*pairs, ("two cats", "unscored")], ["1.0", "2.0", ""])
    data = dataset(tmp_path / "d", TRAINING + JUDGED, sentences=["the sea was calm and so very blue"])
    leaks = check(data, sets, 0.8, None)
    assert leaks.training_texts == 5 and leaks.missing == ""
    assert counts(leaks.texts) == {"STS14": (4, 2, 1), "captions dev": (2, 1, 1), "captions test": (2, 1, 0)}
    near, *exact = leaks.texts[0].examples
    assert near == TextMatch("the sea was calm and so very blue", "the sea was calm and very blue", 7 / 8)
    assert TextMatch("Une fille, très «étonnée», saute !", "UNE FILLE TRÈS étonnée saute", 1.0) in exact
    assert counts(check(data, sets, None, None).texts)["STS14"] == (4, 2, None)
    assert check(data, sets, 0.8, None) == leaks


def test_exact_is_blind_to_case_width_punctuation_and_blanks_only():
    assert plain("A  Dog’s ball, (red)!") == "a dog s ball red" == plain("a dog 's ball red .")
    assert plain("ﬁne café １２") == "fine café 12" == plain("fine cafe\u0301 12")
    assert plain("नमस्ते, दुनिया।") == "नमस्ते दुनिया" and plain("🐕 runs") == "🐕 runs"
    assert plain(" .,!? ") == "" and plain("a dog") != plain("a dogs")


def test_images_leak_by_file_and_by_looks(tmp_path):
    entries = [(f"t{n}", "train", []) for n in range(3)] + [("d1", "dev", []), ("d2", "dev", []), ("e1", "test", [])]
    hashes = {"t0": HASH, "t1": HASH ^ 0b11, "t2": ~HASH & (2**64 - 1), "d1": HASH ^ 0b1011, "d2": 0, "e1": 7}
    data = dataset(tmp_path / "d", entries, hashes=hashes, files={"t2": "same", "e1": "same"})
    leaks = check(data, tmp_path, None, 4)
    assert leaks.training_images == 3
    assert [(leak.name, leak.images, leak.exact, leak.near) for leak in leaks.images] == [
        ("dev", 2, 0, 1),
        ("test", 1, 1, 0),
    ]
    assert leaks.images[0].examples == [ImageMatch("t1", "d1", 1, False)]
    assert leaks.images[1].examples == [ImageMatch("t2", "e1", 0, True)]
    off = check(data, tmp_path, None, None).images
    assert [(leak.exact, leak.near) for leak in off] == [(0, None), (1, None)]


def test_nothing_to_compare_is_said_and_empty_sides_leak_nothing(tmp_path):
    data = dataset(tmp_path / "d", [("t", "train", [])])
    leaks = check(data, tmp_path / "nowhere", 0.8, 4)
    assert leaks.missing == f"{tmp_path / 'nowhere'}: no STS task here, so only captions are compared"
    assert counts(leaks.texts) == {"captions dev": (0, 0, 0), "captions test": (0, 0, 0)}
    assert [(leak.images, leak.exact, leak.near, leak.examples) for leak in leaks.images] == [(0, 0, 0, [])] * 2


def test_tasks_that_are_there_in_another_layout_are_named(tmp_path):
    data, sets = dataset(tmp_path / "d", [("t", "train", [])]), tmp_path / "sets"
    for name in ("mteb/sts14-sts/data/test.parquet", "datasets--mteb--sickr-sts/snapshots/a/test.jsonl.gz"):
        (sets / name).parent.mkdir(parents=True)
        (sets / name).touch()
    (sets / "sts15-sts").mkdir()  # nothing in it to score
    said = "were not looked for: the sentences are not at hand as files in SentEval’s layout"
    assert check(data, sets, None, None).missing == (
        f"{sets}: leaks into STS14, SICK-R {said}; only captions are compared"
    )
    sts(sets, [("a", "b")])
    assert check(data, sets, None, None).missing == f"{sets}: leaks into SICK-R {said}"


def test_protocol_mteb_is_judged_on_all_of_sick(tmp_path):
    (tmp_path / "SICK").mkdir()
    header = "pair_ID\tsentence_A\tsentence_B\trelatedness_score\n"
    for name in ("train", "trial", "test_annotated"):
        (tmp_path / f"SICK/SICK_{name}.txt").write_text(f"{header}1\t{name} a\t{name} b\t3\n")
    assert read_sets(tmp_path)["SICK-R"] == ["test_annotated a", "test_annotated b"]
    assert len(read_sets(tmp_path, "mteb")["SICK-R"]) == 6
    data = dataset(tmp_path / "d", [("t", "train", ["Train a", "Test annotated b"])])
    assert [counts(check(data, tmp_path, None, None, own).texts)["SICK-R"] for own in ("senteval", "mteb")] == [
        (2, 1, None),
        (6, 2, None),
    ]


def test_a_damaged_set_ends_in_one_line(tmp_path):
    sets = sts(tmp_path, [("a", "b")])
    (sets / "STS14-en-test/STS.input.images.txt").write_text("no tab here\n")
    with pytest.raises(InputError, match="line 1: 1 TAB-separated columns, 2 are needed"):
        read_sets(sets)
    (sets / "STS14-en-test/STS.input.images.txt").write_bytes(b"\xff\tb\n")
    with pytest.raises(InputError, match="line 1: not UTF-8"):
        read_sets(sets)


def test_the_page_shows_leaks_as_text(tmp_path):
    from jinja2 import Environment, FileSystemLoader

    from stages.report import page

    data = dataset(tmp_path / "d", [*TRAINING, ("dev/a", "dev", [TRAINING[1][2][1]])])
    environment = Environment(loader=FileSystemLoader(page.TEMPLATES), autoescape=True)
    environment.filters.update(count=page.count, fixed=page.fixed, share=page.share)
    for distance in (4, None):
        leaks = check(data, tmp_path, None, distance)
        text = environment.get_template("leaks.html.jinja").render(leaks=leaks)
        assert "&lt;script&gt;alert(1)" in text and "<script" not in text and "no STS task here" in text


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcdefghij"), max_size=14), max_size=12),
    st.lists(st.lists(st.sampled_from("abcdefghijxyz"), max_size=14), max_size=12),
    st.sampled_from((0.3, 0.5, 0.6, 2 / 3, 0.75, 0.8, 0.9, 1.0)),
)
def test_the_near_search_finds_what_comparing_all_finds(rows, others, jaccard):
    texts = sorted({" ".join(row) for row in rows} - {""})
    index = Texts(texts, jaccard)
    for other in map(" ".join, others):
        one = set(other.split())
        expected = {}
        for row, text in enumerate(texts):
            two = set(text.split())
            if min(len(one), len(two)) >= FEWEST_WORDS and len(one & two) / len(one | two) >= jaccard:
                expected[row] = len(one & two) / len(one | two)
        assert dict(index.near(other)) == expected
        assert index.equal(other) == (texts.index(other) if other in texts else None)


def test_the_sets_are_those_that_are_scored(shared):
    from model.sts import load_tasks

    names = {"STS-B dev": "STS-B-dev"}
    found = read_sets(shared / "data/sts")
    for name, texts in found.items():
        (task,) = load_tasks(shared / "data/sts", [names.get(name, name)]).values()
        scored = [s for subset in task.subsets.values() for s in (*subset.sentences1, *subset.sentences2)]
        assert sorted(texts) == sorted(scored), name
