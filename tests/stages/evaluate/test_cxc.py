"""Crisscrossed Captions: both layouts, the bootstrap, and what has no caption or feature."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from tiny_collection import caption, encoder, feature, write_collection, write_model

from model.errors import ModelError
from model.grounding import load_grounding
from model.sts import cosines
from stages.evaluate.cxc import bootstrap, coco_images, run, tasks
from stages.evaluate.cxc_files import KINDS, captions_file, files, read_captions, read_ratings
from stages.evaluate.embedder import Embedder
from stages.evaluate.place import Place

PUBLISHED = {
    "sts": "caption1,caption2,agg_score,sampling_method\n"
    "COCO_val2014:sentid:11,COCO_val2014:sentid:12,1.24,c2c_isim\nCOCO_val2014:sentid:11,COCO_val2014:sentid:13,4,x\n",
    "sits": "caption,image,agg_score,sampling_method\nCOCO_val2014:sentid:11,COCO_val2014_000000000139.jpg,1.8,c2i\n",
    "sis": "image1,image2,agg_score,sampling_method\n"
    "COCO_val2014_000000000139.jpg,COCO_val2014_000000432818.jpg,0.5,i2i_csim\n",
}
JOINED = {
    "sts": "score\tsentid1\tsentid2\timage1\timage2\tmethod\tcaption1\tcaption2\n"
    "1.24\t11\t12\t1\t2\tc2c_isim\ta  dog\ttwo cats\n4\t11\t13\t1\t2\tx\ta dog\ta 'hat\"\n",
    "sits": "score\tsentid\timage\tphoto_here\tmethod\tcaption\n1.8\t11\t139\t0\tc2i\ta dog\n",
    "sis": "score\timage1\timage2\tboth_photos_here\tmethod\n0.5\t139\t432818\t0\ti2i_csim\n",
}
TEXTS = {11: "a dog", 12: "two cats", 13: "a 'hat\""}


def none():
    raise AssertionError("the file has texts of its own")


@pytest.mark.parametrize("kind", KINDS)
def test_both_layouts_say_the_same(tmp_path, kind):
    (tmp_path / "p.csv").write_text(PUBLISHED[kind])
    (tmp_path / "j.tsv").write_bytes(b"\xef\xbb\xbf" + JOINED[kind].replace("\n", "\r\n").encode())
    one = read_ratings(tmp_path / "p.csv", kind, "val", lambda: TEXTS)
    two = read_ratings(tmp_path / "j.tsv", kind, "val", none)
    assert (one.first, one.second, one.gold.tolist()) == (two.first, two.second, two.gold.tolist())
    assert kind == "sis" or {i: one.texts[i] for i in two.texts} == two.texts
    if kind == "sts":
        assert (one.first, one.second, one.gold.tolist()) == ([11, 11], [12, 13], [1.24, 4.0]) and two.texts == TEXTS


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", ":1: no column sentid1 or caption1; the header has nothing"),
        ("score\tsentid1\n", ":1: no column sentid2 or caption2"),
        ("sentid1\tsentid2\n1\t2\n", ":1: no column agg_score or score"),
        ("score\tsentid1\tsentid2\n", ": no rated pair"),
        ("score\tsentid1\tsentid2\n1\t2\t3\n1\t2\n", ":3: 2 columns, but the header has 3"),
        ("score\tsentid1\tsentid2\n1\t2\t3\t4\n", ":2: 4 columns, but the header has 3"),
        ("score\tsentid1\tsentid2\n\nx\t2\t3\n", ":3: score 'x' is not a number"),
        ("score\tsentid1\tsentid2\nnan\t2\t3\n", ":2: score 'nan' is not a number"),
        ("score\tsentid1\tsentid2\n1\tdog\t3\n", ":2: sentid1 'dog' does not end in a COCO id"),
        (b"score\tsentid1\tsentid2\n1\t2\t3\n\xe9\t2\t3\n", ":3: not UTF-8"),
    ],
)
def test_a_file_that_is_none_ends_in_a_line_with_its_place(tmp_path, text, told):
    file = tmp_path / "sts_val.tsv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ModelError, match=re.escape(f"{file}{told}")):
        read_ratings(file, "sts", "val", dict)


@settings(max_examples=1000, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.data())
def test_whatever_a_file_holds_it_is_read_or_told(tmp_path_factory, kind, data):
    whole = data.draw(st.sampled_from([PUBLISHED[kind], JOINED[kind]])).encode()
    cut = data.draw(st.integers(0, len(whole)))
    junk = data.draw(
        st.one_of(st.binary(max_size=30), st.sampled_from([b"\t", b",", b"\r", b"\n", b"\xef\xbb\xbf", b'"']))
    )
    file = tmp_path_factory.getbasetemp() / "fuzzed.tsv"
    file.write_bytes(whole[:cut] + junk + whole[cut + data.draw(st.integers(0, 9)) :])
    try:
        found = read_ratings(file, kind, "val", dict)
    except ModelError as error:
        assert re.match(rf"{re.escape(str(file))}(:\d+)?: .", str(error)) and "\n" not in str(error)
    else:
        assert len(found.first) == len(found.second) == len(found.gold) > 0
        # nothing is passed over: every line but the header is a pair, or blank
        lines = [line for line in file.read_bytes().decode("utf-8-sig").split("\n") if line.strip()]
        assert len(found.gold) == len(lines) - 1 and np.isfinite(found.gold).all()


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps)))
def test_captions_are_read_or_told(tmp_path_factory, data):
    file = tmp_path_factory.getbasetemp() / "captions_val2017.json"
    file.write_bytes(data if isinstance(data, bytes) else f'{{"annotations": {data}}}'.encode())
    try:
        assert isinstance(read_captions(file), dict)
    except ModelError as error:
        assert re.match(rf"{re.escape(str(file))}(:\d+)?: not COCO captions JSON", str(error))


@pytest.mark.parametrize(
    ("each", "told"),
    [
        ('{"id": 1e999, "caption": "a"}', "OverflowError"),
        ('{"id": 7, "caption": "a \\ud800"}', "caption 7 has half of a surrogate pair"),
    ],
)
def test_captions_that_no_later_step_could_take_are_told(tmp_path, each, told):
    file = tmp_path / "captions_val2017.json"
    file.write_text(f'{{"annotations": [{each}]}}')
    with pytest.raises(ModelError, match=rf"captions_val2017.json: not COCO captions JSON .*{told}"):
        read_captions(file)
    file.write_text('{"annotations": [{"id": 7, "caption": "a \\ud83d\\udc15"}]}')
    assert read_captions(file) == {7: "a \U0001f415"}


def test_several_files_of_a_kind_and_split_are_refused(tmp_path):
    (tmp_path / "cxc").mkdir()
    for name in ("cxc_sts_val.val2017.tsv", "cxc/sts_val.csv", "cxc/sts_test.csv"):
        (tmp_path / name).touch()
    told = "several files of caption-caption ratings (val), keep one: cxc/sts_val.csv, cxc_sts_val.val2017.tsv"
    with pytest.raises(ModelError, match=re.escape(f"{tmp_path}: {told}")):
        files(tmp_path)
    (tmp_path / "cxc/sts_val.csv").unlink()
    assert {split: file.name for (_, split), file in files(tmp_path).items()} == {
        "val": "cxc_sts_val.val2017.tsv",
        "test": "sts_test.csv",
    }


# ---------------------------------------------------------------- the bootstrap


def test_the_bootstrap_is_over_half_of_the_queries_one_item_each():
    draw = np.random.default_rng(0)
    queries = np.repeat(np.arange(40), draw.integers(1, 5, 40))
    gold = draw.normal(size=len(queries))
    similarity = gold + draw.normal(size=len(queries))
    order = draw.permutation(len(queries))
    found = bootstrap(similarity[order], gold[order], queries[order], 400)
    assert (found["queries"], found["drawn"], found["samples"]) == (40, 20, 400)
    values = []
    for _ in range(400):
        rows = [draw.choice(np.flatnonzero(queries == q)) for q in draw.choice(40, 20, replace=False)]
        values.append(spearmanr(similarity[rows], gold[rows]).statistic)
    assert found["mean"] == pytest.approx(np.mean(values), abs=4 * np.std(values) / 20)
    assert found["std"] == pytest.approx(np.std(values), rel=0.2)
    assert bootstrap(similarity[order], gold[order], queries[order], 400) == found


def test_the_bootstrap_of_a_perfect_and_of_a_constant_model():
    gold, queries = np.arange(30.0), np.arange(30) // 3
    found = bootstrap(gold**3, gold, queries)
    assert found["mean"] == pytest.approx(1) and found["std"] == pytest.approx(0, abs=1e-12)
    assert bootstrap(-gold, gold, queries)["mean"] == pytest.approx(-1)
    for flat in (np.full(30, 0.7), 0.7 + 1e-9 * gold):
        assert bootstrap(flat, gold, queries)["mean"] is None
    assert bootstrap(gold[:3], gold[:3], np.zeros(3))["mean"] is None


# ---------------------------------------------------------------- images, texts, scores


def test_only_names_that_coco_gives_are_taken_for_cocos():
    names = [("139", "val2017/000000000139.jpg"), ("x", "a/COCO_val2014_000000000632.JPG"), ("7", "images/7.jpg")]
    names += [
        ("10", "images/000000000010.png"),
        ("COCO_train2014_000000000009.jpg", "shard:3"),
        ("8", "1000000000008.jpg"),
    ]
    assert coco_images(names) == {139: "139", 632: "x", 9: "COCO_train2014_000000000009.jpg"}


def test_scores_of_a_small_set_and_what_it_lacks(tmp_path):
    draw = np.random.default_rng(1)
    texts = {n: f"a {c} {t}" for n, (c, t) in enumerate((c, t) for c in ("red", "blue") for t in ("dog", "cat", "hat"))}
    images, gone = list(range(100, 108)), 999
    root = tmp_path / "sets" / "cxc"
    root.mkdir(parents=True)
    sts = [(a, b, draw.uniform(0, 5)) for a in range(6) for b in range(a)] + [(0, 77, 1.0)]
    sits = [(a, i, draw.uniform(0, 5)) for a in range(6) for i in images[:3]] + [(1, gone, 2.0), (77, 100, 2.0)]
    sis = [(i, j, draw.uniform(0, 5)) for i in images for j in images if i < j] + [(100, gone, 2.0)]
    head = {"sts": "sentid1\tsentid2", "sits": "sentid\timage", "sis": "image1\timage2"}
    for kind, rows in (("sts", sts), ("sits", sits), ("sis", sis)):
        lines = [f"{head[kind]}\tscore", *(f"{a}\t{b}\t{s}" for a, b, s in rows)]
        (root / f"{kind}_val.tsv").write_text("\n".join(lines))
    annotations = [{"id": n, "image_id": 1, "caption": f" {text}\n"} for n, text in texts.items()]
    (root / "captions_val2014.json").write_text(json.dumps({"annotations": annotations}))
    features = [feature(f"image:{i}", "image", i) for i in images]
    names = [{"id": str(i), "uri": f"val2017/{i:012d}.jpg"} for i in images]
    rows = {"captions": [caption("100", 0, "a dog")], "images": names, "features": features}
    place = Place(data=tmp_path / "sets", collection=write_collection(tmp_path / "c", rows))
    model = write_model(tmp_path / "m")
    found = run(Embedder(model), place, {})["tasks"]
    counts = ("pairs", "missing_pairs", "captions_missing", "images_missing")
    assert [found["cxc-sts-val"].get(name) for name in counts] == [15, 1, 1, None]
    assert [found["cxc-sits-val"].get(name) for name in counts] == [18, 2, 1, 1]
    assert [found["cxc-sis-val"].get(name) for name in counts] == [28, 1, None, 1]
    made, space = encoder().eval(), load_grounding(model)
    h = made.encode(list(texts.values()))
    vector = {i: row["vector"].astype(np.float16) for i, row in zip(images, features, strict=True)}
    seen = {i: space.images(vector[i][None])[0] for i in images}
    sides = {
        "sts": (sts[:-1], h, h),
        "sits": (sits[:-2], space.texts(h), seen),
        "sis": (sis[:-1], seen, seen),
    }
    for kind, (pairs, one, two) in sides.items():
        similarity = cosines(np.stack([one[a] for a, _, _ in pairs]), np.stack([two[b] for _, b, _ in pairs]))
        gold = np.array([s for _, _, s in pairs])
        score = found[f"cxc-{kind}-val"]
        assert score["spearman"] == pytest.approx(spearmanr(similarity, gold).statistic, abs=1e-6)
        expected = bootstrap(similarity, gold, np.array([a for a, _, _ in pairs]))
        assert score["bootstrap"]["mean"] == pytest.approx(expected["mean"], abs=1e-6)
    assert set(tasks(place)) == {"cxc-sts-val", "cxc-sits-val", "cxc-sis-val"}
    assert set(tasks(Place(data=place.data))) == {"cxc-sts-val"}
    text_only = run(Embedder(write_model(tmp_path / "s", "simcse")), place)["tasks"]
    assert text_only["cxc-sts-val"]["pairs"] == 15
    assert "not trained on images" in text_only["cxc-sits-val"]["missing"]
    nothing = run(SimpleNamespace(folder=model), Place(data=tmp_path))["tasks"]
    assert all("ratings" in score["missing"] for score in nothing.values())


def test_the_real_ratings(shared):
    root = shared / "data"
    found = files(root)
    sizes = {}
    for (kind, split), file in found.items():
        ratings = read_ratings(file, kind, split, none)
        sizes[kind] = len(ratings.gold)
        assert ratings.gold.min() >= 0 and ratings.gold.max() <= 5
        known = read_captions(captions_file(root))
        differing = [i for i, text in ratings.texts.items() if known[i] != text]
        assert not differing and (kind == "sis" or set(ratings.first) <= set(ratings.texts))
    assert sizes == {"sts": 3309, "sits": 3293, "sis": 616}
