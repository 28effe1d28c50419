"""The table and the plots of the experiment: `python -m ablation.table`, once every cell is done.

In: data/ablation/runs, data/ablation/quality. Out: ablation/results/table.md, gain_noise.svg, gain_quality.svg,
metrics.json.
"""

import json
from pathlib import Path

from ablation import gains, matrix, pages, plots
from ablation.matrix import QUALITY, RUNS, Matrix
from pipeline import process
from pipeline.errors import InputError, tell
from pipeline.files import write_json, write_text

RESULTS = Path("ablation/results")
MEASURES = ("precision", "recall", "mean_iou")


def main() -> None:
    process.run("ablation.table", lambda: write(matrix.load(), RUNS, QUALITY, RESULTS))


def write(plan: Matrix, runs: Path, qualities: Path, out: Path) -> None:
    """Writes the results of a finished matrix.

    Raises:
        InputError: a run or the quality of a dataset is missing or damaged.
    """
    names = [*gains.curve(plan), *gains.sources(plan)[1:]]
    quality = {name: measured(qualities / name / "align.json") for name in names}
    found = gains.find(plan, runs)
    write_text(out / "table.md", pages.markdown(plan, found, quality))
    write_text(out / "gain_noise.svg", plots.against_noise(plan, found))
    write_text(out / "gain_quality.svg", plots.against_quality(plan, found, quality))
    write_json(out / "metrics.json", pages.values(plan, found, quality))
    tell(f"ablation: {len(found.spread)} arms, {len(found.gains)} differences -> {out}")


def measured(file: Path) -> dict[str, float]:
    """Precision, recall and mean IoU of a dataset's pairs against gold, 0 to 1.

    Raises:
        InputError: nobody measured it.
    """
    try:
        told = json.loads(file.read_text(encoding="utf-8"))["all"]
        return {name: float(told[name]) for name in MEASURES}
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{file}: missing, or without precision; run `dvc repro ablation/dvc.yaml`") from None


if __name__ == "__main__":
    main()
