"""How embeddings lie in space: alignment and uniformity on STS-B, two ways, and anisotropy.

In: the STS-B dev and test sets. Alignment: how far apart pairs lie that people find alike (gold >= 4); uniformity:
how evenly sentences are spread; both of unit vectors, lower is better (model/geometry.py).

- `dataset`: over all pairs, all sentences at once.
- `per_batch`: as the evaluation code of MCSE has it, the mean over batches of 128 pairs in the order of SentEval
  (sorted by the number of words of the first sentence, of the second, then by gold). Other numbers than `dataset`:
  compare like with like.
- `anisotropy`: the mean cosine over all pairs of different sentences (of which the mean over random pairs is an
  estimate), and the share of the variance of unit vectors that lies in the first, the first three and the first ten
  principal directions.
"""

import numpy as np

from model import geometry, sts
from pipeline.files import sha256_json
from stages.evaluate.embedder import Embedder
from stages.evaluate.place import Place

SETS = {"geometry-STS-B-dev": "STS-B-dev", "geometry-STS-B-test": "STS-B"}
POSITIVE = 4.0
BATCH = 128
DIRECTIONS = (1, 3, 10)


def load(place: Place) -> dict[str, sts.Task]:
    found = sts.load_tasks(place.data, SETS.values(), place.protocol)
    return {name: found[task] for name, task in SETS.items()}


def tasks(place: Place) -> dict[str, str]:
    """Task -> content hash of its sentences and scores as read."""
    return {
        name: sha256_json([[s.sentences1, s.sentences2, s.gold.tolist()] for s in task.subsets.values()])
        for name, task in load(place).items()
        if not task.missing
    }


def run(embed: Embedder, place: Place, known: dict[str, dict] | None = None) -> dict:
    """{'tasks': {'geometry-STS-B-dev', 'geometry-STS-B-test'}, 'average': None, 'withheld': None}.

    Each task: {'dataset': {'alignment', 'uniformity'}, 'per_batch': {'alignment', 'uniformity', 'batch_size'},
    'anisotropy': {'mean_cosine', 'variance_first_1', 'variance_first_3', 'variance_first_10'}, 'pairs', 'positives',
    'sentences', 'unusable_pairs' (an embedding is zero or not finite: left out)}; a value is None where it is
    undefined.
    """
    scores = {}
    for name, task in load(place).items():
        if known and name in known:
            scores[name] = known[name]
        else:
            scores[name] = {"missing": task.missing} if task.missing else measure(embed, task)
    return {"tasks": scores, "average": None, "withheld": None}


def measure(embed: Embedder, task: sts.Task) -> dict:
    (pairs,) = task.subsets.values()
    x, y = (geometry.unit_rows(embed(texts)) for texts in (pairs.sentences1, pairs.sentences2))
    usable = np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1)
    rows = np.array(senteval_order(pairs), np.int64)
    rows = rows[usable[rows]]
    x, y, gold = x[rows], y[rows], pairs.gold[rows]
    whole = geometry.of_set(x, y, gold, POSITIVE)
    batches = geometry.of_batches(x, y, gold, BATCH, POSITIVE)
    texts = [text for row in rows for text in (pairs.sentences1[row], pairs.sentences2[row])]
    first = dict(zip(reversed(texts), reversed(range(len(texts))), strict=True))
    different = np.stack([x, y], axis=1).reshape(len(texts), x.shape[1])[sorted(first.values())]
    return {
        "dataset": {"alignment": whole.alignment, "uniformity": whole.uniformity},
        "per_batch": {"alignment": batches.alignment, "uniformity": batches.uniformity, "batch_size": BATCH},
        "anisotropy": anisotropy(different),
        "pairs": len(rows),
        "positives": int((gold >= POSITIVE).sum()),
        "sentences": len(different),
        "unusable_pairs": int((~usable).sum()),
    }


def anisotropy(rows: np.ndarray) -> dict:
    """Of unit rows [n, D] of different sentences."""
    shares = geometry.variance_shares(rows)
    first = {f"variance_first_{k}": None if shares is None else float(shares[:k].sum()) for k in DIRECTIONS}
    return {"mean_cosine": geometry.mean_cosine(rows), **first}


def senteval_order(pairs: sts.Subset) -> list[int]:
    """Pairs as SentEval's copies sort them before they make batches."""

    def key(row: int) -> tuple:
        return len(pairs.sentences1[row].split()), len(pairs.sentences2[row].split()), pairs.gold[row]

    return sorted(range(len(pairs.gold)), key=key)
