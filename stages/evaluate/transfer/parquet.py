"""Transfer tasks in the layout of Hugging Face data sets: a folder of Parquet files, a split told by a file's name.

Columns: `text` or `sentence` (MRPC: `sentence1` and `sentence2`, or `text1` and `text2`) and `label` (TREC: also
`coarse_label`, `label-coarse`). MR, CR, SUBJ and MPQA are nested cross-validation over all their sentences, so their
splits are put together; MRPC's validation split belongs to its training split, as in SentEval's file.
"""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model.errors import ModelError
from model.sts_rows import check_shards
from stages.evaluate.transfer.labelled import Labelled, Part

_TEXTS = (("text",), ("sentence",))
_PAIRS = (("sentence1", "sentence2"), ("text1", "text2"))
_LABELS = ("label", "coarse_label", "label-coarse")
_SPLITS = {"train": "train", "validation": "dev", "valid": "dev", "dev": "dev", "test": "test"}
# which of the files' splits make up each part of a task
_PARTS = {"SST2": {"train": ("train",), "dev": ("dev",), "test": ("test",)}}
_PARTS |= {name: {"train": ("train", "dev"), "test": ("test",)} for name in ("TREC", "MRPC")}
_ALL = {"all": ("train", "dev", "test", "all")}


def folders(base: Path, name: str) -> list[Path]:
    """Folders of `base` called like the task, whatever the case and the marks between (SST2: sst2, SST-2)."""
    if not base.is_dir():
        return []
    return sorted(f for f in base.iterdir() if f.is_dir() and re.sub(r"\W|_", "", f.name).lower() == name.lower())


def read(name: str, folder: Path, files: list[Path]) -> Labelled:
    """The task of these files. Raises ModelError naming the file, and the row (the first is 1), of what is wrong."""
    check_shards(files)
    found: dict[str, list[tuple[Path, list[list[str]], list]]] = {}
    for file in files:
        found.setdefault(_split(file.relative_to(folder)), []).append((file, *_columns(file, name)))
    wanted = _PARTS.get(name, _ALL)
    for part, splits in wanted.items():
        if not any(split in found for split in splits):
            raise ModelError(f"{folder}: no Parquet file of the {part} split (train-..., validation-..., test-...)")
    used = {part: [entry for split in splits for entry in found.get(split, ())] for part, splits in wanted.items()}
    values = {v for entries in used.values() for _, _, labels in entries for v in labels}
    if len(kinds := {type(v) for v in values}) > 1:
        named = " and ".join(sorted(kind.__name__ for kind in kinds))
        raise ModelError(f"{folder}: labels are {named} in different files; they must be of one kind")
    most = 6 if name == "TREC" else 2
    if len(values) != most:
        shown = ", ".join(map(str, sorted(values)[:8]))
        raise ModelError(f"{folder}: {name} has {most} classes, but {len(values)} labels are here: {shown}")
    if name == "MRPC" and values != {0, 1}:
        raise ModelError(f"{folder}: MRPC's labels must be 1 (paraphrases) and 0, not {', '.join(map(str, values))}")
    classes = sorted(values)
    return Labelled(name, tuple(map(str, classes)), {part: _part(entries, classes) for part, entries in used.items()})


def _part(entries: list[tuple[Path, list[list[str]], list]], classes: list) -> Part:
    columns = len(entries[0][1])
    texts = tuple([text for _, texts, _ in entries for text in texts[i]] for i in range(columns))
    return Part(texts, np.array([classes.index(v) for _, _, labels in entries for v in labels], dtype=np.int64))


def _split(file: Path) -> str:
    """The split a file's name, or a folder above it, begins with; `all` where none says one."""
    for part in reversed(file.parts):
        if found := re.match(r"(train|validation|valid|dev|test)(?![a-z])", part.lower()):
            return _SPLITS[found[1]]
    return "all"


def _columns(file: Path, name: str) -> tuple[list[list[str]], list]:
    """(texts of each text column, labels) of a file."""
    try:
        names = pq.read_schema(file).names
    except (OSError, pa.ArrowException, ValueError) as error:
        raise _unreadable(file, error) from error
    sets = _PAIRS if name == "MRPC" else _TEXTS
    chosen = next((some for some in sets if set(some) <= set(names)), None)
    label = next((n for n in (_LABELS if name == "TREC" else _LABELS[:1]) if n in names), None)
    if chosen is None or label is None:
        wanted = " or ".join(" and ".join(some) for some in sets)
        raise ModelError(f"{file}: needs the columns {wanted}, and label; it has {', '.join(names)}")
    try:
        table = pq.read_table(file, columns=[*chosen, label], partitioning=None)
        texts, labels = [table.column(some).to_pylist() for some in chosen], table.column(label).to_pylist()
    except (OSError, pa.ArrowException, ValueError, KeyError, OverflowError) as error:
        raise _unreadable(file, error) from error
    if not labels:
        raise ModelError(f"{file}: no row")
    return [_texts(file, some, values) for some, values in zip(chosen, texts, strict=True)], _labels(file, labels)


def _unreadable(file: Path, error: Exception) -> ModelError:
    return ModelError(f"{file}: cannot be read as Parquet ({(str(error).splitlines() or [type(error).__name__])[0]})")


def _texts(file: Path, column: str, values: list) -> list[str]:
    for row, value in enumerate(values, 1):
        if not isinstance(value, str):
            raise ModelError(f"{file}: row {row}: {column} is {type(value).__name__}, not text")
    return [" ".join(value.split()) for value in values]


def _labels(file: Path, values: list) -> list:
    for row, value in enumerate(values, 1):
        if value is None or value == "" or (isinstance(value, int) and value < 0):
            raise ModelError(f"{file}: row {row}: no label ({value!r}); a split without gold cannot be scored")
        if not isinstance(value, int | str):
            raise ModelError(f"{file}: row {row}: label is {type(value).__name__}, not a whole number or text")
    return [int(v) if isinstance(v, bool) else v for v in values]
