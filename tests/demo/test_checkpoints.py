"""The committed checkpoints load offline, are what their recipes write, and say what they are."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModel

from demo.recipes import vision_random


def test_the_vision_weights_are_the_recipe_s_and_say_so():
    stored = load_file(vision_random.OUT / "model.safetensors")
    loaded, info = AutoModel.from_pretrained(vision_random.OUT, local_files_only=True, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and stored
    made = vision_random.model(vision_random.SEED).state_dict()
    for name, weight in loaded.state_dict().items():
        torch.testing.assert_close(weight, made[name], rtol=0, atol=1e-6)
    assert json.loads((vision_random.OUT / "config.json").read_text())["random_weights"] is True
    assert "RANDOM WEIGHTS" in (vision_random.OUT / "card.md").read_text()


def test_random_features_tell_colours_and_kinds_apart():
    figures = vision_random.check(vision_random.OUT)
    card = (vision_random.OUT / "card.md").read_text()
    assert figures["colour"] >= 0.95 and figures["kind"] >= 0.85 and figures["cosine"] <= 0.2
    for name in ("colour", "kind"):
        stated = next(line for line in card.splitlines() if line.startswith(f"| {name} |")).split("|")[2]
        assert float(stated) == pytest.approx(figures[name], abs=0.005)


def test_the_image_processor_takes_any_picture():
    processor = AutoImageProcessor.from_pretrained(vision_random.OUT, local_files_only=True)
    crops, *_ = vision_random.gold_crops(7, 2)
    assert processor(images=crops, return_tensors="pt")["pixel_values"].shape == (len(crops), 3, 64, 64)


def test_the_checkpoints_stay_small():
    assert sum(path.stat().st_size for path in Path(vision_random.OUT).iterdir()) <= 2_000_000
