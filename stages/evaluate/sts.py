"""The STS suite: the seven tasks, and beside them the sets that are not in the average.

A task's scores are those of `model.sts.score_pairs`, and `cosines`: {subset: [cosine of each pair]}, which the command
takes out of the metrics and into pairs.parquet.
"""

import numpy as np

from model import sts
from model.sts import SEVEN
from pipeline.files import sha256_json
from stages.evaluate.embedder import Embedder
from stages.evaluate.place import Place

# scored too where they are there; their absence withholds nothing
OTHERS = {"senteval": ("STS-B-dev", "SICK-R-all"), "mteb": ("STS-B-dev", "SICK-R-test")}


def load(place: Place) -> dict[str, sts.Task]:
    """The seven tasks and the others of the protocol; missing ones say so."""
    return sts.load_tasks(place.data, (*SEVEN, *OTHERS[place.protocol]), place.protocol)


def tasks(place: Place) -> dict[str, str]:
    """{task: hash of its sentences and scores as read}."""
    return {name: _digest(task) for name, task in load(place).items() if not task.missing}


def run(embed: Embedder, place: Place, known: dict[str, dict]) -> dict:
    """See stages/evaluate/place.py; `average` is of the seven, in percent."""
    found = load(place)
    new = [task for name, task in found.items() if not task.missing and name not in known]
    if new:  # all at once, so that batches are of like length
        embed([x for task in new for s in task.subsets.values() for x in (*s.sentences1, *s.sentences2)])
    scores = {task.name: _scored(task, embed) for task in new} | known
    scores |= {name: {"missing": task.missing} for name, task in found.items() if task.missing}
    average, withheld = sts.average(scores)
    return {"tasks": {name: scores[name] for name in found}, "average": average, "withheld": withheld}


def _scored(task: sts.Task, embed: Embedder) -> dict:
    similarity = sts.similarities(task, embed)
    kept = {name: [float(v) for v in np.nan_to_num(c, nan=0.0).astype(np.float32)] for name, c in similarity.items()}
    return {**sts.score_pairs(task, similarity), "cosines": kept}


def _digest(task: sts.Task) -> str:
    parts = {k: [s.sentences1, s.sentences2, s.gold.tolist(), s.dropped] for k, s in task.subsets.items()}
    return sha256_json([parts, list(task.absent), task.merged])
