"""transfer: how well a logistic regression on frozen sentence embeddings tells the classes of seven tasks.

MR, CR, SUBJ, MPQA, SST2, TREC and MRPC by SentEval's protocol (protocol.py), on the files of read.py. Each sentence is
embedded once. Embeddings are taken as the model gives them: of unit length if its folder says so (a Normalize module
of sentence-transformers), which matters here because C weighs the penalty against them. MRPC's features are |a - b|
and a * b side by side.

A task's scores: acc (percent), devacc, c (chosen C, one a fold where nested), folds (accuracy of each, where nested),
f1 (MRPC), sentences (or pairs) by part, classes, empty (sentences without a word), unusable (embeddings that are zero
or not finite: taken as zeros), normalised. acc is None, with `undefined` saying why, where the embeddings do not vary.
"""

import json
from pathlib import Path

import numpy as np

from model.errors import ModelError
from pipeline.files import sha256_file, sha256_json
from stages.evaluate.embedder import Embedder
from stages.evaluate.place import Place
from stages.evaluate.transfer import protocol
from stages.evaluate.transfer.labelled import Labelled, Part
from stages.evaluate.transfer.read import BINARY, TASKS, Found, find

VERSION = 1  # in the hash of a task's data: scores of an earlier protocol are not taken for this one's


def tasks(place: Place) -> dict[str, str]:
    """Task -> content hash of the files it reads; without the tasks whose files are not there."""
    return {
        name: sha256_json([VERSION, {key: sha256_file(file) for key, file in found.files.items()}])
        for name in TASKS
        if isinstance(found := _found(place, name), Found)
    }


def run(embed: Embedder, place: Place, known: dict[str, dict] | None = None) -> dict:
    """Scores of the seven tasks, their average, or why it is withheld (see stages.evaluate.place).

    Raises ModelError for a damaged file (its name and line), or a set too small for ten folds in ten folds.
    """
    scores = {}
    for name in TASKS:
        found = _found(place, name)
        if isinstance(found, str):
            scores[name] = {"missing": found}
        else:
            scores[name] = (known or {}).get(name) or score(found.read(), embed)
    value, why = average(scores)
    return {"tasks": scores, "average": value, "withheld": why}


def average(scores: dict[str, dict]) -> tuple[float | None, str | None]:
    """(Mean of the seven accuracies, two decimals; None), or (None, why it is withheld)."""
    for name in TASKS:
        entry = scores.get(name, {"missing": "not asked for"})
        if "missing" in entry:
            return None, f"{name} is missing: {entry['missing']}"
        if entry["acc"] is None:
            return None, f"{name} is undefined: {entry['undefined']}"
    return round(float(np.mean([scores[name]["acc"] for name in TASKS])), 2), None


def score(task: Labelled, embed: Embedder) -> dict:
    """The scores of one task, as the module's docstring lists them."""
    x, y, sizes, unusable = features(task, embed)
    parts = task.parts
    facts = {
        "pairs" if task.name == "MRPC" else "sentences": {name: len(part.labels) for name, part in parts.items()},
        "classes": list(task.classes),
        "empty": sum(part.empty for part in parts.values()),
        "unusable": unusable,
        "normalised": normalises(embed.folder),
    }
    if np.ptp(x, axis=0).max() <= 1e-6 * np.abs(x).max():
        return {"acc": None, "undefined": "the embeddings do not vary", **facts}
    if task.name in BINARY:
        return protocol.nested(x, y, len(task.classes)) | facts
    if "dev" in task.parts:
        return protocol.split(x, y, len(task.classes), *sizes[:2])[0] | facts
    result, hits = protocol.crossed(x, y, len(task.classes), sizes[0])
    if task.name == "MRPC":
        result["f1"] = f1(y[sizes[0] :], hits)
    return result | facts


def features(task: Labelled, embed: Embedder) -> tuple[np.ndarray, np.ndarray, list[int], int]:
    """(x float32 [N, D], y int64 [N], rows of each part, unusable embeddings): the parts one after the other.

    Raises ModelError if a class has too few rows for the protocol's folds.
    """
    parts = [part.in_order() for part in task.parts.values()]
    _enough(task, parts[0])
    x, unusable = [], 0
    for part in parts:
        vectors = [embed(texts) for texts in part.texts]
        columns, bad = zip(*(_usable(v, normalises(embed.folder)) for v in vectors), strict=True)
        unusable += sum(bad)
        x.append(columns[0] if len(columns) == 1 else pair_features(*columns))
    y = np.concatenate([part.labels for part in parts])
    return np.concatenate(x), y, [len(part.labels) for part in parts], unusable


def pair_features(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|a - b| and a * b side by side: [n, D] twice -> [n, 2D]"""
    return np.concatenate([np.abs(a - b), a * b], axis=1)


def f1(labels: np.ndarray, hits: np.ndarray) -> float:
    """F1 of class 1, percent, of two classes; `hits` bool [n]: which were told right. 0 where no 1 was found."""
    true = int((hits & (labels == 1)).sum())
    return round(100 * 2 * true / max(1, 2 * true + int((~hits).sum())), 2)


def normalises(folder: Path) -> bool:
    """Whether a model folder says that its embeddings are of unit length (modules.json of sentence-transformers)."""
    file = Path(folder) / "modules.json"
    if not file.is_file():
        return False
    try:
        return any(module["type"].rsplit(".", 1)[-1] == "Normalize" for module in json.loads(file.read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{file}: cannot be read as a list of modules ({error!r})") from error


def _usable(vectors: np.ndarray, unit: bool) -> tuple[np.ndarray, int]:
    """float32 vectors [n, D], of unit length if `unit`, and how many were zero or not finite and now are zeros."""
    vectors = np.array(vectors, dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    bad = ~(np.isfinite(norms) & (norms > 0))
    vectors[bad] = 0
    if unit:
        vectors /= np.where(bad, np.float32(1), norms)[:, None]
    return vectors, int(bad.sum())


def _enough(task: Labelled, first: Part) -> None:
    """Each class has a row in every fold of the first part, nested ones included; with a dev set, one to learn from."""
    least = 1 if "dev" in task.parts else 12 if task.name in BINARY else 10
    for name, count in zip(task.classes, np.bincount(first.labels, minlength=len(task.classes)), strict=True):
        if count < least:
            raise ModelError(f"{task.name}: class {name} has {count} rows to learn from; the protocol needs {least}")


def _found(place: Place, name: str) -> Found | str:
    return "no folder of evaluation sets is given (--data)" if place.data is None else find(Path(place.data), name)
