"""transformers' Grounding DINO with the weights of a folder: all of them, and no others."""

from pathlib import Path

import torch
from torch import Tensor
from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection
from transformers.utils import logging as hf_logging

from pipeline.errors import InputError
from stages.common.checkpoints import WEIGHTS, check_finite, read_config, read_state

WHAT = "detect.path (Grounding DINO)"
# What the forward pass of stages/detect/network.py takes for granted; all published checkpoints have it so.
_TAKEN = {"two_stage": True, "embedding_init_target": True, "position_embedding_type": "sine", "query_dim": 4}


def load(folder: Path) -> GroundingDinoForObjectDetection:
    """The model of a weights folder in Hugging Face layout, fp32, on the CPU.

    Raises:
        InputError: config or weights are missing or damaged, do not fit each other, or are another model's.
    """
    config = parse_config(read_config(folder, WHAT), folder / "config.json")
    file = folder / WEIGHTS
    return fit(config, read_state(file), file)


def parse_config(said: dict, where: object) -> GroundingDinoConfig:
    """A config.json of Grounding DINO.

    Raises:
        InputError: it is of another model, holds what transformers does not take, or asks for what is not built here.
    """
    if said.get("model_type") != "grounding-dino":
        kind = said.get("model_type", "no model_type")
        raise InputError(
            f"{where}: not of a Grounding DINO but of {kind!r}; set detect.path to one "
            "(`python -m pipeline weights list` names them)"
        )
    try:
        config = GroundingDinoConfig.from_dict(said)
    except Exception as error:  # noqa: BLE001 - transformers raises what its validators raise
        raise InputError(f"{where}: cannot be used ({str(error).strip().splitlines()[0]}); get it again") from None
    wrong = [f"{name} {getattr(config, name)!r}" for name, value in _TAKEN.items() if getattr(config, name) != value]
    if wrong or config.num_feature_levels < 2:
        raise InputError(f"{where}: a Grounding DINO with {', '.join(wrong) or 'one resolution'} is not supported")
    return config


def fit(config: GroundingDinoConfig, state: dict[str, Tensor], where: Path) -> GroundingDinoForObjectDetection:
    """The model of a config with the tensors of a Hugging Face file in it.

    Raises:
        InputError: tensors are missing, left over, of another shape, or not finite.
    """
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        model, said = GroundingDinoForObjectDetection.from_pretrained(
            None,
            config=config,
            state_dict=dict(state),
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            dtype=torch.float32,
        )
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{where}: does not fit its config.json ({str(error).strip().splitlines()[0]})") from None
    faults = {
        "missing": sorted(said["missing_keys"]),
        "unexpected": sorted(said["unexpected_keys"]),
        "of another shape": sorted(f"{key} {list(got)} for {list(want)}" for key, got, want in said["mismatched_keys"]),
        "unreadable": sorted(said["error_msgs"]),
    }
    if told := [f"{len(keys)} {what} ({_few(keys)})" for what, keys in faults.items() if keys]:
        raise InputError(
            f"{where}: the weights are not of this architecture: {'; '.join(told)}; "
            "`python -m pipeline weights list` names those that fit"
        )
    check_finite(state, where)
    return model.eval()


def _few(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
