"""What the small CLIP reaches on scenes it never saw, read and run as the embed stage does it."""

import argparse
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPTokenizer

from demo.captions import caption_for
from demo.plans import Mention
from demo.recipes.cards import finish_folder
from demo.recipes.clip import (
    SIDE,
    VALUES,
    Trained,
    crop_of,
    fill_of,
    fitting,
    mention_of,
    phrase_text,
    shown_by,
    tokens_of,
    told_by,
)
from demo.recipes.clip_text import MAX_TOKENS
from demo.recipes.heldout import FIGURES_SEED, HELD_OUT, check_scene
from demo.recipes.rendered import picture_arrays
from demo.scenes import PATTERNED, PATTERNS, Object, rng_for
from stages.embed.encoder import Encoder
from stages.embed.prepare import Preparation

SCENES = 300
AMONG = 20
_ROWS = 256

Images = Callable[[list[Tensor]], Tensor]  # uint8 [3, h, w] of any sizes -> [n, dim]
Texts = Callable[[list[str]], Tensor]  # -> [n, dim]


def figures(folder: Path, seed: int, scenes: int) -> dict[str, float]:
    """`one_of_20`, crops whose own phrase scores highest beside 19 phrases of other things that do not fit;
    `hard_one_of_20`, beside 19 that differ in one attribute; the first by combinations seen in training and unseen;
    `caption_one_of_20`, images whose own caption scores highest beside 19 of other images."""
    encoder = Encoder(str(folder), "cpu", "fp32", torch.get_num_threads())

    def texts(several: list[str]) -> Tensor:
        tokens = encoder.tokens(several)
        return torch.cat([encoder.texts(tokens[i : i + _ROWS]) for i in range(0, len(tokens), _ROWS)])

    return measure(lambda crops: encoder.encode(encoder.prepare(crops)), texts, encoder.fill, seed, scenes)


@torch.inference_mode()
def measure(images: Images, texts: Texts, fill: Tensor, seed: int, scenes: int) -> dict[str, float]:
    """See `figures`."""
    things: list[Object] = []
    vectors, whole, captions = [], [], []
    for index in range(scenes):
        scene = check_scene(seed, index)
        pixels, labels = picture_arrays(scene)
        things += scene.objects
        crops = [crop_of(pixels, labels == number, fill) for number in range(1, len(scene.objects) + 1)]
        made = F.normalize(images([torch.from_numpy(pixels.transpose(2, 0, 1).copy()), *crops]).float(), dim=1)
        whole.append(made[0])
        vectors.append(made[1:])
        captions.append(caption_for(seed, scene, "check", index, "caption").text)
    crops = torch.cat(vectors)
    mentions = [mention_of(thing, rng_for(seed, "check", "phrase", n)) for n, thing in enumerate(things)]
    spoken = [phrase_text(mention, rng_for(seed, "check", "words", n)) for n, mention in enumerate(mentions)]
    scores = crops @ F.normalize(texts(spoken).float(), dim=1).T
    fits = fitting(*(torch.tensor([of(x) for x in xs]) for of, xs in ((shown_by, things), (told_by, mentions))))
    right = _best(scores, ~fits, random.Random(seed))
    unseen = np.array([(thing.kind, thing.colour) in HELD_OUT for thing in things])
    told = torch.stack(whole) @ F.normalize(texts(captions).float(), dim=1).T
    return {
        "one_of_20": float(right.mean()),
        "hard_one_of_20": _hard(crops, things, mentions, texts, seed),
        "accuracy_seen": float(right[~unseen].mean()),
        "accuracy_unseen": float(right[unseen].mean()) if unseen.any() else float("nan"),
        "caption_one_of_20": float(_best(told, ~torch.eye(scenes, dtype=torch.bool), random.Random(seed)).mean()),
    }


def _best(scores: Tensor, wrong: Tensor, rng: random.Random) -> np.ndarray:
    """For every row whether the text of its own number beats 19 wrong ones drawn by lot, bool [n].

    Args:
        scores: [n, n]. wrong: bool [n, n], which texts may be drawn for a row.
    """
    right = []
    for number, (row, others) in enumerate(zip(scores, wrong, strict=True)):
        options = torch.nonzero(others)[:, 0].tolist()
        drawn = rng.sample(options, min(AMONG - 1, len(options)))
        right.append(bool(row[number] > row[drawn].max()))
    return np.array(right)


def _hard(crops: Tensor, things: list[Object], mentions: list[Mention], texts: Texts, seed: int) -> float:
    """Share of crops whose own phrase beats 19 of one wrong attribute: all other colours, the other size where one is
    said, all other patterns where one is said, and as many other kinds as make it 19."""
    spoken: list[str] = []
    for number, (thing, mention) in enumerate(zip(things, mentions, strict=True)):
        # one phrasing for all twenty, so that words do not tell them apart
        said = [replace(mention, colour=thing.colour), *_wrong(thing, mention, rng_for(seed, "check", "hard", number))]
        spoken += [phrase_text(m, rng_for(seed, "check", "hard words", number)) for m in said]
    vectors = F.normalize(texts(spoken).float(), dim=1).unflatten(0, (len(things), AMONG))
    scores = torch.einsum("nd,nkd->nk", crops, vectors)
    return float((scores[:, 0] > scores[:, 1:].amax(1)).float().mean())


def _wrong(thing: Object, mention: Mention, rng: random.Random) -> list[Mention]:
    base = replace(mention, colour=thing.colour)
    wrong = [replace(base, colour=colour) for colour in VALUES["colour"] if colour != thing.colour]
    if base.size:
        wrong.append(replace(base, size="small" if base.size == "large" else "large"))
    if base.pattern:
        wrong += [replace(base, pattern=pattern) for pattern in PATTERNS if pattern != base.pattern]
    kinds = [kind for kind in VALUES["kind"] if kind != thing.kind and (base.pattern is None or kind in PATTERNED)]
    rng.shuffle(kinds)
    wrong += [replace(base, kind=kind) for kind in kinds[: AMONG - 1 - len(wrong)]]
    assert len(wrong) == AMONG - 1, "too few kinds"
    return wrong


def watch(tokenizer: CLIPTokenizer, preparation: Preparation) -> Callable[[Trained], dict[str, float]]:
    """The same figures of a network in training, on fewer scenes of another seed."""

    def look(network: Trained) -> dict[str, float]:
        device = network.clip.logit_scale.device

        def images(crops: list[Tensor]) -> Tensor:
            return network.images(preparation.values(preparation.pixels(crops).to(device), torch.float32)).cpu()

        def texts(several: list[str]) -> Tensor:
            return network.texts(*(part.to(device) for part in tokens_of(tokenizer, several))).cpu()

        return measure(images, texts, fill_of(preparation), FIGURES_SEED + 1, SCENES // 2)

    return look


def finish(args: argparse.Namespace, minutes: float) -> None:
    """Measures the folder, writes figures.json and card.md, and prints the figures."""
    measured = figures(args.out, FIGURES_SEED, SCENES)
    encoder = Encoder(str(args.out), "cpu", "fp32", 1)
    facts = {
        "Architecture": f"CLIPModel: a ViT of 4 layers, width 96, patches of 8 of {SIDE} x {SIDE} pixels, and a causal "
        f"text transformer of 2 layers, width 64, {MAX_TOKENS} positions; vectors of {encoder.dim} numbers; "
        f"{sum(p.numel() for p in encoder.model.parameters()) / 1e6:.2f} M parameters",
        "Vocabulary": f"{len(encoder.tokenizer)} byte pairs, lower-cased: the words of the world's captions are single "
        "tokens, any other text is encoded byte by byte",
        "Trained on": "masked crops (`embed.crop: masked`, margin 0.1) with the phrases that fit them, and whole "
        "images with their captions; combinations of `demo/recipes/heldout.py` are in none of them",
    }
    finish_folder("clip", args, minutes, measured, "clip: a small CLIP of the demo world", _ABOUT, facts)


_ABOUT = """Vectors of pictures and texts in one space: crops of drawn things near the noun phrases that are true of
them, pictures near their captions. It knows the demo world and nothing beyond it."""
