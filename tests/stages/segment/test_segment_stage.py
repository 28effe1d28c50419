"""The stage around the backend: tables, ledger, sidecars, devices; and every reader of masks that have no box."""

import json
import subprocess
import sys

import pyarrow.compute as pc
import pytest
import torch
from small import ROOT, digests, environment, in_process, run_stage, write_params
from vision import small_sam

from pipeline import show, verify
from pipeline.errors import InputError, StageError
from pipeline.export import coco
from pipeline.shards import read_all
from stages.common.candidates import candidates
from stages.report import flow, sample
from stages.report.records import read_stage
from stages.segment.convert import convert

CHAIN = ("ingest", "parse", "detect")
VISION = str(ROOT / "demo/checkpoints/vision_random")
GRID = {"points_per_side": 4, "min_predicted_iou": 0.0, "min_stability": 0.0, "nms_iou": 0.9}


@pytest.fixture
def sam(small, weights):
    """The small collection up to detect, with a small SAM to segment it."""

    def ready(**changes):
        section = {"segment__backend": "sam", "segment__path": str(weights), "embed__path": VISION}
        lenient = {"align__min_mask_box_iou": 0.0, "align__min_area": 0.0, "align__max_area": 1.0}
        write_params(small / "params.yaml", small / "collection", **(section | lenient | changes))
        for stage in CHAIN:
            in_process(stage, small)
        return small

    return ready


def test_every_box_gets_its_row_and_the_sidecar_says_by_what(sam):
    folder = sam()
    said = in_process("segment", folder)
    boxes, masks = (read_all(folder / f"data/small/{name}") for name in ("detect/boxes", "segment/masks"))
    drops = read_all(folder / "data/small/segment/drops")
    assert masks["box_id"].to_pylist() == masks["id"].to_pylist() and masks.num_rows > 90
    assert sorted([*masks["id"].to_pylist(), *drops["id"].to_pylist()]) == sorted(boxes["id"].to_pylist())
    assert min(masks["area"].to_pylist()) > 0 and set(masks["width"].to_pylist()) == {64}
    assert all(words in said.splitlines()[-1] for words in ("images/s, device busy", "MFU", "peak memory", "warm-up"))
    sidecar = json.loads(next((folder / "data/small/segment/sidecars").glob("*.json")).read_text())
    assert sidecar["facts"] == {"architecture": "small"} and sidecar["path_hash"]
    assert json.loads((folder / "metrics/small/segment.json").read_text())["facts"] == {"architecture": "small"}


@pytest.mark.fault("F53")
def test_two_devices_write_the_bytes_of_one(sam):
    folder = sam()
    in_process("segment", folder)
    first = digests(folder / "data/small/segment")
    for record in (folder / ".scratch/small/segment").glob("*.json"):
        record.unlink()
    sam(runtime__devices=["cpu", "cpu"])
    assert "4 shards computed" in in_process("segment", folder)
    assert digests(folder / "data/small/segment") == first


@pytest.mark.fault("F48")
def test_nothing_of_a_shard_with_nan_is_written(sam, tmp_path):
    made = small_sam()
    made.image_encoder.patch_embed.proj.weight.data *= 1e6  # more than fp16 holds
    torch.save(made.state_dict(), tmp_path / "sam.pth")
    convert(tmp_path / "sam.pth", tmp_path / "sam", "small")
    folder = sam(segment__path=str(tmp_path / "sam"), segment__dtype="fp16")
    with pytest.raises(StageError, match="^image .*: NaN or infinity"):
        in_process("segment", folder)
    assert not list((folder / "data/small/segment").rglob("*.parquet"))
    assert not list((folder / ".scratch/small/segment").glob("*.json"))


def test_masks_of_a_grid_pass_through_everything_that_reads_masks(sam, tmp_path):
    folder = sam(segment__prompt="grid", segment__grid=GRID)
    for stage in ("segment", "embed", "align"):
        in_process(stage, folder)
    data = folder / "data/small"
    masks = read_all(data / "segment/masks")
    loose = [row for row in masks.to_pylist() if row["box_id"] is None]
    boxed = [row for row in masks.to_pylist() if row["box_id"] is not None]
    assert len({row["image_id"] for row in loose}) == 24 and len(loose) > 48 and boxed
    assert all(row["id"].startswith(f"{row['image_id']}/grid/") for row in loose)
    ledger = json.loads((folder / "metrics/small/segment.json").read_text())["ledger"]["box"]
    assert ledger["in"] == ledger["out"] + sum(ledger["dropped"].values()) and ledger["out"] == len(boxed)
    pixels = {(row["image_id"], row["counts"]) for row in loose}
    assert all((row["image_id"], row["counts"]) in pixels for row in boxed)

    pairs = read_all(data / "align/pairs").to_pylist()
    assert pairs, "there is something to read"
    report = verify.Report()
    verify.dataset(data, report, verify.Digests())
    assert report.looked["shards"] == 24 and not [str(fault) for fault in report.faults]
    found = show.find(data, pairs[0]["id"])
    assert len(found.masks) == len(found.boxes) and all(row["box_id"] for row in found.masks)
    assert coco.write(data, tmp_path / "coco")[1] == len(pairs)
    assert len(sample.kept(data, 10, 0).cases) == 10
    sample.dropped(data, 10, 0)
    flow.steps([read_stage(data / name) for name in (*CHAIN, "segment", "embed", "align")])

    phrases, boxes = (read_all(data / name) for name in ("parse/phrases", "detect/boxes"))
    valid = masks["box_id"].is_valid()
    assert candidates(phrases, boxes, masks).equals(candidates(phrases, boxes, masks.filter(valid)))
    assert candidates(phrases, boxes, masks.filter(pc.invert(valid))).num_rows == 0


def test_missing_weights_end_with_exit_3(sam):
    folder = sam(segment__path="nowhere")
    result = run_stage("segment", folder)
    assert result.returncode == 3 and "Traceback" not in result.stderr
    assert "nowhere: no such file or folder" in result.stderr
    write_params(folder / "params.yaml", folder / "collection", segment__backend="sam", segment__path="collection")
    with pytest.raises(InputError, match=r"no config\.json of segment\.path"):
        in_process("segment", folder)


def test_annotations_need_no_torch(small):
    for stage in CHAIN:
        in_process(stage, small)
    code = """
import sys
from pipeline import entry, runner
stage = runner.load_stage("segment")
arguments = entry.parser("segment", stage.reads, "").parse_args([])
runner.run_stage(stage, entry.context("segment", stage.reads, arguments))
assert "torch" not in sys.modules
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=small, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
