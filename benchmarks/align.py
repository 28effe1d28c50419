"""align: the stage's columns against the same rules row by row (`benchmarks.align_rows`), on shards of 125 images with
about 450 bytes a mask (`benchmarks.made_shards`).

Floor: pycocotools alone on the same masks, the area and the bounding box of each. One core; rates are of processor
time, so that other work on the machine does not show, and the best of several rounds. Last, the whole stage as the
runner calls it: reads and hashes its inputs, writes, hashes and flushes its outputs.
"""

import contextlib
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from pycocotools import mask as coco

from benchmarks import align_rows
from benchmarks.machine import machine
from benchmarks.made_shards import make_shard, write_shards
from pipeline import params, tables
from pipeline.runner import Context, run_stage
from pipeline.sections import Align, Params
from stages.align.similarity import Similarity
from stages.align.stage import STAGE, align

SHARDS, ROUNDS, DIM = 8, 5, 512
_LIST = 250  # the longest list of masks that pycocotools' `area` takes with NumPy 2


def main() -> None:
    pa.set_cpu_count(1)
    section = Align()
    plain = [make_shard(number) for number in range(SHARDS)]
    text = [make_shard(number, DIM) for number in range(SHARDS)]
    number = sum(align_columns(section, shard)[0] for shard in plain)
    masks = [_masks(shard["masks"]) for shard in plain]
    print(machine())
    print(f"{number} candidates, {sum(len(each) for each in masks)} masks, {SHARDS} shards")

    rows = number / _best(lambda: [align_by_rows(section, shard) for shard in plain], 2)
    print(f"row by row                {rows:10,.0f} candidates/s")
    ours = number / _best(lambda: [align_columns(section, shard) for shard in plain], ROUNDS)
    print(f"ours, by columns          {ours:10,.0f} candidates/s   {ours / rows:.1f}x")
    towers = number / _best(lambda: [align_columns(section, shard) for shard in text], ROUNDS)
    print(f"ours, with text features  {towers:10,.0f} candidates/s   {DIM} dimensions")
    floor = sum(map(len, masks)) / _best(lambda: [_measure(each) for each in masks], ROUNDS)
    print(f"floor, pycocotools only   {floor:10,.0f} masks/s        ours is at {ours / floor:.0%} of it")
    for name, shards in (("without", plain), ("with", text)):
        wall, cpu = min(_on_disk(shards) for _ in range(2))
        print(
            f"whole stage on disk       {number / cpu:10,.0f} candidates/s   {name} text features; "
            f"{number / wall:,.0f} by the clock on the wall, flushing included"
        )


def align_columns(section: Align, shard: dict[str, pa.Table]) -> tuple[int, int]:
    """The stage's function on tables in memory; returns candidates in and pairs out."""
    similarity = Similarity(shard["features"], section.min_similarity, lambda: shard["features"])
    output = align(section, shard["phrases"], shard["boxes"], shard["masks"], similarity)
    return output.seen["candidate"], output.tables["pairs"].num_rows


def align_by_rows(section: Align, shard: dict[str, pa.Table]) -> tuple[int, int]:
    """The same, row by row, up to the same finished tables."""
    output = align_rows.process(section, shard)
    pairs = tables.build("pairs", output.tables["pairs"])
    tables.build("drops", [drop.__dict__ for drop in output.drops])
    return output.seen["candidate"], pairs.num_rows


def _masks(masks: pa.Table) -> list[dict]:
    columns = (masks.column(name).to_pylist() for name in ("counts", "height", "width"))
    return [{"counts": counts, "size": [height, width]} for counts, height, width in zip(*columns, strict=True)]


def _measure(masks: list[dict]) -> np.ndarray:
    for start in range(0, len(masks), _LIST):
        coco.area(masks[start : start + _LIST])
    return coco.toBbox(masks)


def _best(work: Callable[[], object], rounds: int) -> float:
    """The least processor time of several rounds, in seconds."""
    taken = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return min(taken)


def _on_disk(shards: list[dict[str, pa.Table]]) -> tuple[float, float]:
    """The whole stage over files: seconds by the clock, and of processor time."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        root = Path(folder)
        settings = _settings(root)
        folders = write_shards(root / "data", shards)
        context = Context(settings, settings.align, folders, root / "data/align", root / "align.json")
        wall, cpu = time.perf_counter(), time.process_time()
        run_stage(STAGE, context)
        return time.perf_counter() - wall, time.process_time() - cpu


def _settings(root: Path) -> Params:
    settings = params.load(Path("params.yaml"))
    runtime = settings.runtime.model_copy(update={"scratch": str(root / "scratch"), "workers": 1})
    return settings.model_copy(update={"align": Align(), "runtime": runtime})


if __name__ == "__main__":
    main()
