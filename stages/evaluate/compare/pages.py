"""The comparison as text: one list of lines and tables, printed by rich and written as Markdown; figures as CSV."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from stages.evaluate.compare.claims import (
    LEVEL,
    NO_DIFFERENCE,
    Claim,
    Comparison,
    Result,
    Spread,
    of_one_checkpoint,
    spreads,
)
from stages.evaluate.compare.runs import AVERAGE, Board

RULE = (
    f"A difference is shown only if both methods have p < {LEVEL} after Holm's correction over the tasks: the "
    f"bootstrap over seeds and sentence pairs together, and a t test over seeds. Otherwise: {NO_DIFFERENCE}."
)
_COLUMNS = (
    *("arm", "baseline", "task", "pairs", "seeds", "mean", "sd", "difference", "claim_about"),
    *("bootstrap_low", "bootstrap_high", "bootstrap_p", "bootstrap_p_holm"),
    *("t_test", "t_low", "t_high", "t_p", "t_p_holm", "verdict"),
)


@dataclass(frozen=True)
class Grid:
    """A table: a title, the heads of its columns, and rows of cells."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


Page = list[str | Grid]


def page(board: Board, comparisons: Sequence[Comparison]) -> Page:
    """Everything that is told, in order."""
    told: Page = [_means(board), *board.left_out.values(), *board.caution]
    if board.withheld:
        told.append(f"average withheld: {board.withheld}")
    if not comparisons:
        told += filter(None, (of_one_checkpoint(board, arm) for arm in board.arms))
        told.append("one arm: nothing to compare it with")
    for made in comparisons:
        told += [_differences(made), *made.caution, conclusion(made)]
    if any(made.of_recipe for made in comparisons):
        told.append(RULE)
    if not all(made.of_recipe for made in comparisons):
        told.append(
            "A bootstrap over sentence pairs alone speaks of the checkpoints it was given: another seed of either "
            "recipe may reverse it."
        )
    return told


def conclusion(made: Comparison) -> str:
    """The comparison in one line."""
    what = (
        f"{made.arm} against {made.baseline}"
        if made.of_recipe
        else f"{made.these} ({made.arm} against {made.baseline})"
    )
    shown = [claim for claim in made.claims if claim.shown]
    if not shown:
        return f"{what}: {NO_DIFFERENCE}"
    parts = []
    for verdict in ("higher", "lower"):
        names = [claim.task for claim in shown if claim.verdict == verdict]
        if names:
            parts.append(f"{verdict} on {', '.join(names)}")
    rest = [claim.task for claim in made.claims if not claim.shown]
    if rest:
        parts.append(f"{NO_DIFFERENCE} on {', '.join(rest)}")
    return f"{what}: {'; '.join(parts)}"


def _means(board: Board) -> Grid:
    rows = []
    for arm in board.arms:
        seeds = f"{len(arm.runs)}" if arm.seeds is None else f"{len(arm.runs)} ({_ranges(arm.seeds)})"
        rows.append((arm.name, seeds, *(_spread(spread) for spread in spreads(board, arm).values())))
    title = "Spearman x 100, all pairs of a task together: mean ± standard deviation over seeds"
    return Grid(title, ("arm", "seeds", *board.points), tuple(rows))


def _differences(made: Comparison) -> Grid:
    each = f"{made.arm} - {made.baseline}"
    heads = ["task", "difference", "95 % interval", "p", "Holm"]
    if made.of_recipe:
        title = f"{each}: bootstrap over seeds and pairs, and {made.test}"
        heads += ["95 % interval (t)", "p (t)", "Holm (t)"]
    else:
        title = f"{each}: bootstrap over pairs alone, {made.these}"
    return Grid(title, (*heads, "verdict"), tuple(_row(claim) for claim in made.claims))


def _row(claim: Claim) -> tuple[str, ...]:
    methods = [claim.bootstrap] if claim.seeds is None else [claim.bootstrap, claim.seeds]
    cells = [cell for method in methods for cell in (_interval(method), _p(method.p), _p(method.holm))]
    return claim.task, f"{claim.difference:+.2f}", *cells, claim.verdict


def _spread(spread: Spread) -> str:
    return f"{spread.mean:.2f}" + ("" if spread.sd is None else f" ± {spread.sd:.2f}")


def _interval(result: Result) -> str:
    return "none" if result.low is None else f"{result.low:+.2f} to {result.high:+.2f}"


def _p(value: float) -> str:
    return "<.0001" if value < 1e-4 else f"{value:.4f}".removeprefix("0") if value < 1 else "1"


def _ranges(numbers: Sequence[int]) -> str:
    """0, 1, 2, 5 -> 0-2, 5."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)


# ------------------------------------------------------------ the three forms


def print_page(told: Page, console: Console) -> None:
    for part in told:
        if isinstance(part, str):
            console.print(part, markup=False, highlight=False)
            continue
        table = Table(title=part.title, title_justify="left")
        for place, head in enumerate(part.heads):
            table.add_column(head, justify="left" if place == 0 else "right")
        for row in part.rows:
            table.add_row(*row)
        console.print(table, markup=False, highlight=False)


def markdown(told: Page, runs: Sequence[str], how: str, picture: str | None) -> str:
    """The page as Markdown. `runs`: what was compared; `how`: the command's settings in words."""
    lines = ["# Comparison of runs", ""]
    for part in told:
        if isinstance(part, str):
            lines += [_escaped(part), ""]
            continue
        lines += [f"**{_escaped(part.title)}**", ""]
        for row in (part.heads, ("---", *("---:" for _ in part.heads[1:])), *part.rows):
            lines.append("| " + " | ".join(_escaped(cell) for cell in row) + " |")
        lines.append("")
    if picture:
        lines += [f"![differences with their intervals]({picture})", ""]
    lines += [_escaped(how), "", "Runs:", "", *(f"- {_escaped(run)}" for run in runs)]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def as_csv(board: Board, comparisons: Sequence[Comparison]) -> str:
    """One row an arm and task: its mean and spread, and its difference from the baseline (empty for the baseline)."""
    of_arm = {made.arm: made for made in comparisons}
    buffer = io.StringIO()
    rows = csv.DictWriter(buffer, _COLUMNS, lineterminator="\n")
    rows.writeheader()
    for arm in board.arms:
        made = of_arm.get(arm.name)
        claims = {claim.task: claim for claim in made.claims} if made else {}
        for name, spread in spreads(board, arm).items():
            row = {"arm": arm.name, "task": name, "seeds": len(arm.runs)}
            row["pairs"] = len(board.gold[name]) if name != AVERAGE else ""
            row |= {"mean": _exact(spread.mean), "sd": _exact(spread.sd)}
            if made:
                row |= _compared(made, claims[name])
            rows.writerow(row)
    return buffer.getvalue()


def _compared(made: Comparison, claim: Claim) -> dict[str, object]:
    row = {"baseline": made.baseline, "difference": _exact(claim.difference), "verdict": claim.verdict}
    row["claim_about"] = "recipe" if made.of_recipe else "these checkpoints"
    row["t_test"] = made.test
    for method, result in (("bootstrap", claim.bootstrap), ("t", claim.seeds)):
        if result:
            row |= {f"{method}_low": _exact(result.low), f"{method}_high": _exact(result.high)}
            row |= {f"{method}_p": _exact(result.p), f"{method}_p_holm": _exact(result.holm)}
    return row


def _exact(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
