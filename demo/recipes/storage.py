"""How shipped weights are stored: half the bytes, read as 32-bit floats by every loader of the pipeline."""

from pathlib import Path

from safetensors.torch import load_file, save_file


def halve(file: Path) -> None:
    """The weights of a safetensors file as 16-bit floats, in place."""
    weights = {name: w.half() if w.is_floating_point() else w for name, w in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
    file.chmod(0o644)
