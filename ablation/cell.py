"""One recipe on one dataset, trained and scored: `python -m ablation.cell DATASET RECIPE [SEED...]`.

Without a seed: those that params.yaml has for `untrained`, which takes no step.

What is left behind is data/ablation/runs/<dataset>/<recipe>/<seed>: model/, scores/, train.json, train.csv. Killed, it
goes on from the trainer's last checkpoint.
"""

import argparse

from ablation import matrix
from ablation.matrix import DATASETS, RUNS, Matrix
from pipeline import process
from pipeline.tables import WRITER

TABLES = ("captions", "sentences", "pairs", "features")


def main() -> None:
    made = argparse.ArgumentParser(prog="python -m ablation.cell", description=__doc__.splitlines()[0])
    made.add_argument("dataset", help="a world, a source, or models")
    made.add_argument("recipe")
    made.add_argument("seeds", nargs="*", type=int, metavar="SEED")
    args = made.parse_args()
    name = "-".join(map(str, ("ablation.cell@" + args.dataset, args.recipe, *args.seeds)))
    process.run(name, lambda: train(matrix.load(), args.dataset, args.recipe, args.seeds))


def train(plan: Matrix, dataset: str, recipe: str, seeds: list[int]) -> None:
    """Trains and scores `recipe` with each seed (none given: with those of `untrained`).

    Raises:
        ParamsError: there is no such dataset.
    """
    plan.world_of(dataset)
    params = matrix.write_params(plan, dataset)
    tables = [part for name in TABLES for part in (f"--{name}", DATASETS / dataset / WRITER[name] / name)]
    for seed in seeds or plan.grid["untrained"]:
        out = RUNS / dataset / recipe / str(seed)
        named = ("--params", params, "--recipe", recipe, "--seed", seed)
        places = ("--out", out / "model", "--log", out / "train.csv", "--metrics", out / "train.json")
        matrix.start("stages.train", *named, *tables, *places)
        matrix.start("stages.evaluate", *named, "--model", out / "model", "--out", out / "scores")


if __name__ == "__main__":
    main()
