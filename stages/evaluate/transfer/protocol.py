"""SentEval's three ways to a transfer score (its classifier scikit-learn's logistic regression, `usepytorch` False).

nested    MR, CR, SUBJ, MPQA: ten stratified folds; within the other nine, ten folds choose C; mean of ten accuracies.
crossed   TREC, MRPC: ten folds of the training set choose C; accuracy on the test set.
split     SST2: the dev set chooses C; accuracy on the test set.

Folds are shuffled with seed 1111. C is a power of two: 2^-2 to 2^3, but 2^-1 to 2^5 where the way is `crossed`, as in
SentEval's code. The smallest C wins a tie of two-decimal percents. Accuracies are percents, rounded where SentEval
rounds them.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from model.errors import ModelError
from stages.evaluate.transfer import logistic

SEED = 1111
FOLDS = 10
STRENGTHS = tuple(2.0**k for k in range(-2, 4))
CROSSED_STRENGTHS = tuple(2.0**k for k in range(-1, 6))


def nested(features: np.ndarray, labels: np.ndarray, classes: int) -> dict:
    """{'acc', 'devacc', 'c': C chosen in each fold, 'folds': accuracy of each}; features float32 [N, D]."""
    inner = FOLDS * FOLDS  # the columns before are of inner folds, the last ten learn from all that is not held out
    learn = np.zeros((len(labels), inner + FOLDS), dtype=bool)
    check = np.zeros_like(learn)
    for o, (rest, held) in enumerate(folds(labels)):
        for i, (some, others) in enumerate(folds(labels[rest])):
            learn[rest[some], o * FOLDS + i] = True
            check[rest[others], o * FOLDS + i] = True
        learn[rest, inner + o] = True
        check[held, inner + o] = True
    dev, test = [], []  # [strengths, folds]
    for hit in _hits(features, labels, classes, learn, STRENGTHS):
        accuracy = (hit & check).sum(axis=0) / check.sum(axis=0)
        dev.append([_percent(part) for part in accuracy[:inner].reshape(FOLDS, FOLDS)])
        test.append([_percent(part) for part in accuracy[inner:]])
    best = np.argmax(dev, axis=0)
    tested = [test[c][o] for o, c in enumerate(best)]
    return {
        "acc": round(float(np.mean(tested)), 2),
        "devacc": round(float(np.mean(np.max(dev, axis=0))), 2),
        "c": [STRENGTHS[c] for c in best],
        "folds": tested,
    }


def crossed(
    features: np.ndarray, labels: np.ndarray, classes: int, train: int, strengths: Sequence[float] = CROSSED_STRENGTHS
) -> tuple[dict, np.ndarray]:
    """({'acc', 'devacc', 'c'}, hits of the test rows); the first `train` rows are the training set, the rest the test.

    The last training set is all of it: the model that is tested needs no fit of its own.
    """
    learn = np.zeros((len(labels), FOLDS + 1), dtype=bool)
    check = np.zeros_like(learn)
    for i, (rest, held) in enumerate(folds(labels[:train])):
        learn[rest, i] = True
        check[held, i] = True
    learn[:train, FOLDS] = True
    check[train:, FOLDS] = True
    return _best(_hits(features, labels, classes, learn, strengths), check, strengths)


def split(features: np.ndarray, labels: np.ndarray, classes: int, train: int, dev: int) -> tuple[dict, np.ndarray]:
    """({'acc', 'devacc', 'c'}, hits of the test rows); rows: first `train`, then `dev`, the rest is the test set."""
    learn = np.zeros((len(labels), 1), dtype=bool)
    learn[:train] = True
    check = np.zeros((len(labels), 2), dtype=bool)
    check[train : train + dev, 0] = True
    check[train + dev :, 1] = True
    hits = (np.repeat(hit, 2, axis=1) for hit in _hits(features, labels, classes, learn, STRENGTHS))
    return _best(hits, check, STRENGTHS)


def _best(hits: Iterable[np.ndarray], check: np.ndarray, strengths: Sequence[float]) -> tuple[dict, np.ndarray]:
    """Over C: the columns but the last choose, the last is the test. `check` [N, M]: rows each column is scored on."""
    dev, test = [], []
    for hit in hits:
        dev.append(_percent([hit[check[:, m], m].mean() for m in range(check.shape[1] - 1)]))
        test.append(hit[check[:, -1], -1])
    best = int(np.argmax(dev))
    return {"acc": _percent(test[best]), "devacc": dev[best], "c": strengths[best]}, test[best]


def folds(labels: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Ten (training rows, held-out rows), stratified and shuffled as SentEval does it."""
    try:
        from sklearn.model_selection import StratifiedKFold
    except ImportError as error:
        raise ModelError(
            f"the folds of the transfer tasks come from scikit-learn, which does not load ({error}); "
            f"pip install scikit-learn"
        ) from error
    cut = StratifiedKFold(n_splits=FOLDS, shuffle=True, random_state=SEED)
    return list(cut.split(np.zeros(len(labels)), labels))


def _hits(features, labels, classes, learn, strengths) -> Iterable[np.ndarray]:
    """For each C, which rows the model of each training set gets right: bool [N, M]."""
    tensors = torch.from_numpy(features), torch.from_numpy(labels), classes, torch.from_numpy(learn)
    for predicted in logistic.predictions(*tensors, strengths):
        yield predicted.numpy() == labels[:, None]


def _percent(values) -> float:
    return round(100 * float(np.mean(values)), 2)
