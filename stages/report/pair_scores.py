"""The similarity that every run of the grid gave to every STS pair, and the sentences of the pairs.

Models are compared by ranks: within a task, each run's cosines and people's scores become shares of the way from the
least to the most similar pair (`place`, 0 to 1, ties at their middle). That is all Spearman's correlation sees of them,
and unlike cosines it means the same for every model and task.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.stats import rankdata

from pipeline.errors import InputError
from stages.report import sts_sets

_COLUMNS = ["task", "subset", "pair", "cosine", "gold"]
_SAME_GOLD = 1e-4  # scores are stored as float32


@dataclass(frozen=True)
class Pairs:
    """Row n of everything is the same sentence pair.

    task, subset, first, second: texts. gold: people's scores [n], gold_place: their places. places: recipe ->
    [seeds, n], the places of each run's cosines. left_out: tasks whose sentences are not at hand.
    """

    task: list[str]
    subset: list[str]
    first: list[str]
    second: list[str]
    gold: np.ndarray
    gold_place: np.ndarray
    places: dict[str, np.ndarray]
    left_out: list[str]


def read(scores: Path, sets: Path, cells: list[tuple[str, int]], tasks: tuple[str, ...]) -> Pairs:
    """The pairs of `tasks` that all runs (recipe, seed) scored, with their sentences out of the STS tasks in `sets`.

    Raises:
        InputError: the scores of a run are missing or damaged, or are of other pairs than those of another run.
    """
    tables = {cell: _scored(scores, cell, tasks) for cell in cells}
    keys = [(name, table.select(["task", "subset", "pair", "gold"])) for name, table in tables.items()]
    for cell, table in keys[1:]:
        if not table.equals(keys[0][1]):
            (one, two), again = (f"{recipe}-{seed}" for recipe, seed in (keys[0][0], cell)), "dvc repro evaluate"
            raise InputError(f"{scores}: {one} and {two} were scored on different pairs; run `{again}`")
    sentences, left_out = _sentences(keys[0][1], sts_sets.read(sets))
    rows = [row for row, pair in enumerate(sentences) if pair is not None]
    chosen = keys[0][1].take(pa.array(rows, pa.int64()))
    task = chosen.column("task").to_pylist()
    gold = chosen.column("gold").to_numpy().astype(np.float64)
    places: dict[str, list[np.ndarray]] = {}
    for (recipe, _), table in tables.items():
        cosine = table.column("cosine").to_numpy().astype(np.float64)[rows]
        places.setdefault(recipe, []).append(_places(task, cosine))
    return Pairs(
        task,
        chosen.column("subset").to_pylist(),
        [sentences[row][0] for row in rows],
        [sentences[row][1] for row in rows],
        gold,
        _places(task, gold),
        {recipe: np.stack(own) for recipe, own in places.items()},
        left_out,
    )


def _scored(scores: Path, cell: tuple[str, int], tasks: tuple[str, ...]) -> pa.Table:
    name = f"{cell[0]}-{cell[1]}"
    path, again = scores / name / "pairs.parquet", f"run `dvc repro evaluate@{name}`"
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as handle:
            table = handle.read(columns=_COLUMNS)
        if table.column_names != _COLUMNS:
            raise InputError(f"{path}: lacks {', '.join(set(_COLUMNS) - set(table.column_names))}; {again}")
        table = table.filter(pa.array(np.isin(table.column("task").to_pylist(), tasks)))
        if not all(np.isfinite(table.column(name).to_numpy()).all() for name in ("cosine", "gold")):
            raise InputError(f"{path}: a score that is no number; {again}")
        return table.sort_by([(column, "ascending") for column in ("task", "subset", "pair")])
    except FileNotFoundError:
        raise InputError(f"{path}: missing, {name} has not been evaluated; {again}") from None
    except (pa.ArrowException, OSError, TypeError, ValueError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: damaged ({first}); {again}") from None


def _sentences(
    table: pa.Table, known: dict[str, dict[str, sts_sets.Pairs]]
) -> tuple[list[tuple[str, str] | None], list[str]]:
    """For each row its two sentences, or None; and the tasks of which a pair has none: they are left out whole.

    A pair is known by task, subset and number, and only if people's score there is the one it was scored with.
    """
    rows = table.to_pylist()
    found: list[tuple[str, str] | None] = []
    for row in rows:
        own = known.get(row["task"], {}).get(row["subset"])
        number = row["pair"]
        fits = own is not None and 0 <= number < len(own.gold) and abs(own.gold[number] - row["gold"]) < _SAME_GOLD
        found.append((own.first[number], own.second[number]) if fits else None)
    lost = {row["task"] for row, pair in zip(rows, found, strict=True) if pair is None}
    kept = [None if row["task"] in lost else pair for row, pair in zip(rows, found, strict=True)]
    return kept, sorted(lost)


def _places(task: list[str], values: np.ndarray) -> np.ndarray:
    """Ranks within each task as shares in (0, 1)."""
    result, names = np.empty(len(values)), np.array(task, dtype=object)
    for name in set(task):
        own = names == name
        result[own] = (rankdata(values[own]) - 0.5) / own.sum()
    return result
