"""An official Grounding DINO checkpoint as a weights folder: names, safetensors, config, tokenizer, image sizes."""

import json
import tempfile
from pathlib import Path

from transformers import GroundingDinoConfig

from pipeline.errors import InputError
from stages.common.checkpoints import read_state, write_folder
from stages.detect.loading import fit, parse_config
from stages.detect.names import to_transformers
from stages.detect.sides import FILE
from stages.detect.vocabulary import read_tokenizer

_TEXT = {"model_type": "bert"}  # transformers' defaults are bert-base-uncased
_SWIN_T = {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7, "image_size": 224}
_SWIN_B = {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32], "window_size": 12, "image_size": 384}
# The shapes of the published checkpoints: what of GroundingDinoConfig they have otherwise than its defaults.
ARCHITECTURES: dict[str, dict] = {
    "SwinT-OGC": {"backbone_config": {"model_type": "swin", "out_indices": [2, 3, 4], **_SWIN_T}, "text_config": _TEXT},
    "SwinB": {"backbone_config": {"model_type": "swin", "out_indices": [2, 3, 4], **_SWIN_B}, "text_config": _TEXT},
}
_SIZE = {"shortest_edge": 800, "longest_edge": 1333}
PREPROCESSOR = {
    "image_processor_type": "GroundingDinoImageProcessor",
    "do_resize": True,
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "do_pad": True,
    "format": "coco_detection",
}


def convert(source: Path, folder: Path, architecture: str) -> None:
    """Makes the folder that `detect.path` names, whole or not at all.

    Args:
        source: an official checkpoint, {"model": {"module.*": tensor}}; bert-base-uncased's vocab.txt lies beside it.
        folder: is made; must not be there yet.
        architecture: one of `ARCHITECTURES`; or any other name, if a JSON file beside the checkpoint, of the same name,
            says the shape: what of GroundingDinoConfig is not its default, and `size`, {"shortest_edge",
            "longest_edge"}, if that is not 800 and 1333.

    Raises:
        InputError: the checkpoint, the vocabulary or the JSON file is missing, damaged, or does not fit the others.
        ResourceError: the folder cannot be written.
    """
    shape, size = _shape(source, architecture)
    config = parse_config({"model_type": "grounding-dino", **shape}, f"{architecture} of {source.name}")
    tokenizer = read_tokenizer(source.parent)
    if len(tokenizer) > config.text_config.vocab_size:
        raise InputError(
            f"{source.parent / 'vocab.txt'}: {len(tokenizer)} tokens, but the model knows "
            f"{config.text_config.vocab_size}; put the vocabulary there that belongs to {source.name}"
        )
    state = to_transformers(read_state(source), source)
    fit(config, state, source)
    with tempfile.TemporaryDirectory() as draft:
        written = [Path(name) for name in tokenizer.save_pretrained(draft)]
        files = {path.name: path.read_bytes() for path in written if path.is_file()}
    files["vocab.txt"] = "".join(f"{token}\n" for token in _by_id(tokenizer.get_vocab())).encode()
    files[FILE] = (json.dumps({**PREPROCESSOR, "size": size}, indent=2) + "\n").encode()
    write_folder(folder, state, _written(config), files)


def _shape(source: Path, architecture: str) -> tuple[dict, dict]:
    """What of the config is not its default, and the sizes images are scaled to."""
    if architecture in ARCHITECTURES:
        return ARCHITECTURES[architecture], _SIZE
    beside = source.with_suffix(".json")
    if not beside.is_file():
        raise InputError(
            f"{architecture!r} is no architecture of Grounding DINO; it is one of {', '.join(ARCHITECTURES)}, or said "
            f"by {beside}"
        )
    try:
        shape = json.loads(beside.read_text(encoding="utf-8"))
        said = shape.pop("size", _SIZE)
        return shape, {edge: int(said[edge]) for edge in _SIZE}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{beside}: cannot be read ({type(error).__name__}: {error})") from None


def _written(config: GroundingDinoConfig) -> dict:
    """config.json as `save_pretrained` writes it."""
    return {**config.to_dict(), "architectures": ["GroundingDinoForObjectDetection"], "dtype": "float32"}


def _by_id(vocabulary: dict[str, int]) -> list[str]:
    return sorted(vocabulary, key=vocabulary.__getitem__)
