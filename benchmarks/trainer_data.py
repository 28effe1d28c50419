"""What the trainer is measured on: sentences, captions with features drawn from a seed, encoders, STS-B.

Speed does not depend on the features' values; lengths of texts and phrases are real.
"""

import json
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertConfig

from model import sts
from model.data import PairItem, TrainingData
from model.encoder import Encoder, load_encoder
from model.recipes import Recipe, resolve
from pipeline.presets import minilm

SEED = 0
IMAGE_DIM = 2048  # ResNet-50's
SHAPES = {
    "bert-base": {},
    "bert-mini": {
        "hidden_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 1024,
    },
    "bert-tiny": {
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 512,
    },
}
MODELS = (*SHAPES, "minilm")
# a stand-in for the parser: an article or number and what follows it, at most two words
_PHRASE = re.compile(r"\b(?:a|an|the|two|three|some)\s+\w+(?:\s+(?!of|in|on|at|is|are|and|with|to)\w+)?", re.IGNORECASE)


@dataclass(frozen=True)
class Setting:
    """Which model, on which data, how: what every way of training is given alike."""

    model: str
    folder: Path  # of the model, from `write_model`
    shared: Path
    device: str
    batch: int = 64
    length: int = 32
    texts: int = 4096


def shared_folder() -> Path:
    root = Path(__file__).resolve().parents[1]
    return Path(os.environ.get("MCSEO_SHARED", root.parent / "shared")) / "data"


def write_model(model: str, folder: Path) -> Path:
    """A folder in Hugging Face layout: MiniLM's own, or a BERT shape (no weights) with MiniLM's tokenizer."""
    if model == "minilm":
        return Path(minilm())
    folder.mkdir(parents=True, exist_ok=True)
    BertConfig(**SHAPES[model]).save_pretrained(folder)
    AutoTokenizer.from_pretrained(minilm(), local_files_only=True).save_pretrained(folder)
    return folder


def write_masked_model(model: str, folder: Path) -> Path:
    """The same with weights drawn from the seed, and a masked language model's head: a generator."""
    write_model(model, folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED + 1)
        AutoModelForMaskedLM.from_config(BertConfig(**SHAPES[model])).save_pretrained(folder)
    return folder


def encoder(setting: Setting) -> Encoder:
    """Pooling cls; MiniLM's weights are its own, the others drawn from the seed."""
    init = "pretrained" if setting.model == "minilm" else "scratch"
    return load_encoder(setting.folder, init=init, seed=SEED, pooling="cls", repool=True).to(setting.device)


def recipe(name: str, setting: Setting, steps: int, **settings) -> Recipe:
    fixed = {"batch_size": setting.batch, "max_length": setting.length, "steps": steps, "eval_every": 1_000_000}
    return resolve(name, fixed | settings)


def training_data(setting: Setting, kind: str) -> TrainingData:
    """`text`: sentences of Wikipedia; `pair`: COCO captions of as many images, their phrases, and features."""
    if kind == "text":
        lines = (setting.shared / "text/wiki1m_for_simcse.excerpt.txt").read_text(encoding="utf-8").splitlines()
        return TrainingData(sentences=lines[: setting.texts])
    record = json.loads((setting.shared / "coco_captions_val2017/captions_val2017.json").read_text())
    of_image = {row["image_id"]: " ".join(row["caption"].split()) for row in record["annotations"]}
    captions = list(of_image.values())[: setting.texts]
    draw = np.random.default_rng(SEED)
    pairs = [pairs_of(caption, row) for row, caption in enumerate(captions)]
    items = [item for own in pairs for item in own]
    rows = iter(range(len(items)))
    return TrainingData(
        captions=captions,
        caption_image=list(range(len(captions))),
        image_features=draw.normal(size=(len(captions), IMAGE_DIM)).astype(np.float32),
        pairs=[[replace(item, object_row=next(rows)) for item in own] for own in pairs],
        object_features=draw.normal(size=(len(items), IMAGE_DIM)).astype(np.float32),
    )


def pairs_of(caption: str, image: int) -> list[PairItem]:
    """The caption's phrases, each with a box of its own; object rows are left 0."""
    found = _PHRASE.finditer(caption)
    return [
        PairItem(m.group().lower(), 0, m.group().lower(), (0.0, 10.0 * i, 9.0, 10.0 * i + 9.0), image)
        for i, m in enumerate(found)
    ]


def sts_b(setting: Setting, *splits: str) -> sts.Task:
    """Splits of STS-B as one task, a subset a split."""
    parts = [sts.load_sts_b(setting.shared / "sts", split) for split in splits]
    return sts.Task("STS-B", {split: part.subsets[split] for split, part in zip(splits, parts, strict=True)})


def thinned(task: sts.Task, share: float) -> sts.Task:
    """Evenly spaced pairs of a task, that share of them, in each subset."""

    def part(subset: sts.Subset) -> sts.Subset:
        count = max(2, round(share * len(subset.gold)))
        rows = np.linspace(0, len(subset.gold) - 1, count).astype(int)
        return sts.Subset([subset.sentences1[r] for r in rows], [subset.sentences2[r] for r in rows], subset.gold[rows])

    return sts.Task(task.name, {name: part(subset) for name, subset in task.subsets.items()})
