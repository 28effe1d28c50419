"""Everything a recipe may need, of the shared COCO photos: captions, objects, features by a CLIP with random weights.

The photos, captions, boxes and category names are real; the vision and text weights of CLIP, the teachers and the
generator are drawn from a seed: nothing that is learnt from them means anything. A caption's object-phrase pairs are
the annotated objects whose category it names. Triplets: a caption, another of its photo, one of another photo.
"""

import json
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import AutoTokenizer, CLIPConfig, CLIPModel

from benchmarks.trainer_data import SEED, SHAPES, write_masked_model, write_model
from model.data import PairItem, TrainingData
from model.encoder import load_encoder
from model.teachers import GENERATOR
from pipeline.presets import minilm

SIDE = 64  # pixels of a photo or crop that CLIP reads
_ROWS = 256
_PARTS = ("val2017", "train2017")


@dataclass(frozen=True)
class Photo:
    """A file, its captions, and its objects: (category, box in pixels xyxy)."""

    file: Path
    captions: list[str]
    objects: list[tuple[str, tuple[float, float, float, float]]]


def photos(coco: Path) -> list[Photo]:
    """All photos of the shared COCO folder, in the order of their files' names."""
    found = []
    for part in _PARTS:
        captions, objects = defaultdict(list), defaultdict(list)
        record = json.loads((coco / f"annotations/captions_{part}_subset.json").read_text())
        for row in record["annotations"]:
            captions[row["image_id"]].append(" ".join(row["caption"].split()))
        things = json.loads((coco / f"annotations/instances_{part}_subset.json").read_text())
        names = {row["id"]: row["name"] for row in things["categories"]}
        for row in things["annotations"]:
            x, y, width, height = row["bbox"]
            if width >= 1 and height >= 1:
                objects[row["image_id"]].append((names[row["category_id"]], (x, y, x + width, y + height)))
        for row in record["images"]:
            file = coco / part / row["file_name"]
            if file.exists() and captions[row["id"]]:
                found.append(Photo(file, captions[row["id"]], objects[row["id"]]))
    return sorted(found, key=lambda photo: photo.file.name)


def named(caption: str, category: str) -> tuple[int, int] | None:
    """The characters of the caption that name the category, singular or plural with s."""
    found = re.search(rf"\b{re.escape(category)}s?\b", caption, re.IGNORECASE)
    return found.span() if found else None


def pairs_of(captions: list[str], photo: list[int], of_photo: list[Photo], first_object: list[int]) -> list[list]:
    """The object-phrase pairs of each caption: every object of its photo whose category it names. Phrase rows count
    the distinct phrases in the order of their first use.
    """
    phrases: dict[str, int] = {}
    found = []
    for caption, number in zip(captions, photo, strict=True):
        own = []
        for offset, (category, box) in enumerate(of_photo[number].objects):
            if span := named(caption, category):
                phrase = caption[span[0] : span[1]].lower()
                row = phrases.setdefault(phrase, len(phrases))
                own.append(PairItem(phrase, first_object[number] + offset, category, box, number, row, *span))
        found.append(own)
    return found


def collect(coco: Path, width: int) -> TrainingData:
    """The data; all features have `width` dimensions, so that every recipe can read them."""
    of_photo = photos(coco)
    captions = [c for photo in of_photo for c in photo.captions]
    rows = [number for number, photo in enumerate(of_photo) for _ in photo.captions]
    first = np.cumsum([0] + [len(photo.objects) for photo in of_photo])[:-1].tolist()
    pairs = pairs_of(captions, rows, of_photo, first)
    phrases = list(dict.fromkeys(item.phrase for own in pairs for item in own))
    model = _clip(width)
    whole, crops = _pixels(of_photo)
    return TrainingData(
        captions=captions,
        caption_image=rows,
        image_features=_seen(model, whole),
        object_features=_seen(model, crops),
        pairs=pairs,
        caption_text=_read(model, captions),
        phrase_text=_read(model, phrases),
        triplets=_triplets(of_photo),
    )


def _triplets(of_photo: list[Photo]) -> list[tuple[str, str, str]]:
    """Of each photo: its first two captions, and the first of the next photo."""
    following = of_photo[1:] + of_photo[:1]
    return [
        (one.captions[i], one.captions[i + 1], other.captions[i % len(other.captions)])
        for one, other in zip(of_photo, following, strict=True)
        for i in range(len(one.captions) - 1)
    ]


def write_teachers(model: str, folder: Path) -> Path:
    """Teachers of the student's shape, and a generator; all weights drawn from seeds."""
    for seed, name in enumerate(("simcse", "diffcse"), SEED + 11):
        place = write_model(model, folder / name)
        teacher = load_encoder(place, init="scratch", seed=seed, pooling="cls")
        teacher.model.save_pretrained(place)
    write_masked_model(model, folder / GENERATOR)
    return folder


def hidden(model: str) -> int:
    return SHAPES[model].get("hidden_size", 768)


# ------------------------------------------------------------ CLIP with random weights


def _clip(width: int) -> CLIPModel:
    """A small CLIP; BERT's uncased vocabulary, [SEP] as the token whose state is read."""
    shape = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = shape | {"vocab_size": 30_522, "bos_token_id": 101, "eos_token_id": 102, "pad_token_id": 0}
    vision = shape | {"image_size": SIDE, "patch_size": 16}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=width)).eval()


def _pixels(of_photo: list[Photo]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Photos and the crops of their objects, uint8 [SIDE, SIDE, 3] each."""
    whole, crops = [], []
    for photo in of_photo:
        with Image.open(photo.file) as opened:
            image = opened.convert("RGB")
        whole.append(np.asarray(image.resize((SIDE, SIDE))))
        crops += [np.asarray(image.resize((SIDE, SIDE), box=_inside(box, image.size))) for _, box in photo.objects]
    return whole, crops


def _inside(box: tuple[float, ...], size: tuple[int, int]) -> tuple[float, ...]:
    return (max(0.0, box[0]), max(0.0, box[1]), min(size[0], box[2]), min(size[1], box[3]))


@torch.inference_mode()
def _seen(model: CLIPModel, pixels: list[np.ndarray]) -> np.ndarray:
    parts = []
    for start in range(0, len(pixels), _ROWS):
        batch = torch.from_numpy(np.stack(pixels[start : start + _ROWS])).permute(0, 3, 1, 2).float() / 127.5 - 1
        parts.append(model.visual_projection(model.vision_model(pixel_values=batch).pooler_output))
    return torch.cat(parts).numpy()


@torch.inference_mode()
def _read(model: CLIPModel, texts: list[str]) -> np.ndarray:
    tokenizer = AutoTokenizer.from_pretrained(minilm(), local_files_only=True)
    parts = []
    for start in range(0, len(texts), _ROWS):
        tokens = tokenizer(
            texts[start : start + _ROWS], padding=True, truncation=True, max_length=32, return_tensors="pt"
        )
        found = model.text_model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        parts.append(model.text_projection(found.pooler_output))
    return torch.cat(parts).numpy()
