"""The worst of many cases, kept while they pass by."""

import heapq

from stages.common.cases import Case
from stages.common.ids import draw_key

MOST = 8  # cards of a kind


class Worst:
    """The `MOST` cases of lowest value; of equal ones those that a hash of their id draws."""

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self._kept: list[tuple[float, str, str, Case]] = []

    def add(self, value: float, case: Case) -> None:
        if len(self._kept) == self.most and value > self._kept[-1][0]:
            return
        found = (value, draw_key(0, case.id), case.id, case)
        self._kept = heapq.nsmallest(self.most, [*self._kept, found], key=lambda item: item[:3])

    @property
    def cases(self) -> list[Case]:
        return [case for *_, case in self._kept]
