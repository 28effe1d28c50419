"""Whether weights in a folder are whole, without the libraries that load them: headers, sizes, checksums, hashes."""

import json
import zipfile
from pathlib import Path

from pipeline.files import sha256_file

_LFS = b"version https://git-lfs"


def fault(folder: Path) -> tuple[str | None, str]:
    """(what is wrong with a folder or None, what weights it holds or '')."""
    pinned = folder / "manifest.json"
    checks = [_manifest(pinned)] if pinned.is_file() else []
    config = folder / "config.json"
    checks += [_json(config)] if config.is_file() else []
    tensors, pickles = sorted(folder.glob("*.safetensors")), sorted(folder.glob("*.pt"))
    checks += [_safetensors(file) for file in tensors] + [_torch(file) for file in pickles]
    indexes = sorted(folder.glob("*.safetensors.index.json"))
    checks += [_index(file) for file in indexes]
    wrong = next((found for found in checks if found), None)
    count = len(tensors) + len(pickles)
    if not count:
        return wrong, ""
    pins = ", hashes as in manifest.json" if pinned.is_file() else ""
    return wrong, f"{count} weight file{'s' if count > 1 else ''}, whole{pins}"


def file_fault(file: Path) -> str | None:
    """What is wrong with one file of weights, by its kind, or None."""
    checks = {".safetensors": _safetensors, ".json": _json, ".pt": _torch, ".pth": _torch, ".bin": _torch}
    return checks[file.suffix](file) if file.suffix in checks else None


def _manifest(file: Path) -> str | None:
    """A manifest is a mapping of file name -> {"sha256": ...}."""
    try:
        stated = {name: item["sha256"] for name, item in json.loads(file.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{file}: not a manifest of weights"
    for name, digest in stated.items():
        path = file.parent / name
        if not path.is_file():
            return f"{path}: missing, though manifest.json names it"
        if sha256_file(path) != digest:
            return f"{path}: is not the file that manifest.json pins (sha256 differs)"
    return None


def _json(file: Path) -> str | None:
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return f"{file}: cannot be read ({error})"
    return None


def _index(file: Path) -> str | None:
    try:
        names = set(json.loads(file.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError) as error:
        return f"{file}: cannot be read ({error})"
    lost = sorted(name for name in names if not (file.parent / name).is_file())
    return f"{file.parent / lost[0]}: missing, though {file.name} names it" if lost else None


def _safetensors(file: Path) -> str | None:
    """The header says where every tensor ends; the file must end there, too."""
    size = file.stat().st_size
    with file.open("rb") as handle:
        start = handle.read(len(_LFS))
        if start == _LFS:
            return f"{file}: is a Git LFS pointer, not the weights; run `git lfs pull`"
        length = int.from_bytes(start[:8], "little")
        if size < 8 or length > size - 8:
            return f"{file}: damaged or cut off ({size:,} bytes)"
        handle.seek(8)
        try:
            header = json.loads(handle.read(length))
            ends = [item["data_offsets"][1] for name, item in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError):
            return f"{file}: its header cannot be read"
    stated = 8 + length + max(ends, default=0)
    return None if size == stated else f"{file}: {size:,} bytes, its header says {stated:,}: cut off or damaged"


def _torch(file: Path) -> str | None:
    """torch.save writes a zip archive with a checksum for each tensor; in its older form a pickle, which has none."""
    with file.open("rb") as handle:
        start = handle.read(len(_LFS))
    if start == _LFS:
        return f"{file}: is a Git LFS pointer, not the weights; run `git lfs pull`"
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            bad = archive.testzip()
        return f"{file}: damaged ({bad} has another checksum)" if bad else None
    return None if start.startswith(b"\x80") else f"{file}: damaged or cut off (not what torch.save writes)"
