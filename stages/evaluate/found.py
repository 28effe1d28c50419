"""The model folder that --model names: a folder, or a name of the hub that is in the local cache."""

import re
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from pipeline.errors import InputError

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)


def model_folder(named: str) -> Path:
    """A folder as it stands, or the cached snapshot of a hub name (OWNER/NAME, or a name of sentence-transformers).

    Nothing is fetched. Raises InputError.
    """
    if Path(named).is_dir():
        return Path(named)
    if not _NAME.fullmatch(named):
        raise InputError(f"{named}: no such model folder; give the folder of a Hugging Face model, or a hub name")
    names = [named] if "/" in named else [named, f"sentence-transformers/{named}"]
    for name in names:
        try:
            file = try_to_load_from_cache(name, "config.json")
        except HFValidationError:  # no name that the hub would give (a..b, a--b, a.)
            continue
        if isinstance(file, str):
            return Path(file).parent
    raise InputError(
        f"{named}: no such model folder, and the hub's local cache has no model of that name; nothing is fetched here: "
        f"get it where there is a network (`hf download {names[-1]}`), or give a folder"
    )
