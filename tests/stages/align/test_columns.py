"""align by columns gives what align row by row gives, table for table and byte for byte."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks import align_rows, made_shards
from pipeline import tables
from pipeline.errors import ParamsError
from pipeline.sections import Align
from pipeline.shards import write_table
from stages.align.similarity import Similarity
from stages.align.stage import COLUMNS, align
from stages.common import rle

HEIGHT, WIDTH = 12, 16
TEXTS = ("a dog", "two dogs", "dogs", "the scissors", "two scissors", "der Ärmel", "😀 hats", "hot dog", "A Dog's ball")
HEADS = ("dog", "scissors", "h", " ")
LABELS = ("dog", "scissors", "Scissors", "", " ", "hot dog", "hats", "犬")
SCORES = (0.3, 0.35, 0.5, 0.50005, 0.5003, 0.9, 1.0)
DIM = 6


def _mask(x0, y0, x1, y1):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y0:y1, x0:x1] = True
    return rle.encode(mask)


MASKS = (_mask(0, 0, 0, 0), _mask(0, 0, WIDTH, HEIGHT), _mask(2, 3, 6, 9), _mask(2, 3, 6, 9), _mask(8, 0, 9, HEIGHT))
BOXES = ((0, 0, WIDTH, HEIGHT), (2, 3, 6, 9), (3.5, 3.25, 6, 8.75), (8, 0, 9, 12), (5, 5, 5, 5), (9, 9, 4, 4))


@st.composite
def shards(draw):
    """Tables of a few images as the stages before align may leave them, vectors of random features among them."""
    phrases, boxes, masks = [], [], []
    images = draw(st.lists(st.sampled_from(("1", "b/ü.png", "图", "z z")), max_size=3, unique=True))
    captions = [(image, f"{image}#{n}") for image in images for n in range(draw(st.integers(0, 2)))]
    for image, caption in captions:
        for start in range(draw(st.integers(0, 4))):
            identifier, text = f"{caption}@{start}-{start + 2}", draw(st.sampled_from(TEXTS))
            number = draw(st.sampled_from(("sing", "plur")))
            count = draw(st.sampled_from((None, 1, 2, 3)))
            own = {"id": identifier, "image_id": image, "caption_id": caption, "start": start, "end": start + 2}
            own |= {"text": text, "head": draw(st.sampled_from(HEADS)), "number": number, "count": count}
            phrases.append(own | {"key": "k", "kind": "n"})
            for rank in range(draw(st.integers(0, 4))):
                box, mask = draw(_found(f"{identifier}/{rank}", image, identifier, rank))
                boxes.append(box)
                masks += mask
    masks.append(_mask_row("loose", "1", None, MASKS[2], 0.9, 1.0))
    built = {name: tables.build(name, rows) for name, rows in
             (("phrases", phrases), ("boxes", boxes), ("masks", masks))}  # fmt: skip
    return built | {"features": draw(_features(built))}


@st.composite
def _found(draw, identifier, image, phrase, rank):
    x0, y0, x1, y1 = draw(st.sampled_from(BOXES))
    box = {"id": identifier, "image_id": image, "phrase_id": phrase, "rank": rank, "x0": x0, "y0": y0, "x1": x1}
    box |= {"y1": y1, "score": draw(st.sampled_from(SCORES)), "label": draw(st.sampled_from(LABELS))}
    box |= {"object_id": draw(st.sampled_from((None, "7")))}
    counts, predicted = draw(st.sampled_from(MASKS)), draw(st.sampled_from((0.5, 0.88, 1.0)))
    mask = _mask_row(identifier, image, identifier, counts, predicted, draw(st.sampled_from((0.25, 1.0))))
    return box, [mask] if draw(st.integers(0, 9)) else []


def _mask_row(identifier, image, box, counts, predicted, stability):
    area = rle.area(counts, HEIGHT, WIDTH)
    own = {"id": identifier, "image_id": image, "box_id": box, "height": HEIGHT, "width": WIDTH, "counts": counts}
    return own | {"area": area, "predicted_iou": predicted, "stability": stability}


@st.composite
def _features(draw, built):
    """Features of none, of crops alone, or of crops and phrases; some are missing, some are zero."""
    named = []
    if kinds := draw(st.sampled_from(((), ("object",), ("object", "phrase")))):
        crops = {c.feature_id for _, made in align_rows.candidates(*list(built.values())[:3]) for c in made}
        named += [("object", name) for name in sorted(crops)]
    if "phrase" in kinds:
        named += [("phrase", f"phrase:{text}") for text in sorted(set(built["phrases"].column("text").to_pylist()))]
    random = np.random.default_rng(draw(st.integers(0, 99)))
    rows = []
    for kind, name in named:
        vector = random.standard_normal(DIM).astype("<f2") * draw(st.sampled_from((0, 1, 3)))
        if draw(st.integers(0, 5)):
            rows.append({"id": name, "kind": kind, "image_id": None, "vector": vector.tobytes()})
    return tables.build("features", rows, tables.features_schema(DIM))


sections = st.builds(
    Align,
    min_score=st.sampled_from((0.0, 0.35, 0.5)),
    min_predicted_iou=st.sampled_from((0.0, 0.88)),
    min_mask_box_iou=st.sampled_from((0.0, 0.3, 0.9)),
    min_area=st.sampled_from((0.0, 0.005, 0.1)),
    max_area=st.sampled_from((0.9, 1.0)),
    min_similarity=st.sampled_from((None, -0.2, 0.1)),
    tie=st.sampled_from((0.0, 0.0001, 0.01, 1.0)),
    max_per_caption=st.integers(1, 4),
)


def by_rows(section, shard):
    output = align_rows.process(section, shard)
    drops = [drop.__dict__ for drop in output.drops]
    return tables.build("pairs", output.tables["pairs"]), tables.build("drops", drops), output.seen


def by_columns(section, shard):
    read = {name: shard[name].select(COLUMNS[name]) for name in shard}
    similarity = Similarity(read["features"], section.min_similarity, lambda: shard["features"])
    output = align(section, read["phrases"], read["boxes"], read["masks"], similarity)
    return output.tables["pairs"], output.drops, output.seen


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(shards(), sections)
def test_columns_and_rows_agree(shard, section):
    try:
        expected = by_rows(section, shard)
    except ParamsError as error:
        with pytest.raises(ParamsError, match=str(error)[:40]):
            by_columns(section, shard)
        return
    pairs, drops, seen = by_columns(section, shard)
    assert pairs.schema == tables.TABLES["pairs"] and drops.schema == tables.TABLES["drops"]
    assert pairs.to_pylist() == expected[0].to_pylist()
    assert drops.to_pylist() == expected[1].to_pylist()
    assert pairs.equals(expected[0]) and drops.equals(expected[1]) and seen == expected[2]


def test_a_whole_shard_is_the_same_file_byte_for_byte(tmp_path, monkeypatch):
    monkeypatch.setattr(made_shards, "BLOBS", 12)
    made_shards.blobs.cache_clear()
    shard = made_shards.make_shard(0, 16)
    made_shards.blobs.cache_clear()
    rows, columns = by_rows(Align(), shard), by_columns(Align(), shard)
    for name, row, column in (("pairs", rows[0], columns[0]), ("drops", rows[1], columns[1])):
        assert row.num_rows > 500
        for table, file in ((row, "row"), (column, "column")):
            write_table(tmp_path / file, name, table)
        assert (tmp_path / "row").read_bytes() == (tmp_path / "column").read_bytes()


def test_vectors_are_not_read_where_there_are_no_phrases_to_compare_with():
    rows = [{"id": "object:1", "kind": "object", "image_id": "1", "vector": b"\0" * 2 * DIM}]
    features = tables.build("features", rows, tables.features_schema(DIM)).select(["id", "kind"])

    def vectors():
        raise AssertionError("read for nothing")

    similarity = Similarity(features, None, vectors)
    assert np.isnan(similarity(["object:1"], pa.chunked_array([["a dog"]]))).all()
