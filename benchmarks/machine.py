"""The machine a figure was taken on."""

import os
import platform
from pathlib import Path

import torch


def machine() -> str:
    """Processor, cores, accelerator and library versions in one line."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    name = next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no accelerator"
    return f"{name}, {os.cpu_count()} cores, {gpu}, Python {platform.python_version()}, torch {torch.__version__}"
