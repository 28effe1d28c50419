import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import BertProcessing
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from model.data import PairItem, TrainingData
from model.encoder import load_encoder
from model.sts import Subset, Task

torch.set_num_threads(1)

COLOURS = ("red", "blue", "green", "black", "white", "small", "large", "old")
THINGS = ("dog", "cat", "horse", "car", "boat", "chair", "table", "bird", "tree", "ball")
VERBS = ("chases", "sees", "follows", "near", "behind")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def shared() -> Path:
    return Path(os.environ.get("MCSEO_SHARED", Path(__file__).parents[3] / "shared"))


@pytest.fixture(scope="session")
def golden():
    """golden(name) -> {case: (settings, expected, tensors)}; the test is skipped where the vectors are not at hand."""

    def load(name: str) -> dict[str, tuple[dict, dict, dict]]:
        folder = shared() / "golden"
        if not (folder / f"{name}.json").is_file():
            pytest.skip(f"reference numbers are not at {folder} (set MCSEO_SHARED to the folder that holds golden/)")
        cases = json.loads((folder / f"{name}.json").read_text())["cases"]
        tensors = load_file(folder / f"{name}.safetensors")
        split = {c: {k.removeprefix(f"{c}/"): v for k, v in tensors.items() if k.startswith(f"{c}/")} for c in cases}
        return {c: (v["settings"], v["expected"], split[c]) for c, v in cases.items()}

    return load


@pytest.fixture(scope="session")
def sts_root() -> Path:
    root = shared() / "data" / "sts"
    if not root.is_dir():
        pytest.skip(f"the STS sets are not at {root} (set MCSEO_SHARED to the folder that holds data/)")
    return root


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A folder with a BERT of 2 layers and 32 dimensions with seeded random weights, and a WordPiece tokenizer."""
    folder = tmp_path_factory.mktemp("tiny")
    words = (*SPECIAL, *COLOURS, *THINGS, *VERBS, "a", "the", *"abcdefghijklmnopqrstuvwxyz", "##s", "##ing")
    vocabulary = {w: i for i, w in enumerate(dict.fromkeys(words))}
    backend = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = BertNormalizer(lowercase=True)
    backend.pre_tokenizer = BertPreTokenizer()
    backend.post_processor = BertProcessing(("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=48, **names).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=48,
        initializer_range=0.2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def encoder(tiny):
    return load_encoder(tiny, pooling="cls")


def phrase(rng) -> str:
    return f"{rng.choice(COLOURS)} {rng.choice(THINGS)}"


def sentence(rng) -> str:
    return f"a {phrase(rng)} {rng.choice(VERBS)} the {phrase(rng)}"


@pytest.fixture(scope="session")
def data() -> TrainingData:
    """96 sentences; 16 images with two captions each; an object-phrase pair for most captions, two for some."""
    rng = np.random.default_rng(0)
    captions = [sentence(rng) for _ in range(32)]
    of = {(c, t): i for i, (c, t) in enumerate((c, t) for c in COLOURS for t in THINGS)}
    pairs = []
    for i, caption in enumerate(captions):
        w = caption.split()
        spans = [(w[1], w[2]), (w[-2], w[-1])][: (2, 1, 0)[i % 3]]
        pairs.append(
            [
                PairItem(f"{c} {t}", of[c, t], of[c, t], (0.0, 0.0, 10.0 + k, 10.0), i // 2)
                for k, (c, t) in enumerate(spans)
            ]
        )
    return TrainingData(
        sentences=[sentence(rng) for _ in range(96)],
        captions=captions,
        caption_image=[i // 2 for i in range(32)],
        image_features=rng.normal(size=(16, 12)).astype(np.float32),
        pairs=pairs,
        object_features=rng.normal(size=(len(of), 12)).astype(np.float16),
    )


@pytest.fixture(scope="session")
def dev() -> Task:
    """24 graded pairs: gold = how many words two sentences share."""
    rng = np.random.default_rng(1)
    one, two = [sentence(rng) for _ in range(24)], [sentence(rng) for _ in range(24)]
    gold = np.array([len(set(a.split()) & set(b.split())) for a, b in zip(one, two, strict=True)], dtype=np.float64)
    return Task("toy", {"dev": Subset(one, two, gold)})
