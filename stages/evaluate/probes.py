"""probes: what a logistic regression reads off a frozen embedding of one sentence.

In: files in the layout of SentEval's probing tasks (Conneau et al. 2018), lines of `split<TAB>class<TAB>sentence` with
tr, va and te, in the folder `probing` of the evaluation root; a file is a task, `probe-` and its name. C is
chosen on va and the accuracy is that on te, as SentEval has it for SST2 (stages/evaluate/transfer): its published
probing figures come from a network with a hidden layer and do not compare.

A task's scores: those of a transfer task (acc in percent, devacc, c, sentences by part, ...), and `chance`, the percent
of te that is of its most frequent class: what an embedding that tells nothing comes to.
"""

from pathlib import Path

import numpy as np

from pipeline.files import sha256_file, sha256_json
from stages.evaluate import transfer
from stages.evaluate.embedder import Embedder
from stages.evaluate.place import Place
from stages.evaluate.transfer.read import read_probe

VERSION = 1  # in the hash of a task's data: scores of an earlier protocol are not taken for this one's
FOLDER = "probing"


def find(place: Place) -> dict[str, Path]:
    """Task -> its file, by name; none where the evaluation root has no folder of them."""
    files = [] if place.data is None else sorted((Path(place.data) / FOLDER).glob("*.txt"))
    return {f"probe-{file.stem}": file for file in files}


def tasks(place: Place) -> dict[str, str]:
    """Task -> content hash of its file."""
    return {name: sha256_json([VERSION, sha256_file(file)]) for name, file in find(place).items()}


def run(embed: Embedder, place: Place, known: dict[str, dict] | None = None) -> dict:
    """Scores of every task found, and the mean accuracy, or why there is none (see stages.evaluate.place).

    Raises ModelError for a damaged file (its name and line).
    """
    scores = {name: (known or {}).get(name) or score(name, file, embed) for name, file in find(place).items()}
    value, why = _average(scores, place)
    return {"tasks": scores, "average": value, "withheld": why}


def score(name: str, file: Path, embed: Embedder) -> dict:
    """The scores of one task, as the module's docstring lists them."""
    task = read_probe(name, file)
    labels = task.parts["test"].labels
    return transfer.score(task, embed) | {"chance": round(100 * float(np.bincount(labels).max() / len(labels)), 2)}


def _average(scores: dict[str, dict], place: Place) -> tuple[float | None, str | None]:
    if not scores:
        where = "no folder of evaluation sets is given (--data)" if place.data is None else f"{place.data} has none"
        return None, f"{where}; probes are files NAME.txt in its folder {FOLDER}"
    undefined = [name for name, score in scores.items() if score["acc"] is None]
    if undefined:
        return None, f"{undefined[0]} is undefined: {scores[undefined[0]]['undefined']}"
    return round(float(np.mean([score["acc"] for score in scores.values()])), 2), None
