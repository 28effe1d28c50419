"""The command line of a recipe: the options that all have, and what can go wrong as one line."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import StageError, tell

SCRATCH = Path(".scratch") / "recipes"  # states of unfinished trainings, and what several recipes draw from


def options(
    about: str | None, out: Path, steps: int, threads: int = 2, scenes: int | None = None
) -> argparse.ArgumentParser:
    """A parser with --out, --steps, --seed, --device and --threads; with `scenes`, the default number of rendered
    scenes, --scenes and --scratch too. `about`: the module's docstring, whose first line is shown."""
    parser = argparse.ArgumentParser(description=(about or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=out, help="folder of the checkpoint (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=steps, help="of training (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=threads, help="of the CPU (default: %(default)s)")
    if scenes is not None:
        parser.add_argument("--scenes", type=int, default=scenes, help="training scenes, rendered at first use")
        parser.add_argument("--scratch", type=Path, default=SCRATCH, help="folder of scenes and states")
    return parser


def run(main: Callable[[], object]) -> None:
    """Runs a recipe; ends the process with the error's exit code where one is told, and with 130 after Ctrl-C."""
    try:
        main()
    except StageError as error:
        tell(str(error))
        sys.exit(error.code)
    except KeyboardInterrupt:
        tell("interrupted; the state of a minute ago is kept, call it again to go on")
        sys.exit(130)
