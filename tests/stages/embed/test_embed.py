"""embed: every pixel set and every text embedded once, the same vectors however the work is cut."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from small import ROOT, digests, in_process, run_stage, write_params
from small_encoders import PROCESSORS, cut, fill_of, make, noise, plain_vectors, png

from pipeline import tables
from pipeline.errors import InputError
from pipeline.params import load
from pipeline.runner import Task
from pipeline.shards import read_all
from stages.common import rle
from stages.common.candidates import candidates, feature_ids
from stages.common.images import decode
from stages.embed import stage
from stages.embed.worker import Worker

VISION = ROOT / "demo/checkpoints/vision_random"
CHAIN = ("ingest", "parse", "detect", "segment")
TASK = Task(0, {}, {})


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {kind: make(kind, tmp_path_factory.mktemp(kind)) for kind in PROCESSORS}


def worker(folder, rows=8, threads=1, **section):
    values = load(ROOT / "params.yaml")
    embed = values.embed.model_copy(update={"path": str(folder), **section})
    runtime = values.runtime.model_copy(update={"devices": ["cpu"], "batch_rows": rows, "threads": threads})
    return Worker(embed, runtime, "cpu")


def rows_of(name, rows):
    return pa.Table.from_pylist([dict.fromkeys(tables.TABLES[name].names) | row for row in rows], tables.TABLES[name])


def inputs_of(images, texts=("a red ball", "a box")):
    """Tables of images: id -> (PNG or JPEG bytes, height, width, masks); every mask is of both phrases."""
    ids = list(images)
    read = {name: [] for name in ("images", "captions", "phrases", "boxes", "masks")}
    for identifier in ids:
        data, height, width, masks = images[identifier]
        read["images"].append({"id": identifier, "bytes": data, "height": height, "width": width})
        for n, text in enumerate(texts):
            of = {"id": f"{identifier}-{n}", "image_id": identifier}
            read["captions"].append(of | {"text": f"{text} next a cup"})
            read["phrases"].append(of | {"caption_id": of["id"], "text": text})
            for number, mask in enumerate(masks):
                box = f"{of['id']}-{number}"
                spot = dict(zip(("x0", "y0", "x1", "y1"), rle.box(*mask), strict=True))
                read["boxes"].append({"id": box, "image_id": identifier, "phrase_id": of["id"], "rank": number} | spot)
                whole = {"counts": mask.counts, "height": mask.height, "width": mask.width, "area": 1}
                read["masks"].append({"id": box, "image_id": identifier, "box_id": box} | whole)
    return {name: rows_of(name, rows) for name, rows in read.items()}


def boxed(height, width, *corners):
    mask = np.zeros((height, width), bool)
    top, left, bottom, right = corners
    mask[top:bottom, left:right] = True
    mask[top, left] = False
    return rle.Mask(rle.encode(mask), height, width)


def made_up():
    """Six images of several sizes with one to three objects, one of them none."""
    images = {}
    for number, (height, width) in enumerate([(48, 64), (64, 48), (120, 90), (33, 200), (50, 50), (60, 80)]):
        masks = [boxed(height, width, 2 + k, 3, height - 5, width // 2 + 5 * k) for k in range(number % 4)]
        images[f"image {number}"] = (png(noise(height, width, number)), height, width, masks)
    return images


def vectors_of(table):
    return dict(
        zip(
            table.column("id").to_pylist(),
            (np.frombuffer(v, "<f2").astype(np.float32) for v in table.column("vector").to_pylist()),
            strict=True,
        )
    )


def expected(folder, inputs, mode, margin):
    """id -> vector, an image and a crop at a time."""
    made = candidates(inputs["phrases"], inputs["boxes"], inputs["masks"])
    image_of = {row["id"]: decode(row["bytes"]) for row in inputs["images"].select(["id", "bytes"]).to_pylist()}
    pictures = {f"image:{name}": image for name, image in image_of.items()}
    for name, row in zip(feature_ids(made), made.to_pylist(), strict=True):
        mask = rle.Mask(row["counts"], row["height"], row["width"])
        pictures[name] = cut(image_of[row["image_id"]], mask, mode, margin, fill_of(folder))
    return dict(zip(pictures, plain_vectors(folder, list(pictures.values())), strict=True))


def same(ours, theirs, atol=1e-5):
    """The same ids; vectors within `atol` and the last bit of float16."""
    assert ours.keys() == theirs.keys()
    for name, vector in theirs.items():
        np.testing.assert_allclose(ours[name], vector, atol=atol, rtol=2**-10, err_msg=name)


@pytest.mark.parametrize("kind", sorted(PROCESSORS))
@pytest.mark.parametrize("mode", ["masked", "box", "blur"])
def test_vectors_are_those_of_pillows_crops(folders, kind, mode):
    inputs = inputs_of(made_up())
    output = stage.process(worker(folders[kind], crop=mode, text=False), TASK, inputs)
    theirs = expected(folders[kind], inputs, mode, 0.1)
    same(vectors_of(output.tables["features"]), theirs)
    assert output.seen == {"feature": len(theirs)} and not output.drops


def test_vectors_of_real_photos_are_those_of_pillows_crops(shared, folders):
    from annotated_photos import photos

    real = {p.id: (p.data, p.image.height, p.image.width, p.masks) for p in photos(shared, 8)}
    inputs = inputs_of(real)
    output = stage.process(worker(folders["clip"], text=False), TASK, inputs)
    theirs = expected(folders["clip"], inputs, "masked", 0.1)
    assert len(theirs) > 30
    same(vectors_of(output.tables["features"]), theirs)


@pytest.mark.parametrize("kind", sorted(PROCESSORS))
def test_batches_and_order_change_nothing(folders, kind):
    inputs = inputs_of(made_up())
    base = stage.process(worker(folders[kind], 4), TASK, inputs).tables["features"]
    draw = np.random.default_rng(0)
    for rows, shuffled in ((1, False), (16, False), (64, False), (4, True)):
        given = {n: t.take(draw.permutation(t.num_rows)) for n, t in inputs.items()} if shuffled else inputs
        again = stage.process(worker(folders[kind], rows), TASK, given).tables["features"]
        if shuffled:
            assert again.equals(base), "the very same bytes"
        assert again.drop_columns(["vector"]).equals(base.drop_columns(["vector"]))
        same(vectors_of(again), vectors_of(base))


@pytest.mark.fault("F47")
def test_a_batch_that_does_not_fit_is_halved(folders, monkeypatch, capsys):
    inputs, ready = inputs_of(made_up()), worker(folders["clip"], 16)
    base = vectors_of(stage.process(ready, TASK, inputs).tables["features"])
    largest = {"encode": [], "texts": [], "prepare": []}

    def short(name, limit):
        whole = getattr(ready.encoder, name)

        def compute(items):
            if len(items) > limit:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            largest[name].append(len(items))
            return whole(items)

        monkeypatch.setattr(ready.encoder, name, compute)

    for name, limit in (("encode", 3), ("texts", 1), ("prepare", 5)):
        short(name, limit)
    same(vectors_of(stage.process(ready, TASK, inputs).tables["features"]), base)
    assert {name: max(seen) for name, seen in largest.items()} == {"encode": 3, "texts": 1, "prepare": 3}
    told = capsys.readouterr().err
    assert "out of memory with 13 pictures at a time; going on with 6" in told
    assert "out of memory with 2 texts at a time; going on with 1" in told


@pytest.mark.fault("F48")
def test_a_vector_that_is_no_number_ends_the_shard_and_names_the_image(folders, monkeypatch):
    ready = worker(folders["vit"], 4)
    whole = ready.encoder.encode

    @torch.inference_mode()
    def spoilt(prepared):
        vectors = whole(prepared).clone()
        vectors[0, 5] = torch.nan
        return vectors

    monkeypatch.setattr(ready.encoder, "encode", spoilt)
    with pytest.raises(
        InputError, match="embed: image image 0: NaN or infinity in the vector of image:image 0 .and in 3 more"
    ):
        stage.process(ready, TASK, inputs_of(made_up()))
    monkeypatch.setattr(ready.encoder, "encode", lambda prepared: whole(prepared) * 1e9)
    with pytest.raises(InputError, match="NaN or infinity"):
        stage.process(ready, TASK, inputs_of(made_up()))


def test_bad_images_and_bad_masks_are_rejected_rows(folders):
    images = made_up()
    data, height, width, masks = images["image 2"]
    images["image 2"] = (data[:60], height, width, masks)
    data, height, width, masks = images["image 3"]
    empty = rle.Mask(rle.encode(np.zeros((height, width), bool)), height, width)
    damaged = rle.Mask(masks[0].counts[:-1], height, width)
    images["image 3"] = (data, height, width, [*masks, empty, boxed(20, 20, 1, 1, 9, 9), damaged])
    good = {n: i for n, i in made_up().items() if n != "image 2"}
    output = stage.process(worker(folders["vit"], 4), TASK, inputs_of(images))
    same(
        vectors_of(output.tables["features"]),
        vectors_of(stage.process(worker(folders["vit"], 4), TASK, inputs_of(good)).tables["features"]),
    )
    reasons = sorted((drop.image_id, drop.reason) for drop in output.drops)
    assert reasons == [("image 2", "unreadable")] * 3 + [("image 3", "bad_mask")] * 3
    assert all(drop.unit == "feature" and drop.outcome == "rejected" for drop in output.drops)
    assert output.seen["feature"] == output.tables["features"].num_rows + 6


def test_equal_texts_are_read_once(folders, monkeypatch):
    ready, read = worker(folders["clip"], 4), []
    whole = ready.encoder.texts
    monkeypatch.setattr(ready.encoder, "texts", lambda tokens: read.extend(tokens) or whole(tokens))
    inputs = inputs_of(made_up(), ("a red ball", "a box", "a red ball next a cup"))
    table = stage.process(ready, TASK, inputs).tables["features"]
    kinds = table.column("kind").to_pylist()
    assert (kinds.count("caption"), kinds.count("phrase"), len(read)) == (18, 3, 5), "one phrase is a caption, too"
    lengths = [len(tokens) for tokens in read]
    assert lengths == sorted(lengths)
    vectors = vectors_of(table)
    said = {f"caption:{row['id']}": row["text"] for row in inputs["captions"].to_pylist()}
    said |= {name: name.removeprefix("phrase:") for name in vectors if name.startswith("phrase:")}
    for name, text in said.items():
        np.testing.assert_allclose(vectors[name], whole(ready.encoder.tokens([text]))[0], atol=1e-5, rtol=2**-10)


def test_a_narrow_object_of_a_large_image_is_embedded(folders):
    line = boxed(900, 1200, 1, 600, 899, 601)
    inputs = inputs_of({"wide": (png(Image.new("RGB", (1200, 900), (9, 99, 200))), 900, 1200, [line])})
    ready = worker(folders["clip"], crop_margin=0.0, text=False)
    same(
        vectors_of(stage.process(ready, TASK, inputs).tables["features"]),
        expected(folders["clip"], inputs, "masked", 0),
    )


def test_a_shard_without_images_is_an_empty_table(folders):
    none = {name: table.slice(0, 0) for name, table in inputs_of(made_up()).items()}
    output = stage.process(worker(folders["clip"]), TASK, none)
    assert output.tables["features"].num_rows == 0 and output.seen == {"feature": 0}
    assert output.tables["features"].schema.equals(tables.features_schema(24))


def test_speed_counts_pictures(folders):
    ready = worker(folders["vit"], 4)
    output = stage.process(ready, TASK, inputs_of(made_up()))
    speed = output.speed
    assert speed["what"] == "pictures" and speed["images"] == output.tables["features"].num_rows
    assert speed["flop"] == pytest.approx(speed["images"] * ready.encoder.image_flop) and speed["busy_s"] > 0


@pytest.mark.fault("F53")
def test_two_devices_write_the_bytes_of_one(small):
    for name in CHAIN:
        in_process(name, small)
    written = []
    for devices in (["cpu"], ["cpu", "cpu"]):
        write_params(small / "params.yaml", small / "collection", embed__path=str(VISION), runtime__devices=devices)
        for record in (small / ".scratch/small/embed").glob("*.json"):
            record.unlink()
        last = in_process("embed", small).splitlines()[-1]
        assert "pictures/s" in last, last
        written.append(digests(small / "data/small/embed"))
    assert written[0] == written[1]


def test_every_pixel_set_is_embedded_once_whatever_the_batch(small):
    for name in CHAIN:
        in_process(name, small)
    made = []
    for rows in (1, 7, 64):
        write_params(small / "params.yaml", small / "collection", embed__path=str(VISION), runtime__batch_rows=rows)
        for record in (small / ".scratch/small/embed").glob("*.json"):
            record.unlink()
        in_process("embed", small)
        table = read_all(small / "data/small/embed/features")
        assert table.num_rows == 24 + 48, "24 images, and two objects in each though four phrases name them"
        made.append(vectors_of(table))
    facts = json.loads((small / "metrics/small/embed.json").read_text())["facts"]
    assert facts["random_weights"] is True and facts["architecture"] == "ViTModel"
    for other in made[1:]:
        same(other, made[0])


def test_text_features_and_similarity_where_there_is_a_text_tower(small, folders):
    for name in CHAIN:
        in_process(name, small)
    write_params(
        small / "params.yaml", small / "collection", embed__path=str(folders["clip"]), align__min_similarity=-1.0
    )
    for name in ("embed", "align"):
        in_process(name, small)
    kinds = read_all(small / "data/small/embed/features").column("kind").to_pylist()
    assert {"image", "object", "caption", "phrase"} == set(kinds) and kinds.count("caption") == 48
    similarity = read_all(small / "data/small/align/pairs").column("similarity").to_pylist()
    assert all(-1 <= value <= 1 for value in similarity)


def test_missing_weights_end_with_exit_3(small):
    for name in CHAIN:
        in_process(name, small)
    write_params(small / "params.yaml", small / "collection", embed__path="nowhere")
    result = run_stage("embed", small)
    assert result.returncode == 3
    assert "nowhere: no such file or folder" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("kind", sorted(PROCESSORS))
@pytest.mark.parametrize("mode", ["masked", "blur"])
def test_a_gpu_cuts_and_prepares_the_same_pixels(folders, kind, mode):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    values = load(ROOT / "params.yaml")
    embed = values.embed.model_copy(update={"path": str(folders[kind]), "crop": mode})
    made = []
    for device in ("cpu", "cuda:0"):
        ready, inputs = Worker(embed, values.runtime, device), inputs_of(made_up())
        objects, _ = stage.objects_in(*(inputs[name] for name in ("images", "phrases", "boxes", "masks")))
        made.append([one.pixels.cpu() for one in ready.pictures(inputs["images"], objects)])
        made.append(vectors_of(stage.process(ready, TASK, inputs).tables["features"]))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(made[2], made[0], strict=True))
    same(made[3], made[1], atol=1e-4)
