"""`python -m model.golden DIR`.

Prints the largest error of each case and exits 0 if every number of the directory was checked and is within its
tolerance, 1 if not, 3 if the directory holds no reference vectors.
"""

import argparse
import sys
from pathlib import Path

from model.errors import ModelError
from model.golden.check import check_directory
from model.golden.report import lines


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m model.golden",
        description="Check the losses and the training loop against a directory of reference vectors.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of pairs NAME.json and NAME.safetensors")
    try:
        outcome = check_directory(parser.parse_args(arguments).folder)
    except ModelError as error:
        sys.stderr.write(f"{error}\n")
        return error.code
    sys.stdout.write("\n".join(lines(outcome)) + "\n")
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
