"""A finished dataset, made up from one seed: rendered photos, five captions' worth of pairs on every two, a few drops.

For measuring the page, not the stages: the tables hold what the report reads, the features are left empty.
"""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from pipeline import ledger, tables
from pipeline import params as parameters
from pipeline.files import sha256_file
from pipeline.ledger import Drop
from pipeline.sections import Params
from pipeline.shards import Sidecar, shard_name, shard_of, sidecar_path, write_table
from stages.common import rle
from stages.quality.stage import write as measure
from stages.report.stage import Places

SHARDS = 8
THINGS = ("dog", "kite", "bicycle", "umbrella", "teapot", "sheep", "lighthouse", "violin")
COLOURS = ("red", "green", "blue", "yellow", "white", "orange")
UNITS = {
    "ingest": {"image": ("images", "id"), "caption": ("captions", "id"), "sentence": ("sentences", "id")},
    "parse": {"caption": ("phrases", "caption_id"), "phrase": ("phrases", "id")},
    "detect": {"phrase": ("boxes", "phrase_id")},
    "segment": {"box": ("masks", "box_id")},
    "embed": {"feature": ("features", "id")},
    "align": {"candidate": ("pairs", "id")},
}
REASONS = ("ambiguous", "too_small", "not_best", "low_score", "mask_off_box")


def make(root: Path, images: int, pairs: int, width: int = 480, height: int = 360) -> tuple[Params, Places]:
    """Writes the dataset under `root`; returns the parameters that show all its pairs, and where it lies.

    Every image gets pairs // images pairs (the first ones one more), and every tenth image a dropped candidate.
    """
    rows: dict[str, list[dict]] = {name: [] for name in tables.TABLES}
    noise = np.random.default_rng(0).integers(-24, 25, (2 * height, 2 * width, 3), dtype=np.int16)
    for number in range(images):
        own = pairs // images + (number < pairs % images)
        _image(rows, number, own, noise, width, height)
    data, metrics, plots = root / "data", root / "metrics", root / "plots"
    for stage, units in UNITS.items():
        _write(data / stage, stage, units, rows)
    measure(data, Path(__file__).parents[1] / "presets/no_gold.json", {}, data / "quality", metrics / "quality")
    _runs(data, metrics, plots)
    (root / "sts").mkdir()
    params = parameters.load(Path(__file__).parents[1] / "presets" / "demo.yaml")
    report = params.report.model_copy(update={"gallery": pairs})
    grid = params.grid.model_copy(update={"recipes": ["untrained"], "seeds": [0]})
    evaluate = params.evaluate.model_copy(update={"path": str(root / "sts")})
    changed = {"dataset": "made", "report": report, "grid": grid, "evaluate": evaluate}
    return params.model_copy(update=changed), Places(data, metrics, plots, root / "index.html")


def _image(rows: dict[str, list[dict]], number: int, pairs: int, noise: np.ndarray, width: int, height: int) -> None:
    draw = np.random.default_rng([1, number])
    image_id = f"{number:06d}"
    sky, ground = draw.integers(60, 220, (2, 3))
    ramp = np.linspace(0, 1, height)[:, None, None] * (ground - sky) + sky
    top, left = draw.integers(0, (height, width))
    pixels = np.broadcast_to(ramp, (height, width, 3)) + noise[top : top + height, left : left + width]
    photo = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    drops = int(number % 10 == 0)
    for place in range(pairs + drops):
        colour, thing = COLOURS[draw.integers(len(COLOURS))], THINGS[draw.integers(len(THINGS))]
        phrase = f"a {colour} {thing}"
        text = f"{phrase} near something else that somebody left in picture number {number}"
        points = _blob(draw, width, height)
        ImageDraw.Draw(photo).polygon(points, fill=colour)
        canvas = Image.new("L", (width, height))
        ImageDraw.Draw(canvas).polygon(points, fill=1)
        mask, score = np.asarray(canvas, bool), float(draw.uniform(0.35, 1))
        _pair(rows, image_id, place, text, phrase, mask, score, place < pairs)
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=85)
    stored = {"bytes": buffer.getvalue(), "width": width, "height": height}
    described = {"sha256": "00" * 32, "uri": f"{image_id}.jpg", "split": "train", "rewritten": "", "phash": 0}
    rows["images"].append({"id": image_id, **stored, **described})


def _blob(draw: np.random.Generator, width: int, height: int) -> list[tuple[float, float]]:
    """A wobbly ellipse, like the outline of a real object."""
    angles = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    edge = 1 + sum(draw.uniform(0, 0.14) * np.cos(k * angles + draw.uniform(0, 6)) for k in range(2, 8))
    (x, y), radius = draw.uniform(0.25, 0.75, 2), draw.uniform(0.06, 0.22, 2)
    across, down = x + radius[0] * edge * np.cos(angles), y + radius[1] * edge * np.sin(angles)
    return list(zip((width * across).tolist(), (height * down).tolist(), strict=True))


def _pair(
    rows: dict[str, list[dict]],
    image_id: str,
    place: int,
    text: str,
    phrase: str,
    mask: np.ndarray,
    score: float,
    kept: bool,
) -> None:
    height, width = mask.shape
    caption_id = f"{image_id}#{place}"
    identifier = f"{caption_id}@0-{len(phrase)}"
    counts = rle.encode(mask)
    corners = dict(zip(("x0", "y0", "x1", "y1"), rle.box(counts, height, width), strict=True))
    own = {"id": identifier, "image_id": image_id}
    span = {"caption_id": caption_id, "start": 0, "end": len(phrase), "text": phrase}
    words = {"head": phrase.split()[-1], "key": phrase.split()[-1]}
    frame = {"height": height, "width": width, "counts": counts}
    found = {"score": score, "predicted_iou": 0.9, "stability": 0.9}
    box_id = f"{identifier}/0"
    rows["captions"].append({"id": caption_id, "image_id": image_id, "text": text, "split": "train"})
    rows["phrases"].append({**own, **span, **words, "number": "sing", "count": None, "kind": "noun"})
    box = {"id": box_id, "image_id": image_id, "phrase_id": identifier, "rank": 0, "label": words["head"]}
    rows["boxes"].append({**box, **corners, "score": score, "object_id": None})
    area = int(mask.sum())
    rows["masks"].append({"id": box_id, "image_id": image_id, "box_id": box_id, **frame, "area": area, **found})
    if kept:
        shares = {"area": area / mask.size, "mask_box_iou": 1.0, "similarity": score / 2, "objects": 1}
        names = {"feature_id": "object:0", "image_feature_id": f"image:{image_id}", "phrase_id": identifier}
        rows["pairs"].append({**own, **span, **words, **corners, **frame, **found, **shares, **names})
    else:
        reason = REASONS[int(image_id) // 10 % len(REASONS)]
        rows["drops"].append(Drop("candidate", box_id, image_id, "dropped", reason, f"{score:.3f}").__dict__)


def _write(folder: Path, stage: str, units: dict[str, tuple[str, str]], rows: dict[str, list[dict]]) -> None:
    names = [name for name, writer in tables.WRITER.items() if writer == stage]
    by_shard: dict[str, list[list[dict]]] = {}
    for name in [*names, "drops"]:
        by_shard[name] = [[] for _ in range(SHARDS)]
        for row in rows[name] if name != "drops" or stage == "align" else ():
            by_shard[name][shard_of(row["image_id"] if name != "images" else row["id"], SHARDS)].append(row)
    for number in range(SHARDS):
        written = {
            name: tables.build(name, parts[number], tables.features_schema(2) if name == "features" else None)
            for name, parts in by_shard.items()
        }
        wrote = {}
        for name, table in written.items():
            path = folder / name / f"{shard_name(number)}.parquet"
            write_table(path, name, table)
            wrote[name] = {"sha256": sha256_file(path), "rows": table.num_rows}
        through = {unit: len(set(written[table].column(key).to_pylist())) for unit, (table, key) in units.items()}
        lost = written["drops"].column("unit").to_pylist()
        counts = ledger.count(units, {unit: n + lost.count(unit) for unit, n in through.items()}, written)
        target = sidecar_path(folder / names[0], number)
        Sidecar(number, stage, 1, wrote, {"images": "ab" * 32}, counts, None, {}, {}).write(target)


def _runs(data: Path, metrics: Path, plots: Path) -> None:
    """An evaluation of the one recipe of the grid, which takes no step."""
    trained = {"steps": 0, "best_step": None, "sts_b_dev": None, "sentences": 0, "captions": 0, "pairs": 0}
    scored = {"tasks": {}, "average": None}
    for stage, body in (("train", trained | {"random_vision": False}), ("evaluate", scored)):
        (metrics / stage).mkdir(parents=True)
        (metrics / stage / "untrained-0.json").write_text(json.dumps(body))
    pairs = data / "scores" / "untrained-0" / "pairs.parquet"
    pairs.parent.mkdir(parents=True)
    kinds = {
        "task": pa.string(),
        "subset": pa.string(),
        "pair": pa.int32(),
        "cosine": pa.float32(),
        "gold": pa.float32(),
    }
    pq.write_table(pa.schema(list(kinds.items())).empty_table(), pairs)
    plots.mkdir()
    (plots / "untrained-0.csv").write_text("step,kind,loss,dev\n")
