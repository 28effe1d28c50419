"""report: the page a person looks at.

In: what every stage left (tables, sidecars), what was measured against gold, the training logs and the STS scores of
the grid's runs. Out: one self-contained HTML file. Nothing of time, host or path goes into it: the same inputs give the
same bytes.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

from pipeline import params as parameters
from pipeline.errors import InputError, tell
from pipeline.files import hash_path, write_text
from pipeline.process import lock, run
from pipeline.sections import Params
from pipeline.shards import SHARDED
from stages.report import cards, curves, differences, flow, leaks, pair_scores, quality, sample, scores
from stages.report.gallery import Gallery
from stages.report.page import render
from stages.report.reasons import meaning
from stages.report.records import examples, read_stage

# What a stage does, as a headline over its ledger; the tables that the summary counts.
DOES = {
    "ingest": "a collection becomes checked images, captions and sentences",
    "parse": "captions become phrases",
    "detect": "every phrase gets the boxes of what it denotes",
    "segment": "every box gets the pixels of what is in it",
    "embed": "images and candidate crops become feature vectors",
    "align": "candidates become pairs",
}
HEADLINE = (
    ("ingest", "images"),
    ("ingest", "captions"),
    ("parse", "phrases"),
    ("detect", "boxes"),
    ("segment", "masks"),
    ("align", "pairs"),
)


@dataclass(frozen=True)
class Places:
    """Where things lie: `data` holds a folder a stage, `metrics` the folders quality, train and evaluate, `plots` the
    training logs.
    """

    data: Path
    metrics: Path
    plots: Path
    out: Path


def main() -> None:
    """`python -m stages.report`; ends the process with the stage's exit code."""
    made = argparse.ArgumentParser(prog="python -m stages.report", allow_abbrev=False)
    made.add_argument("--params", type=Path, default=Path("params.yaml"), help="parameter file (default: %(default)s)")
    made.add_argument("--data", type=Path, help="folder of the stages' outputs (default: data/<dataset>)")
    made.add_argument("--metrics", type=Path, help="folder of the metrics (default: metrics/<dataset>)")
    made.add_argument("--plots", type=Path, help="folder of the training logs (default: plots/<dataset>/train)")
    made.add_argument("--out", type=Path, default=Path("report/index.html"), help="the page (default: %(default)s)")
    args = made.parse_args()
    run("report", lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    params = parameters.load(args.params)
    name = params.dataset
    places = Places(
        args.data or Path("data") / name,
        args.metrics or Path("metrics") / name,
        args.plots or Path("plots") / name / "train",
        args.out,
    )
    with lock(Path(params.runtime.scratch) / name / "report.lock", "stage report"):
        page = build(params, places)
        write_text(places.out, page)
    tell(f"report: {places.out.resolve()} ({len(page.encode()) / 1e6:.1f} MB)")


def build(params: Params, places: Places) -> str:
    """The page as text.

    Raises:
        InputError: a stage, a training log or an evaluation is missing or damaged, or there are no pairs.
    """
    records = [read_stage(places.data / name) for name in SHARDED]
    of = {record.name: record for record in records}
    if not of["align"].rows["pairs"]:
        raise InputError(
            f"{places.data / 'align' / 'pairs'}: no pairs at all, so there is nothing to show; see the drops of the "
            "stages, loosen the section align, and run `dvc repro`"
        )
    training = _training(params, places)
    seed = params.report.seed
    measured = quality.read(places.metrics / "quality", places.data / "quality")
    kept = sample.kept(places.data, params.report.gallery, seed)
    dropped = sample.dropped(places.data, params.report.dropped, seed)
    shown = len(kept.cases) + len(dropped.cases)
    photos, drawn = cards.draw(places.data, [*kept.cases, *dropped.cases, *measured.cases])
    return render(
        dataset=params.dataset,
        headline=[(table, of[stage].rows.get(table, 0)) for stage, table in HEADLINE],
        flow=flow.steps(records),
        sentences=of["ingest"].rows.get("sentences", 0),
        encoder=of["embed"].facts,
        random_weights=bool(of["embed"].facts.get("random_weights")),
        note=params.evaluate.note,
        records=records,
        does=DOES,
        meaning=meaning,
        examples={name: examples(places.data, name, seed) for name in SHARDED},
        gallery=Gallery(kept.total, dropped.totals, photos, drawn[:shown], drawn[shown:]),
        quality=measured,
        lists=quality.LISTS,
        why=quality.why,
        seed=seed,
        training=training,
        differences=_differences(params, places),
        leaks=leaks.check(
            places.data,
            Path(params.evaluate.path),
            params.report.leak_jaccard,
            params.report.leak_distance,
            params.evaluate.protocol,
        ),
        settings=_settings(params),
        hashes={
            "evaluate": {"STS tasks": hash_path(Path(params.evaluate.path))},
            "quality": {"gold": measured.digest} if measured.digest else {},
        },
    )


def _training(params: Params, places: Places) -> dict:
    recipes = scores.order(params.grid.recipes)
    cells = [(recipe, seed) for recipe in recipes for seed in params.grid.seeds]
    logs = [scores.read_log(places.plots, *cell) for cell in cells]
    trained = [scores.read_trained(places.metrics, *cell) for cell in cells]
    scored = [scores.read_scored(places.metrics, *cell) for cell in cells]
    pairs = {name: number for run in scored for name, number in run.pairs.items()}
    return {
        "recipes": recipes,
        "seeds": len(params.grid.seeds),
        "few": len(params.grid.seeds) < scores.FEW_SEEDS,
        "charts": curves.charts(logs, recipes),
        "series": curves.SERIES,
        "runs": list(zip(trained, scored, strict=True)),
        "notes": list(dict.fromkeys(f"{run.recipe}: {note}" for run in trained for note in run.notes)),
        "tasks": [(name, pairs.get(name)) for name in scores.TASKS],
        "missing": [name for name in scores.TASKS if any(name in run.missing for run in scored)],
        "rows": scores.table(list(zip(trained, scored, strict=True))),
    }


def _differences(params: Params, places: Places) -> differences.Differences:
    recipes = scores.order(params.grid.recipes)
    cells = [(recipe, seed) for recipe in recipes for seed in params.grid.seeds]
    pairs = pair_scores.read(places.data / "scores", Path(params.evaluate.path), cells, scores.TASKS)
    return differences.compare(pairs, recipes)


def _settings(params: Params) -> dict[str, dict]:
    """The parameters of the stages that have no shards, but for places: what lies there counts, not where."""
    sections = {name: params.section(name) for name in ("quality", "train", "grid", "evaluate", "report")}
    return {
        name: {key: value for key, value in section.items() if not key.endswith("path")}
        for name, section in sections.items()
    }
