"""quality: what parse, detect, segment and align found, measured against gold.

In: the tables of these stages, the gold of `quality.gold_path`. Out: metrics/<dataset>/quality/<stage>.json, a file a
stage, and data/<dataset>/quality/cases.parquet, the worst cases, which the report draws. Without gold the files say so.
"""

import argparse
from pathlib import Path

from pipeline import params as parameters
from pipeline.errors import tell
from pipeline.files import write_json
from pipeline.process import lock, run
from stages.common import cases
from stages.quality.measure import STAGES, measure, without_gold
from stages.quality.sources import open_gold
from stages.quality.tally import Numbers

# What the last line tells of a stage.
_TOLD = {"parse": "f1", "detect": "accuracy", "segment": "mean_iou", "align": "precision"}


def main() -> None:
    """`python -m stages.quality`; ends the process with the stage's exit code."""
    made = argparse.ArgumentParser(prog="python -m stages.quality", allow_abbrev=False)
    made.add_argument("--params", type=Path, default=Path("params.yaml"), help="parameter file (default: %(default)s)")
    made.add_argument("--data", type=Path, help="folder of the stages' outputs (default: data/<dataset>)")
    made.add_argument("--gold", type=Path, help="gold (default: quality.gold_path)")
    made.add_argument("--out", type=Path, help="folder of the worst cases (default: data/<dataset>/quality)")
    made.add_argument("--metrics", type=Path, help="folder of the metrics (default: metrics/<dataset>/quality)")
    args = made.parse_args()
    run("quality", lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    params = parameters.load(args.params)
    name = params.dataset
    data = args.data or Path("data") / name
    out, metrics = args.out or data / "quality", args.metrics or Path("metrics") / name / "quality"
    path = args.gold or Path(params.quality.gold_path)
    with lock(Path(params.runtime.scratch) / name / "quality.lock", "stage quality"):
        bodies = write(data, path, params.detect.synonyms, out, metrics)
    tell(f"quality: {_told(bodies, path)} -> {metrics}")


def write(data: Path, path: Path, synonyms: dict[str, list[str]], out: Path, metrics: Path) -> dict[str, Numbers]:
    """Measures the dataset in `data` against the gold at `path`; returns what the metrics files hold, by stage.

    Raises:
        InputError: a shard is missing or damaged, or the gold is.
    """
    gold = open_gold(path, synonyms)
    found = measure(data, gold) if gold else None
    bodies = found.bodies(gold) if found else without_gold()
    cases.write(out / "cases.parquet", found.cases() if found else {})
    for stage in STAGES:
        write_json(metrics / f"{stage}.json", bodies[stage])
    return bodies


def _told(bodies: dict[str, Numbers], path: Path) -> str:
    if bodies["parse"]["gold"] is None:
        return f"no gold ({path} is empty), so nothing is measured"
    captions = bodies["parse"]["captions"]
    if not captions["with_gold"]:
        return f"none of {captions['without']:,} captions has gold in {path}, so nothing is measured"
    numbers = ((stage, name, bodies[stage]["all"][name]) for stage, name in _TOLD.items())
    told = (f"{stage} {name} {'-' if value is None else f'{value:.3f}'}" for stage, name, value in numbers)
    return f"{captions['with_gold']:,} captions with gold: {', '.join(told)}"
