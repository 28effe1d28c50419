"""Where a suite finds what it reads, and what every suite is: the seam between the command and the suites.

A suite is a module of two functions:

    tasks(place) -> {task: content hash of the data it reads}, without the tasks whose data is not there
    run(embed, place, known) -> {"tasks": {task: {...scores} or {"missing": why}},
                                 "average": number or None, "withheld": why or None}

`known` holds scores of tasks from an earlier run over the same model and data; the suite takes them as they are,
computes the others, and makes the average of all. What `run` gives is plain JSON and has no times in it.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Place:
    """Where things lie, and how much of the machine a suite may use.

    `data`: the evaluation root (STS, transfer, downstream, probes, cxc below it); `collection`: a dataset's folder as
    the graph writes it (ingest/captions, embed/features, align/pairs); `threads`: threads or processes at once;
    `scratch`: a folder for what may be thrown away; `protocol`: of the STS tasks, `senteval` or `mteb`.
    """

    data: Path | None = None
    collection: Path | None = None
    threads: int = 1
    scratch: Path | None = None
    protocol: str = "senteval"
