"""The outcome of a check as a table in plain text."""

import math
from collections.abc import Iterable

from model.golden.check import Outcome
from model.golden.measure import DTYPES, Check

_FAILURES_SHOWN = 20


def lines(outcome: Outcome) -> list[str]:
    """A row for each case and tolerance with the largest error in float64 and float32, then what failed or was left."""
    groups: dict[tuple[str, str, str], list[Check]] = {}
    for check in outcome.checks:
        groups.setdefault((check.file, check.case, check.group), []).append(check)
    rows = [("file", "case", "tolerance of", "n", "float64", "allowed", "float32", "allowed", "")]
    for (file, case, group), checks in groups.items():
        cells: list[str] = []
        for dtype in DTYPES:
            worst = max((c for c in checks if c.dtype == dtype), key=_severity, default=None)
            cells += ["-", "-"] if worst is None else [f"{worst.error:.1e}", f"{worst.tolerance:.0e}"]
        verdict = "FAILED" if any(check.failed for check in checks) else "ok"
        rows.append((file, case, group, str(len({c.name for c in checks})), *cells, verdict))
    return [*_aligned(rows), "", *_findings(outcome), _summary(outcome)]


def _severity(check: Check) -> float:
    return math.inf if math.isnan(check.error) else check.error / (check.tolerance or 1e-300)


def _findings(outcome: Outcome) -> Iterable[str]:
    failed = sorted(outcome.failed, key=_severity, reverse=True)
    for check in failed[:_FAILURES_SHOWN]:
        yield (
            f"FAILED {check.file} {check.case}: {check.name} is off by {check.error:.1e} "
            f"({_precision(check)}), allowed {check.tolerance:.0e} ({check.group})"
        )
    if len(failed) > _FAILURES_SHOWN:
        yield f"... and {len(failed) - _FAILURES_SHOWN} more that failed"
    for left in outcome.unchecked:
        yield f"UNCHECKED {left.file} {left.case}: {left.why}"


def _summary(outcome: Outcome) -> str:
    cases = len({(check.file, check.case) for check in outcome.checks})
    state = "all within tolerance" if not outcome.failed else f"{len(outcome.failed)} over their tolerance"
    left = f", {len(outcome.unchecked)} unchecked" if outcome.unchecked else ""
    return f"{len(outcome.checks)} comparisons in {cases} cases: {state}{left}"


def _precision(check: Check) -> str:
    return str(check.dtype).removeprefix("torch.")


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    left = (0, 1, 2, 8)
    cells = (
        [c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths, strict=True))] for r in rows
    )
    return ["  ".join(row).rstrip() for row in cells]
