"""Folders of scores for tests: the kept runs of runs/, and made-up ones."""

import hashlib
import json
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model.sts import spearman

RUNS = Path(__file__).with_name("runs")
SEVEN = ("STS12", "STS13", "STS14", "STS15", "STS16", "STS-B", "SICK-R")


@cache
def kept() -> tuple[pa.Table, dict]:
    """(cosines and gold of the real runs, their Spearman x 100 as it was before the cosines were rounded)."""
    return pq.read_table(RUNS / "cosines.parquet"), json.loads((RUNS / "scores.json").read_text())


def lay(root: Path, cell: str) -> Path:
    """The scores folder of a kept run, e.g. simcse-0, as evaluate leaves it."""
    table, scores = kept()
    recipe, seed = cell.rsplit("-", 1)
    pairs = table.select(["task", "subset", "pair", "gold"]).append_column("cosine", table.column(cell))
    every = {name: {"all": value / 100, "absent": []} for name, value in scores[cell].items()}
    return write(root / cell, pairs, recipe, int(seed), every)


def write(folder: Path, pairs: pa.Table, recipe: str | None, seed: int | None, tasks: dict, **more) -> Path:
    folder.mkdir(parents=True)
    pq.write_table(pairs, folder / "pairs.parquet", write_page_checksum=True)
    for name, score in tasks.items():
        (folder / f"{name}.json").write_text(json.dumps(score))
    body = {"recipe": recipe, "seed": seed, "protocol": "senteval", "dtype": "fp32", "pooling": "mean"}
    body |= {"model": hashlib.sha256(str(folder).encode()).hexdigest(), "tasks": tasks, **more}
    (folder / "metrics.json").write_text(json.dumps(body))
    return folder


def pairs_of(gold: dict[str, np.ndarray], cosines: dict[str, np.ndarray]) -> pa.Table:
    """A table of pairs, one subset a task."""
    names = [name for name, values in gold.items() for _ in values]
    return pa.table(
        {
            "task": names,
            "subset": ["all"] * len(names),
            "pair": pa.array([i for values in gold.values() for i in range(len(values))], pa.int32()),
            "cosine": pa.array(np.concatenate([cosines[name] for name in gold]), pa.float32()),
            "gold": pa.array(np.concatenate(list(gold.values())), pa.float32()),
        }
    )


def scored(gold: dict[str, np.ndarray], cosines: dict[str, np.ndarray]) -> dict[str, dict]:
    """What evaluate tells of the tasks."""
    return {name: {"all": spearman(cosines[name], gold[name]), "absent": [], "nan_pairs": 0} for name in gold}


def told(folder: Path, **changed) -> Path:
    """The run, its metrics changed; a word that is None is taken out."""
    file = folder / "metrics.json"
    body = json.loads(file.read_text()) | changed
    file.write_text(json.dumps({name: value for name, value in body.items() if value is not None}))
    return folder


def copied(run: Path, folder: Path, **changed) -> Path:
    """A byte copy of a run that tells something else of itself, and another model."""
    shutil.copytree(run, folder)
    return told(folder, model=f"copy {folder.name}", **changed)


def drawn(
    root: Path,
    recipe: str,
    seeds: range,
    lift: float = 0.0,
    tasks: tuple[str, ...] = ("STS12", "STS-B"),
    pairs: int = 80,
) -> list[Path]:
    """Scores folders of made-up runs; `lift` is how much clearer than the noise their cosines follow the gold."""
    gold = {name: np.random.default_rng(len(name)).integers(0, 6, pairs).astype(float) for name in tasks}
    found = []
    for seed in seeds:
        noise = np.random.default_rng([seed, *recipe.encode()])
        cosines = {name: (0.3 + lift) * values + noise.normal(size=pairs) for name, values in gold.items()}
        found.append(write(root / f"{recipe}-{seed}", pairs_of(gold, cosines), recipe, seed, scored(gold, cosines)))
    return found
