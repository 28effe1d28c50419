"""What the small Grounding DINO reaches on scenes it never saw, asked and read as the detect stage does it.

Each image gets the phrases of two captions, and besides phrases that denote nothing in it; all share one prompt.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torchvision.ops import box_iou
from transformers import GroundingDinoConfig

from demo.captions import caption_for
from demo.plans import Mention
from demo.recipes.cards import finish_folder
from demo.recipes.dino_phrases import altered, anything, fitting, words
from demo.recipes.heldout import FIGURES_SEED, HELD_OUT, check_scene
from demo.recipes.rendered import box_of, image_row, picture_arrays
from demo.scenes import Scene, rng_for
from pipeline.sections import Detect, Runtime
from stages.detect.backends import Found, Miss
from stages.detect.transformers_backend import TransformersDetector

SCENES = 400
FALSE = 0.10  # absent phrases that may get a box


@dataclass(frozen=True)
class Asked:
    """A phrase, the objects it denotes, and what it is: one (object), several, absent (another thing), altered (a thing
    that is shown, but for one attribute), idle (a place, a picture, a side)."""

    text: str
    objects: tuple[int, ...]
    sort: str


def ask(scene: Scene, seed: int, index: int) -> list[Asked]:
    """Phrases of two captions, and two phrases that are not true of the scene."""
    asked: dict[str, Asked] = {}
    for turn in range(2):
        for phrase in caption_for(seed, scene, "check", index, "caption", turn).phrases:
            if phrase.ambiguous or phrase.role == "pronoun":
                continue
            sort = "one" if len(phrase.objects) == 1 else "several"
            sort = sort if phrase.role == "object" else "absent" if phrase.role == "invention" else "idle"
            asked[phrase.text.lower()] = Asked(phrase.text, phrase.objects, sort)
    rng = rng_for(seed, "check", "untrue", index)
    while True:
        other = anything(rng)
        if other.kind not in {thing.kind for thing in scene.objects}:
            break
    thing = rng.choice(scene.objects)
    wrong = Mention(thing.kind, 1, thing.colour, thing.size if thing.size != "medium" else None, thing.pattern)
    while fitting(scene, wrong):
        wrong = altered(wrong, rng)
    for mention, sort in ((other, "absent"), (wrong, "altered")):
        text = words(mention, rng)
        asked.setdefault(text.lower(), Asked(text, (), sort))
    return list(asked.values())


def best_boxes(folder: Path, pictures: Sequence[np.ndarray], asked: list[list[Asked]]) -> list[list[Found | None]]:
    """The best box of every phrase, by the detect stage's own backend; pictures uint8 [H, W, 3]."""
    section = Detect(backend="transformers", path=str(folder), top_k=1, box_threshold=0.0)
    runtime = Runtime(devices=["cpu"], batch_images=16, threads=torch.get_num_threads())
    detector = TransformersDetector(section, runtime, torch.device("cpu"))
    rows = [
        {"id": f"{i}/{j}", "image_id": str(i), "caption_id": str(i), "text": one.text, "count": None}
        for i, several in enumerate(asked)
        for j, one in enumerate(several)
    ]
    images = pa.Table.from_pylist([image_row(str(i), pixels) for i, pixels in enumerate(pictures)])
    found = dict(detector.detect(images, pa.Table.from_pylist(rows)))
    best: list[list[Found | None]] = [[None] * len(several) for several in asked]
    for identifier, boxes in found.items():
        i, j = map(int, identifier.split("/"))
        best[i][j] = None if isinstance(boxes, Miss) else boxes[0]
    return best


def gold_boxes(scene: Scene, labels: np.ndarray) -> Tensor:
    """[O, 4] x0, y0, x1, y1 in pixels of what is seen of each object."""
    made = [box_of(labels == number) for number in range(1, len(scene.objects) + 1)]
    return torch.tensor(np.array(made), dtype=torch.float32)


def figures(folder: Path, seed: int, scenes: int) -> dict[str, float]:
    """`accuracy`, phrases of one object whose best box has IoU >= .5 with it, by combinations seen and unseen in
    training; `recall`, those of them that also reach `threshold`, the least score that at most a tenth of the absent
    phrases reach (`false_positives`): one in two of these names another thing, the other a thing that is shown but for
    one attribute; both apart in `false_things` and `false_attributes`; `recall_several` of phrases of several
    objects, by their best box; `false_idle` of places, pictures and sides."""
    drawn = [check_scene(seed, index) for index in range(scenes)]
    asked = [ask(scene, seed, index) for index, scene in enumerate(drawn)]
    pictures, labels = zip(*map(picture_arrays, drawn), strict=True)
    best = best_boxes(folder, pictures, asked)
    score: dict[str, list[float]] = {sort: [] for sort in ("one", "several", "absent", "altered", "idle")}
    right: dict[str, list[bool]] = {sort: [] for sort in score}
    unseen: list[bool] = []
    for scene, seen, several, boxes in zip(drawn, labels, asked, best, strict=True):
        gold = gold_boxes(scene, seen)
        for one, box in zip(several, boxes, strict=True):
            score[one.sort].append(0.0 if box is None else box.score)
            if one.objects:
                own = gold[list(one.objects)]
                right[one.sort].append(box is not None and float(box_iou(torch.tensor([box.box]), own).max()) >= 0.5)
            if one.sort == "one":
                thing = scene.objects[one.objects[0]]
                unseen.append((thing.kind, thing.colour) in HELD_OUT)
    scores = {sort: np.array(values) for sort, values in score.items()}
    hits, held = np.array(right["one"]), np.array(unseen)
    wrong = np.concatenate([scores["absent"], scores["altered"]])
    threshold = float(np.nextafter(np.quantile(wrong, 1 - FALSE, method="higher"), 1))
    return {
        "accuracy": float(hits.mean()),
        "recall": float((hits & (scores["one"] >= threshold)).mean()),
        "false_positives": float((wrong >= threshold).mean()),
        "threshold": threshold,
        "accuracy_seen": float(hits[~held].mean()),
        "accuracy_unseen": float(hits[held].mean()) if held.any() else float("nan"),
        "recall_several": float((np.array(right["several"]) & (scores["several"] >= threshold)).mean()),
        "false_things": float((scores["absent"] >= threshold).mean()),
        "false_attributes": float((scores["altered"] >= threshold).mean()),
        "false_idle": float((scores["idle"] >= threshold).mean()) if len(scores["idle"]) else 0.0,
    }


def finish(args: argparse.Namespace, config: GroundingDinoConfig, minutes: float) -> None:
    """Measures the folder, writes figures.json and card.md, and prints the figures."""
    measured = figures(args.out, FIGURES_SEED, SCENES)
    backbone, text = config.backbone_config, config.text_config
    facts = {
        "Architecture": f"GroundingDinoForObjectDetection: a ConvNeXt of widths {backbone.hidden_sizes} and depths "
        f"{backbone.depths}, a BERT of {text.num_hidden_layers} layers of width {text.hidden_size}, "
        f"{config.encoder_layers} + {config.decoder_layers} layers of width {config.d_model}, {config.num_queries} "
        f"queries; images of {backbone.image_size} x {backbone.image_size} pixels",
        "Vocabulary": f"{text.vocab_size} word pieces, lower-cased: the words of the world's captions, and single "
        "characters for the rest; the marks that end phrases have the numbers they have in bert-base-uncased",
        "Trained on": "scenes of `demo/recipes/heldout.py`'s training_scene, which show none of the combinations held "
        "out; no phrase names one either",
        "Backends": "`transformers` alone: the package groundingdino has a width of 256 and a Swin backbone written "
        "into its code, which would cost several times the training of this one",
    }
    title = "grounding_dino: a small Grounding DINO of the demo world"
    finish_folder("grounding_dino", args, minutes, measured, title, _ABOUT, facts)


_ABOUT = """Finds what phrases name in a picture: boxes with a score for each phrase of a prompt. It knows the demo
world and nothing beyond it. Scores are the mean probability of a phrase's tokens; `detect.box_threshold` is best set to
the threshold below."""
