"""Small vision encoders of random weights in Hugging Face layout, and the plain way to their vectors: an image at a
time, every crop cut out by Pillow, the checkpoint's own image processor on Pillow.
"""

import io
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from transformers import (
    AutoImageProcessor,
    AutoModel,
    CLIPConfig,
    CLIPModel,
    ResNetConfig,
    ResNetModel,
    ViTConfig,
    ViTModel,
)

from stages.common import rle

SIDE = 48
# As openai/clip-vit-base-patch32, google/vit-base-patch16-224 and microsoft/resnet-50 state them, but for the side.
PROCESSORS = {
    "clip": {
        "feature_extractor_type": "CLIPFeatureExtractor",
        "do_resize": True,
        "size": SIDE,
        "resample": 3,
        "do_center_crop": True,
        "crop_size": SIDE,
        "do_normalize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    },
    "vit": {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": SIDE, "width": SIDE},
        "resample": 2,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    },
    "resnet": {
        "feature_extractor_type": "ConvNextFeatureExtractor",
        "do_resize": True,
        "size": SIDE,
        "crop_pct": 0.875,
        "resample": 3,
        "do_normalize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    },
}
WORDS = ("<pad>", "<s>", "</s>", "<unk>", "a", "red", "green", "blue", "yellow", "ball", "box", "kite", "cup", "next")


def make(kind: str, folder: Path) -> Path:
    """A checkpoint of one of PROCESSORS' kinds."""
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    if kind == "clip":
        text = {**shape, "vocab_size": len(WORDS), "max_position_embeddings": 16}
        ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
        vision = {**shape, "image_size": SIDE, "patch_size": 8}
        CLIPModel(CLIPConfig(text_config=text | ids, vision_config=vision, projection_dim=24)).save_pretrained(folder)
        _tokenizer(folder)
    elif kind == "vit":
        ViTModel(ViTConfig(**shape, image_size=SIDE, patch_size=8)).save_pretrained(folder)
    else:
        ResNetModel(ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1])).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSORS[kind]))
    return folder


def _tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


def cut(image: Image.Image, mask: rle.Mask, mode: str, margin: float, fill: tuple[int, int, int]) -> Image.Image:
    """The RGB crop of an object, by Pillow; what stages/embed/crops.py must equal to the bit."""
    x0, y0, x1, y1 = rle.box(*mask)
    dx, dy = margin * (x1 - x0), margin * (y1 - y0)
    left, top = max(0, int(x0 - dx)), max(0, int(y0 - dy))
    right, bottom = min(image.width, int(x1 + dx + 0.999)), min(image.height, int(y1 + dy + 0.999))
    crop = image.crop((left, top, right, bottom))
    if mode == "box":
        return crop
    inside = Image.fromarray(rle.decode(*mask)[top:bottom, left:right])
    if mode == "blur":
        around = crop.filter(ImageFilter.GaussianBlur(0.05 * max(crop.size)))
    else:
        around = Image.new("RGB", crop.size, fill)
    around.paste(crop, mask=inside)
    return around


def plain_vectors(folder: Path, pictures: list[Image.Image]) -> np.ndarray:
    """float32 [pictures, dim], one at a time."""
    processor, model = AutoImageProcessor.from_pretrained(folder, backend="pil"), AutoModel.from_pretrained(folder)
    model.eval()
    made = []
    with torch.inference_mode():
        for picture in pictures:
            pixels = processor(images=picture, return_tensors="pt")["pixel_values"]
            if hasattr(model, "visual_projection"):
                made.append(model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output))
            else:
                made.append(model(pixel_values=pixels).pooler_output.flatten(1))
    return torch.cat(made).numpy()


def fill_of(folder: Path) -> tuple[int, int, int]:
    mean = json.loads((folder / "preprocessor_config.json").read_text())["image_mean"]
    return tuple(round(255 * value) for value in mean)


def png(image: Image.Image) -> bytes:
    held = io.BytesIO()
    image.save(held, "PNG")
    return held.getvalue()


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def planes(image: Image.Image) -> torch.Tensor:
    """uint8 [3, height, width]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
