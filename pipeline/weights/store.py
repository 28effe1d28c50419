"""What of weights/ lies behind the folders: files by their content, the pins, the files a person copied by hand.

weights/.store/SHA256        every fetched file, by its content; folders hold links to it, or what was made of it
weights/.store/parts/        downloads that broke off, to be gone on with
weights/downloads/           what a person copied there; taken up by the next `get`
weights/pins.json            sha256 of what had none in the manifest (at first use), and of every file of a folder
"""

import json
from pathlib import Path

from pipeline import whole
from pipeline.errors import InputError, tell
from pipeline.files import link, sha256_file, write_json
from pipeline.weights.manifest import FOLDER, MANIFEST, File

STORE = FOLDER / ".store"
PARTS = STORE / "parts"
DOWNLOADS = FOLDER / "downloads"
PINS = FOLDER / "pins.json"
_HEAD = 64


def expected(name: str, file: File) -> str | None:
    """The sha256 a file of an entry must have: the manifest's, or the one pinned at its first use."""
    return file.sha256 or read_pins()["files"].get(f"{name}/{file.name}")


def held(digest: str | None) -> Path | None:
    """The file of that content, if the store has it whole; a damaged one is removed."""
    path = STORE / (digest or "")
    if not digest or not path.is_file():
        return None
    if sha256_file(path) == digest:
        return path
    tell(f"{path}: is damaged (its sha256 is another) and was removed; the file is got again")
    path.unlink()
    return None


def take(path: Path, name: str, file: File) -> Path:
    """Checks a whole file, puts it into the store and pins it if nothing else says what it must be.

    Raises:
        InputError: it is not the file of the manifest, or not the one pinned.
    """
    said = fault(path, name, file)
    if said:
        raise InputError(f"{path}: {said}")
    digest = sha256_file(path)
    link(path.resolve(), STORE / digest)
    if not expected(name, file):
        pins = read_pins()
        pins["files"][f"{name}/{file.name}"] = digest
        write_json(PINS, pins)
    return STORE / digest


def fault(path: Path, name: str, file: File) -> str | None:
    """Why a file is not the one wanted, or None."""
    if what := _impostor(path):
        return f"is {what}, not {file.name}"
    size = path.stat().st_size
    if file.bytes is not None and size != file.bytes:
        return f"{size:,} bytes, but {file.name} has {file.bytes:,}"
    wanted = expected(name, file)
    if wanted is None:
        return _implausible(path)
    digest = sha256_file(path)
    if digest != wanted:
        by = "the manifest says" if file.sha256 else f"{PINS} pinned at first use"
        return f"its sha256 is {digest}, but {by} {wanted}"
    return None


def _impostor(path: Path) -> str | None:
    """What servers like to send in place of a file."""
    with path.open("rb") as handle:
        head = handle.read(_HEAD)
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return "a web page"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer"
    return None if head else "empty"


def _implausible(path: Path) -> str | None:
    """Where no hash is known yet, at least the form of a file must be right before it is pinned."""
    said = whole.file_fault(path)
    return said and said.removeprefix(f"{path}: ")


def by_hand(name: str, file: File) -> list[Path]:
    """Where a person may copy a file: its own name if no other file is called so, or in a folder of the entry."""
    same = {other.sha256 for entry in MANIFEST.values() for other in entry.files if other.name == file.name}
    own = DOWNLOADS / name / file.name
    return [DOWNLOADS / file.name, own] if len(same) == 1 and None not in same else [own]


def read_pins() -> dict[str, dict]:
    """The pins; empty ones where there are none.

    Raises:
        InputError: the file is damaged.
    """
    if not PINS.is_file():
        return {"files": {}, "folders": {}}
    try:
        pins = json.loads(PINS.read_text(encoding="utf-8"))
        return {"files": dict(pins["files"]), "folders": dict(pins["folders"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{PINS}: cannot be read ({error}); mend it, or delete it to pin anew at the next use"
        ) from None


def pin_folder(made: Path, folder: Path, origin: dict | None) -> None:
    """Writes down the hash of every file of a folder about to be put in place; `origin` is what it was made from."""
    pins = read_pins()
    pins["folders"][folder.as_posix()] = {"files": hashes(made), "from": origin}
    write_json(PINS, pins)


def hashes(folder: Path) -> dict[str, str]:
    """sha256 of the files of a folder by relative path; hidden files and caches left out."""
    found = {}
    for file in sorted(folder.rglob("*")):
        parts = file.relative_to(folder).parts
        if file.is_file() and not any(part.startswith((".", "__pycache__")) for part in parts):
            found["/".join(parts)] = sha256_file(file)
    return found
