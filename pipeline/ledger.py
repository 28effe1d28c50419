"""The ledger: every unit that came in is through, dropped or rejected, and the numbers add up."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError, RejectError


@dataclass(frozen=True)
class Drop:
    """A unit that did not come through. `outcome` is `dropped` (a rule) or `rejected` (a bad record)."""

    unit: str
    id: str
    image_id: str | None
    outcome: str
    reason: str
    detail: str = ""


def count(units: dict[str, tuple[str, str]], seen: dict[str, int], written: dict[str, pa.Table]) -> dict[str, dict]:
    """Counts a shard's units: in = out + dropped + rejected, where all but `in` is counted in the tables themselves.

    Args:
        units: unit -> (written table, id column) whose distinct ids came through.
        seen: unit -> how many there were, as the stage counted them on the way in.
        written: the tables of the shard, `drops` among them.

    Raises:
        InputError: it does not add up, which is a bug of the stage.
    """
    groups = written["drops"].group_by(["unit", "outcome", "reason"]).aggregate([([], "count_all")]).to_pylist()
    lost = {(row["unit"], row["outcome"], row["reason"]): row["count_all"] for row in groups}
    ledger = {}
    for unit, (table, column) in units.items():
        out = pc.count_distinct(written[table].column(column), mode="only_valid").as_py()
        reasons = {
            outcome: {reason: number for (*of, reason), number in sorted(lost.items()) if of == [unit, outcome]}
            for outcome in ("dropped", "rejected")
        }
        came = seen[unit]
        if came != out + sum(reasons["dropped"].values()) + sum(reasons["rejected"].values()):
            raise InputError(
                f"the ledger of {plural(unit)} does not add up: {came} in, {out} out, {reasons}; this is a bug"
            )
        ledger[unit] = {"in": came, "out": out, **reasons}
    return ledger


def total(units: Iterable[str], ledgers: Iterable[dict[str, dict]]) -> dict[str, dict]:
    """The sum of several ledgers, units in the given order."""
    whole: dict[str, dict] = {unit: {"in": 0, "out": 0, "dropped": {}, "rejected": {}} for unit in units}
    for ledger in ledgers:
        for unit, counts in ledger.items():
            into = whole[unit]
            into["in"] += counts["in"]
            into["out"] += counts["out"]
            for outcome in ("dropped", "rejected"):
                for reason, number in counts[outcome].items():
                    into[outcome][reason] = into[outcome].get(reason, 0) + number
    return whole


def judge(stage: str, ledger: dict[str, dict], max_reject_rate: float, drops: Path, advice: str) -> None:
    """Ends a stage whose ledger is no result: too many bad records, or nothing came through of its first unit.

    Raises:
        RejectError: the commonest reasons are named.
        InputError: everything was dropped.
    """
    for unit, counts in ledger.items():
        rejected = sum(counts["rejected"].values())
        if rejected > max_reject_rate * counts["in"]:
            raise RejectError(
                f"{rejected} of {counts['in']} {plural(unit)} rejected, more than {stage}.max_reject_rate = "
                f"{max_reject_rate} allows: {_commonest(counts['rejected'])}; "
                f"the rows are in {drops}; mend them or raise the rate"
            )
    unit, counts = next(iter(ledger.items()))
    if counts["in"] and not counts["out"]:
        reasons = {**counts["dropped"], **counts["rejected"]}
        raise InputError(f"none of {counts['in']} {plural(unit)} came through: {_commonest(reasons)}; {advice}")


def plural(unit: str) -> str:
    """A unit in the plural."""
    return f"{unit}es" if unit.endswith("x") else f"{unit}s"


def _commonest(reasons: dict[str, int]) -> str:
    return ", ".join(f"{reason} {number}" for reason, number in Counter(reasons).most_common(5))
