"""A dataset of the experiment: `python -m ablation.mine DATASET STEP...`, the steps in the order given.

world renders it; gold takes its pairs from the annotations, corrupt from the base world's gold, spoilt; quality
measures the pairs; ingest, parse, detect, segment, embed and align are the stages of these names.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from ablation import corrupt, gold, matrix
from ablation.gold import Annotations
from ablation.matrix import DATASETS, QUALITY, WORLD, Matrix
from pipeline import process
from pipeline.errors import ParamsError
from pipeline.runner import load_stage

SHARDED = ("ingest", "parse", "detect", "segment", "embed", "align")


def main() -> None:
    made = argparse.ArgumentParser(prog="python -m ablation.mine", description=__doc__.splitlines()[0])
    made.add_argument("dataset", help="a world, a source, or models")
    made.add_argument("steps", nargs="+", choices=(*SHARDED, *_OTHERS), metavar="STEP")
    args = made.parse_args()
    process.run(f"ablation.mine@{args.dataset}", lambda: mine(matrix.load(), args.dataset, args.steps))


def mine(plan: Matrix, dataset: str, steps: list[str]) -> None:
    """Runs the steps.

    Raises:
        ParamsError: there is no such dataset, or a step that is not for it.
    """
    plan.world_of(dataset)
    params = matrix.write_params(plan, dataset)
    for step in steps:
        if step in SHARDED:
            matrix.stage(step, params, dataset, load_stage(step).reads)
        else:
            _OTHERS[step](plan, dataset, params)


def _world(plan: Matrix, dataset: str, params: Path) -> None:
    if dataset not in plan.worlds:
        raise ParamsError(f"{dataset} is no world that could be rendered")
    # its text does not say what the world says that is asked about, and the text-only stream is one for all
    told = ("--scenes", plan.scenes, "--seed", plan.world_seed, "--sentences", 0, "--no-sts", "--avoid", plan.avoid)
    knobs = [f"--{key.replace('_', '-')}={value}" for key, value in plan.worlds[dataset].items()]
    matrix.start("demo.build", *told, *knobs, "--workers", 1, "--out", DATASETS / dataset / WORLD)


def _gold(plan: Matrix, dataset: str, params: Path) -> None:
    gold.write(DATASETS / dataset, Annotations(plan.gold(dataset)))


def _corrupt(plan: Matrix, dataset: str, params: Path) -> None:
    if dataset not in plan.sources:
        raise ParamsError(f"{dataset} is not among `sources`")
    corrupt.write(DATASETS / plan.base, DATASETS / dataset, Annotations(plan.gold(dataset)), plan.sources[dataset])


def _quality(plan: Matrix, dataset: str, params: Path) -> None:
    data, out = DATASETS / dataset, QUALITY / dataset
    matrix.start("stages.quality", "--params", params, "--data", data, "--out", out, "--metrics", out)


_OTHERS: dict[str, Callable[[Matrix, str, Path], None]] = {
    "world": _world,
    "gold": _gold,
    "corrupt": _corrupt,
    "quality": _quality,
}

if __name__ == "__main__":
    main()
