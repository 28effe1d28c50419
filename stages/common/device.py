"""Where a model runs, and in which number format."""

from typing import Any

import torch

from pipeline.errors import InputError

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def dtype_of(name: str) -> torch.dtype:
    """The number format that a `dtype` parameter names."""
    return _DTYPES[name]


def devices_of(runtime: Any) -> list[str]:
    """The devices of `runtime.devices`, one worker each; `auto` is every CUDA device, else MPS, else the CPU.

    Raises:
        InputError: a named device is not there.
    """
    names = [name for entry in runtime.devices for name in (_automatic() if entry == "auto" else [entry])]
    return [str(pick_device(name)) for name in names]


def pick_device(name: str) -> torch.device:
    """One device by name; `auto` is the best there is.

    Raises:
        InputError: the named device is not there.
    """
    device = torch.device(_automatic()[0] if name == "auto" else name)
    if device.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= found:
            there = f"it has {found} CUDA device{'s' if found > 1 else ''}" if found else "it has no CUDA device"
            raise InputError(
                f"runtime.devices: {name} is not available on this machine ({there}); use auto or "
                f"{f'cuda:0 to cuda:{found - 1}' if found > 1 else 'cuda:0' if found else 'cpu'}"
            )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"runtime.devices: {name} is not available on this machine; use auto or cpu")
    return device


def _automatic() -> list[str]:
    if torch.cuda.is_available():
        return [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return ["mps"] if torch.backends.mps.is_available() else ["cpu"]


def send(made: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of host memory on a device; a GPU is not waited for."""
    return made.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else made.to(device)
