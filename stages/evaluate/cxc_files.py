"""Reader of Crisscrossed Captions (Parekh et al. 2021): human similarity of captions and images of MS-COCO.

Two layouts, told apart by their header: the published CSV (`sts_val.csv`: caption1, caption2, agg_score,
sampling_method; ids as `COCO_val2014:sentid:190268` and `COCO_val2014_000000032001.jpg`), and TAB-separated files with
plain numbers and caption texts (`cxc_sts_val.val2017.tsv`: score, sentid1, sentid2, caption1, caption2 ...). Texts
that the file does not hold are looked up by sentence id in COCO's captions JSON.
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.errors import ModelError
from model.sts_rows import encodes
from model.text_files import read_text

KINDS = {"sts": "caption-caption", "sits": "caption-image", "sis": "image-image"}
SPLITS = ("val", "test")
# of the columns of a kind: (side, names it may have), the first side is the query
_COLUMNS = {
    "sts": (("sentid1", "caption1"), ("sentid2", "caption2")),
    "sits": (("sentid", "caption"), ("image",)),
    "sis": (("image1",), ("image2",)),
}
_TEXTS = {"sts": ("caption1", "caption2"), "sits": ("caption",), "sis": ()}
_SCORES = ("agg_score", "score")
_NUMBER = re.compile(r"(\d+)(?:\.jpe?g)?\s*$", re.IGNORECASE)


@dataclass(frozen=True)
class Ratings:
    """Pairs of one kind and split. `first`, `second`: COCO ids of captions or images, `first` is the query; `gold`:
    float64 [n]; `texts`: caption id -> text, as far as it is known.
    """

    kind: str
    split: str
    first: list[int]
    second: list[int]
    gold: np.ndarray
    texts: dict[int, str]


def files(root: Path) -> dict[tuple[str, str], Path]:
    """(kind, split) -> file, of what lies in `root`/cxc or in `root` itself; several are a ModelError (3)."""
    found = {}
    for kind in KINDS:
        for split in SPLITS:
            names = (
                f"{kind}_{split}.csv",
                f"{kind}_{split}.tsv",
                f"cxc_{kind}_{split}.tsv",
                f"cxc_{kind}_{split}.*.tsv",
            )
            there = [file for folder in (root / "cxc", root) for name in names for file in sorted(folder.glob(name))]
            if len(there) > 1:
                listed = ", ".join(str(file.relative_to(root)) for file in there)
                raise ModelError(f"{root}: several files of {KINDS[kind]} ratings ({split}), keep one: {listed}")
            if there:
                found[kind, split] = there[0]
    return found


def captions_file(root: Path) -> Path | None:
    """COCO's captions JSON, if one is there."""
    folders = (root / "cxc", root / "coco_captions_val2017", root)
    return next((file for folder in folders for file in sorted(folder.glob("captions_val*.json"))), None)


def read_ratings(file: Path, kind: str, split: str, texts: Callable[[], dict[int, str]]) -> Ratings:
    """The rated pairs of a file; `texts` gives captions by id and is called only if the file has none of its own.

    Raises ModelError (3) that names the line: not UTF-8, a column that is missing, an id or a score that is none.
    """
    lines = _lines(file)
    separator = "\t" if lines and "\t" in lines[0][1] else ","
    header = [name.strip() for name in lines[0][1].split(separator)] if lines else []
    sides = [_place(file, header, names) for names in _COLUMNS[kind]]
    score = _place(file, header, _SCORES)
    # a column of ids may have the name that texts have in the other layout
    own = [header.index(n) if n in header and header.index(n) not in sides else None for n in _TEXTS[kind]]
    first, second, gold, known = [], [], [], {}
    for number, line in lines[1:]:
        cells = line.split(separator)
        if len(cells) != len(header):
            raise ModelError(f"{file}:{number}: {len(cells)} columns, but the header has {len(header)}")
        a, b = (_identifier(file, number, cells[side], header[side]) for side in sides)
        gold.append(_score(file, number, cells[score]))
        first.append(a)
        second.append(b)
        for identifier, place in zip((a, b), own, strict=False):
            if place is not None and cells[place].strip():
                known[identifier] = " ".join(cells[place].split())
    if not gold:
        raise ModelError(f"{file}: no rated pair; give the files of Crisscrossed Captions")
    if own and not known:
        known = texts()
    return Ratings(kind, split, first, second, np.array(gold, np.float64), known)


def read_captions(file: Path) -> dict[int, str]:
    """Caption id -> text of COCO captions JSON. Raises ModelError (3) if it is not that."""
    try:
        found = json.loads(file.read_bytes().decode("utf-8-sig"))["annotations"]
        texts = {int(each["id"]): " ".join(each["caption"].split()) for each in found}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise ModelError(f"{file}{line}: not COCO captions JSON ({type(error).__name__}: {error})") from error
    for identifier, text in texts.items():
        if not encodes(text):
            raise ModelError(f"{file}: not COCO captions JSON (caption {identifier} has half of a surrogate pair)")
    return texts


def _lines(file: Path) -> list[tuple[int, str]]:
    """(number, text) of the lines that are not blank; BOM and CRLF are taken off."""
    lines = [(number, line.removesuffix("\r")) for number, line in enumerate(read_text(file).split("\n"), 1)]
    return [(number, line) for number, line in lines if line.strip()]


def _place(file: Path, header: list[str], names: tuple[str, ...]) -> int:
    for name in names:
        if name in header:
            return header.index(name)
    raise ModelError(f"{file}:1: no column {' or '.join(names)}; the header has {', '.join(header)[:200] or 'nothing'}")


def _identifier(file: Path, number: int, cell: str, column: str) -> int:
    match = _NUMBER.search(cell)
    if match is None or len(match[1]) > 18:
        raise ModelError(f"{file}:{number}: {column} {cell[:80]!r} does not end in a COCO id")
    return int(match[1])


def _score(file: Path, number: int, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ModelError(f"{file}:{number}: score {cell[:80]!r} is not a number")
    return value
