from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from model.batches import Batches, Schedule, Stream, choose_captions, plan
from model.data import TrainingData, check
from model.errors import ModelError
from model.recipes import resolve


def test_schedule_equals_the_reference(golden):
    for settings, expected, tensors in golden("schedule").values():
        schedule = plan(settings["n_text"], settings["n_pairs"], settings["batch_size"])
        wanted = ("text_batches_per_pass", "pair_batches_per_pass", "pair_every_K", "steps_per_epoch")
        ours = (schedule.text_batches, schedule.pair_batches, schedule.pair_every, schedule.steps_per_epoch)
        assert ours == tuple(expected[k] for k in wanted)
        kinds = [schedule.kind(s) for s in range(schedule.steps_per_epoch)]
        assert kinds.count("pair") == expected["pair_steps_per_epoch"]
        assert kinds.count("text") == expected["text_steps_per_epoch"]
        first = [("text", "pair")[k] for k in tensors["kind_first_200"].tolist() if k >= 0]
        assert [schedule.kind(s) for s in range(len(first))] == first
        assert (schedule.warning is not None) == (expected["text_steps_per_epoch"] == 0)


def test_schedule_by_hand():
    # 12 steps an epoch, K = 3; then 5 steps an epoch, K = 2, where the counter restarts with the epoch
    assert [plan(9, 3, 1).kind(s)[0] for s in range(13)] == list("pttpttpttpttp")
    assert [Schedule(4, 1, 2).kind(s)[0] for s in range(10)] == list("ptptpptptp")
    assert plan(9, 3, 1, pair_every=6).pair_every == 6
    assert {plan(9, 0, 2).kind(s) for s in range(20)} == {"text"}
    assert {plan(0, 9, 2).kind(s) for s in range(20)} == {"pair"} and plan(0, 9, 2).warning is None
    assert "never read" in plan(10, 6, 1).warning and plan(10, 5, 1).warning is None


def test_stream_reshuffles_and_reads_every_row_once_a_pass():
    stream = Stream(10, 4, seed=3, name="text")
    passes = [[stream.next() for _ in range(3)] for _ in range(3)]
    assert [[len(b) for b in p] for p in passes] == [[4, 4, 2]] * 3
    orders = [np.concatenate(p).tolist() for p in passes]
    assert all(sorted(o) == list(range(10)) for o in orders) and orders[0] != orders[1] != orders[2]
    again, other = Stream(10, 4, seed=3, name="text"), Stream(10, 4, seed=4, name="text")
    assert again.next().tolist() == passes[0][0].tolist() and other.next().tolist() != passes[0][0].tolist()


def test_captions_per_image():
    image = [0, 0, 2, 2, 2, 5]
    assert choose_captions(image, "all") == [0, 1, 2, 3, 4, 5]
    one = choose_captions(image, "one_fixed")
    assert [image[c] for c in one] == [0, 2, 5] and one == choose_captions(image, "one_fixed")


def run(data, recipe, encoder, seed, steps):
    batches = Batches(data, recipe, encoder, seed)
    return [batches.next(s) for s in range(steps)]


def texts(batch, encoder):
    return [encoder.tokenizer.decode(ids, skip_special_tokens=True) for ids in batch.tokens.input_ids[:, 0]]


def test_batches_hold_what_belongs_together(data, encoder):
    recipe = resolve("mcseo", {"batch_size": 8, "captions_per_image": "all", "objects_per_caption": 2})
    caption_at = {c: i for i, c in enumerate(data.captions)}
    features = {tuple(np.float32(f)): row for row, f in enumerate(data.object_features)}
    objects = 0
    for batch in run(data, recipe, encoder, 0, 12):
        assert (batch.tokens.input_ids[:, 0] == batch.tokens.input_ids[:, 1]).all()
        if batch.kind == "text":
            assert batch.image is None and batch.objects is None
            assert set(texts(batch, encoder)) <= set(data.sentences)
            continue
        captions = [caption_at[t] for t in texts(batch, encoder)]
        assert (batch.image.numpy() == data.image_features[[data.caption_image[c] for c in captions]]).all()
        wanted = [item for c in captions for item in data.pairs[c]]
        phrases = [
            encoder.tokenizer.decode(ids, skip_special_tokens=True) for ids in batch.objects.tokens.input_ids[:, 1]
        ]
        assert phrases == [i.phrase for i in wanted]
        assert [features[tuple(f)] for f in batch.objects.feature.tolist()] == [i.object_row for i in wanted]
        for codes, values in (
            (batch.objects.key, [i.key for i in wanted]),
            (batch.objects.image, [i.image_id for i in wanted]),
        ):
            assert (codes[:, None] == codes[None]).tolist() == [[a == b for b in values] for a in values]
        assert batch.objects.box.tolist() == [list(i.box) for i in wanted]
        objects += len(wanted)
    assert objects > 30


def test_objects_per_caption_is_a_sample_without_repetition(data, encoder):
    two = next(i for i, p in enumerate(data.pairs) if len(p) == 2)
    lone = TrainingData(
        [], [data.captions[two]] * 4, [0, 1, 2, 3], data.image_features, [data.pairs[two]] * 4, data.object_features
    )
    for k, expected in ((1, 4), (2, 8), (5, 8)):
        recipe = resolve("mcseo", {"batch_size": 4, "objects_per_caption": k})
        boxes = [tuple(b) for batch in run(lone, recipe, encoder, 0, 20) for b in batch.objects.box.tolist()]
        counts = Counter(boxes)
        assert len(boxes) == 20 * expected and len(counts) == 2 and min(counts.values()) > 0.3 * len(boxes)


def test_a_pair_batch_without_objects_has_no_object_part(data, encoder):
    bare = replace(data, pairs=[[], *data.pairs[1:2], *[[] for _ in data.pairs[2:]]])
    recipe = resolve("mcseo", {"batch_size": 4, "captions_per_image": "all"})
    parts = [b.objects for b in run(bare, recipe, encoder, 0, 8)]
    assert [p for p in parts if p is None] and [p for p in parts if p is not None]


def test_recipes_and_seeds_see_the_same_text_in_the_same_order(data, encoder):
    settings = {"batch_size": 8}
    seen = [
        [texts(b, encoder) for b in run(data, resolve(name, settings), encoder, seed, 10)]
        for name, seed in (("simcse", 0), ("mcse", 0), ("mcseo", 0), ("mcseo", 1))
    ]
    assert seen[0] == seen[1] == seen[2] != seen[3]


def wrong(data, what):
    nan = data.image_features.copy()
    nan[3, 2] = np.nan
    half_nan = data.object_features.copy()
    half_nan[5, 0] = np.inf
    far = [[replace(data.pairs[0][0], object_row=999)], *data.pairs[1:]]
    flat = [[replace(data.pairs[0][0], box=(0.0, 0.0, float("nan"), 1.0))], *data.pairs[1:]]
    return {
        "empty": TrainingData(),
        "no captions": TrainingData(sentences=data.sentences),
        "no features": replace(data, image_features=None),
        "no pairs": replace(data, pairs=[[] for _ in data.captions]),
        "nan image": replace(data, image_features=nan),
        "inf object": replace(data, object_features=half_nan),
        "shape": replace(data, image_features=data.image_features[0]),
        "dims": replace(data, object_features=data.object_features[:, :5]),
        "row": replace(data, caption_image=[*data.caption_image[:-1], 16]),
        "object row": replace(data, pairs=far),
        "box": replace(data, pairs=flat),
        "lengths": replace(data, caption_image=data.caption_image[1:]),
    }[what]


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("empty", "nothing to train on"),
        ("no captions", "needs captions with image features"),
        ("no features", "needs captions with image features"),
        ("no pairs", "needs object-phrase pairs"),
        ("nan image", "image_features: row 3 holds NaN"),
        ("inf object", "object_features: row 5 holds NaN or infinity"),
        ("shape", "must be \\[rows, dimensions\\]"),
        ("dims", "12 dimensions, object features 5"),
        ("row", "caption_image 16 is outside image_features, which has 16 rows"),
        ("object row", "object_row 999 is outside"),
        ("box", "four finite numbers"),
        ("lengths", "32 captions but 31 entries"),
    ],
)
def test_wrong_data_is_one_clear_line(data, what, says):
    with pytest.raises(ModelError, match=says) as raised:
        check(wrong(data, what), resolve("mcseo"))
    assert raised.value.code == 3 and "\n" not in str(raised.value)


def test_each_recipe_asks_only_for_what_it_uses(data):
    check(TrainingData(), resolve("untrained"))
    check(TrainingData(sentences=data.sentences), resolve("simcse"))
    check(replace(data, image_features=None, pairs=[], object_features=None), resolve("simcse"))
    check(replace(data, pairs=[], object_features=None), resolve("mcse"))
    check(replace(data, object_features=data.object_features[:, :5]), resolve("mcseo", {"share_object_head": False}))
    check(replace(data, object_features=None, pairs=[]), resolve("mcseo", {"mu": 0}))


def test_a_batch_larger_than_the_data_is_refused(data, encoder):
    for size, says in ((33, "only 16 captions"), (97, "only 96 sentences")):
        with pytest.raises(ModelError, match=says) as raised:
            Batches(data, resolve("mcse", {"batch_size": size}), encoder, 0)
        assert raised.value.code == 2
