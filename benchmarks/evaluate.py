"""The seven STS tasks, ours against a plain SentEval-style loop in the same run.

    python -m benchmarks.evaluate [--models minilm bert-base] [--tasks STS16] [--share 0.05] [--json FILE]

The plain loop is what SentEval does: a subset at a time, its pairs sorted by the words of their sentences, batches of
128 pairs, first their first sentences and then their second, nothing encoded once for several, fp32. Ours is
`Encoder.encode` as the evaluate stage calls it, in fp32 and in bf16. All ways get the same encoder and the same pairs
(`--share`: a part of each subset), and their scores are held against one another. MiniLM has its own weights;
BERT-base's are drawn from a seed, which no speed depends on. `dev` is STS-B dev as the trainer scores it. The transfer
tasks: `python -m benchmarks.evaluate_transfer`.

Ratios are of processor time, which other work on the machine disturbs less than it does the clock; both are told.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import machine
from benchmarks.trainer_data import MODELS, SEED, shared_folder, thinned, write_model
from model import sts
from model.dev import Dev
from model.encoder import Encoder, load_encoder
from model.packed import packs

BATCH = 128
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Figure:
    """One way: seconds by the clock and of the processor, and {task: Spearman of all pairs}."""

    seconds: float
    processor: float
    scores: dict[str, float | None]


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    print(f"{machine()}; load {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores when it began", flush=True)
    print(f"{arguments.threads} threads; packed layers: fp32 {packs(DTYPES['fp32'])}, bf16 {packs(DTYPES['bf16'])}")
    found = {name: compare(name, arguments) for name in arguments.models}
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


def compare(name: str, arguments: argparse.Namespace) -> dict:
    """All ways of one model, told as they come."""
    encoder = made(name, arguments.device)
    every = sts.load_tasks(arguments.shared / "sts", arguments.tasks)
    tasks = {key: thinned(task, arguments.share) for key, task in every.items()}
    pairs = sum(len(s.gold) for task in tasks.values() for s in task.subsets.values())
    print(f"\n{name}: {pairs} pairs of {sum(len(s.gold) for t in every.values() for s in t.subsets.values())}")
    plain(dict(list(tasks.items())[-1:]), encoder)  # warms up
    figures = {"plain loop": timed(lambda: plain(tasks, encoder))}
    for dtype in arguments.dtypes:
        figures[f"ours {dtype}"] = timed(lambda dtype=dtype: ours(tasks, encoder, dtype))
    first = figures["plain loop"]
    for way, figure in figures.items():
        apart = max(abs(100 * (figure.scores[k] - first.scores[k])) for k in tasks if first.scores[k] is not None)
        print(
            f"  {way:12} {figure.seconds:8.1f} s, processor {figure.processor:8.1f} s: "
            f"{first.processor / figure.processor:5.2f} x (clock {first.seconds / figure.seconds:.2f} x); "
            f"scores x 100 differ by {apart:.4f} at most",
            flush=True,
        )
    told = {way: vars(figure) for way, figure in figures.items()}
    return told | {"STS-B dev": dev(encoder, arguments)}


def made(name: str, device: str) -> Encoder:
    """Mean pooling; MiniLM with its weights, a BERT shape with drawn ones."""
    with tempfile.TemporaryDirectory() as folder:
        init = "pretrained" if name == "minilm" else "scratch"
        place = write_model(name, Path(folder) / name)
        return load_encoder(place, init=init, seed=SEED, pooling="mean").to(device)


def timed(work: Callable[[], dict]) -> Figure:
    clock, processor = time.perf_counter(), time.process_time()
    scores = work()
    return Figure(time.perf_counter() - clock, time.process_time() - processor, scores)


def ours(tasks: dict[str, sts.Task], encoder: Encoder, dtype: str) -> dict:
    rows = 32 if encoder.device.type == "cpu" else 512
    embed = sts.embed_once(tasks, lambda texts: encoder.encode(texts, rows, dtype=DTYPES[dtype]))
    return {name: sts.score_task(task, embed)["all"] for name, task in tasks.items()}


@torch.inference_mode()
def plain(tasks: dict[str, sts.Task], encoder: Encoder) -> dict:
    """SentEval's loop over a Hugging Face model."""
    found = {}
    for name, task in tasks.items():
        system, gold = [], []
        for subset in task.subsets.values():
            rows = sorted(
                zip(subset.sentences1, subset.sentences2, subset.gold, strict=True),
                key=lambda row: (len(row[0].split()), len(row[1].split()), row[2]),
            )
            for start in range(0, len(rows), BATCH):
                one, two, scores = zip(*rows[start : start + BATCH], strict=True)
                left, right = (plain_batch(list(texts), encoder) for texts in (one, two))
                system.append(sts.cosines(left, right))
                gold.append(np.array(scores))
        found[name] = sts.spearman(np.nan_to_num(np.concatenate(system)), np.concatenate(gold))
    return found


def plain_batch(texts: list[str], encoder: Encoder) -> np.ndarray:
    batch = encoder.tokenizer(texts, padding=True, return_tensors="pt").to(encoder.device)
    states = encoder.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1).float()
    return ((states * mask).sum(1) / mask.sum(1)).cpu().numpy()


def dev(encoder: Encoder, arguments: argparse.Namespace) -> dict:
    """STS-B dev as the trainer scores it: the second time, with its sentences tokenised."""
    task = thinned(sts.load_sts_b(arguments.shared / "sts", "dev"), arguments.share)
    pairs = sum(len(s.gold) for s in task.subsets.values())
    found = {}
    for dtype in arguments.dtypes:
        scorer = Dev(task, encoder, dtype)
        scorer.score()
        figure = timed(lambda scorer=scorer: {"STS-B-dev": scorer.score()})
        found[dtype] = vars(figure) | {"pairs": pairs}
        print(
            f"  STS-B dev    {figure.seconds:8.2f} s, processor {figure.processor:8.2f} s for {pairs} pairs in {dtype}"
        )
    return found


def _arguments() -> argparse.Namespace:
    made = argparse.ArgumentParser(prog="python -m benchmarks.evaluate", description=__doc__.splitlines()[0])
    made.add_argument("--models", nargs="+", choices=MODELS, default=["minilm", "bert-base"])
    made.add_argument("--share", type=float, default=1.0, help="share of each subset's pairs (default: all)")
    made.add_argument("--dtypes", nargs="+", choices=tuple(DTYPES), default=list(DTYPES))
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    made.add_argument("--threads", type=int, default=os.cpu_count())
    made.add_argument("--shared", type=Path, default=shared_folder(), help="folder with sts/ (default: %(default)s)")
    made.add_argument("--tasks", nargs="+", choices=sts.SEVEN, default=list(sts.SEVEN))
    made.add_argument("--json", type=Path, help="file for the figures")
    return made.parse_args()


if __name__ == "__main__":
    main()
