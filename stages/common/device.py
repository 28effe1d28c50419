"""Where a model runs."""

import torch

from pipeline.errors import InputError


def pick_device(name: str) -> torch.device:
    """The device `runtime.device` names; `auto` is the accelerator where there is one.

    Raises:
        InputError: the named device is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"runtime.device: {name} is not available on this machine; use auto or cpu")
    return torch.device(name)
