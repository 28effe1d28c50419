"""Triplets for supervised training: premise, entailment, contradiction."""

import csv
from pathlib import Path

from pipeline.errors import InputError

Triplet = tuple[str, str, str]

_HEADS = (("sent0", "sent1", "hard_neg"), ("premise", "entailment", "contradiction"))
_MOST_BAD = 0.01


def read_triplets(path: Path) -> tuple[list[Triplet], int]:
    """The triplets of a .csv (commas, quotes) or .tsv (tabs, no quotes) file, and how many rows were left out.

    A first row that names the columns is passed over (`sent0,sent1,hard_neg` or `premise,entailment,contradiction`, in
    any order: the columns are then taken by name). Left out are rows without three texts.

    Raises:
        InputError: there is no such file, it is not such a table, or more than 1 % of its rows are left out.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; set train.triplets_path to a .tsv or .csv of triplets")
    tabs = path.suffix != ".csv"
    form = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tabs else {}
    order, found, bad, first_bad = (0, 1, 2), [], 0, 0
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for number, row in enumerate(reader := csv.reader(file, **form)):
                if number == 0 and (named := _by_name(row)):
                    order = named
                    continue
                texts = tuple(" ".join(row[i].split()) for i in order) if len(row) == 3 else ()
                if len(texts) == 3 and all(texts):
                    found.append(texts)
                elif row:
                    bad += 1
                    first_bad = first_bad or reader.line_num
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as {'tab' if tabs else 'comma'}-separated UTF-8 ({error})") from None
    if bad > _MOST_BAD * (bad + len(found)):
        raise InputError(
            f"{path}: {bad} of {bad + len(found)} rows are not three texts (the first in line {first_bad}); each must "
            f"hold premise, entailment, contradiction, separated by {'tabs' if tabs else 'commas'}"
        )
    return found, bad


def _by_name(row: list[str]) -> tuple[int, ...] | None:
    names = [name.strip().lower() for name in row]
    return next((tuple(map(names.index, head)) for head in _HEADS if sorted(names) == sorted(head)), None)
