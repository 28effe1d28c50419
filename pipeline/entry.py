"""The command line every sharded stage shares: `python -m stages.NAME [--params FILE] [--TABLE DIR ...] [--out
DIR]`.
"""

import argparse
from pathlib import Path

from pipeline import params as parameters
from pipeline import process
from pipeline.runner import Context, load_stage, run_stage
from pipeline.tables import WRITER


def table_dir(dataset: str, table: str) -> Path:
    """The default place of a table: data/<dataset>/<stage>/<table>."""
    return Path("data") / dataset / WRITER[table] / table


def parser(name: str, reads: tuple[str, ...], out: str) -> argparse.ArgumentParser:
    """Options of a stage: where its inputs and outputs lie; the defaults are the main graph's paths."""
    made = argparse.ArgumentParser(prog=f"python -m stages.{name}", allow_abbrev=False)
    made.add_argument("--params", type=Path, default=Path("params.yaml"), help="parameter file (default: %(default)s)")
    for table in reads:
        made.add_argument(
            f"--{table}", type=Path, help=f"folder of `{table}` (default: data/<dataset>/{WRITER[table]}/{table})"
        )
    made.add_argument("--out", type=Path, help=f"output (default: {out})")
    made.add_argument("--metrics", type=Path, help=f"metrics file (default: metrics/<dataset>/{name}.json)")
    return made


def context(name: str, reads: tuple[str, ...], args: argparse.Namespace) -> Context:
    """Loads the parameters and resolves the paths."""
    params = parameters.load(args.params)
    return Context(
        params=params,
        section=getattr(params, name),
        inputs={table: getattr(args, table) or table_dir(params.dataset, table) for table in reads},
        out=args.out or Path("data") / params.dataset / name,
        metrics=args.metrics or Path("metrics") / params.dataset / f"{name}.json",
    )


def main(name: str) -> None:
    """Runs a sharded stage as a process; ends it with the stage's exit code."""
    stage = load_stage(name)
    args = parser(name, stage.reads, f"data/<dataset>/{name}").parse_args()
    process.run(name, lambda: run_stage(stage, context(name, stage.reads, args)))
