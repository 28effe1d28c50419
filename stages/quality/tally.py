"""Sums over everything and over groups, and what is made of them. Nothing is divided by zero: that is null."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from stages.common.groups import ORDER, Group

Numbers = dict[str, Any]


class Sums:
    """Named amounts, summed over all and over each group."""

    def __init__(self) -> None:
        self.all: Counter = Counter()
        self.of: dict[Group, Counter] = defaultdict(Counter)

    def add(self, groups: Iterable[Group], counted: bool = True, **amounts: float) -> None:
        """`counted`: over all, too; else only in the groups."""
        for sums in (*([self.all] if counted else []), *(self.of[group] for group in groups)):
            sums.update({name: +amount for name, amount in amounts.items()})  # + makes a number of True

    def told(self, made: Callable[[Counter], Numbers]) -> Numbers:
        """`made` of all sums (`all`), and of those of every group that there is (`by` family and name)."""
        families = {
            family: {name: made(self.of[family, name]) for name in names if (family, name) in self.of}
            for family, names in ORDER.items()
        }
        return {"all": made(self.all), "by": families}


def share(part: float, whole: float) -> float | None:
    """A share from 0 to 1; None of nothing."""
    return part / whole if whole else None


def f1(precision: float | None, recall: float | None) -> float | None:
    """The harmonic mean; None where one of them is not known."""
    if precision is None or recall is None:
        return None
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
