"""Ranks against a naive count; retrieval against the same done by hand; what is right as training has it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_collection import DIM, caption, encoder, feature, pair, write_collection, write_model

from model.errors import ModelError
from model.grounding import load_grounding, pooled, span_vectors
from model.losses.object_phrase import _sets
from model.packed import packed
from stages.evaluate import ranks as counted
from stages.evaluate.embedder import Embedder
from stages.evaluate.place import Place
from stages.evaluate.ranks import EQUAL, Sets, ranks, summary
from stages.evaluate.retrieval import judged, pool, run, tasks


def naive(similarity, right, ignored):
    found = []
    for row, own in enumerate(right):
        best = max(similarity[row][i] for i in own)
        wrong = [s for i, s in enumerate(similarity[row]) if i not in own and i not in ignored[row]]
        better, equal = sum(s > best + EQUAL for s in wrong), sum(abs(s - best) <= EQUAL for s in wrong)
        found.append(1 + better + equal / 2)
    return found


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 10**6), st.integers(1, 40))
def test_ranks_are_those_of_a_naive_count(queries, candidates, seed, cells):
    draw = np.random.default_rng(seed)
    # few different vectors, so that there are ties
    pool_of = draw.normal(size=(4, 3)).astype(np.float32)
    pool_of /= np.linalg.norm(pool_of, axis=1, keepdims=True)
    q, c = pool_of[draw.integers(4, size=queries)], pool_of[draw.integers(4, size=candidates)]
    right = [sorted(draw.choice(candidates, draw.integers(1, candidates + 1), replace=False)) for _ in range(queries)]
    ignored = [[i for i in range(candidates) if i not in own and draw.random() < 0.3] for own in right]
    was, counted._CELLS = counted._CELLS, cells
    try:
        found = ranks(q, c, Sets.of(right), Sets.of(ignored))
    finally:
        counted._CELLS = was
    assert found.tolist() == naive((q @ c.T).astype(float), right, ignored)


def test_a_space_in_one_point_is_at_chance_and_no_vector_is_last():
    one = np.tile(np.array([[0.6, 0.8]], np.float32), (9, 1))
    each = Sets.of([[i] for i in range(9)])
    assert ranks(one, one, each).tolist() == [5.0] * 9
    broken = one.copy()
    broken[2] = np.nan
    found = ranks(broken, one, each)
    assert found[2] == 9 and set(np.delete(found, 2)) == {5.0}
    found = ranks(one, broken, each)
    assert found[2] == 9 and set(np.delete(found, 2)) == {4.5}  # the broken one is never in the way


def test_the_summary_is_shares_and_a_median():
    assert summary(np.array([1.0, 1.5, 5, 10, 11]), 20) == {
        **{"R@1": 0.2, "R@5": 0.6, "R@10": 0.8, "median_rank": 5.0},
        **{"queries": 5, "candidates": 20},
    }
    assert summary(np.array([]), 3)["R@1"] is None


# ---------------------------------------------------------------- images and captions


def photos(split="test"):
    """Four images with 6, 5, 1 and 2 captions; the last has no feature."""
    things = ["a red ball", "two dogs", "a blue kite in the sky", "the small boat", "a green hat", "one yellow car"]
    counts = {"1": 6, "2": 5, "3": 1, "4": 2}
    captions = [
        caption(image, n, f"{things[(int(image) + n) % 6]} near {things[n]}", split)
        for image, count in counts.items()
        for n in range(count)
    ]
    return captions, [feature(f"image:{image}", "image", int(image)) for image in "123"]


def test_image_text_is_what_the_heads_say(tmp_path):
    captions, features = photos()
    other = [caption("9", 0, "a white bird", "train")]
    root = write_collection(tmp_path / "c", {"captions": [*captions, *other], "features": features})
    model = write_model(tmp_path / "m")
    found = run(Embedder(model), Place(collection=root), {})["tasks"]
    score = found["image-text"]
    counts = {"images": 3, "captions": 11, "fewer_captions": 1, "captions_left_out": 1, "images_without_feature": 1}
    assert {name: score[name] for name in ("split", *counts)} == {"split": "test", **counts}
    kept = [row for row in captions if row["image_id"] != "4" and row["id"] != "1#5"]
    space = load_grounding(model)
    texts = space.texts(encoder().eval().encode([row["text"] for row in kept]))
    seen = space.images(np.array([row["vector"] for row in features]).astype(np.float16))
    owner = [int(row["image_id"]) - 1 for row in kept]
    similarity = (texts @ seen.T).astype(float)
    to_image = naive(similarity, [[image] for image in owner], [[]] * len(owner))
    assert score["text_to_image"] == summary(np.array(to_image), 3)
    own = [[row for row, image in enumerate(owner) if image == n] for n in range(3)]
    assert score["image_to_text"] == summary(np.array(naive(similarity.T, own, [[]] * 3)), 11)
    assert found["object-phrase"]["missing"].endswith("run the stages that write it")


def test_without_a_test_split_all_images_are_taken(tmp_path):
    captions, features = photos("train")
    root = write_collection(tmp_path / "c", {"captions": captions, "features": features})
    score = run(Embedder(write_model(tmp_path / "m")), Place(collection=root))["tasks"]["image-text"]
    assert (score["split"], score["captions"]) == ("all", 11)


def test_scores_known_are_taken_and_data_hashes_follow_the_tables(tmp_path):
    captions, features = photos()
    root = write_collection(tmp_path / "c", {"captions": captions, "features": features})
    before = tasks(Place(collection=root))
    assert set(before) == {"image-text"} and tasks(Place()) == {}
    known = {"image-text": {"R": 1}}
    assert run(Embedder(tmp_path / "no model"), Place(collection=root), known)["tasks"]["image-text"] == {"R": 1}
    write_collection(tmp_path / "c", {"captions": captions[1:], "features": features})
    assert tasks(Place(collection=root)) != before


def test_what_is_not_there_is_said(tmp_path):
    captions, features = photos()
    root = write_collection(tmp_path / "c", {"captions": captions, "features": features[:0]})
    embed = Embedder(write_model(tmp_path / "m"))
    assert (
        "no image of the split test has a feature"
        in run(embed, Place(collection=root))["tasks"]["image-text"]["missing"]
    )
    assert "no collection is given" in run(embed, Place())["tasks"]["image-text"]["missing"]
    text_only = Embedder(write_model(tmp_path / "s", "simcse"))
    assert run(text_only, Place(collection=root))["tasks"]["image-text"]["missing"] == (
        "the model has no head grounding and no head visual: it was not trained on images"
    )


def test_heads_read_h_and_not_what_the_mlp_makes_of_it(tmp_path):
    made = encoder("cls_mlp")
    texts = ["a red ball", "two dogs", "a red ball"]
    h = pooled(made, texts, 2)
    tokens, mask = made.pad(made.token_ids(texts))
    with torch.inference_mode():
        assert np.abs(h - made.eval()(tokens, mask).numpy()).max() < 1e-5
    assert np.abs(h - made.encode(texts)).max() > 1e-2


def test_heads_read_texts_cut_and_in_the_number_type_that_is_asked_for(tmp_path):
    made = encoder("cls")
    texts = ["a red ball near the small boat", "two dogs"]
    for length, dtype in ((None, torch.float32), (5, torch.float32), (5, torch.bfloat16), (None, torch.bfloat16)):
        assert np.abs(pooled(made, texts, 2, length, dtype) - made.encode(texts, 2, length, dtype=dtype)).max() < 1e-5
    whole, cut = pooled(made, texts), pooled(made, texts, max_length=5)
    assert np.abs(whole - cut)[0].max() > 1e-3 and np.abs(whole - cut)[1].max() < 1e-5
    half = pooled(made, texts, dtype=torch.bfloat16)
    assert 1e-5 < np.abs(whole - half).max() < 0.3
    spans = [(0, 10), (0, 3)]
    whole = span_vectors(made, texts, spans)
    assert np.isnan(span_vectors(made, texts, [(20, 30), (0, 3)], max_length=5)[0]).all()
    assert 1e-5 < np.abs(whole - span_vectors(made, texts, spans, dtype=torch.bfloat16)).max() < 0.3


@pytest.mark.parametrize(("recipe", "pooling"), [("mcseo", "cls_mlp"), ("mcseo-span", "cls")])
def test_the_suite_passes_length_and_number_type_on(tmp_path, monkeypatch, recipe, pooling):
    captions, pairs, features, _ = scene()
    root = write_collection(tmp_path / "c", {"captions": captions, "pairs": pairs, "features": features})
    seen = []
    monkeypatch.setattr(
        "model.grounding.packed", lambda model, device, dtype: seen.append(dtype) or packed(model, device, dtype)
    )
    embed = Embedder(write_model(tmp_path / "m", recipe, pooling), max_length=4, dtype=torch.bfloat16)
    cut = embed.encoder.token_ids
    lengths = []
    monkeypatch.setattr(embed.encoder, "token_ids", lambda texts, n=None: lengths.append(n) or cut(texts, n))
    score = run(embed, Place(collection=root))["tasks"]["object-phrase"]
    assert score["pairs"] == 4 and set(seen) == {torch.bfloat16} and set(lengths) == {4}


@pytest.mark.parametrize("damage", ["empty", "half", "names", "shape"])
def test_damaged_heads_end_in_one_line(tmp_path, damage):
    file = write_model(tmp_path / "m") / "heads.safetensors"
    weights, data = load_file(file), file.read_bytes()
    if damage in ("empty", "half"):
        file.write_bytes(data[: len(data) // 2 * (damage == "half")])
    elif damage == "names":
        save_file({name: v for name, v in weights.items() if name != "visual.dense.bias"}, file)
    else:
        save_file({name: v.flatten() for name, v in weights.items()}, file)
    with pytest.raises(ModelError, match=r"heads.safetensors: not the heads of a model"):
        load_grounding(tmp_path / "m")


def test_features_of_another_width_end_in_one_line(tmp_path):
    with pytest.raises(ModelError, match=f"image features have 7 dimensions, the model's head was trained on {DIM}"):
        load_grounding(write_model(tmp_path / "m")).images(np.zeros((2, 7)))


# ---------------------------------------------------------------- objects and phrases


def scene():
    """Two images; three objects, the second and third overlap; a key that both images have."""
    one = caption("1", 0, "a red ball by a dog and a puppy")
    two = caption("2", 0, "the dog")
    pairs = [
        pair(one, "a red ball", "ball", "object:a", (0, 0, 10, 10)),
        pair(one, "a dog", "dog", "object:b", (20, 0, 40, 10)),
        pair(one, "a puppy", "puppy", "object:c", (20, 0, 39, 10)),
        pair(two, "the dog", "dog", "object:d", (0, 0, 10, 10)),
    ]
    names = [row["feature_id"] for row in pairs]
    return [one, two], pairs, [feature(name, "object", n) for n, name in enumerate(names)], names


@pytest.mark.parametrize("phrase_dup", ["multi_positive", "mask", "negative"])
@pytest.mark.parametrize("same_image", ["iou_ignore", "ignore", "negative"])
def test_what_is_right_and_what_is_left_out_is_trainings(phrase_dup, same_image):
    _, pairs, _, names = scene()
    right, ignored = judged(pool(pairs, names), phrase_dup, same_image, 0.5)
    code = {}
    keys = torch.tensor([code.setdefault(row["key"], len(code)) for row in pairs])
    images = torch.tensor([int(row["image_id"]) for row in pairs])
    boxes = torch.tensor([[row[side] for side in ("x0", "y0", "x1", "y1")] for row in pairs])
    positive, negative = _sets(keys, images, boxes, phrase_dup, same_image, 0.5)
    for row in range(len(pairs)):
        assert right.part(row, row + 1)[1].tolist() == positive[row].nonzero().flatten().tolist()
        left_out = (~positive[row] & ~negative[row]).nonzero().flatten().tolist()
        assert ignored.part(row, row + 1)[1].tolist() == left_out


def test_an_object_of_several_phrases_is_one_candidate():
    captions, pairs, _, names = scene()
    pairs.append(pair(captions[0], "red ball", "sphere", "object:a", (0, 0, 10, 10)))
    found = pool(pairs, names[:3])  # the fourth has no vector
    assert [row["feature_id"] for row in found.pairs] == ["object:a", "object:b", "object:c", "object:a"]
    assert found.keys[0] == {"ball", "sphere"} and found.object_of.tolist() == [0, 1, 2, 0]
    right, _ = judged(found, "multi_positive", "negative", 0.5)
    assert right.members.tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize("recipe", ["mcseo", "mcseo-span", "mcse"])
def test_object_phrase_is_what_the_heads_say(tmp_path, recipe):
    captions, pairs, features, names = scene()
    root = write_collection(tmp_path / "c", {"captions": captions, "pairs": pairs, "features": features})
    model = write_model(tmp_path / "m", recipe)
    score = run(Embedder(model), Place(collection=root))["tasks"]["object-phrase"]
    counts = {"split": "test", "pairs": 4, "objects": 4, "phrases": 4, "keys": 3, "pairs_without_feature": 0}
    assert {name: score[name] for name in counts} == counts
    assert score["trained_on_phrases"] == (recipe != "mcse")
    assert score["phrases_are"] == ("spans of their captions" if recipe == "mcseo-span" else "encoded alone")
    made, space = encoder().eval(), load_grounding(model)
    if recipe == "mcseo-span":
        texts = {row["id"]: row["text"] for row in captions}
        h = []
        for row in pairs:
            own = texts[row["caption_id"]]
            tokens, mask = made.pad(made.token_ids([own]))
            offsets = made.token_offsets([own])[0]
            inside = [i for i, (a, b) in enumerate(offsets) if a < row["end"] and b > row["start"]]
            with torch.inference_mode():
                states = made.model(input_ids=tokens, attention_mask=mask).last_hidden_state
            h.append(states[0, inside].mean(0).numpy())
    else:
        h = made.encode([row["text"] for row in pairs])
    order = sorted(range(4), key=lambda n: (n % 2, names[n]))  # as the shards have them
    seen = space.objects(np.array([features[n]["vector"] for n in order]).astype(np.float16))
    found = pool([pairs[n] for n in order], [names[n] for n in order])
    sets = judged(found, "multi_positive", "iou_ignore", 0.5)
    right, ignored = ([s.part(row, row + 1)[1].tolist() for row in range(4)] for s in sets)
    similarity = (space.phrases(np.array(h))[order] @ seen.T).astype(float)
    assert score["phrase_to_object"] == summary(np.array(naive(similarity, right, ignored)), 4)
    back = [[row for row in range(4) if n in right[row]] for n in range(4)]
    out = [[row for row in range(4) if n in ignored[row]] for n in range(4)]
    assert score["object_to_phrase"] == summary(np.array(naive(similarity.T, back, out)), 4)


def test_a_phrase_that_is_cut_off_has_no_vector():
    made = encoder()
    long = "a dog " * 400
    found = span_vectors(made, [long + "end", "a dog"], [(len(long), len(long) + 3), (0, 5)])
    assert np.isnan(found[0]).all() and np.isfinite(found[1]).all()
