"""A finished tiny dataset, written with the pipeline's own functions: three images, hostile captions, drops, runs."""

import io
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.made_collection import UNITS
from model.trainer import write_log
from pipeline import ledger, shards, tables
from pipeline import params as parameters
from pipeline.ledger import Drop
from stages.common import rle
from stages.quality.stage import write as measure
from stages.report.stage import Places

ROOT = Path(__file__).resolve().parents[3]
WIDTH, HEIGHT, SHARDS = 400, 300, 2
SCRIPT = "<script>document.title='run'</script>"
BREAKOUT = "\"><img src=x onerror=document.title='run'>"
CLOSING = "</script></template><script>window.hacked=1</script><!-- <script>"
LONG = "w" * 300
ODD_ID = "4'\"><b onclick=document.title='run'> %41#"
# (image, caption, text, phrase); the first image is shown by two pairs
CAPTIONS = [
    ("1", "1#1", f"{SCRIPT} a red ball on grass", "a red ball"),
    ("1", "1#2", "the \u202eball\u200b again, \U0001f468\u200d\U0001f469\u200d\U0001f467 too", "the \u202eball\u200b"),
    ("2", "2#1", f"look, {BREAKOUT} there", BREAKOUT),
    (ODD_ID, ODD_ID + "#1", "two dogs", "two dogs"),
    ("2", "2#2", f"{CLOSING} a blue ball {LONG}", "a blue ball"),
]
# Graded pairs of sentences; the second of the first pair is a caption of the dataset.
STS = ((1, "a man", "two dogs"), (2, "<i>a</i> cat", "a dog"))
GOLD = tuple((row, float(gold)) for row, (gold, _, _) in enumerate(STS))
DROPS = {
    "ingest": [Drop("image", "9", "9", "rejected", "truncated", "</script><svg onload=document.title='run'>")],
    "parse": [Drop("caption", "2#1", "2", "dropped", "no_phrase", "")],
    "detect": [Drop("phrase", "1#1@38-48", "1", "dropped", "no_match", "no ball is annotated")] * 2,
    "align": [
        Drop("candidate", "1#2@0-5/1", "1", "dropped", "ambiguous"),
        Drop("candidate", "x", None, "dropped", "odd", ""),
    ],
}


@dataclass(frozen=True)
class World:
    """Where the dataset lies; `write` puts the tables there again, with other pairs if told so."""

    root: Path

    @property
    def places(self) -> Places:
        return Places(
            self.root / "data/tiny",
            self.root / "metrics/tiny",
            self.root / "plots/tiny/train",
            self.root / "report/index.html",
        )

    @property
    def params(self) -> parameters.Params:
        return parameters.load(self.root / "params.yaml")

    def change(self, **changes: object) -> parameters.Params:
        return parameters.update(
            self.root / "params.yaml", {key.replace("__", "."): value for key, value in changes.items()}
        )

    def write(self, pairs: bool = True, random_weights: bool = True) -> None:
        rows = _rows()
        if not pairs:
            rows["pairs"] = []
        for stage, units in UNITS.items():
            self._stage(
                stage,
                units,
                rows,
                {"random_weights": random_weights, "architecture": "Net", "dim": 2, "text_tower": False},
            )

    def measure(self) -> dict[str, dict]:
        """What the stage `quality` makes of it; its metrics by stage."""
        data, metrics = self.places.data, self.places.metrics
        gold = Path(self.params.quality.gold_path)
        return measure(data, gold, self.params.detect.synonyms, data / "quality", metrics / "quality")

    def _stage(self, stage: str, units: dict, rows: dict, facts: dict) -> None:
        out = self.places.data / stage
        names = [name for name, writer in tables.WRITER.items() if writer == stage]
        for number in range(SHARDS):
            written = {
                name: tables.build(name, [row for row in rows[name] if _shard(row) == number], _schema(name))
                for name in names
            }
            drops = [drop for drop in DROPS.get(stage, []) if _shard(drop.__dict__) == number]
            written["drops"] = tables.build("drops", [drop.__dict__ for drop in drops])
            through = {
                unit: len(set(written[table].column(column).to_pylist())) for unit, (table, column) in units.items()
            }
            seen = {unit: through[unit] + sum(drop.unit == unit for drop in drops) for unit in units}
            for name, table in written.items():
                shards.write_table(out / name / f"{number:04d}.parquet", name, table)
            shards.Sidecar(
                shard=number,
                stage=stage,
                version=1,
                tables={
                    name: {"sha256": shards.sha256_file(out / name / f"{number:04d}.parquet"), "rows": table.num_rows}
                    for name, table in written.items()
                },
                inputs={"images": "ab" * 32},
                ledger=ledger.count(units, seen, written),
                path_hash="cd" * 32 if stage == "embed" else None,
                params={"max_reject_rate": 0.01, "words": ["<i>", "b"]},
                facts=facts if stage == "embed" else {},
            ).write(out / "sidecars" / f"{number:04d}.json")

    def write_run(self, recipe: str, seed: int) -> None:
        trains, level = recipe != "untrained", 0.5 + 0.1 * seed
        log = (
            [
                {
                    "step": s,
                    "kind": "pair" if s % 4 == 1 else "text",
                    "loss": 3.0 / s,
                    "dev": level if s % 8 == 0 else None,
                }
                for s in range(1, 17)
            ]
            if trains
            else [{"step": 0, "dev": 0.25}]
        )
        self.places.plots.mkdir(parents=True, exist_ok=True)
        write_log(log, self.places.plots / f"{recipe}-{seed}.csv")
        facts = {
            "steps": len(log),
            "best_step": 8,
            "sts_b_dev": 50.0,
            "sentences": 60,
            "captions": 4,
            "pairs": 4,
            "random_vision": recipe == "mcseo",
            "notes": ["few sentences"] if recipe == "mcseo" else [],
        }
        _json(self.places.metrics / "train" / f"{recipe}-{seed}.json", {"recipe": recipe, "seed": seed, **facts})
        tasks = {name: {"all": level, "pairs": 1000} for name in ("STS12", "STS13", "STS14", "STS15", "STS16", "STS-B")}
        body = {
            "recipe": recipe,
            "seed": seed,
            "model": "ef" * 32,
            "average": None,
            "missing": ["SICK-R"],
            "tasks": {**tasks, "STS13": {"all": None, "pairs": 10}, "SICK-R": {"missing": "no folder"}},
        }
        _json(self.places.metrics / "evaluate" / f"{recipe}-{seed}.json", body)
        self.write_scores(recipe, seed, [("STS-B", "test", n, (n - 1.5) * (-1) ** (seed + trains), g) for n, g in GOLD])

    def write_scores(self, recipe: str, seed: int, rows: list[tuple]) -> None:
        """The similarities of the STS pairs: (task, subset, pair, cosine, gold)."""
        path = self.places.data / "scores" / f"{recipe}-{seed}" / "pairs.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        columns = dict(zip(("task", "subset", "pair", "cosine", "gold"), zip(*rows, strict=True), strict=True))
        types = [pa.string(), pa.string(), pa.int32(), pa.float32(), pa.float32()]
        schema = pa.schema(list(zip(columns, types, strict=True)))
        pq.write_table(pa.table({name: list(values) for name, values in columns.items()}, schema), path)


def make(root: Path) -> World:
    root.mkdir(parents=True, exist_ok=True)
    made = World(root)
    (root / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    made.change(
        dataset="tiny",
        grid__recipes=["mcseo", "untrained"],
        grid__seeds=[0],
        evaluate__note="a note <b>",
        report__gallery=50,
        quality__gold_path=str(root / "no_gold.json"),
        evaluate__path=str(root / "sts"),
    )
    (root / "no_gold.json").touch()
    (root / "sts/STSBenchmark").mkdir(parents=True)
    (root / "sts/STSBenchmark/sts-test.csv").write_text("".join(f"g\tf\ty\t{n}\t{n}\t{a}\t{b}\n" for n, a, b in STS))
    made.write()
    made.measure()
    for recipe in ("mcseo", "untrained"):
        made.write_run(recipe, 0)
    return made


def mask() -> np.ndarray:
    """A ring: a disc of radius 80 with a hole of radius 30."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    far = np.hypot(x - 200, y - 150)
    return (far < 80) & (far > 30)


def _rows() -> dict[str, list[dict]]:
    rows: dict[str, list[dict]] = defaultdict(list)
    rows["images"] = []
    counts = rle.encode(mask())
    for image_id in dict.fromkeys(image_id for image_id, *_ in CAPTIONS):
        rows["images"].append(
            {
                "id": image_id,
                "sha256": "00" * 32,
                "bytes": _jpeg(len(rows["images"])),
                "width": WIDTH,
                "height": HEIGHT,
                "uri": "a.jpg",
                "split": "train",
                "rewritten": "",
                "phash": 0,
            }
        )
    rows["sentences"].append({"id": "s", "text": "a sentence"})
    for image_id, caption_id, text, phrase in CAPTIONS:
        start = text.index(phrase)
        identifier = f"{caption_id}@{start}-{start + len(phrase)}"
        span = {
            "id": identifier,
            "image_id": image_id,
            "caption_id": caption_id,
            "start": start,
            "end": start + len(phrase),
            "text": phrase,
            "head": "ball",
            "key": "ball",
        }
        box = {"x0": 120.0, "y0": 70.0, "x1": 280.0, "y1": 230.0}
        quality = {"predicted_iou": 1.0, "stability": 1.0}
        frame = {"height": HEIGHT, "width": WIDTH, "counts": counts}
        rows["captions"].append({"id": caption_id, "image_id": image_id, "text": text, "split": "train"})
        rows["phrases"].append({**span, "number": "sing", "count": None, "kind": "noun"})
        rows["boxes"].append(
            {
                "id": f"{identifier}/0",
                "image_id": image_id,
                "phrase_id": identifier,
                "rank": 0,
                **box,
                "score": 0.9,
                "label": "ball",
                "object_id": None,
            }
        )
        rows["masks"].append(
            {
                "id": f"{identifier}/0",
                "image_id": image_id,
                "box_id": f"{identifier}/0",
                **frame,
                "area": 17000,
                **quality,
            }
        )
        rows["features"].append(
            {"id": f"object:{identifier}", "kind": "object", "image_id": image_id, "vector": b"\0" * 4}
        )
        rows["pairs"].append(
            {
                **span,
                "phrase_id": identifier,
                "objects": 1,
                **box,
                **frame,
                "area": 0.1437,
                "score": 0.9,
                **quality,
                "mask_box_iou": 0.98,
                "similarity": None,
                "feature_id": f"object:{identifier}",
                "image_feature_id": f"image:{image_id}",
            }
        )
    return rows


def _shard(row: dict) -> int:
    return shards.shard_of(row.get("image_id") or row["id"], SHARDS)


def _schema(name: str):
    return tables.features_schema(2) if name == "features" else None


def _jpeg(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), (60 * number, 120, 90)).save(buffer, "JPEG")
    return buffer.getvalue()


def _json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
