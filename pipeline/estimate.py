"""Roughly how long the stages of a plan will take: how much there is, times rates that were measured.

Rough it is: rates are of other machines and other pictures than yours, and what later stages will find is reckoned from
what was found elsewhere. It tells minutes from days, no more. The rates stand in one table, each with its source.
"""

import importlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import StageError
from pipeline.graph import MAY_RUN, RUNS, Step
from pipeline.sections import Params
from pipeline.weights.manifest import of_folder

_CORES = 2  # of the machine that the CPU rates were taken on
_DOCS = "docs/results.md"
_LOADED = "benchmarks/vision.py, random weights at full size, 2 cores of an AMD EPYC that four times as much ran on"
_DEMO = "the demo's run, 375 sentences/s of an encoder with 1/216 of the arithmetic"
_SIMCSE = "SimCSE's million sentences in under an hour, RTX 3090 (its issue 135)"
_FAST = "segment-anything-fast's own table, one A100, bf16"


@dataclass(frozen=True)
class Rate:
    """Units a second: on two CPU cores, and on one accelerator (None: not measured; the CPU does it: `cpu_only`)."""

    unit: str
    cpu: float | None
    gpu: float | None
    source: str
    cpu_only: bool = False


# stage -> a word in its path (or its backend) -> rate; the first that fits, "" fits all. What no source is known for
# is None, and the plan says so rather than guess.
RATES: dict[str, dict[str, Rate]] = {
    "ingest": {"": Rate("images", 370, None, f"753 photos of COCO, {_DOCS}", cpu_only=True)},
    "parse": {
        "markup": Rate("captions", 20_000, None, "a lower bound: it only cuts text", cpu_only=True),
        "": Rate("captions", 215, None, f"Stanza, one thread, {_DOCS}", cpu_only=True),
    },
    "detect": {
        "annotations": Rate("phrases", 9_000, None, "the demo's run", cpu_only=True),
        "": Rate("images", 0.026, None, f"Grounding DINO Swin-T in fp32, {_LOADED}"),
    },
    "segment": {
        "annotations": Rate("boxes", 5_800, None, "753 photos of COCO", cpu_only=True),
        "huge": Rate("images", 0.0026, 23.6, f"GPU: {_FAST}; CPU: ViT-B's by the ratio of arithmetic, 6.1"),
        "large": Rate("images", 0.0052, 47.0, "ViT-H's by the ratio of arithmetic, 2.0"),
        "": Rate("images", 0.016, 94.9, f"GPU: {_FAST}; CPU: {_LOADED}"),
    },
    "embed": {
        "random": Rate("pictures", 166, None, "the tiny random encoder that ships, 753 photos of COCO"),
        "large": Rate("pictures", 0.105, None, "ViT-B/32's by the ratio of arithmetic, 18"),
        "": Rate("pictures", 1.9, None, f"CLIP ViT-B/32 in fp32, {_LOADED}"),
    },
    "align": {"": Rate("phrases", 7_400, None, "753 photos of COCO", cpu_only=True)},
    "quality": {"": Rate("captions", 800, None, "the demo's run, gold for every caption", cpu_only=True)},
    # sentences in two dropout views of about 24 tokens through BERT-base, forward and back; the rest by arithmetic
    "train": {"": Rate("sentences", 1.7, 280, f"GPU: {_SIMCSE}; CPU: {_DEMO}")},
    "evaluate": {"": Rate("sentences", 1.7, 280, "as train; an encoded sentence is a sixth of a trained one")},
    "report": {"": Rate("pages", 1 / 60, None, f"10,000 pairs, {_DOCS}", cpu_only=True)},
}

# What ingest will count of collections that are not read yet: (images, captions), as published.
_PUBLISHED = {
    "flickr30k": (31_783, 158_915),
    "flickr8k": (8_091, 40_455),
    "paper-flickr30k": (31_783, 158_915),
    "paper-coco": (82_783, 414_113),
}
_LINES = {"wiki1m": 1_000_000, "nli_for_simcse": 275_601}  # of files that are not here yet, by their names
_PHRASES = 2.9  # a caption: 11,096 of 3,768 captions of COCO
_BOXES = 2.0  # a phrase, of three at most
_TASKS = 27_000  # different sentences of the seven STS tasks
ENCODED = 1 / 6  # of the work of training on a sentence: one view of two, and no way back


@dataclass(frozen=True)
class Counts:
    """How much there is. `known`: ingest has counted it; else it is what the collection is published as."""

    images: int
    captions: int
    phrases: int
    boxes: int
    sentences: int
    triplets: int
    known: bool

    @property
    def units(self) -> dict[str, float]:
        return {
            "images": self.images,
            "captions": self.captions,
            "phrases": self.phrases,
            "boxes": self.boxes,
            "pictures": self.images + self.boxes,
            "pages": 1,
        }


@dataclass(frozen=True)
class Estimate:
    """Seconds of a step on this machine and on one accelerator; None: there is no rate for it, or nothing is known of
    how much there is.
    """

    here: float | None
    gpu: float | None


def of_plan(params: Params, steps: Iterable[Step]) -> dict[str, Estimate]:
    """An estimate for every step that runs or may run, by its name; a recipe that cannot be resolved has none."""
    steps = [step for step in steps if step.state in (RUNS, MAY_RUN)]
    amount = counts(params)
    found = {}
    for step in steps:
        stage, _, cell = step.stage.partition("@")
        rate = _rate(stage, params)
        if rate is None:
            continue
        units = _units(stage, cell, rate, params, amount)
        if units is not None and step.shards and step.shards[1]:
            units *= 1 - step.shards[0] / step.shards[1]
        found[step.stage] = _estimate(units, rate, params)
    return found


def counts(params: Params) -> Counts | None:
    """How much there is to do: as the stages counted it last, else as published; None if neither is known."""
    folder = Path("metrics") / params.dataset
    rows = {name: _rows(folder / f"{name}.json") for name in ("ingest", "parse", "detect")}
    known = "images" in rows["ingest"]
    if not known and params.dataset not in _PUBLISHED:
        return None
    images, captions = (rows["ingest"]["images"], rows["ingest"]["captions"]) if known else _PUBLISHED[params.dataset]
    phrases = rows["parse"].get("phrases", round(_PHRASES * captions))
    return Counts(
        images=images,
        captions=captions,
        phrases=phrases,
        boxes=rows["detect"].get("boxes", round(_BOXES * phrases)),
        sentences=rows["ingest"].get("sentences", 0) if known else _lines(Path(params.ingest.sentences_path)),
        triplets=_lines(Path(params.train.triplets_path)),
        known=known,
    )


def accelerated(params: Params) -> bool:
    """Whether this machine would compute on an NVIDIA accelerator; told without loading torch."""
    names = params.runtime.devices
    there = Path("/proc/driver/nvidia/version").exists()
    return any(name.startswith("cuda") or (name == "auto" and there) for name in names)


def told(seconds: float | None) -> str:
    """Seconds for people, in two digits at most."""
    if seconds is None:
        return "?"
    for most, one, unit in ((90, 1, "s"), (5_400, 60, "min"), (172_800, 3_600, "h"), (float("inf"), 86_400, "days")):
        if seconds < most:
            return f"{_two_digits(max(seconds, 1) / one)} {unit}"
    raise AssertionError(seconds)


def in_words(params: Params, estimates: dict[str, Estimate]) -> list[str]:
    """What the estimates come to, what they rest on, and what is not here yet: a line each."""
    if not estimates:
        return []
    amount = counts(params)
    here = "on this machine's GPU" if accelerated(params) else f"on this CPU, {_cores(params)} threads"
    places = [(here, [(name, e.here) for name, e in estimates.items()])]
    if not accelerated(params):
        places.append(("with one GPU (A100, RTX 3090)", [(name, e.gpu) for name, e in estimates.items()]))
    lines = [f"roughly {'; '.join(_sum(place, found) for place, found in places)}; one step after the other"]
    if amount is None:
        lines.append(f"nothing is known yet of how much {params.dataset} holds: ask again when ingest has run")
    elif not amount.known:
        lines.append(
            f"reckoned for {amount.images:,} images with {amount.captions:,} captions and {amount.sentences:,} "
            f"sentences, as published: ingest has not counted yours yet"
        )
    return [*lines, *_not_here(params)]


def _sum(place: str, found: list[tuple[str, float | None]]) -> str:
    lost = dict.fromkeys(name.partition("@")[0] for name, seconds in found if seconds is None)
    without = f" without {', '.join(lost)}, of which no rate is known" if lost else ""
    return f"{told(sum(seconds or 0 for _, seconds in found))} {place}{without}"


def _not_here(params: Params) -> list[str]:
    """The files and folders that the parameters name and that are not here, and how they are got."""
    lost: dict[Path, str] = {}
    for section, values in params.model_dump().items():
        for name, value in values.items() if isinstance(values, dict) else ():
            if name.endswith("path") and isinstance(value, str) and not Path(value).exists():
                lost.setdefault(Path(value), f"{section}.{name}")
    weights = [known for path in lost if (known := of_folder(path))]
    lines = [f"not here: {', '.join(f'{path} ({key})' for path, key in lost.items())}"] if lost else []
    return [*lines, *([f"`python -m pipeline weights get {' '.join(weights)}` gets weights"] if weights else [])]


def _rate(stage: str, params: Params) -> Rate | None:
    rates = RATES.get(stage)
    if rates is None:
        return None
    section = getattr(params, stage)
    where = f"{getattr(section, 'backend', '')} {Path(getattr(section, 'path', '')).name}"
    return next(rate for word, rate in rates.items() if word in where)


def _units(stage: str, cell: str, rate: Rate, params: Params, amount: Counts | None) -> float | None:
    if stage == "evaluate":
        return _TASKS * ENCODED * _size(params)
    if amount is None:
        return None
    if stage != "train":
        return amount.units[rate.unit]
    recipe = cell.rpartition("-")[0]
    try:
        trained = importlib.import_module("stages.train.work").sentences(recipe, params, amount)
    except (StageError, ValueError):  # of the recipe's settings; the stage says it in full
        return None
    return trained * _size(params)


def _estimate(units: float | None, rate: Rate, params: Params) -> Estimate:
    if units is None:
        return Estimate(None, None)
    cpu = units / (rate.cpu * _cores(params) / _CORES) if rate.cpu else None
    gpu = cpu if rate.cpu_only else units / rate.gpu if rate.gpu else None
    return Estimate(gpu if accelerated(params) else cpu, gpu)


def _cores(params: Params) -> int:
    return min(params.runtime.threads, os.cpu_count() or 1)


def _size(params: Params) -> float:
    """The text encoder's arithmetic a token in terms of BERT-base's; 1 where its config.json is not here."""
    try:
        config = json.loads((Path(params.train.path) / "config.json").read_text(encoding="utf-8"))
        width, layers = config["hidden_size"], config["num_hidden_layers"]
        return layers * (4 * width**2 + 2 * width * config["intermediate_size"]) / 85e6
    except (OSError, ValueError, KeyError, TypeError):
        return 1.0


def _rows(file: Path) -> dict[str, int]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))["rows"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _lines(file: Path) -> int:
    if not file.is_file():
        return next((number for word, number in _LINES.items() if word in file.name), 0)
    with file.open("rb") as handle:
        return sum(part.count(b"\n") for part in iter(lambda: handle.read(1 << 20), b""))


def _two_digits(number: float) -> str:
    return f"{number:.2g}" if number < 10 else f"{float(f'{number:.2g}'):,.0f}"
