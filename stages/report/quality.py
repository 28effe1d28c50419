"""What the stage `quality` measured, for the page: its metrics of four stages and its worst cases."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from stages.common import cases
from stages.common.cases import Case
from stages.common.groups import ORDER
from stages.report.reasons import meaning

STAGES = ("parse", "detect", "segment", "align")
# What each case is found to be, by stage and reason; and why gold phrases have no right pair, where no drop says it.
_FOUND = {
    "align.right": "right",
    "align.other_object": "the mask is another annotated object’s",
    "align.off_mask": "the mask fits no annotated object, or none well enough",
    "align.denotes_nothing": "the phrase denotes nothing that the image shows",
    "align.wrong_pair": "its pair is not right",
    "parse.not_cut_out": "no phrase of the caption overlaps it",
    "parse.no_gold_phrase": "no gold phrase has any of these words",
    "parse.other_span": "the gold phrase begins or ends elsewhere",
    "detect.no_box_found": "no box was found for it",
    "detect.lower_rank": "another of its boxes is right, or right for one of its objects",
    "detect.another_phrase": "the right box was found, but for another phrase",
    "detect.off_box": "no box of the image is where the gold is",
    "segment.off_mask": "the box is right, the mask less so",
    "segment.no_mask": "the box is right and has no mask",
}
FAMILIES = {"kind": "Kind of gold phrase", "area": "Size of what it denotes", "length": "Length"}
# The lists of cases in the order of the page: name, headline, what the pictures show.
LISTS = {
    "pairs": "Worst pairs",
    "missed": "Gold without a right pair",
    "masks": "Worst masks of right boxes",
    "boxes": "Worst best-scored boxes",
    "phrases": "Phrases that are not gold’s",
}


@dataclass(frozen=True)
class Quality:
    """`bodies`: the metrics by stage, `lists`: cases by the names in `LISTS`."""

    bodies: dict[str, dict[str, Any]]
    lists: dict[str, list[Case]]

    @property
    def digest(self) -> str | None:
        """The hash of the gold; None: there is none."""
        return self.bodies["align"]["gold"]

    @property
    def cases(self) -> list[Case]:
        return [case for name in LISTS for case in self.lists.get(name, ())]

    def groups(self) -> list[tuple[str, list[tuple[str, dict[str, dict | None]]]]]:
        """Families of groups; of each group its name and the numbers of every stage, None if it has no such group."""
        found = []
        for family, names in ORDER.items():
            by = {stage: self.bodies[stage]["by"].get(family, {}) for stage in STAGES}
            rows = [(name, {stage: by[stage].get(name) for stage in STAGES}) for name in names]
            found.append((FAMILIES[family], [row for row in rows if any(row[1].values())]))
        return [(family, rows) for family, rows in found if rows]

    @property
    def missed(self) -> list[tuple[str, str, int]]:
        """Stage, reason and number of gold phrases without a right pair, commonest first."""
        stages = self.bodies["align"]["missed"].items()
        told = [(stage, reason, number) for stage, reasons in stages for reason, number in reasons.items()]
        return sorted(told, key=lambda item: (-item[2], item[:2]))


def read(metrics: Path, data: Path) -> Quality:
    """What lies in the stage's two folders.

    Raises:
        InputError: a file is missing or is not the stage's.
    """
    bodies = {}
    for stage in STAGES:
        file = metrics / f"{stage}.json"
        try:
            bodies[stage] = json.loads(file.read_text(encoding="utf-8"))
            bodies[stage]["gold"], bodies[stage]["all"], bodies[stage]["by"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{file}: no metrics of quality ({error}); run `dvc repro quality`") from None
    return Quality(bodies, cases.read(data / "cases.parquet"))


def why(stage: str, reason: str) -> str:
    """What a case is found to be, or why a gold phrase has no right pair, in words."""
    return _FOUND.get(f"{stage}.{reason}") or meaning(stage, reason) or reason
