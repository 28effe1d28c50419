"""What train and evaluate share: a cell of the grid as a process, and the errors of `model` as a stage's own."""

import argparse
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from model.errors import ModelError
from pipeline import entry, process
from pipeline import params as parameters
from pipeline.errors import StageError
from pipeline.sections import Params


def parser(name: str, reads: tuple[str, ...], out: str) -> argparse.ArgumentParser:
    """The options of every stage, and which cell of the grid this is."""
    made = entry.parser(name, reads, out)
    made.add_argument("--recipe", help="recipe of this cell of the grid")
    made.add_argument("--seed", type=int, help="seed of this cell of the grid")
    return made


def run(name: str, cell: str | None, args: argparse.Namespace, body: Callable[[Params], None], rank: int = 0) -> None:
    """Runs `body(params)` as the process of `name@cell`; ends the process.

    A cell holds a lock of its own, so that several may run side by side but none twice. `rank`: of several processes
    of one cell (torchrun), the first holds the lock and tells the cell's exit.
    """
    told = f"{name}@{cell}" if cell else name

    def locked() -> None:
        params = parameters.load(args.params)
        scratch = Path(params.runtime.scratch) / params.dataset
        with nullcontext() if rank else process.lock(scratch / f"{told}.lock", f"stage {told}"):
            try:
                body(params)
            except ModelError as error:
                mistake = StageError(str(error))
                mistake.code = error.code
                raise mistake from error

    process.run(f"{told}.{rank}" if rank else told, locked)
