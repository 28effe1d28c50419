"""A checkpoint in Hugging Face layout whose weights are pickled, made one of safetensors; nothing else is changed."""

from pathlib import Path

import torch
import transformers
from transformers import AutoConfig

from pipeline.errors import InputError
from stages.common.checkpoints import load_strict, read_config, read_state, write_folder

# Counters 0, 1, 2 ... that old checkpoints hold and no model of today stores.
_COUNTERS = "position_ids"


def convert(source: Path, folder: Path, architecture: str) -> None:
    """Makes `folder` of a pickled file and what lies beside it (config.json, tokenizer, image processor).

    `architecture` is the class of transformers that the weights must fit, tensor by tensor.

    Raises:
        InputError: the file or its config.json cannot be read, or they do not fit each other.
    """
    config = read_config(source.parent, architecture)
    state = {key: tensor for key, tensor in read_state(source).items() if not key.endswith(_COUNTERS)}
    try:
        built = AutoConfig.for_model(**config)
        with torch.device("meta"):
            model = getattr(transformers, architecture)(built)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{source.parent / 'config.json'}: is not of a {architecture} ({error}); get it again"
        ) from None
    load_strict(model, state, source)
    beside = {file.name: file for file in source.parent.iterdir() if file.is_file()}
    write_folder(folder, state, config, {name: beside[name] for name in beside.keys() - {source.name, "config.json"}})
