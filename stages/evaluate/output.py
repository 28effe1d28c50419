"""What a run of the suites leaves: files of scores, the cosines of the STS pairs, tables for a person."""

import json
import re
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from model import sts
from pipeline.errors import tell
from pipeline.files import write_atomic, write_json
from pipeline.sections import Suite

PAIRS, METRICS = "pairs.parquet", "metrics.json"
# what suites call the texts, images or pairs whose embedding is zero or not finite
_UNUSABLE = ("nan_pairs", "unusable_pairs", "unusable")
_PAIRS = pa.schema(
    [
        ("task", pa.string()),
        ("subset", pa.string()),
        ("pair", pa.int32()),
        ("cosine", pa.float32()),
        ("gold", pa.float32()),
    ]
)


def write_scores(folder: Path, results: dict[str, dict]) -> None:
    """One JSON a task, named for it."""
    for result in results.values():
        for name, score in result["tasks"].items():
            write_json(folder / _file_name(name), score)


def _file_name(task: str) -> str:
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', task)}.json"


def clear(folder: Path, metrics: Path) -> None:
    """Removes what an earlier run left in `folder`, which may have scored another model on other suites: pairs.parquet,
    the file of each task that its metrics name (in the folder, or beside it as `--out FOLDER.json` has them), and the
    folder's own metrics where this run's, `metrics`, are beside it. Other files stay.
    """
    (folder / PAIRS).unlink(missing_ok=True)
    for file in (folder / METRICS, folder.parent / f"{folder.name}.json"):
        for name in _tasks_of(file):
            (folder / _file_name(name)).unlink(missing_ok=True)
    if folder / METRICS != metrics and _tasks_of(folder / METRICS):
        (folder / METRICS).unlink()


def _tasks_of(metrics: Path) -> set[str]:
    """The tasks that a metrics file of an earlier run names; none where it is not one."""
    try:
        body = json.loads(metrics.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return set()
    if not isinstance(body, dict) or not {"model", "protocol", "pooling"} <= set(body):
        return set()
    suites = [own.get("tasks") for name in get_args(Suite) if isinstance(own := body.get(name), dict)]
    return {
        name for tasks in (body.get("tasks"), body.get("others"), *suites) if isinstance(tasks, dict) for name in tasks
    }


def write_pairs(path: Path, tasks: dict[str, sts.Task], cosines: dict[str, dict[str, list[float]]]) -> None:
    """One row a sentence pair: task, subset, its number in the subset, cosine of the embeddings (0 where it has
    none), human score. `cosines`: {task: {subset: [n]}}.
    """
    columns: dict[str, list] = {name: [] for name in _PAIRS.names}
    for task, parts in cosines.items():
        for name, cosine in parts.items():
            count = len(cosine)
            columns["task"] += [task] * count
            columns["subset"] += [name] * count
            columns["pair"] += range(count)
            columns["cosine"] += cosine
            columns["gold"] += [float(v) for v in tasks[task].subsets[name].gold]
    table = pa.table(columns, schema=_PAIRS)
    write_atomic(path, lambda temporary: pq.write_table(table, temporary, compression="zstd", write_page_checksum=True))


def show(name: str, results: dict[str, dict]) -> None:
    """A table a suite on stderr; what is missing is shown as missing, and the average is then withheld."""
    console = Console(stderr=True, width=None if Console(stderr=True).is_terminal else 120)
    for suite, result in results.items():
        if suite == "sts":
            _show_sts(console, name, result)
        else:
            _show_other(console, name, suite, result)
        if result.get("withheld"):
            tell(f"evaluate: {suite}: average withheld: {result['withheld']}")
        for task, score in result["tasks"].items():
            if "missing" in score:
                tell(f"evaluate: {suite}: {task} is missing: {score['missing']}")


def unusable(results: dict[str, dict]) -> dict[str, int]:
    """{task: how many of its pairs, texts or images have a zero or non-finite embedding} where there are any."""
    counts = {
        task: sum(score.get(key, 0) for key in _UNUSABLE)
        for result in results.values()
        for task, score in result["tasks"].items()
    }
    return {task: count for task, count in counts.items() if count}


def _footnote(suite: str, result: dict) -> str | None:
    counts = ", ".join(f"{task} {count}" for task, count in unusable({suite: result}).items())
    return f"zero or non-finite embeddings: {counts}" if counts else None


def _show_sts(console: Console, name: str, result: dict) -> None:
    seven = {task: score for task, score in result["tasks"].items() if task in sts.SEVEN}
    table = Table(title=f"{name}: correlation x 100", caption=_footnote("sts", result))
    for column in ("", *seven, "Avg"):
        table.add_column(column, justify="left" if not column else "right")
    rows = {"Spearman, all": ("all",), "mean": ("mean",), "wmean": ("wmean",), "Pearson, all": ("pearson", "all")}
    for label, path in rows.items():
        average = result["average"] if path == ("all",) else ""
        cells = [_correlation(score, path) for score in seven.values()]
        table.add_row(label, *cells, average if average == "" else "withheld" if average is None else f"{average:.2f}")
    console.print(table)
    others = {task: score for task, score in result["tasks"].items() if task not in sts.SEVEN}
    console.print("  ".join(f"{task} {_correlation(score, ('all',))}" for task, score in others.items()))


def _correlation(score: dict, path: tuple[str, ...]) -> str:
    """x 100; a value is undefined where nothing varies, and a dash where the file does not tell subsets apart."""
    if "missing" in score:
        return "missing"
    value = score
    for key in path:
        value = value[key]
    if value is None:
        return "undefined" if path[-1] == "all" or score["all"] is None else "-"
    return f"{sts.percent(value):.2f}"


def _show_other(console: Console, name: str, suite: str, result: dict) -> None:
    """Every number of every task, as the suite gives it."""
    table = Table(title=f"{name}: {suite}", caption=_footnote(suite, result))
    table.add_column("task")
    table.add_column("")
    for task, score in result["tasks"].items():
        said = "missing" if "missing" in score else "  ".join(_numbers(score))
        table.add_row(task, said)
    if result["average"] is not None or result.get("withheld"):
        table.add_row("Avg", "withheld" if result["average"] is None else f"{result['average']:.2f}")
    console.print(table)


def _numbers(score: dict, prefix: str = "") -> list[str]:
    found = []
    for key, value in score.items():
        if isinstance(value, dict) and len(value) <= 8:
            found += _numbers(value, f"{prefix}{key}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found.append(f"{prefix}{key} {value:.4g}" if isinstance(value, float) else f"{prefix}{key} {value}")
        elif value is None:
            found.append(f"{prefix}{key} undefined")
    return found
