"""embed: crops by pixels, vectors as the official classes give them, every pixel set embedded once."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from small import ROOT, in_process, run_stage, write_params
from transformers import AutoImageProcessor, AutoModel, CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

from pipeline.errors import InputError
from pipeline.shards import read_all
from stages.common import rle
from stages.embed.crops import cut
from stages.embed.encoder import Encoder

VISION = ROOT / "demo/checkpoints/vision_random"
CHAIN = ("ingest", "parse", "detect", "segment")


@pytest.fixture(scope="module")
def photos():
    draw = np.random.default_rng(0)
    return [
        Image.fromarray(draw.integers(0, 256, (h, w, 3), dtype=np.uint8)) for h, w in ((48, 64), (100, 40), (64, 64))
    ]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A tiny CLIP of random weights in the official layout."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import CLIPImageProcessor, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("clip")
    words = {
        word: i for i, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", "a", "red", "ball", "box", "next", "to"])
    }
    tokenizer = Tokenizer(models.WordLevel(words, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = CLIPTextConfig(
        **shape, vocab_size=10, max_position_embeddings=16, eos_token_id=2, bos_token_id=1, pad_token_id=0
    )
    vision = CLIPVisionConfig(**shape, image_size=32, patch_size=8)
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=24)
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def pixels_of(mask):
    return rle.Mask(rle.encode(mask), *mask.shape)


def test_a_crop_shows_the_mask_and_its_surroundings_as_asked(photos):
    mask = np.zeros((48, 64), bool)
    mask[10:30, 20:40] = True
    mask[10:15, 20:25] = False
    image, pixels = photos[0], np.asarray(photos[0])
    plain = np.asarray(cut(image, pixels_of(mask), "box", 0.0, (1, 2, 3)))
    assert (plain == pixels[10:30, 20:40]).all()
    masked = np.asarray(cut(image, pixels_of(mask), "masked", 0.0, (1, 2, 3)))
    inside = mask[10:30, 20:40]
    assert (masked[inside] == plain[inside]).all() and (masked[~inside] == (1, 2, 3)).all()
    blurred = np.asarray(cut(image, pixels_of(mask), "blur", 0.0, (1, 2, 3)))
    assert (blurred[inside] == plain[inside]).all() and (blurred[~inside] != plain[~inside]).any()
    wide = cut(image, pixels_of(mask), "box", 0.1, (1, 2, 3))
    assert wide.size == (24, 24)
    whole = cut(image, pixels_of(np.ones((48, 64), bool)), "masked", 1.0, (1, 2, 3))
    assert whole.size == (64, 48), "clipped to the image"


def test_vectors_are_those_of_the_official_classes(photos):
    encoder = Encoder(str(VISION), "cpu", "fp32", 1)
    ours = encoder.images(photos)
    processor, model = AutoImageProcessor.from_pretrained(VISION), AutoModel.from_pretrained(VISION).eval()
    with torch.inference_mode():
        pooled = [model(**processor(images=p, return_tensors="pt")).pooler_output[0].numpy() for p in photos]
    assert ours.shape == (3, encoder.dim) and encoder.random_weights and not encoder.two_towers
    np.testing.assert_allclose(ours, np.stack(pooled), atol=1e-5)


def test_clip_uses_both_towers(photos, clip):
    encoder = Encoder(str(clip), "cpu", "fp32", 1)
    assert encoder.two_towers and encoder.dim == 24
    model, processor = CLIPModel.from_pretrained(clip).eval(), AutoImageProcessor.from_pretrained(clip)
    with torch.inference_mode():
        official = model.visual_projection(
            model.vision_model(**processor(images=photos, return_tensors="pt")).pooler_output
        )
    np.testing.assert_allclose(encoder.images(photos), official.numpy(), atol=1e-5)
    texts = encoder.texts(["a red ball", "a box"])
    np.testing.assert_allclose(encoder.texts(["a box"])[0], texts[1], atol=1e-5)


def test_broken_checkpoints_end_in_one_line(tmp_path, clip):
    with pytest.raises(InputError, match=r"no config\.json"):
        Encoder(str(tmp_path), "cpu", "fp32", 1)
    import shutil

    folder = tmp_path / "broken"
    shutil.copytree(VISION, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match="cannot be loaded"):
        Encoder(str(folder), "cpu", "fp32", 1)
    config = json.loads((VISION / "config.json").read_text())
    shutil.copyfile(VISION / "model.safetensors", weights)
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": config["num_hidden_layers"] + 1}))
    with pytest.raises(InputError, match="do not fit"):
        Encoder(str(folder), "cpu", "fp32", 1)


def test_every_pixel_set_is_embedded_once_whatever_the_batch(small):
    for stage in CHAIN:
        in_process(stage, small)
    vectors = []
    for rows in (1, 7, 64):
        write_params(small / "params.yaml", small / "collection", embed__path=str(VISION), runtime__batch_rows=rows)
        for record in (small / ".scratch/small/embed").glob("*.json"):
            record.unlink()
        in_process("embed", small)
        table = read_all(small / "data/small/embed/features")
        assert table.num_rows == 24 + 48, "24 images, and two objects in each though four phrases name them"
        vectors.append(np.frombuffer(b"".join(table.column("vector").to_pylist()), "<f2").astype(np.float32))
    facts = json.loads((small / "metrics/small/embed.json").read_text())["facts"]
    assert facts["random_weights"] is True and facts["architecture"] == "ViTModel"
    for other in vectors[1:]:
        np.testing.assert_allclose(vectors[0], other, atol=2e-3)


def test_text_features_and_similarity_where_there_is_a_text_tower(small, clip):
    for stage in CHAIN:
        in_process(stage, small)
    write_params(small / "params.yaml", small / "collection", embed__path=str(clip), align__min_similarity=-1.0)
    for stage in ("embed", "align"):
        in_process(stage, small)
    kinds = read_all(small / "data/small/embed/features").column("kind").to_pylist()
    assert {"image", "object", "caption", "phrase"} == set(kinds) and kinds.count("caption") == 48
    similarity = read_all(small / "data/small/align/pairs").column("similarity").to_pylist()
    assert all(-1 <= value <= 1 for value in similarity)


def test_missing_weights_end_with_exit_3(small):
    for stage in CHAIN:
        in_process(stage, small)
    write_params(small / "params.yaml", small / "collection", embed__path="nowhere")
    result = run_stage("embed", small)
    assert (
        result.returncode == 3
        and "nowhere: no such file or folder" in result.stderr
        and "Traceback" not in result.stderr
    )
