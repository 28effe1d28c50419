"""The parser that ships: the pinned files, loadable without pickled code, and what it makes of a few captions."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from demo.recipes import figures_stanza_en
from demo.recipes.stanza_package import MAX_BYTES, MODELS, load_pipeline
from stages.parse.phrases import PhraseOptions, noun_phrases

FOLDER = Path(__file__).parents[3] / "demo" / "checkpoints" / "stanza_en"


def test_files_are_those_of_the_manifest_and_small():
    manifest = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))
    assert set(manifest) == set(MODELS.values())
    for name, stated in manifest.items():
        content = (FOLDER / name).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (stated["sha256"], stated["bytes"])
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= MAX_BYTES


@pytest.mark.parametrize("name", MODELS.values())
def test_weights_load_without_pickled_code_and_hold_no_training_state(name):
    state = torch.load(FOLDER / name, weights_only=True)
    assert not [key for key in state if "optimizer" in key or "scheduler" in key]
    assert all(torch.isfinite(v).all() for v in state["model"].values() if v.is_floating_point())
    assert not [v for v in state["config"].values() if isinstance(v, str) and v.startswith("/")]


def test_figures_reach_their_aims():
    figures = json.loads((FOLDER / "figures.json").read_text(encoding="utf-8"))
    reached = figures["figures"]
    assert reached["ewt_upos"] >= 0.93 and reached["ewt_las"] >= 0.80 and reached["noun_phrase_f1"] >= 0.98


def test_world_captions_give_their_gold_phrases():
    """Measured again on a few captions of another seed than the one whose figures are stated."""
    assert figures_stanza_en.figures(FOLDER, seed=77, scenes=40)["noun_phrase_f1"] >= 0.97


@pytest.fixture(scope="module")
def pipeline():
    return load_pipeline(FOLDER, tokenize_no_ssplit=True)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a man riding a wave on top of a surfboard", [("man", 1), ("wave", 1), ("top", 1), ("surfboard", 1)]),
        ("Two brown dogs run on the beach.", [("dog", 2), ("beach", 1)]),
        ("A group of women sitting on benches", [("woman", "plur"), ("bench", "plur")]),
        ("a couple of kids eating a slice of pizza", [("kid", 2), ("pizza", 1)]),
        ("A black and white cat next to a teddy bear.", [("cat", 1), ("teddy bear", 1)]),
    ],
)
def test_captions(pipeline, caption, expected):
    """Heads with the number said (1 for any singular, "plur" for a plural without one)."""
    kept, _ = noun_phrases(caption, [s.words for s in pipeline(caption).sentences], PhraseOptions())
    found = [(p.head, 1 if p.number == "sing" else p.count or "plur") for p in kept]
    assert found == expected
    assert all(caption[p.start : p.end] == p.text for p in kept)
