"""The frozen encoder: any Hugging Face vision backbone by AutoModel, or CLIP by its two towers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer
from transformers.utils import logging as hf_logging

from pipeline.errors import InputError
from stages.common.device import pick_device

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Encoder:
    """Vectors of images and, where there is a text tower, of texts.

    An image's vector is CLIP's projected image embedding; else the backbone's pooled output where its weights are in
    the checkpoint (convolutional nets: the global average), else the state of its first token.

    Raises:
        InputError: the folder is missing, not in Hugging Face layout, or its weights do not fit its config.
    """

    def __init__(self, path: str, device: str, dtype: str, threads: int):
        torch.set_num_threads(threads)
        hf_logging.set_verbosity_error()
        hf_logging.disable_progress_bar()
        self.device, self.dtype = pick_device(device), _DTYPES[dtype]
        folder = Path(path)
        if not (folder / "config.json").is_file():
            raise InputError(
                f"{path}: no config.json here; set embed.path to a vision encoder in Hugging Face layout "
                "(`python -m pipeline weights list` names the ones we know)"
            )
        try:
            config = AutoConfig.from_pretrained(path, local_files_only=True)
            self.processor = AutoImageProcessor.from_pretrained(path, local_files_only=True)
            model, info = AutoModel.from_pretrained(
                path, local_files_only=True, output_loading_info=True, dtype=self.dtype
            )
        except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
            raise InputError(f"{path}: cannot be loaded as a vision encoder ({str(error).splitlines()[0]})") from None
        missing = [key for key in info["missing_keys"] if "pooler." not in key]
        if missing or info["mismatched_keys"]:
            raise InputError(
                f"{path}: the weights do not fit config.json (missing {missing[:3]}, "
                f"mismatched {list(info['mismatched_keys'])[:3]}); get the checkpoint again"
            )
        self.pooled = not info["missing_keys"]
        self.two_towers = hasattr(config, "text_config") and hasattr(model, "get_image_features")
        self.model = model.to(self.device).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True) if self.two_towers else None
        self.architecture = type(model).__name__
        self.random_weights = random_weights(folder)
        self.dim = self.images([Image.new("RGB", (32, 32))]).shape[1]

    @property
    def mean_colour(self) -> tuple[int, int, int]:
        """The colour that is zero after normalisation, RGB 0-255."""
        mean = getattr(self.processor, "image_mean", None) or [0.5, 0.5, 0.5]
        return tuple(round(255 * float(v)) for v in mean)

    @torch.inference_mode()
    def images(self, images: list[Image.Image]) -> np.ndarray:
        """RGB images of any size -> float32 [n, dim]."""
        pixels = self.processor(images=images, return_tensors="pt")["pixel_values"].to(self.device, self.dtype)
        if self.two_towers:
            return _array(_tensor(self.model.get_image_features(pixel_values=pixels)))
        output = self.model(pixel_values=pixels)
        pooled = getattr(output, "pooler_output", None)
        if pooled is not None and self.pooled:
            return _array(pooled.flatten(1))
        states = output.last_hidden_state
        return _array(states.mean((2, 3)) if states.dim() == 4 else states[:, 0])

    @torch.inference_mode()
    def texts(self, texts: list[str]) -> np.ndarray:
        """Texts -> float32 [n, dim], in the same space as the images (two-tower encoders only); cut at the tower's
        length.
        """
        limit = self.model.config.text_config.max_position_embeddings
        batch = self.tokenizer(texts, padding=True, truncation=True, max_length=limit, return_tensors="pt").to(
            self.device
        )
        return _array(_tensor(self.model.get_text_features(**batch)))


def random_weights(folder: Path) -> bool:
    """Whether a checkpoint's config says that its weights were never trained; shown wherever its features are used."""
    try:
        return bool(json.loads((folder / "config.json").read_text(encoding="utf-8")).get("random_weights", False))
    except (OSError, ValueError):
        return False


def _tensor(value: Any) -> torch.Tensor:
    return value if isinstance(value, torch.Tensor) else value.pooler_output


def _array(value: torch.Tensor) -> np.ndarray:
    return value.float().cpu().numpy()
