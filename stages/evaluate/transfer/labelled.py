"""A transfer task in memory, whatever layout it was read from."""

from dataclasses import dataclass

import numpy as np

from model.errors import ModelError


@dataclass(frozen=True)
class Part:
    """Labelled sentences, or pairs of them: `texts` holds one list or two; labels: int64 [n]."""

    texts: tuple[list[str], ...]
    labels: np.ndarray

    @property
    def empty(self) -> int:
        """Sentences without a word."""
        return sum(not text for column in self.texts for text in column)

    def in_order(self) -> "Part":
        """By number of words, then label, else as they were: the order in which SentEval cuts its folds."""
        rows = zip(*self.texts, self.labels, strict=True)
        keys = [(*(len(text.split()) for text in texts), label) for *texts, label in rows]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        return Part(tuple([column[i] for i in order] for column in self.texts), self.labels[order])


@dataclass(frozen=True)
class Labelled:
    """A task: names of its classes by label, and its parts: `all`, or `train`, `test` and, if it
    chooses C, `dev`, in the order train, dev, test."""

    name: str
    classes: tuple[str, ...]
    parts: dict[str, Part]


def number_of(where: str, cell: str, classes: int) -> int:
    """The label a cell holds: a whole number below `classes`. Raises ModelError that begins with `where`."""
    text = cell.strip()
    if not text:
        raise ModelError(f"{where}: no label")
    if not (text.isascii() and text.isdigit() and int(text) < classes):
        raise ModelError(f"{where}: label {text[:20]!r} is none of {', '.join(map(str, range(classes)))}")
    return int(text)
