"""What the trainer is given: rows that belong together, on the disk and not in memory."""

import numpy as np
import pyarrow as pa
import pytest

from model.data import check
from model.errors import ModelError
from model.recipes import NAMES, resolve
from pipeline.errors import InputError
from pipeline.shards import read_all
from stages.train.data import training_data

PLACES = {"sentences": "ingest", "captions": "ingest", "features": "embed", "pairs": "align"}


def read(folder, name, tmp_path):
    inputs = {table: folder / "data/small" / stage / table for table, stage in PLACES.items()}
    return training_data(inputs, resolve(name), tmp_path / "scratch", [("a", "b", "c")])


def vectors(folder):
    """Every feature by its id, read the plain way."""
    table = read_all(folder / "data/small/embed/features").to_pylist()
    return {row["id"]: np.frombuffer(row["vector"], "<f2") for row in table}


@pytest.mark.parametrize("name", ["mcseo-soft", "kdmcse", "mcseo-span", "mcseo-whole", "mcse", "simcse-phrases"])
def test_every_row_is_that_of_its_id(with_text, tmp_path, name):
    data = read(with_text, name, tmp_path)
    recipe, plain = resolve(name), vectors(with_text)
    captions = read_all(with_text / "data/small/ingest/captions").to_pylist()
    pairs = read_all(with_text / "data/small/align/pairs").to_pylist()
    assert data.captions == [row["text"] for row in captions] and len(captions) == 48
    for number, row in enumerate(captions):
        if "images" in recipe.needs:
            image = data.image_features[data.caption_image[number]]
            np.testing.assert_array_equal(image, plain[f"image:{row['image_id']}"])
        if "caption_text" in recipe.needs:
            np.testing.assert_array_equal(data.caption_text[number], plain[f"caption:{row['id']}"])
        own = [pair for pair in pairs if pair["caption_id"] == row["id"]] if name not in ("mcse", "kdmcse") else []
        assert [item.phrase for item in data.pairs[number]] == [pair["text"] for pair in own]
        for item, pair in zip(data.pairs[number], own, strict=True):
            assert row["text"][item.start : item.end] == item.phrase and item.key == pair["key"]
            assert item.box == tuple(pair[side] for side in ("x0", "y0", "x1", "y1"))
            if "objects" in recipe.needs:
                np.testing.assert_array_equal(data.object_features[item.object_row], plain[pair["feature_id"]])
            if "phrase_text" in recipe.needs:
                np.testing.assert_array_equal(data.phrase_text[item.phrase_row], plain[f"phrase:{item.phrase}"])
    assert (data.image_features is None) == ("images" not in recipe.needs)
    assert (data.phrase_text is None) == ("phrase_text" not in recipe.needs)
    check(data, recipe)


def test_features_are_mapped_and_leave_no_file(with_text, tmp_path):
    data = read(with_text, "mcseo-soft", tmp_path)
    for features in (data.image_features, data.object_features, data.phrase_text):
        assert isinstance(features, np.memmap) and features.dtype == np.float16 and not features.flags.writeable
    assert not list((tmp_path / "scratch").iterdir())
    assert len(set(data.captions)) > 40 and len(data.phrase_text) < sum(map(len, data.pairs)), "a phrase once"


def test_only_the_split_train_is_read(changed, tmp_path):
    """Two images of shard 0 leave for dev: neither their captions nor their features are read."""

    def to_dev(table):
        images = table.column("image_id").to_pylist()
        out = set(sorted(set(images))[:2])
        split = ["dev" if image in out else "train" for image in images]
        return table.set_column(table.schema.names.index("split"), table.schema.field("split"), pa.array(split))

    folder = changed("ingest/captions", to_dev)
    data = read(folder, "mcseo", tmp_path)
    plain = vectors(folder)
    captions = [row for row in read_all(folder / "data/small/ingest/captions").to_pylist() if row["split"] == "train"]
    assert data.captions == [row["text"] for row in captions] and len(captions) == 44
    assert len(data.image_features) == 22 == len(set(data.caption_image))
    for number, row in enumerate(captions):
        image = data.image_features[data.caption_image[number]]
        np.testing.assert_array_equal(image, plain[f"image:{row['image_id']}"])


@pytest.mark.parametrize("name", [n for n in NAMES if {"caption_text", "phrase_text"} & set(resolve(n).needs)])
def test_without_text_features_one_line_says_what_makes_them(mined, tmp_path, name):
    data = read(mined, name, tmp_path)
    with pytest.raises(ModelError, match="set embed.path to a CLIP checkpoint and embed.text to true") as caught:
        check(data, resolve(name))
    assert caught.value.code == 3


def test_a_recipe_on_triplets_reads_nothing_else(tmp_path):
    data = training_data({}, resolve("simcse-sup"), tmp_path, [("a", "b", "c")])
    assert data.triplets == [("a", "b", "c")] and not data.captions and not data.sentences


def test_a_feature_that_is_not_there_is_named(changed, tmp_path):
    lost = []

    def without_one(table):
        lost.append(table.column("id")[table.num_rows - 1].as_py())
        return table.slice(0, table.num_rows - 1)

    folder = changed("embed/features", without_one)
    with pytest.raises(
        InputError, match="no feature .*; the stages come from different runs, `dvc repro` mends it"
    ) as e:
        read(folder, "mcseo", tmp_path)
    assert lost[0] in str(e.value)


def test_vectors_of_another_width_are_refused(changed, tmp_path):
    def narrower(table):
        schema = table.schema.set(3, pa.field("vector", pa.binary(8), nullable=False))
        return pa.table([*table.columns[:3], pa.array([b"x" * 8] * table.num_rows, pa.binary(8))], schema=schema)

    with pytest.raises(InputError, match="vectors of 4 and of [0-9]+ numbers; the stages come from different runs"):
        read(changed("embed/features", narrower), "mcse", tmp_path)
