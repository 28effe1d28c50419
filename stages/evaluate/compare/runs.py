"""Reading of evaluated runs: which recipe and seed each is, its sentence pairs, and whether they can be compared.

An arm is the runs of one recipe, a run a seed. All runs must have been scored on the same pairs with the same gold, by
one protocol and number type.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model.sts import SEVEN, spearman
from pipeline.errors import InputError, ParamsError
from stages.evaluate.compare.checkpoints import grouped

PAIRS = "pairs.parquet"
AVERAGE = "Avg"
_COLUMNS = ("task", "subset", "pair", "cosine", "gold")
# a task's score is stored from the cosines before they were rounded for the table of pairs
_SAME_SCORE = 5e-4
_SAID = ("recipe", "protocol", "model", "dtype", "pooling")  # words of a metrics file that tell what was run


@dataclass(frozen=True)
class Pairs:
    """A task as one run scored it: `keys` (subset, number), sorted; `gold` and `cosine` float64 [n]."""

    keys: tuple[tuple[str, int], ...]
    gold: np.ndarray
    cosine: np.ndarray


@dataclass(frozen=True)
class Run:
    """One checkpoint. `seed` None: nobody says. `lacks`: tasks that are missing, or in part, and why.

    `model`: the digest of its folder. `without`: {task: pairs without an embedding, whose cosine is 0}, if any.
    """

    path: Path
    recipe: str | None
    seed: int | None
    protocol: str | None
    tasks: dict[str, Pairs]
    lacks: dict[str, str] = field(default_factory=dict)
    model: str | None = None
    dtype: str | None = None
    pooling: str | None = None
    without: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Arm:
    """Runs of one recipe (or of one name the user gave), by seed."""

    name: str
    runs: tuple[Run, ...]

    @property
    def seeds(self) -> tuple[int, ...] | None:
        """The seeds in the order of the runs; None unless all are known and none comes twice."""
        found = tuple(run.seed for run in self.runs)
        return None if None in found or len(set(found)) < len(found) else found


@dataclass(frozen=True)
class Board:
    """The scores of all arms side by side.

    gold[task]: float64 [n]; cosines[task]: float64 [R, n], a row a run, arm after arm; rows[arm]: its rows.
    `points`: Spearman x 100, float64 [R], by task, and of the seven tasks' mean (`AVERAGE`) if all are there.
    `left_out`: tasks that some run has and that are not compared, and why. `withheld`: why there is no average.
    `caution`: what a reader must know of the runs.
    """

    arms: tuple[Arm, ...]
    gold: dict[str, np.ndarray]
    cosines: dict[str, np.ndarray]
    rows: dict[str, slice]
    points: dict[str, np.ndarray]
    left_out: dict[str, str]
    withheld: str | None
    caution: tuple[str, ...] = ()


# ------------------------------------------------------------ one run


def read_run(given: Path) -> Run:
    """The run whose scores folder, or metrics file, is `given`.

    Raises:
        InputError: nothing is there, or it is damaged.
    """
    folder, metrics = _locate(given)
    body = {} if metrics is None else _json(metrics)
    seed, said = body.get("seed"), {name: body.get(name) for name in _SAID}
    if not (isinstance(seed, int | None) and all(isinstance(value, str | None) for value in said.values())):
        raise InputError(
            f"{metrics}: seed, {', '.join(_SAID[:-1])} or {_SAID[-1]} is not what evaluate writes; "
            "evaluate this run again"
        )
    tasks = _read_pairs(folder / PAIRS)
    scores = body.get("tasks")
    scores = {k: v for k, v in scores.items() if isinstance(v, dict)} if isinstance(scores, dict) else {}
    lacks = {name: f"{name} is missing in {folder.name}" for name, score in scores.items() if "missing" in score}
    without = {}
    for name, pairs in tasks.items():
        if metrics and (name not in scores or name in lacks):
            raise InputError(
                f"{metrics}: no score of {name!r}, but {folder / PAIRS} has its pairs: they may be another model's; "
                "evaluate this run again"
            )
        told = {} if metrics is None else {metrics: scores[name]}
        if (file := folder / f"{name}.json").is_file():
            told[file] = _json(file)
        for file, score in told.items():
            _check_score(file, name, score, folder / PAIRS, pairs)
            if score.get("absent"):
                lacks[name] = f"{name} lacks {', '.join(map(str, score['absent']))} in {folder.name}"
            if isinstance(count := score.get("nan_pairs"), int) and count > 0:
                without[name] = count
    return Run(folder, seed=seed, tasks=tasks, lacks=lacks, without=without, **said)


def _locate(given: Path) -> tuple[Path, Path | None]:
    """(folder with the pairs, metrics file if there is one) of a folder or file that the user named."""
    if given.is_dir():
        places = [given]
        files = [given / "metrics.json", given.parent / f"{given.name}.json"]  # the latter: --out FILE.json
        if given.resolve().parent.name == "scores":  # data/<dataset>/scores/<cell>
            dataset = given.resolve().parents[1]
            files.append(dataset.parents[1] / "metrics" / dataset.name / "evaluate" / f"{given.resolve().name}.json")
    elif given.is_file() and given.suffix == ".json":
        places, files = [given.with_suffix("")], [given]
        if given.name == "metrics.json":  # any other file of that folder may be another run's
            places.append(given.parent)
        if given.resolve().parent.name == "evaluate":  # metrics/<dataset>/evaluate/<cell>.json
            dataset = given.resolve().parents[1]
            places.append(dataset.parents[1] / "data" / dataset.name / "scores" / given.stem)
    elif given.is_file() and given.name == PAIRS:
        return _locate(given.parent)
    else:
        raise InputError(f"{given}: no such run; give a folder of scores (data/<dataset>/scores/<recipe>-<seed>)")
    folder = next((place for place in places if (place / PAIRS).is_file()), None)
    if folder is None:
        raise InputError(f"{given}: no {PAIRS} in {places[-1]}; evaluate this run again (`python -m stages.evaluate`)")
    return folder, next((file for file in files if file.is_file()), None)


def _json(file: Path) -> dict:
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{file}: damaged, no JSON ({' '.join(str(error).split())}); evaluate this run again"
        ) from None
    if not isinstance(body, dict):
        raise InputError(f"{file}: damaged, no JSON object; evaluate this run again")
    return body


def _read_pairs(file: Path) -> dict[str, Pairs]:
    try:
        table = pq.ParquetFile(file, page_checksum_verification=True).read(columns=list(_COLUMNS))
        columns = [table.column(name) for name in _COLUMNS]
        if any(column.null_count for column in columns):
            raise ValueError("a value is empty")
        task, subset, number = (np.asarray(column.to_pylist()) for column in columns[:3])
        cosine, gold = (column.to_numpy().astype(np.float64) for column in columns[3:])
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        said = " ".join(str(error).split())[:120]
        raise InputError(f"{file}: damaged, or no table of pairs ({said}); evaluate this run again") from None
    if not table.num_rows:
        raise InputError(f"{file}: no pairs; evaluate this run again on a folder that holds tasks")
    if not (np.isfinite(cosine).all() and np.isfinite(gold).all()):
        raise InputError(f"{file}: damaged, a cosine or gold score is not a number; evaluate this run again")
    order = np.lexsort((number, subset, task))
    found = {}
    for name in dict.fromkeys(task[order].tolist()):
        own = order[task[order] == name]
        keys = tuple(zip(subset[own].tolist(), number[own].tolist(), strict=True))
        if len(set(keys)) < len(keys):
            raise InputError(f"{file}: damaged, {name} has a pair twice; evaluate this run again")
        found[name] = Pairs(keys, gold[own], cosine[own])
    return found


def _check_score(file: Path, name: str, score: dict, table: Path, pairs: Pairs) -> None:
    stated, own = score.get("all"), spearman(pairs.cosine, pairs.gold)
    if isinstance(stated, int | float) and own is not None and not math.isclose(stated, own, abs_tol=_SAME_SCORE):
        beside = " beside it" if table.parent == file.parent else ""
        raise InputError(
            f"{file}: says {100 * stated:.2f}, but {PAIRS}{beside} gives {100 * own:.2f} ({name} in {table}); "
            "evaluate this run again"
        )


# ------------------------------------------------------------ arms


def arms_of(given: Iterable[Path], named: Iterable[tuple[str, Sequence[Path]]]) -> tuple[Arm, ...]:
    """The arms in the order they are first met: `given` runs by the recipe they name, then the `named` ones.

    Raises:
        InputError: a run does not say its recipe, comes twice, or has another's recipe and seed.
        ParamsError: two arms of one name.
    """
    of_recipe: dict[str, list[Run]] = {}
    for path in given:
        run = read_run(path)
        if run.recipe is None or run.seed is None:
            raise InputError(
                f"{path}: does not say which recipe and seed it is (a model from outside the grid); name its arm: "
                f"--arm NAME={path}"
            )
        of_recipe.setdefault(run.recipe, []).append(run)
    for name, paths in named:
        if name in of_recipe:
            raise ParamsError(f"--arm {name}: there is an arm of this name already; choose another name")
        of_recipe[name] = [read_run(path) for path in paths]
    seen: dict[object, Run] = {}
    for name, runs in of_recipe.items():
        _check_distinct(name, runs, seen)
    return tuple(Arm(name, tuple(sorted(runs, key=_by_seed))) for name, runs in of_recipe.items())


def _by_seed(run: Run) -> tuple[bool, int]:
    return run.seed is None, run.seed or 0


def _check_distinct(name: str, runs: list[Run], seen: dict[object, Run]) -> None:
    for run in runs:
        who = f"{run.recipe or name}, seed {run.seed}"
        if run.path.resolve() in seen:
            raise InputError(f"{run.path}: given twice ({who}); a run counts once")
        if run.seed is not None and (other := seen.get((name, run.recipe, run.seed))):
            raise InputError(f"{run.path}: {who}, is in arm {name} already ({other.path}); give one of them")
        seen[run.path.resolve()] = seen[name, run.recipe, run.seed] = run


# ------------------------------------------------------------ all together


def board(arms: Sequence[Arm], wanted: Sequence[str] = ()) -> Board:
    """The arms side by side, on the tasks that all runs have (`wanted`: on these alone).

    Raises:
        InputError: runs of different pairs, gold, protocols or number types; a wanted task, or every task, is not
            there; some runs of an arm, but not all, are one checkpoint.
    """
    runs = [run for arm in arms for run in arm.runs]
    first = runs[0]
    for run in runs[1:]:
        for what in ("protocol", "dtype"):
            mine, theirs = (getattr(one, what) or "not told" for one in (first, run))
            if mine != theirs:
                raise InputError(f"{run.path}: {what} {theirs}, but {first.path} has {mine}; compare runs of one")
    names = dict.fromkeys(name for run in runs for name in (*run.tasks, *run.lacks))
    names = [*(n for n in SEVEN if n in names), *sorted(n for n in names if n not in SEVEN)]
    if unknown := [name for name in wanted if name not in names]:
        raise InputError(f"--task {unknown[0]}: no run has it; there are {', '.join(names)}")
    left_out, gold, cosines, points = {}, {}, {}, {}
    for name in (n for n in names if not wanted or n in wanted):
        without = next((run for run in runs if name not in run.tasks), None)
        if without:
            left_out[name] = without.lacks.get(name, f"{name} is missing in {without.path.name}")
            continue
        _check_same(name, runs)
        scores = [spearman(run.tasks[name].cosine, run.tasks[name].gold) for run in runs]
        if None in scores:
            where = runs[scores.index(None)].path.name
            left_out[name] = f"{name} is undefined in {where}: the similarities or the gold do not vary"
            continue
        gold[name] = first.tasks[name].gold
        cosines[name] = np.stack([run.tasks[name].cosine for run in runs])
        points[name] = 100 * np.array(scores)
    if wanted and left_out:
        raise InputError(f"--task: {next(iter(left_out.values()))}; leave it out, or evaluate that run again")
    if not gold:
        raise InputError(f"no task that every run has: {'; '.join(left_out.values())}")
    withheld = _withheld(runs, gold, left_out)
    if withheld is None:
        points[AVERAGE] = np.mean([points[name] for name in SEVEN], axis=0)
    ends = np.cumsum([len(arm.runs) for arm in arms]).tolist()
    rows = {arm.name: slice(end - len(arm.runs), end) for arm, end in zip(arms, ends, strict=True)}
    made = Board(tuple(arms), gold, cosines, rows, points, left_out, withheld, _caution(arms, gold))
    for arm in arms:
        _check_copies(made, arm)
    return made


def checkpoints(board: Board, arm: Arm) -> list[list[Run]]:
    """The arm's runs, those of one checkpoint together."""
    own = {name: values[board.rows[arm.name]] for name, values in board.cosines.items()}
    return [[arm.runs[row] for row in rows] for rows in grouped([run.model for run in arm.runs], own)]


def _check_copies(board: Board, arm: Arm) -> None:
    """An arm that is one checkpoint as a whole can be told as that; one in part has no count of seeds."""
    found = checkpoints(board, arm)
    if 1 < len(found) < len(arm.runs):
        equal = next(group for group in found if len(group) > 1)
        raise InputError(
            f"{', '.join(str(run.path) for run in equal)}: one checkpoint, by its model or all its cosines, and no "
            f"{len(equal)} seeds of {arm.name}; give one of them"
        )


def _caution(arms: Sequence[Arm], compared: Iterable[str]) -> tuple[str, ...]:
    pooled: dict[str, dict[str, None]] = {}
    for arm in arms:
        for run in arm.runs:
            pooled.setdefault(run.pooling or "not told", {})[arm.name] = None
    found = []
    if len(pooled) > 1:
        each = "; ".join(f"{pooling} in {', '.join(names)}" for pooling, names in pooled.items())
        found.append(f"pooling is not the same ({each}): a difference may be due to it")
    for name in compared:
        for run in (run for arm in arms for run in arm.runs if name in run.without):
            found.append(
                f"{run.without[name]:,} pairs of {name} have no embedding in {run.path.name} (zero or not finite): "
                "their cosine counts as 0"
            )
    return tuple(found)


def _check_same(name: str, runs: list[Run]) -> None:
    first = runs[0]
    mine = first.tasks[name]
    for run in runs[1:]:
        theirs = run.tasks[name]
        if len(mine.keys) != len(theirs.keys):
            what = f"has {len(theirs.keys):,} pairs of {name}, but {first.path} has {len(mine.keys):,}"
        elif mine.keys != theirs.keys:
            what = f"has other subsets of {name} than {first.path}"
        elif not np.array_equal(mine.gold, theirs.gold):
            what = f"has other gold scores of {name} than {first.path}"
        else:
            continue
        raise InputError(f"{run.path}: {what}; evaluate both on the same data")


def _withheld(runs: list[Run], gold: dict[str, np.ndarray], left_out: dict[str, str]) -> str | None:
    for name in SEVEN:
        if name not in gold:
            return left_out.get(name, f"{name} was not compared")
        if lack := next((run.lacks[name] for run in runs if name in run.lacks), None):
            return lack
    return None
