"""Remakes the kept scores: `python tests/stages/evaluate/compare/make_runs.py` (10 trainings, about 4 minutes).

README.md beside the files says what they are. Each run's result is kept in --work, so that a broken-off call goes on.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[4]
sys.path[:0] = [str(ROOT)]
RUNS = Path(__file__).with_name("runs")
CELLS = [*(("simcse", seed) for seed in range(10)), *(("untrained", seed) for seed in range(5))]
SETTINGS = {"batch_size": 32, "max_length": 32, "steps": 200, "eval_every": 50, "learning_rate": 1e-3}


def cosines_of(recipe: str, seed: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """One cell, trained and scored: ({task: cosines in the order of its pairs}, {task: Spearman x 100})."""
    import torch

    from model import sts
    from model.data import TrainingData
    from model.encoder import load_encoder
    from model.recipes import resolve
    from model.trainer import train

    torch.set_num_threads(1)
    world = ROOT / "demo/world"
    encoder = load_encoder(ROOT / "demo/checkpoints/bert_tiny", init="scratch", seed=seed, pooling="mean")
    sentences = (world / "sentences.txt").read_text(encoding="utf-8").splitlines()
    dev = sts.load_tasks(world / "sts", ["STS-B-dev"])["STS-B-dev"]
    with tempfile.TemporaryDirectory() as work:
        data, made = TrainingData(sentences=sentences), resolve(recipe, SETTINGS)
        done = train(encoder, data, made, seed=seed, work_dir=work, dev=dev, resume=False)
    found, scores = {}, {}
    for name, task in sts.load_tasks(world / "sts").items():
        own, gold = [], []
        for subset in task.subsets.values():
            one, two = (done.encoder.encode(side) for side in (subset.sentences1, subset.sentences2))
            own += sts.cosines(one, two).tolist()
            gold += subset.gold.tolist()
        found[name], scores[name] = own, 100 * sts.spearman(np.array(own), np.array(gold))
    return found, scores


def keys() -> dict[str, list]:
    """task, subset, number and gold of every pair of the world's STS tasks."""
    from model import sts

    columns: dict[str, list] = {"task": [], "subset": [], "pair": [], "gold": []}
    for name, task in sts.load_tasks(ROOT / "demo/world/sts").items():
        for label, subset in task.subsets.items():
            columns["task"] += [name] * len(subset.gold)
            columns["subset"] += [label] * len(subset.gold)
            columns["pair"] += range(len(subset.gold))
            columns["gold"] += subset.gold.tolist()
    return columns


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "compare-runs")
    args = made.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    columns, scores = keys(), {}
    for recipe, seed in CELLS:
        cell = f"{recipe}-{seed}"
        file = args.work / f"{cell}.json"
        if not file.exists():
            file.write_text(json.dumps(cosines_of(recipe, seed)))
        found, scores[cell] = json.loads(file.read_text())
        columns[cell] = [value for name in found for value in found[name]]
        print(cell, " ".join(f"{name} {value:.2f}" for name, value in scores[cell].items()), flush=True)
    types = {"task": pa.string(), "subset": pa.string(), "pair": pa.int32()}
    table = pa.table({name: pa.array(v, types.get(name, pa.float32())) for name, v in columns.items()})
    RUNS.mkdir(exist_ok=True)
    pq.write_table(table, RUNS / "cosines.parquet", compression="zstd")
    (RUNS / "scores.json").write_text(json.dumps(scores, indent=1) + "\n")


if __name__ == "__main__":
    main()
