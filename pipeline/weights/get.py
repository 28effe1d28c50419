"""Brings weights into their folder: from the store, from what a person copied, or from where they are published."""

import contextlib
import importlib
import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.errors import InputError, ParamsError, ResourceError, StageError, tell
from pipeline.files import link, sha256_file
from pipeline.process import lock
from pipeline.weights import download, store
from pipeline.weights.bar import Bar
from pipeline.weights.manifest import FOLDER, File, Weights, entry, is_here

_WORK = FOLDER / ".work"
_AGAIN = "`python -m pipeline weights get {}`"


def get(name: str) -> Path:
    """Fills the folder of an entry, unless it is complete; half of it never stays. Returns the folder.

    Raises:
        ParamsError: there is no such entry.
        InputError: it cannot be got, or is not what it must be; the message says what to copy where.
        ResourceError: the disk is full, or another process is at it.
    """
    weights = entry(name)
    with _alone(name) as work:
        if is_here(weights):
            return weights.folder
        if weights.folder.exists():
            raise InputError(f"{weights.folder}: is there but lacks {weights.marker}; delete it and run this again")
        made = work / "made"
        if weights.files:
            parts = _obtain(name, weights, weights.files, _AGAIN.format(name))
            if weights.converter:
                main = weights.files[0].name
                source = _lay_out(work / "source", parts)
                _run_converter(weights.converter, source, made, f"{main} ({parts[main]})")
            else:
                _lay_out(made, parts)
        else:
            made.mkdir()
            _OTHERS[name](made)
        if not (made / weights.marker).exists():
            raise InputError(f"{name}: what came from {weights.source} lacks {weights.marker}")
        origin = _origin(weights.files[0].name, parts[weights.files[0].name].name, True) if weights.converter else None
        _put_in_place(made, weights.folder, origin)
    return weights.folder


def convert(file: Path, name: str, folder: Path | None = None) -> tuple[Path, bool]:
    """Makes a folder of a checkpoint that was got elsewhere. Returns (the folder, whether it is the official file).

    `name` is the entry whose architecture it has; without `folder` that entry's folder is filled.

    Raises:
        ParamsError: there is no such entry, or its weights are not converted.
        InputError: the file is not such a checkpoint, is damaged, or the folder is there.
    """
    weights = entry(name)
    if not weights.converter:
        raise ParamsError(f"{name}: is used as it is published, there is nothing to convert; {_AGAIN.format(name)}")
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    folder = folder or weights.folder
    if folder.exists():
        raise InputError(f"{folder}: is there; delete it, or name another folder with --to")
    main, *beside = weights.files
    digest = sha256_file(file)
    official = digest == main.sha256
    if file.name == main.name and not official:
        said = store.fault(file, name, main) or "it is not the official file"
        raise InputError(f"{file}: {said}; get it again, or rename it if it is your own")
    with _alone(name) as work:
        parts = {file.name: file}
        for other in beside:
            near = file.with_name(other.name)
            parts[other.name] = near if near.is_file() else _obtain(name, weights, (other,), "this")[other.name]
        _run_converter(weights.converter, _lay_out(work / "source", parts), work / "made", str(file))
        _put_in_place(work / "made", folder, _origin(file.name, digest, official))
    return folder, official


def _origin(file: str, digest: str, official: bool) -> dict:
    return {"file": file, "sha256": digest, "official": official}


@contextlib.contextmanager
def _alone(name: str) -> Iterator[Path]:
    """An empty folder to work in, removed however it ends; one process at a time."""
    with lock(FOLDER / ".lock", "a command that fills weights/"):
        work = _WORK / name
        shutil.rmtree(_WORK, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            yield work
        finally:
            shutil.rmtree(_WORK, ignore_errors=True)


def _lay_out(folder: Path, parts: dict[str, Path]) -> Path:
    """Files under their own names in a folder of their own. Returns the first."""
    for name, path in parts.items():
        link(path.resolve(), folder / name)
    return folder / next(iter(parts))


def _run_converter(converter: tuple[str, str], source: Path, made: Path, shown: str) -> None:
    """Calls a converter; `shown` is how its messages call the file."""
    module, architecture = converter
    try:
        importlib.import_module(module).convert(source, made, architecture)
    except StageError as error:
        said = str(error).replace(source.as_posix(), shown).replace(f"{source.parent.as_posix()}/", "")
        raise type(error)(said) from None


def _put_in_place(made: Path, folder: Path, origin: dict | None) -> None:
    """Pins the files of a folder and renames it; in this order, so that no folder is ever without its pins."""
    store.pin_folder(made, folder, origin)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        made.rename(folder)
    except OSError:  # another file system (--to)
        draft = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
        try:
            shutil.copytree(made, draft)
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _obtain(name: str, weights: Weights, files: tuple[File, ...], again: str) -> dict[str, Path]:
    """Files of an entry in the store, by name: had, taken up from weights/downloads, or downloaded.

    `again` is the command to run again after what could not be got was copied here.
    """
    here: dict[str, Path | None] = {}
    for file in files:
        here[file.name] = store.held(store.expected(name, file)) or _by_hand(name, file)
    missing = [file for file in files if not here[file.name]]
    room = sum(file.bytes or 0 for file in missing) * (2 if weights.converter else 1)
    free = shutil.disk_usage(FOLDER).free
    if free < room:
        raise ResourceError(f"{FOLDER}: {name} needs {room:,} bytes, {free:,} are free; free some and run again")
    for file in missing:
        try:
            here[file.name] = _download(name, file)
        except download.Failed as error:
            left = [f for f in missing if not here[f.name]]
            raise InputError(f"{name}: {file.name} cannot be got: {error}\n{_advice(name, left, again)}") from None
    return {file.name: here[file.name] for file in files}


def _by_hand(name: str, file: File) -> Path | None:
    for place in store.by_hand(name, file):
        if place.is_file():
            tell(f"{name}: takes up {place}")
            return store.take(place, name, file)
    return None


def _advice(name: str, files: list[File], again: str) -> str:
    lines = ["by hand, on a machine with a network:"]
    for file in files:
        lines.append(f"  fetch {' or '.join(file.urls)}")
        facts = [f"{file.bytes:,} bytes"] if file.bytes else []
        facts += [f"sha256 {file.sha256}"] if file.sha256 else []
        lines.append(f"    and copy it to {store.by_hand(name, file)[0]}" + (f" ({', '.join(facts)})" if facts else ""))
    return "\n".join([*lines, f"then run {again} again: it takes up and checks what lies there"])


def _download(name: str, file: File) -> Path:
    """From the first location that gives the right file.

    Raises:
        download.Failed: none does; with what each said.
    """
    failures = []
    for url in download.locations(name, file.name, file.urls):
        part = store.PARTS / name / file.name
        with Bar(f"{name}: {file.name}", file.bytes) as bar:
            try:
                return _checked(url, part, name, file, bar)
            except download.Failed as error:
                failures.append(f"{url}: {error}")
    raise download.Failed("; ".join(failures))


def _checked(url: str, part: Path, name: str, file: File, bar: Callable[[int, int | None], None]) -> Path:
    """Downloads, checks, and puts into the store; what was pieced together and is wrong is fetched once more whole."""
    for last in (False, True):
        pieced = download.fetch(url, part, file.bytes, store.expected(name, file) is not None, bar)
        said = store.fault(part, name, file)
        kept = None if said else store.take(part, name, file)
        download.forget(part)
        if kept:
            return kept
        if last or not pieced:
            break
    raise download.Failed(f"{said}; it was deleted")


def _stanza_english(folder: Path) -> None:
    by_hand = (
        f"copy a Stanza resources folder (resources.json and en/ with tokenize, pos, lemma, depparse) to "
        f"{FOLDER / 'stanza_en'}: on a machine with a network, "
        "`python -c \"import stanza; stanza.download('en', model_dir='stanza_en')\"` makes one"
    )
    try:
        import stanza

        with contextlib.redirect_stdout(io.StringIO()):
            stanza.download(
                "en",
                model_dir=str(folder),
                processors="tokenize,pos,lemma,depparse",
                verbose=False,
                logging_level="ERROR",
            )
    except Exception as error:  # noqa: BLE001 - stanza raises what its downloader happens to raise
        raise InputError(f"stanza-en: cannot be downloaded ({type(error).__name__}); {by_hand}") from None


def _minilm(folder: Path) -> None:
    from pipeline.presets import minilm

    shutil.copytree(minilm(), folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", ".*"))


# What is not fetched file by file: each fills an empty folder.
_OTHERS: dict[str, Callable[[Path], None]] = {"stanza-en": _stanza_english, "minilm": _minilm}
