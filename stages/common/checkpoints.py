"""Checkpoint files and weights folders: read without running a line of what they hold, written whole or not at all.

A weights folder is a config.json and a model.safetensors (and a tokenizer's files, where a model has one). This is the
one place of the project where a pickled file is opened: by torch's restricted unpickler, which knows only tensors and
plain containers.
"""

import argparse
import contextlib
import errno
import json
import os
import re
import shutil
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline.errors import InputError, ResourceError

WEIGHTS = "model.safetensors"
_PICKLED = (".pth", ".pt", ".bin", ".ckpt")
_WRAPPERS = ("model", "state_dict")
_NAMED = 3


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, on the CPU: a .safetensors file, or a .pth/.pt/.bin that torch saved.

    Large files are mapped, not read. {"model": ...} and {"state_dict": ...} are unwrapped; a leading "module." goes.

    Raises:
        InputError: nothing is there, it is cut short or damaged, it would run code, or it is no dict of tensors.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; `python -m pipeline weights list` shows what can be fetched")
    with path.open("rb") as handle:
        head = handle.read(64)
    if not head:
        raise InputError(f"{path}: is empty; get it again")
    if _is_text(head):
        raise InputError(f"{path}: is a text or web page, not a checkpoint; get the file itself again")
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return _checked(_read_safetensors(path), path)
    return _checked(_read_pickled(path, mapped=head.startswith(b"PK")), path)


def _is_text(head: bytes) -> bool:
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"<", b"version https://git-lfs", b"{"))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, OverflowError) as error:
        raise InputError(f"{path}: is cut short or damaged ({_first_line(error)}); get it again") from None


def _read_pickled(path: Path, mapped: bool) -> object:
    try:
        # Training checkpoints often keep their command line; a Namespace holds what it is given and runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # noqa: BLE001 - a stranger's pickle raises what it likes
        raise InputError(f"{path}: {_pickle_fault(str(error))}") from None


def _pickle_fault(said: str) -> str:
    """What is wrong with a pickled checkpoint, from what torch says of it, and what to do."""
    wanted = re.search(r"GLOBAL ([\w.]+)", said)
    if wanted:
        return (
            f"wants to run code ({wanted[1]}) and is refused; take the weights from their public location "
            "(`python -m pipeline weights list`), or as .safetensors"
        )
    if "TorchScript" in said:
        return "is a TorchScript program, not weights by name; save its state_dict() and convert that"
    if "central directory" in said or "EOF" in said or "out of bounds" in said:
        return "is cut short or damaged; get it again"
    return "is not a checkpoint of tensors, or damaged; get it again"


def _checked(loaded: object, path: Path) -> dict[str, Tensor]:
    """What was loaded as a plain dict of tensors."""
    state = loaded
    while isinstance(state, dict):
        inner = next((state[key] for key in _WRAPPERS if isinstance(state.get(key), dict)), None)
        if inner is None:
            break
        state = inner
    if not isinstance(state, dict):
        raise InputError(f"{path}: holds a {type(state).__name__}, not tensors by name; save the model's state_dict()")
    if not state:
        raise InputError(f"{path}: holds no tensors; get it again")
    others = [f"{key} ({type(value).__name__})" for key, value in state.items() if not isinstance(value, Tensor)]
    others += [f"a key {key!r}" for key in state if not isinstance(key, str)]
    if others:
        raise InputError(f"{path}: holds what is not a tensor: {_few(others)}; save the model's state_dict() alone")
    named = {key.removeprefix("module."): value for key, value in state.items()}
    if len(named) < len(state):
        raise InputError(f"{path}: holds the same tensor with and without `module.`; save the model's state_dict()")
    return named


def load_strict(module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Puts `state` into `module`: every tensor it wants, nothing else, every number finite.

    The module keeps its dtype and device; one built on the meta device keeps its dtype and takes the tensors' device.

    Raises:
        InputError: keys are missing, left over or of another shape, or a tensor holds NaN or infinity.
    """
    wanted = module.state_dict()
    faults = {
        "missing": [key for key in wanted if key not in state],
        "unexpected": [key for key in state if key not in wanted],
        "of another shape": [
            f"{key} {list(state[key].shape)} for {list(tensor.shape)}"
            for key, tensor in wanted.items()
            if key in state and state[key].shape != tensor.shape
        ],
    }
    said = [f"{len(keys)} {what} ({_few(keys)})" for what, keys in faults.items() if keys]
    if said:
        raise InputError(
            f"{path}: the weights are not of this architecture: {'; '.join(said)}; "
            "`python -m pipeline weights list` names those that fit"
        )
    check_finite(state, path)
    state = {key: tensor.to(wanted[key].dtype) for key, tensor in state.items()}  # half-precision files too
    module.load_state_dict(state, strict=True, assign=any(tensor.is_meta for tensor in wanted.values()))


def check_finite(state: dict[str, Tensor], path: Path) -> None:
    """Raises InputError if a floating tensor of `state` holds NaN or infinity."""
    broken = [key for key, value in state.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if broken:
        raise InputError(f"{path}: NaN or infinity in the weights: {_few(broken)}; get them again")


def write_folder(folder: Path, state: dict[str, Tensor], config: dict, extra: dict[str, bytes | Path]) -> None:
    """Makes a weights folder: config.json, model.safetensors and `extra` (name -> contents, or a file to copy).

    The folder appears whole, on disk, or not at all.

    Raises:
        InputError: the folder is there already and not empty.
        ResourceError: the disk is full or the place cannot be written.
    """
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder}: is there already; delete it and run this again")
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
        (draft / "config.json").write_text(text, encoding="utf-8")
        for name, contents in extra.items():
            if isinstance(contents, Path):
                shutil.copyfile(contents, draft / name)
            else:
                (draft / name).write_bytes(contents)
        save_file(_separate(state), draft / WEIGHTS, metadata={"format": "pt"})
        shutil.copymode(draft / "config.json", draft / WEIGHTS)  # safetensors makes it readable by its owner alone
        for place in (*draft.iterdir(), draft):
            _flush(place)
        draft.rename(folder)
        _flush(folder.parent)
    except SafetensorError as error:
        raise ResourceError(f"{folder}: cannot be written ({_first_line(error)}); make room and run again") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS):
            said = f"{folder}: cannot be written ({error.strerror}); free or open it and run again"
            raise ResourceError(said) from None
        raise
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(draft, ignore_errors=True)


def _separate(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, each contiguous and in storage of its own, as safetensors wants them."""
    seen: set[int] = set()
    apart = {}
    for key, value in state.items():
        tensor = value.detach().contiguous()
        place = tensor.untyped_storage().data_ptr()
        apart[key] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return apart


def _flush(place: Path) -> None:
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_config(folder: Path, what: str) -> dict:
    """config.json of a weights folder; `what` names the parameter and the model, for the message.

    Raises:
        InputError: there is none, or it is no JSON object; the message says what to do.
    """
    file = folder / "config.json"
    if not file.is_file():
        advice = "`python -m pipeline weights list` shows what can be fetched, and `weights get NAME` fetches it"
        given = folder if folder.is_file() else next(iter(_checkpoints(folder)), None)
        if given and given.suffix in _PICKLED:
            advice = f"make it a weights folder once: `python -m pipeline weights convert {given} --as NAME`"
        raise InputError(f"{folder}: no config.json of {what} here; {advice}")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read ({_first_line(error)}); get the weights again") from None
    if not isinstance(config, dict):
        raise InputError(f"{file}: is not a JSON object; get the weights again")
    return config


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.suffix in _PICKLED) if folder.is_dir() else []


def _few(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
