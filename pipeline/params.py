"""The parameters: read and checked, every mistake reported at once, and the one writer of params.yaml.

The models themselves are in pipeline/sections.py.
"""

import io
import shutil
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.representer import RoundTripRepresenter

from pipeline.errors import InputError, ParamsError
from pipeline.files import write_text
from pipeline.mistakes import keys, listed, mistakes_in, suggest
from pipeline.sections import Params
from pipeline.splice import splice


def load(path: Path) -> Params:
    """Reads and checks a parameter file.

    Raises:
        InputError: there is no such file.
        ParamsError: it is not YAML, or holds mistakes; all of them are listed, one a line.
    """
    return check(_parse(path, _read(path)), path)


def check(values: Any, path: Path) -> Params:
    """Validates plain values; see `load`."""
    if not isinstance(values, dict):
        raise ParamsError(f"{path}: must be a mapping of sections (ingest, parse, ...), not {type(values).__name__}")
    if mistakes := mistakes_in(Params, values):
        raise listed(path, mistakes)
    return Params.model_validate(values)


def update(path: Path, changes: dict[str, Any]) -> Params:
    """The one writer of params.yaml: sets dotted keys, keeps comments and order, validates, replaces the file
    atomically.

    Raises:
        ParamsError: a key does not exist or the result would not be valid; the file is then untouched.
    """
    text = _read(path)
    document = _parse(path, text)
    mistakes = []
    for key, value in changes.items():
        *parents, last = key.split(".")
        place: Any = document
        for part in parents:
            place = place.get(part) if isinstance(place, dict) else None
        if isinstance(place, dict) and (last in place or key in keys(Params)):
            place[last] = value
        else:
            mistakes.append(f"{key}: unknown parameter{suggest(Params, key)}")
    if mistakes := sorted({*mistakes, *mistakes_in(Params, document)}):
        raise listed(path, mistakes)
    params = Params.model_validate(document)
    if (new := _rewritten(path, text, document, changes)) != text:
        write_text(path, new)
    return params


def _rewritten(path: Path, text: str, document: Any, changes: dict[str, Any]) -> str:
    """The file's text with the changes that `document` already has: spliced in where possible, else dumped anew."""
    spliced = splice(text, _parse(path, text), changes)
    if spliced is not None and _parse(path, spliced) == document:
        return spliced
    stream = io.StringIO()
    _yaml().dump(document, stream)
    return stream.getvalue()


def replace(path: Path, text: str, force: bool) -> Path | None:
    """Puts a whole new parameter file in place, keeping the old one as `<name>.bak`, `.bak1`, ...; returns the backup.

    Raises:
        ParamsError: the new text is not valid; or the present file differs and `force` is not set.
    """
    check(_parse(path, text), path)
    backup = None
    if path.exists() and path.read_text(encoding="utf-8") != text:
        if not force:
            raise ParamsError(
                f"{path}: has been edited and would be overwritten; add --force to replace it (a backup is kept)"
            )
        backup = path.with_name(path.name + ".bak")
        number = 0
        while backup.exists():
            number += 1
            backup = path.with_name(f"{path.name}.bak{number}")
        shutil.copyfile(path, backup)
    write_text(path, text)
    return backup


def parse_value(text: str) -> Any:
    """The value of a `key=value` override, read as YAML ("3" is a number, "[a, b]" a list, "null" nothing)."""
    try:
        return YAML(typ="safe").load(text)
    except YAMLError as error:
        raise ParamsError(f"{text!r}: not a YAML value ({str(error).splitlines()[0]})") from None


def parse_overrides(items: list[str]) -> dict[str, Any]:
    """`["align.min_score=0.4"]` as a mapping."""
    if bad := [item for item in items if "=" not in item]:
        raise ParamsError(f"{bad[0]!r}: an override is written section.parameter=value")
    return {key.strip(): parse_value(value) for key, value in (item.split("=", 1) for item in items)}


class _Representer(RoundTripRepresenter):
    """Writes nothing as `null`, as the files that ship do."""


_Representer.add_representer(type(None), lambda dumper, _: dumper.represent_scalar("tag:yaml.org,2002:null", "null"))


def _yaml() -> YAML:
    yaml = YAML()
    yaml.Representer = _Representer
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such parameter file; `python -m pipeline preset --list` shows the ones that ship"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None


def _parse(path: Path, text: str) -> Any:
    try:
        return _yaml().load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ParamsError(f"{path}: {place}{getattr(error, 'problem', None) or 'not valid YAML'}") from None
