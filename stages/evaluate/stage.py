"""evaluate: a model folder on suites of tasks: sts, transfer, probes, retrieval, cxc, geometry.

In: a model folder, and the evaluation sets of `evaluate.path`; for retrieval a dataset's tables. Out: one JSON a task,
the similarity of every STS pair as Parquet, and a metrics file. Inside the graph it is one cell (recipe, seed); with
`--model` it scores any sentence encoder, in a checkout or out of one.

A suite is a module of this folder (stages/evaluate/place.py says what it has). Scores are kept in the scratch store by
model, task and data: what was computed once is taken from there.
"""

import importlib
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import get_args

import torch

from model.encoder import stored_length, stored_pooling
from pipeline.errors import InputError, ParamsError, tell
from pipeline.files import write_json
from pipeline.sections import Evaluate, Params, Suite
from stages.common import cells
from stages.common.device import devices_of, dtype_of
from stages.evaluate import sts
from stages.evaluate.cache import Cache
from stages.evaluate.embedder import Embedder
from stages.evaluate.found import model_folder
from stages.evaluate.output import METRICS, PAIRS, clear, show, unusable, write_pairs, write_scores
from stages.evaluate.place import Place

SUITES = get_args(Suite)
PROTOCOLS = get_args(Evaluate.model_fields["protocol"].annotation)
# The parameters of a run outside a checkout: only `runtime` and the defaults of `evaluate` are used of them.
_SHIPPED = Path(__file__).resolve().parents[2] / "presets/demo.yaml"


def main() -> None:
    made = cells.parser("evaluate", (), "data/<dataset>/scores/<recipe>-<seed>; FILE.json: metrics, scores in FILE/")
    made.add_argument("--model", help="model folder or hub name (default: data/<dataset>/models/<recipe>-<seed>)")
    made.add_argument("--suite", help=f"some of {','.join(SUITES)} (default: evaluate.suite)")
    made.add_argument("--data", type=Path, help="folder of the evaluation sets (default: evaluate.path)")
    made.add_argument("--collection", type=Path, help="a dataset's folder, for retrieval (a cell: data/<dataset>)")
    made.add_argument("--protocol", choices=PROTOCOLS, help="of the STS tasks (default: evaluate.protocol)")
    made.add_argument("--dtype", choices=("fp32", "bf16"), help="of the matrix products (default: evaluate.dtype)")
    made.add_argument("--pooling", choices=("cls", "mean", "first_last"), help="for a folder that stores none")
    args = made.parse_args()
    _checked(made, args)
    cell = f"{args.recipe}-{args.seed}" if args.model is None else None
    name = cell or Path(args.model).resolve().name
    cells.run("evaluate", name, args, lambda params: run(params, args, cell, name))


def _checked(made: ArgumentParser, args: Namespace) -> None:
    """Mistakes of the command line, before anything is read."""
    if (args.recipe is None) != (args.seed is None) or (args.model is None and args.recipe is None):
        made.error("either --model DIR, or --recipe and --seed of a cell of the grid")
    if args.model is not None and args.recipe is not None and args.out is None:
        made.error("--model with --recipe and --seed, which then only label its scores, needs --out FILE_OR_FOLDER")
    if args.suite is not None:
        names = args.suite.split(",")
        if wrong := [name for name in names if name not in SUITES]:
            made.error(f"--suite: {wrong[0]!r} is unknown; known: {', '.join(SUITES)}")
        args.suite = list(dict.fromkeys(names))
        if args.model is None and args.out is None and "sts" not in names:
            made.error("--suite of a cell of the grid needs sts, or --out FILE_OR_FOLDER for scores beside the graph's")
    if args.model is not None and args.params == Path("params.yaml") and not args.params.exists():
        if args.data is None or args.out is None:
            made.error("no params.yaml here, so name the places: --data DIR and --out FILE_OR_FOLDER")
        args.params = _SHIPPED


def run(params: Params, args: Namespace, cell: str | None, name: str) -> None:
    """`cell`: of the grid, if that is what is scored; `name`: that, or of the model folder."""
    if cell is None and args.out is None and name in _cells(params):
        raise ParamsError(f"--model {args.model}: {name} is a cell of the grid, whose scores these are not; give --out")
    runtime, section = params.runtime, params.evaluate
    torch.set_num_threads(runtime.threads)
    protocol = args.protocol or section.protocol
    embed = _embedder(params, args, cell, protocol)
    scratch = Path(runtime.scratch) / params.dataset
    collection = args.collection or (Path("data") / params.dataset if cell else None)
    place = Place(args.data or Path(section.path), collection, runtime.threads, scratch, protocol)
    suites = args.suite or [name for name in section.suite if name != "retrieval" or collection]
    results = scored(suites, embed, place, Cache(scratch / "scores", embed, protocol))
    if counts := unusable(results):
        listed = ", ".join(f"{task} {count}" for task, count in counts.items())
        first = f"; the first text: {texts[0][:80]!r}" if (texts := embed.unusable()) else ""
        tell(
            f"evaluate: WARNING: embeddings that are zero or not finite, which have no similarity, by task: {listed}"
            f"{first}"
        )
    out = args.out or Path("data") / params.dataset / "scores" / name
    write(params, args, cell, embed, place, results, out)
    show(name, results)
    tasks = [score for result in results.values() for score in result["tasks"].values()]
    missing = sum("missing" in score for score in tasks)
    tell(f"evaluate: {name} on {len(tasks) - missing} of {len(tasks)} tasks ({protocol}) -> {out}")


def _cells(params: Params) -> set[str]:
    return {f"{recipe}-{seed}" for recipe in params.grid.recipes for seed in params.grid.seeds}


def _embedder(params: Params, args: Namespace, cell: str | None, protocol: str) -> Embedder:
    if args.model is not None:
        folder = model_folder(args.model)
    else:
        folder = Path("data") / params.dataset / "models" / cell
        if not folder.is_dir():
            raise InputError(f"{folder}: no such model folder; run `dvc repro train@{cell}`")
    stored = stored_pooling(folder)
    # MTEB's wrapper takes the mean where a folder says nothing, and cuts where the folder says
    pooling = args.pooling or ("mean" if protocol == "mteb" and stored is None else None)
    if (pooling or stored) is None:
        raise ParamsError(f"{folder} stores no pooling; say which it was trained with: --pooling cls or --pooling mean")
    length = stored_length(folder) if protocol == "mteb" else None
    device, dtype = devices_of(params.runtime)[0], dtype_of(args.dtype or params.evaluate.dtype)
    return Embedder(folder, pooling, device, params.runtime.batch_rows, length, dtype)


def scored(suites: list[str], embed: Embedder, place: Place, cache: Cache) -> dict[str, dict]:
    """{suite: what it gives}; tasks whose scores are known are not computed again."""
    results, total, taken = {}, 0, 0
    for name in suites:
        suite = importlib.import_module(f"stages.evaluate.{name}")
        tasks = suite.tasks(place)
        known = cache.read(name, tasks)
        results[name] = suite.run(embed, place, known)
        cache.write(name, {task: data for task, data in tasks.items() if task not in known}, results[name]["tasks"])
        total, taken = total + len(tasks), taken + len(known)
    if taken:
        tell(f"evaluate: {taken} of {total} tasks from the cache: same model, same data, same code")
    return results


def write(
    params: Params,
    args: Namespace,
    cell: str | None,
    embed: Embedder,
    place: Place,
    results: dict[str, dict],
    out: Path,
) -> None:
    """The folder of scores, and the metrics: of STS at the top, of every other suite under its name.

    What an earlier run left there is removed first, and the metrics are written before the files they name: a run that
    is cut off leaves no score of another model, and none that the next run would not know for ours.
    """
    folder, file = (out.with_suffix(""), out) if out.suffix == ".json" else (out, out / METRICS)
    body = {
        "recipe": args.recipe,
        "seed": args.seed,
        "pooling": embed.pooling or stored_pooling(embed.folder),
        "model": embed.digest,
        "protocol": place.protocol,
        "dtype": args.dtype or params.evaluate.dtype,
    }
    cosines = None
    if "sts" in results:
        cosines = {name: score.pop("cosines") for name, score in results["sts"]["tasks"].items() if "cosines" in score}
        every = results["sts"]["tasks"]
        body["tasks"] = {name: score for name, score in every.items() if name in sts.SEVEN}
        body["others"] = {name: score for name, score in every.items() if name not in sts.SEVEN}
        body["missing"] = [name for name, score in body["tasks"].items() if "missing" in score]
        body |= {key: results["sts"][key] for key in ("average", "withheld")}
    body |= {name: result for name, result in results.items() if name != "sts"}
    clear(folder, file)
    write_json(file, body)
    write_scores(folder, results)
    if cosines is not None:
        write_pairs(folder / PAIRS, sts.load(place), {k: v for k, v in cosines.items() if k in sts.SEVEN})
    own = Path("metrics") / params.dataset / "evaluate" / f"{cell}.json" if cell and args.out is None else None
    if metrics := args.metrics or own:
        write_json(metrics, body)
