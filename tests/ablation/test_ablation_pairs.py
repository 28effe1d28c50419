"""Gold pairs of a small rendered world, and what spoiling them does; measured by the stage `quality` itself."""

import contextlib
import io
import json
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from small import ROOT, digests

from ablation import corrupt, gold, matrix, tables
from ablation.gold import Annotations
from demo.build import build
from pipeline import params, runner
from pipeline.errors import ParamsError
from pipeline.rows import verified
from pipeline.shards import read_all, shard_numbers
from stages.common import rle
from stages.common.rle import Mask
from stages.quality.stage import write as measure

SCENES = 24


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> SimpleNamespace:
    """A world of some scenes as a dataset with gold pairs, up to align; `root` is the working folder."""
    root = tmp_path_factory.mktemp("ablation")
    plan = matrix.load(ROOT / matrix.PARAMS)
    with contextlib.chdir(root), contextlib.redirect_stderr(io.StringIO()):
        for path in (matrix.PRESET, Path("demo/checkpoints/vision_random")):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(ROOT / path)
        Path("sentences.txt").write_text("a ball\na kite\n")
        plan.settings["ingest"] = {**plan.settings["ingest"], "sentences_path": "sentences.txt", "shards": 2}
        plan.settings["embed"] = {**plan.settings["embed"], "path": "demo/checkpoints/vision_random"}
        build(3, SCENES, matrix.DATASETS / plan.base / matrix.WORLD, sentences=0, sts=False)
        known = Annotations(plan.gold(plan.base))
        run(plan, plan.base, "ingest")
        gold.write(matrix.DATASETS / plan.base, known)
        run(plan, plan.base, "embed", "align")
    return SimpleNamespace(root=root, plan=plan, known=known, folder=root / matrix.DATASETS / plan.base)


def run(plan: matrix.Matrix, dataset: str, *stages: str) -> None:
    """Sharded stages on a dataset, in this process and folder."""
    values = params.load(matrix.write_params(plan, dataset))
    folder = matrix.DATASETS / dataset
    for name in stages:
        stage = runner.load_stage(name)
        inputs = {table: folder / runner.tables.WRITER[table] / table for table in stage.reads}
        places = {"inputs": inputs, "out": folder / name, "metrics": folder / "metrics" / f"{name}.json"}
        runner.run_stage(stage, runner.Context(params=values, section=getattr(values, name), **places))


def spoil(made: SimpleNamespace, name: str, kind: str, share: float) -> Path:
    """A dataset with the base world's pairs, spoilt, up to align."""
    out = matrix.DATASETS / name
    made.plan.sources[name] = {"kind": kind, "share": share}
    with contextlib.chdir(made.root), contextlib.redirect_stderr(io.StringIO()):
        run(made.plan, name, "ingest")
        corrupt.write(matrix.DATASETS / made.plan.base, out, made.known, made.plan.sources[name])
        run(made.plan, name, "embed", "align")
    return made.root / out


def precision(made: SimpleNamespace, folder: Path) -> float:
    annotations = made.root / made.plan.gold(made.plan.base)
    return measure(folder, annotations, {}, folder / "quality", folder / "quality")["align"]["all"]["precision"]


def phrases(folder: Path) -> list[tables.Denoted]:
    return [one for shard in shard_numbers(folder / "parse/phrases") for one in tables.read(folder, shard)]


# ------------------------------------------------------------ gold


def test_every_gold_phrase_that_denotes_objects_is_there_with_their_masks(made):
    captions = {row["id"]: row for row in read_all(made.folder / "ingest/captions").to_pylist()}
    document = json.loads((made.folder / "world/annotations/phrases_world.json").read_text())
    wanted = {
        (caption, item["start"], item["end"]): tuple(map(str, item["objects"]))
        for caption, items in document.items()
        for item in items
        if item["objects"] and item["role"] != "pronoun"
    }
    found = {}
    for one in phrases(made.folder):
        row = one.phrase
        assert captions[row["caption_id"]]["text"][row["start"] : row["end"]] == row["text"]
        assert row["count"] == len(one.masks) and row["number"] == ("plur" if len(one.masks) > 1 else "sing")
        assert [made.known.masks[name] for name in one.objects] == list(one.masks)
        found[row["caption_id"].rsplit("#", 1)[-1], row["start"], row["end"]] = one.objects
    assert found == wanted and len(found) > SCENES


def test_gold_pairs_are_right_and_nearly_all_there(made):
    assert precision(made, made.folder) == 1.0
    pairs = read_all(made.folder / "align/pairs")
    assert pairs.num_rows > 0.95 * len(phrases(made.folder))
    assert max(pairs.column("objects").to_pylist()) > 1  # several things of a kind are one pair


def test_the_tables_are_the_contracts(made):
    for stage, table in (("parse", "phrases"), ("detect", "boxes"), ("segment", "masks")):
        for shard in shard_numbers(made.folder / stage / table):
            verified(made.folder / stage / table, shard)
            assert verified(made.folder / stage / "drops", shard).num_rows == 0


def test_what_is_written_again_is_the_same_bytes(made, tmp_path):
    for shard in shard_numbers(made.folder / "parse/phrases"):
        tables.write(tmp_path, shard, tables.read(made.folder, shard), {})
    for name in ("parse/phrases", "detect/boxes", "segment/masks"):
        assert digests(tmp_path / name) == digests(made.folder / name)


# ------------------------------------------------------------ spoilt


@pytest.mark.parametrize("kind", ["jitter", "swap"])
def test_a_larger_share_makes_worse_pairs_of_the_same_words(made, kind):
    words = [one.phrase["id"] for one in phrases(made.folder)]
    changed, measured = [], []
    for share in (0.0, 0.3, 0.6):
        folder = spoil(made, f"{kind}{share:g}", kind, share)
        now = phrases(folder)
        assert [one.phrase["id"] for one in now] == words
        pairs = zip(phrases(made.folder), now, strict=True)
        changed.append({before.phrase["id"] for before, after in pairs if before.masks != after.masks})
        measured.append(precision(made, folder))
    assert changed[0] == set() and changed[1] < changed[2]  # what a small share spoils, a larger one does too
    assert measured[0] == 1.0 and measured[0] > measured[1] > measured[2]
    assert all(corrupt.is_spoilt(name, 0.3) for name in changed[1])


def test_a_swapped_phrase_has_other_objects_of_its_image(made):
    before, after = (
        {one.phrase["id"]: one for one in phrases(folder)} for folder in (made.folder, spoil(made, "all", "swap", 1.0))
    )
    others = [name for name in before if before[name].masks != after[name].masks]
    assert len(others) > 0.9 * len(before)
    for name in others:
        assert not set(before[name].objects) & set(after[name].objects)
        assert set(after[name].objects) <= set(made.known.objects[before[name].phrase["image_id"]])


@pytest.mark.parametrize("seed", range(40))
def test_a_moved_mask_has_left_most_of_its_place_and_is_still_in_the_image(seed):
    draw = random.Random(seed)
    height, width = 60, 90
    pixels = np.zeros((height, width), bool)
    top, left = draw.randrange(0, 45), draw.randrange(0, 70)
    pixels[top : top + draw.randrange(3, 15), left : left + draw.randrange(3, 20)] = True
    mask = Mask(rle.encode(pixels), height, width)
    moved = corrupt.moved(mask, draw)
    assert (moved.height, moved.width) == (height, width)
    assert rle.mask_iou(mask.counts, moved.counts, height, width) < 0.2
    assert rle.area(*moved) >= rle.area(*mask) / 4  # more than half of either side stays


def test_a_mask_that_fills_its_image_moves_by_less():
    full = Mask(rle.encode(np.ones((10, 10), bool)), 10, 10)
    for seed in range(20):
        assert rle.area(*corrupt.moved(full, random.Random(seed))) > 0


def test_a_phrase_whose_image_holds_nothing_else_stays(made):
    one = phrases(made.folder)[0]
    alone = SimpleNamespace(objects={one.phrase["image_id"]: list(one.objects)}, masks={})
    assert corrupt.swapped(one, alone) is one


@pytest.mark.parametrize("source", [{"kind": "blur", "share": 0.1}, {"kind": "swap", "share": 2}, {"kind": "swap"}])
def test_a_source_that_makes_no_sense_is_one_line(made, tmp_path, source):
    with pytest.raises(ParamsError, match="a source of pairs is"):
        corrupt.write(made.folder, tmp_path, made.known, source)
