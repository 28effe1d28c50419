import json
from collections import Counter
from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest
import torch

from model.batches import Batches, Schedule, Stream, choose_captions, plan, to_device
from model.data import TrainingData, check
from model.encoder import load_encoder
from model.errors import ModelError
from model.recipes import NAMES, resolve
from tests.model.companions import complete


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


def test_one_caption_per_epoch_is_drawn_anew_each_pass_by_the_seed():
    image = [0, 0, 2, 2, 2, 5]
    draws = [choose_captions(image, "one_per_epoch", 3, number) for number in range(1, 30)]
    assert all([image[c] for c in draw] == [0, 2, 5] for draw in draws)
    assert {draw[1] for draw in draws} == {2, 3, 4} and {draw[0] for draw in draws} == {0, 1}
    assert draws[0] == choose_captions(image, "one_per_epoch", 3, 1)
    assert draws != [choose_captions(image, "one_per_epoch", 4, number) for number in range(1, 30)]


def test_drop_last_leaves_the_rest_of_a_pass_out():
    assert plan(10, 7, 4, drop_last=True) == Schedule(2, 1, 2) and plan(10, 7, 4) == Schedule(3, 2, 1)
    stream = Stream(10, 4, seed=3, name="text", drop_last=True)
    passes = [[stream.next() for _ in range(2)] for _ in range(20)]
    assert all(len(batch) == 4 for part in passes for batch in part)
    read = [np.concatenate(part).tolist() for part in passes]
    assert all(len(set(part)) == 8 for part in read) and set(np.concatenate(read)) == set(range(10))


def test_triplets_alone_are_read_where_they_are():
    schedule = plan(100, 50, 8, triplets=20)
    assert (schedule.steps_per_epoch, {schedule.kind(s) for s in range(9)}) == (3, {"triplet"})
    assert schedule.warning is None


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("before", [0, 1, 3, 4, 11])
def test_a_stream_goes_on_from_its_state(before, drop_last):
    stream, again = (Stream(10, 4, seed=3, name="text", drop_last=drop_last) for _ in range(2))
    for _ in range(before):
        stream.next()
    again.next()
    again.load_state_dict(json.loads(json.dumps(stream.state_dict())))
    assert (again.passes, again.position) == (stream.passes, stream.position)
    for _ in range(9):
        assert stream.next().tolist() == again.next().tolist()
    assert len(json.dumps(stream.state_dict())) < 400


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


def flat(value):
    """Everything a batch holds, by value."""
    if isinstance(value, torch.Tensor | np.ndarray):
        return value.tolist()
    if is_dataclass(value):
        return {f.name: flat(getattr(value, f.name)) for f in fields(value)}
    return [flat(v) for v in value] if isinstance(value, tuple) else value


def everything(data):
    rng = np.random.default_rng(2)
    vectors = {name: rng.normal(size=(32, 6)).astype(np.float32) for name in ("simcse", "diffcse")}
    return replace(complete(data), teacher_text=vectors)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "untrained"])
@pytest.mark.parametrize("before", [0, 3, 13])
def test_batches_go_on_exactly_from_their_state(data, encoder, name, before):
    recipe = resolve(name, {"batch_size": 6, "captions_per_image": "one_per_epoch", "pair_every": 2})
    made = [Batches(everything(data), recipe, encoder, 5) for _ in range(2)]
    for step in range(before):
        made[0].next(step)
    made[1].next(0)  # a state is loaded whatever was read before
    made[1].load_state_dict(json.loads(json.dumps(made[0].state_dict())))
    for step in range(before, before + 9):
        one, two = (flat(batches.next(step)) for batches in made)
        assert one == two, step


def test_the_global_random_state_is_not_touched(data, encoder):
    for name in ("diffcse", "dalr-paper", "mcseo-span"):
        torch.manual_seed(4)
        np.random.seed(4)
        states = torch.get_rng_state(), np.random.get_state()[1].tolist()
        run(everything(data), resolve(name, {"batch_size": 6}), encoder, 0, 6)
        assert torch.equal(states[0], torch.get_rng_state()) and np.random.get_state()[1].tolist() == states[1]


def test_rows_name_what_was_read(data, encoder):
    for name in ("mcseo", "simcse-sup"):
        whole = everything(data)
        for batch in run(whole, resolve(name, {"batch_size": 6, "pair_every": 2}), encoder, 0, 6):
            source = {"text": whole.sentences, "pair": whole.captions, "triplet": [t[0] for t in whole.triplets]}
            assert texts(batch, encoder) == [source[batch.kind][row] for row in batch.rows]


def test_a_pass_with_one_caption_per_epoch_reads_each_image_once(data, encoder):
    recipe = resolve("mcse", {"batch_size": 4, "captions_per_image": "one_per_epoch"})
    lone = replace(data, sentences=[])
    batches = run(lone, recipe, encoder, 0, 96)
    passes = [[row for batch in batches[i : i + 4] for row in batch.rows] for i in range(0, 96, 4)]
    assert all(sorted(data.caption_image[row] for row in part) == list(range(16)) for part in passes)
    assert {row for part in passes for row in part} == set(range(32))


def test_every_recipe_reads_the_same_text(data, encoder):
    settings = {"batch_size": 8, "captions_per_image": "all"}
    whole = everything(data)
    names = [n for n in NAMES if n not in ("untrained", "simcse-sup")]
    seen = {n: [texts(b, encoder) for b in run(whole, resolve(n, settings), encoder, 0, 8)] for n in names}
    assert all(found == seen["simcse"] for found in seen.values())


def test_features_may_be_tensors(data, encoder):
    tensors = {n: torch.from_numpy(getattr(data, n)) for n in ("image_features", "object_features")}
    recipe = resolve("mcseo", {"batch_size": 8})
    one, two = (run(d, recipe, encoder, 0, 8) for d in (data, replace(data, **tensors)))
    assert [flat(b) for b in one] == [flat(b) for b in two]


def test_to_device_keeps_everything_else(data, encoder):
    batch = run(everything(data), resolve("dalr", {"batch_size": 8}), encoder, 0, 1)[0]
    moved = to_device(batch, torch.device("meta"))
    assert moved.rows == batch.rows and moved.kind == batch.kind and moved.objects is None
    tensors = [moved.tokens.input_ids, moved.image, moved.image_id, moved.mismatched, *moved.teacher_text]
    assert len(moved.teacher_text) == 2 and all(t.device.type == "meta" for t in tensors)


def test_a_recipe_with_teachers_waits_for_their_vectors(data, encoder):
    with pytest.raises(ModelError, match="needs vectors of its text teachers \\(simcse, diffcse\\)"):
        Batches(complete(data), resolve("dalr", {"batch_size": 8}), encoder, 0)


def test_too_few_triplets_for_a_batch(data, encoder):
    with pytest.raises(ModelError, match="batch_size is 512 but there are only 95 triplets"):
        Batches(complete(data), resolve("simcse-sup"), encoder, 0)


def test_a_pooling_the_recipe_is_not_meant_for_is_noted(data, tiny):
    recipe = resolve("simcse-sup", {"batch_size": 8})
    notes = [Batches(complete(data), recipe, load_encoder(tiny, pooling=p), 0).notes for p in ("cls", "cls_mlp")]
    assert len(notes[0]) == 1 and "is meant for pooling cls_mlp" in notes[0][0] and notes[1] == []
