"""The frozen encoder: any Hugging Face vision backbone by AutoModel, or CLIP by its two towers."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer
from transformers.utils import logging as hf_logging

from pipeline.errors import InputError, tell
from stages.common.checkpoints import check_finite, read_config
from stages.common.device import dtype_of, pick_device
from stages.embed.prepare import mirror, on_host

_PROBE = 8  # tokens of the text whose FLOP are counted
_SPARE = ("position_ids", "mask_token", "num_batches_tracked")  # that old checkpoints keep inside parts we build


class Encoder:
    """Vectors of images and, where there is a text tower, of texts.

    An image's vector is CLIP's projected image embedding; else the backbone's pooled output where its weights are in
    the checkpoint (convolutional nets: the global average), else the state of its first token.

    Attributes:
        dim: numbers in a vector.
        two_towers: whether texts have vectors in the same space.
        fill: the colour that is zero after normalisation, uint8 [3, 1, 1] on the device.
        image_flop, token_flop: floating-point operations an image, and a token of a text, take.

    Raises:
        InputError: the folder is missing, not in Hugging Face layout, or its weights do not fit its config.
    """

    def __init__(self, path: str, device: str, dtype: str, threads: int):
        torch.set_num_threads(threads)
        hf_logging.set_verbosity_error()
        hf_logging.disable_progress_bar()
        self.device, self.dtype = pick_device(device), dtype_of(dtype)
        # Pillow resizes outside the interpreter's lock.
        self._map = ThreadPoolExecutor(threads, "prepare").map if threads > 1 else map
        self.random_weights = bool(read_config(Path(path), "embed.path, a vision encoder").get("random_weights", False))
        try:
            config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
            self.processor = AutoImageProcessor.from_pretrained(
                path, local_files_only=True, trust_remote_code=False, backend="pil"
            )
            self.preparation = mirror(self.processor)
            model, info = AutoModel.from_pretrained(
                path, local_files_only=True, trust_remote_code=False, output_loading_info=True, dtype=self.dtype
            )
        except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
            raise InputError(f"{path}: cannot be loaded as a vision encoder ({str(error).splitlines()[0]})") from None
        _check(path, model, info)
        if self.preparation is None:
            kind = type(self.processor).__name__
            tell(f"embed: {path}: images are prepared on the CPU by {kind}, which has no equal on the device")
        self.pooled = not info["missing_keys"]
        self.two_towers = hasattr(config, "text_config") and hasattr(model, "get_image_features")
        self.model = model.to(self.device).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True) if self.two_towers else None
        self.architecture = type(model).__name__
        mean = getattr(self.processor, "image_mean", None) or [0.5, 0.5, 0.5]
        colour = [round(255 * float(value)) for value in mean]
        self.fill = torch.tensor(colour, dtype=torch.uint8, device=self.device).view(3, 1, 1)
        blank = self.prepare([self.fill.expand(3, 32, 32)])
        with FlopCounterMode(display=False) as counter:
            self.dim = self.encode(blank).shape[1]
        self.image_flop, self.token_flop = float(counter.get_total_flops()), 0.0
        if self.two_towers:
            with FlopCounterMode(display=False) as counter:
                self.texts([[1] * _PROBE])
            self.token_flop = counter.get_total_flops() / _PROBE

    def prepare(self, crops: Sequence[Tensor]) -> Tensor:
        """Images as the checkpoint's image processor makes them, but for the normalisation where that can wait.

        Args:
            crops: uint8 [3, h, w] of any sizes, on the device.

        Returns:
            uint8 [crops, 3, height, width], or float32 that is normalised already.
        """
        if self.preparation is None:
            return on_host(self.processor, crops).to(self.device)
        return self.preparation.pixels(crops, self._map)

    @torch.inference_mode()
    def encode(self, prepared: Tensor) -> Tensor:
        """What `prepare` made -> [n, dim] in the encoder's dtype, on the device."""
        values = prepared.to(self.dtype) if self.preparation is None else self.preparation.values(prepared, self.dtype)
        if self.two_towers:
            return _tensor(self.model.get_image_features(pixel_values=values))
        output = self.model(pixel_values=values)
        pooled = getattr(output, "pooler_output", None)
        if pooled is not None and self.pooled:
            return pooled.flatten(1)
        states = output.last_hidden_state
        return states.mean((2, 3)) if states.dim() == 4 else states[:, 0]

    def tokens(self, texts: list[str]) -> list[list[int]]:
        """The token ids of texts, cut at the tower's length (two-tower encoders only)."""
        limit = self.model.config.text_config.max_position_embeddings
        return self.tokenizer(texts, truncation=True, max_length=limit, add_special_tokens=True)["input_ids"]

    @torch.inference_mode()
    def texts(self, tokens: Sequence[list[int]]) -> Tensor:
        """Texts by their token ids -> [n, dim] in the encoder's dtype, on the device, in the same space as images."""
        batch = {"input_ids": list(tokens)}
        if "attention_mask" in self.tokenizer.model_input_names:
            padded = self.tokenizer.pad(batch, return_tensors="pt")
        else:  # SigLIP reads the padding, always up to its full length
            limit = self.model.config.text_config.max_position_embeddings
            padded = self.tokenizer.pad(
                batch, padding="max_length", max_length=limit, return_attention_mask=False, return_tensors="pt"
            )
        return _tensor(self.model.get_text_features(**padded.to(self.device)))


def _check(path: str, model: Any, info: dict) -> None:
    """Raises InputError unless the weights are all there, fit, and are numbers. A head that AutoModel does not build
    may be left over; a part of what it does build may not.
    """
    missing = [key for key in info["missing_keys"] if "pooler." not in key]
    built = {name for name, _ in model.named_children()}
    plain = (key.removeprefix(f"{model.base_model_prefix}.") for key in info["unexpected_keys"])
    left_over = sorted(key for key in plain if key.partition(".")[0] in built and not key.endswith(_SPARE))
    faults = {"missing": missing, "mismatched": list(info["mismatched_keys"]), "left over": left_over}
    said = ", ".join(f"{what} {keys[:3]}" for what, keys in faults.items() if keys)
    if said:
        raise InputError(f"{path}: the weights do not fit config.json ({said}); get the checkpoint again")
    check_finite(model.state_dict(), Path(path))


def _tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else value.pooler_output
