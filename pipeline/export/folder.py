"""An output folder that is whole or not there: filled beside its place, then renamed into it."""

import contextlib
import json
import re
import shutil
from collections.abc import Iterator
from os import getpid
from pathlib import Path

from pipeline.errors import InputError, ParamsError
from pipeline.locks import alive

MARK = "provenance.json"


@contextlib.contextmanager
def fresh(out: Path, force: bool) -> Iterator[Path]:
    """Gives a folder to fill, which becomes `out` when the body ends without an error; else nothing of it stays.

    Raises:
        ParamsError: `out` has something in it and `force` is not set; or it is set and `out` is no earlier export.
        InputError: `out` is a file.
    """
    out = out.absolute()
    _sweep(out)
    _check(out, force)
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(f".{out.name}.{getpid()}.part")
    before = out.with_name(f".{out.name}.{getpid()}.before")
    draft.mkdir()
    try:
        yield draft
        if out.exists():
            out.rename(before)
        draft.rename(out)
    finally:
        if before.exists() and not out.exists():
            before.rename(out)
        for left in (draft, before):
            shutil.rmtree(left, ignore_errors=True)


def _check(out: Path, force: bool) -> None:
    if out.is_file():
        raise InputError(f"{out}: is a file; name a folder that is empty or not there yet")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not force:
        raise ParamsError(f"{out}: is not empty; name another folder, or add --force to replace an earlier export")
    try:
        ours = "stages" in json.loads((out / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        ours = False
    if not ours:
        raise ParamsError(f"{out}: is no earlier export (it has no {MARK}), so it is not replaced; empty it yourself")


def _sweep(out: Path) -> None:
    """What exports to the same place left that were killed: drafts go; an earlier export set aside comes back."""
    for path in out.parent.glob(f".{out.name}.*"):
        named = re.fullmatch(r"\.(\d+)\.(part|before)", path.name.removeprefix(f".{out.name}"))
        if not named or alive(int(named[1])):
            continue
        if named[2] == "before" and not out.exists():
            path.rename(out)
        else:
            shutil.rmtree(path, ignore_errors=True)
