"""From an official Segment Anything .pth to the weights folder that the backend reads."""

from pathlib import Path

from pipeline.errors import InputError
from pipeline.files import sha256_file
from stages.common.checkpoints import load_strict, read_state, write_folder
from stages.segment.architecture import OFFICIAL, build, of_state, to_config


def convert(source: Path, folder: Path, architecture: str) -> None:
    """Makes `folder`: config.json, and model.safetensors with the official names of tensors.

    Args:
        architecture: `vit_b`, `vit_l` or `vit_h`, which the tensors must then be; any other name is given to a
            checkpoint of another shape.

    Raises:
        InputError: the file is damaged, of another model or another architecture, or the folder is there already.
        ResourceError: the folder cannot be written.
    """
    state = read_state(source)
    shape = of_state(state, source)
    found = next((name for name, official in OFFICIAL.items() if official == shape), None)
    if found != architecture and (found or architecture in OFFICIAL):
        known = f"the weights of {found}" if found else f"of another shape ({shape.depth} blocks of {shape.dim})"
        raise InputError(f"{source}: is {known}, not of {architecture}; name the file that you have")
    load_strict(build(shape), state, source)
    write_folder(folder, state, to_config(shape, architecture, sha256_file(source)), {})
