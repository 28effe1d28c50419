"""Small made datasets: scenes of rectangles as plain values, and the tables that four stages would leave of them."""

import io
import json
import random
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.made_collection import UNITS
from pipeline import ledger, shards, tables
from pipeline.ledger import Drop
from stages.common import rle

WIDTH, HEIGHT, SHARDS = 40, 30, 2
Box = tuple[int, int, int, int]


def pixels(*boxes: Box) -> np.ndarray:
    made = np.zeros((HEIGHT, WIDTH), bool)
    for x0, y0, x1, y1 in boxes:
        made[y0:y1, x0:x1] = True
    return made


@dataclass
class Found:
    """A box that detect found, its score, and the mask that segment made of it."""

    box: Box
    score: float
    mask: np.ndarray | None


@dataclass
class Phrase:
    """A phrase that parse cut: a span, its boxes (best first), and which of them became the pair (None: none did)."""

    start: int
    end: int
    found: list[Found] = field(default_factory=list)
    pair: int | None = None
    head: str = "thing"
    number: str = "sing"
    count: int | None = None


@dataclass
class Caption:
    """`gold`: (start, end, object ids, role); None: there is no gold for it."""

    id: str
    image: str
    text: str
    phrases: list[Phrase] = field(default_factory=list)
    gold: list[tuple[int, int, list[int], str]] | None = None
    drops: list[Drop] = field(default_factory=list)


@dataclass
class Dataset:
    """Captions, and the objects of every image: id -> pixels."""

    captions: list[Caption]
    objects: dict[str, dict[int, np.ndarray]]
    drops: list[tuple[str, Drop]] = field(default_factory=list)

    def write(self, root: Path) -> tuple[Path, Path]:
        """The tables and the gold (phrases and instances); returns both folders."""
        rows: dict[str, list[dict]] = defaultdict(list)
        for image in self.objects:
            rows["images"].append(_image(image))
        for caption in self.captions:
            _caption(rows, caption)
        for stage, units in UNITS.items():
            if stage != "embed":
                _stage(root / "data", stage, units, rows, [drop for name, drop in self.drops if name == stage])
        gold = root / "gold"
        gold.mkdir(parents=True, exist_ok=True)
        phrases = {c.id: [_gold(c, *item) for item in c.gold] for c in self.captions if c.gold is not None}
        (gold / "phrases_made.json").write_text(json.dumps(phrases))
        things = [_thing(image, number, mask) for image, own in self.objects.items() for number, mask in own.items()]
        document = {"images": [], "categories": [{"id": 1, "name": "thing"}], "annotations": things}
        (gold / "instances_made.json").write_text(json.dumps(document))
        return root / "data", gold


def _gold(caption: Caption, start: int, end: int, objects: list[int], role: str) -> dict:
    return {"start": start, "end": end, "text": caption.text[start:end], "objects": objects, "role": role}


def box_of(mask: np.ndarray) -> Box:
    ys, xs = np.nonzero(mask)
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


def _thing(image: str, number: int, mask: np.ndarray) -> dict:
    x0, y0, x1, y1 = box_of(mask)
    segmentation = {"size": [HEIGHT, WIDTH], "counts": rle.encode(mask).decode()}
    box = [x0, y0, x1 - x0, y1 - y0]
    return {"id": number, "image_id": image, "category_id": 1, "bbox": box, "segmentation": segmentation}


def _image(image: str) -> dict:
    buffer = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), (90, 120, 90)).save(buffer, "PNG")
    stored = {"bytes": buffer.getvalue(), "width": WIDTH, "height": HEIGHT, "uri": "a.png"}
    return {"id": image, "sha256": "00" * 32, **stored, "split": "train", "rewritten": "", "phash": 0}


def _caption(rows: dict[str, list[dict]], caption: Caption) -> None:
    rows["captions"].append({"id": caption.id, "image_id": caption.image, "text": caption.text, "split": "train"})
    for phrase in caption.phrases:
        identifier = f"{caption.id}@{phrase.start}-{phrase.end}"
        words = {"text": caption.text[phrase.start : phrase.end], "head": phrase.head, "key": phrase.head}
        span = {"caption_id": caption.id, "start": phrase.start, "end": phrase.end, **words}
        own = {"id": identifier, "image_id": caption.image}
        rows["phrases"].append({**own, **span, "number": phrase.number, "count": phrase.count, "kind": "noun"})
        quality = {"predicted_iou": 1.0, "stability": 1.0}
        for rank, found in enumerate(phrase.found):
            corners = dict(zip(("x0", "y0", "x1", "y1"), map(float, found.box), strict=True))
            box = {"id": f"{identifier}/{rank}", "image_id": caption.image}
            named = {"phrase_id": identifier, "rank": rank, "label": "thing", "object_id": None}
            rows["boxes"].append({**box, **named, **corners, "score": found.score})
            if found.mask is None:
                continue
            frame = {"height": HEIGHT, "width": WIDTH, "counts": rle.encode(found.mask)}
            area = int(found.mask.sum())
            rows["masks"].append({**box, "box_id": box["id"], **frame, "area": area, **quality})
            if phrase.pair == rank:
                shares = {"area": area / (WIDTH * HEIGHT), "mask_box_iou": 1.0, "similarity": None}
                ids = {"feature_id": "object:x", "image_feature_id": "image:x", "phrase_id": identifier}
                pair = {**own, **span, **corners, **frame, **quality, **shares, **ids}
                rows["pairs"].append({**pair, "score": found.score, "objects": 1})


def _stage(data: Path, stage: str, units: dict, rows: dict[str, list[dict]], drops: list[Drop]) -> None:
    out = data / stage
    names = [name for name, writer in tables.WRITER.items() if writer == stage]
    for number in range(SHARDS):
        written = {name: tables.build(name, [row for row in rows[name] if _shard(row) == number]) for name in names}
        own = [drop for drop in drops if _shard({"image_id": drop.image_id}) == number]
        written["drops"] = tables.build("drops", [drop.__dict__ for drop in own])
        through = {unit: len(set(written[table].column(column).to_pylist())) for unit, (table, column) in units.items()}
        seen = {unit: through[unit] + sum(drop.unit == unit for drop in own) for unit in units}
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
            inputs={},
            ledger=ledger.count(units, seen, written),
            path_hash=None,
            params={},
            facts={},
        ).write(out / "sidecars" / f"{number:04d}.json")


def _shard(row: dict) -> int:
    return shards.shard_of(row.get("image_id") or row["id"], SHARDS)


def drawn(seed: int, images: int = 6) -> Dataset:
    """A dataset drawn from a seed: phrases that are gold's, a word off, or made up; boxes and masks that are right,
    shifted, or of another object; pairs of some.
    """
    draw = random.Random(seed)
    objects, captions = {}, []
    for image in (f"i{number}" for number in range(images)):
        own = {}
        for number in range(draw.randint(1, 4)):
            x0, y0 = draw.randrange(0, WIDTH - 6), draw.randrange(0, HEIGHT - 6)
            box = x0, y0, min(WIDTH, x0 + draw.randint(2, 30)), min(HEIGHT, y0 + draw.randint(2, 20))
            own[number + 1] = pixels(box) & (np.random.default_rng([seed, number]).random((HEIGHT, WIDTH)) < 0.9)
            own[number + 1][y0, x0] = True
        objects[image] = own
        captions += [_drawn_caption(draw, image, index, own) for index in range(draw.randint(0, 3))]
    return Dataset(captions, objects)


def _drawn_caption(draw: random.Random, image: str, index: int, own: dict[int, np.ndarray]) -> Caption:
    text = " ".join(draw.choice(("a", "red", "ball", "of", "dogs", "table")) for _ in range(12))
    starts = [0, *(place + 1 for place, character in enumerate(text) if character == " "), len(text) + 1]
    places, word = [], 0
    while word < 11:
        length = draw.randint(1, 4)
        if word + length <= 12:
            places.append((starts[word], starts[word + length] - 1))
        word += length + draw.randint(0, 2)
    gold, phrases = [], []
    for start, end in places:
        role = draw.choice(("object", "object", "object", "object", "pronoun", "place"))
        chosen = [] if role == "place" else draw.sample(sorted(own), draw.randint(1, min(2, len(own))))
        if draw.random() < 0.85:
            gold.append((start, end, chosen, role))
        if draw.random() < 0.8:
            shift = draw.choice((0, 0, 0, 1, 2))
            phrases.append(_drawn_phrase(draw, start, max(start + 1, end - shift), chosen or sorted(own)[:1], own))
    has_gold = draw.random() < 0.9
    return Caption(f"{image}#{index}", image, text, phrases, gold if has_gold else None)


def _drawn_phrase(draw: random.Random, start: int, end: int, chosen: list[int], own: dict) -> Phrase:
    found = []
    for _ in range(draw.randint(0, 3)):
        mask = own[draw.choice([*chosen, *chosen, *own])]
        x0, y0, x1, y1 = box_of(mask)
        box = x0, y0, min(WIDTH, x1 + draw.randint(0, 6)), min(HEIGHT, y1 + draw.randint(0, 6))
        made = None if draw.random() < 0.1 else mask & pixels((0, 0, WIDTH - draw.randint(0, 20), HEIGHT))
        found.append(Found(box, draw.random(), made if made is None or made.any() else None))
    found.sort(key=lambda item: -item.score)
    there = [rank for rank, item in enumerate(found) if item.mask is not None]
    return Phrase(start, end, found, draw.choice([*there, None]) if there else None)
