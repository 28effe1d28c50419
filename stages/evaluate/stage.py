"""evaluate: a model folder on the seven STS tasks, aggregation `all`.

In: a model folder, the STS files of `evaluate.path` (SentEval layout). Out: one JSON a task, the similarity of every
sentence pair as Parquet, and a metrics file. Inside the graph it is one cell (recipe, seed); with `--model DIR` it
scores any sentence encoder folder.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.console import Console
from rich.table import Table

from model import sts
from model.encoder import load_encoder
from pipeline.errors import InputError, tell
from pipeline.files import hash_path, write_atomic, write_json
from pipeline.sections import Params
from stages.common import cells
from stages.common.device import devices_of


def main() -> None:
    made = cells.parser("evaluate", (), "data/<dataset>/scores/<recipe>-<seed>")
    made.add_argument("--model", type=Path, help="model folder (default: data/<dataset>/models/<recipe>-<seed>)")
    made.add_argument("--data", type=Path, help="folder of the STS tasks (default: evaluate.path)")
    made.add_argument("--pooling", choices=("cls", "mean"), help="for a folder that does not store its pooling")
    args = made.parse_args()
    if args.model is None and (args.recipe is None or args.seed is None):
        made.error("either --model DIR, or --recipe and --seed of a cell of the grid")
    cell = None if args.recipe is None else f"{args.recipe}-{args.seed}"
    cells.run("evaluate", cell or args.model.name, args, lambda params: run(params, args, cell))


def run(params: Params, args, cell: str | None) -> None:
    runtime = params.runtime
    torch.set_num_threads(runtime.threads)
    folder = args.model or Path("data") / params.dataset / "models" / cell
    if not folder.is_dir():
        hint = (
            f"run `dvc repro train@{cell}`"
            if cell
            else "give the folder of a Hugging Face or sentence-transformers model"
        )
        raise InputError(f"{folder}: no such model folder; {hint}")
    encoder = load_encoder(folder, "pretrained", pooling=args.pooling).to(devices_of(runtime)[0])
    tasks = sts.load_tasks(args.data or params.evaluate.path)
    embed = sts.embed_once(tasks, lambda texts: encoder.encode(texts, batch_rows=runtime.batch_rows))
    scored = sts.score_suite(tasks, embed)
    seed = args.seed if cell else None
    body = {"recipe": args.recipe, "seed": seed, "pooling": encoder.pooling, "model": hash_path(folder), **scored}
    body["missing"] = [name for name, score in scored["tasks"].items() if "missing" in score]
    out = args.out or (Path("data") / params.dataset / "scores" / (cell or folder.name))
    for name, score in scored["tasks"].items():
        write_json(out / f"{name}.json", score)
    write_pairs(out / "pairs.parquet", tasks, embed)
    if metrics := args.metrics or (Path("metrics") / params.dataset / "evaluate" / f"{cell}.json" if cell else None):
        write_json(metrics, body)
    else:
        write_json(out / "metrics.json", body)
    show(cell or folder.name, scored)
    tell(f"evaluate: {cell or folder.name} on {len(tasks) - len(body['missing'])} of {len(tasks)} tasks -> {out}")


def write_pairs(path: Path, tasks: dict[str, sts.Task], embed: sts.Embed) -> None:
    """One row a sentence pair: task, subset, its number in the subset, cosine of the embeddings, human score."""
    columns: dict[str, list] = {"task": [], "subset": [], "pair": [], "cosine": [], "gold": []}
    for task in tasks.values():
        for name, subset in task.subsets.items():
            cosine = np.nan_to_num(sts.cosines(embed(subset.sentences1), embed(subset.sentences2)), nan=0.0)
            count = len(subset.gold)
            columns["task"] += [task.name] * count
            columns["subset"] += [name] * count
            columns["pair"] += range(count)
            columns["cosine"] += [float(v) for v in cosine]
            columns["gold"] += [float(v) for v in subset.gold]
    types = [
        ("task", pa.string()),
        ("subset", pa.string()),
        ("pair", pa.int32()),
        ("cosine", pa.float32()),
        ("gold", pa.float32()),
    ]
    table = pa.table(columns, schema=pa.schema(types))
    write_atomic(path, lambda temporary: pq.write_table(table, temporary, compression="zstd", write_page_checksum=True))


def show(name: str, scored: dict) -> None:
    """The scores as a table; what is missing is shown as missing, and the average is then withheld."""
    table = Table(title=f"{name}: Spearman x 100, all pairs of a task together")
    row = []
    for task, score in scored["tasks"].items():
        table.add_column(task, justify="right")
        value = None if "missing" in score else sts.percent(score["all"])
        row.append("missing" if "missing" in score else "undefined" if value is None else f"{value:.2f}")
    table.add_column("Avg", justify="right")
    row.append("withheld" if scored["average"] is None else f"{scored['average']:.2f}")
    table.add_row(*row)
    Console(stderr=True).print(table)
    if scored["withheld"]:
        tell(f"evaluate: average withheld: {scored['withheld']}")
