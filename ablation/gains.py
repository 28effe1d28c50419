"""What the runs say: scores of every arm, and differences with intervals, as `compare` finds them.

An arm is a recipe on a dataset, with all seeds. Holm's correction is over all differences told, so that the more is
looked at, the more a difference must be.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ablation.matrix import MODELS, RUNS, Matrix
from stages.evaluate.compare.claims import Claim, Comparison, Spread, compare, corrected, spreads
from stages.evaluate.compare.runs import AVERAGE, Arm, Board, arms_of, board

UNTRAINED, MCSE, MCSEO = "untrained", "mcse", "mcseo"
RESAMPLES, _SEED = 2000, 0
Cell = tuple[str, str]  # dataset, recipe


@dataclass(frozen=True)
class Gain:
    """The difference `arm` - `baseline` of the mean over the seven tasks, in points of Spearman x 100."""

    arm: Cell
    baseline: Cell
    claim: Claim
    comparison: Comparison


@dataclass(frozen=True)
class Findings:
    """`spread`: mean and standard deviation over seeds of the average, by arm; `gains` by (arm, baseline)."""

    spread: dict[Cell, Spread]
    gains: dict[tuple[Cell, Cell], Gain]

    def caution(self) -> list[str]:
        """What a reader must know before the figures, each once."""
        return list(dict.fromkeys(line for gain in self.gains.values() for line in gain.comparison.caution))


def find(plan: Matrix, runs: Path = RUNS, resamples: int = RESAMPLES) -> Findings:
    """Every arm of the matrix, and the differences that are told of it.

    Raises:
        InputError: a run is missing or damaged.
    """
    arms = {cell: _arm(runs, cell, plan.grid["untrained" if cell[1] == UNTRAINED else "seeds"]) for cell in cells(plan)}
    spread: dict[Cell, Spread] = {}
    wanted, made = [], []
    for base, others in comparisons(plan):
        table = board([arms[base], *(arms[cell] for cell in others)])
        found = {comparison.arm: comparison for comparison in compare(table, _name(base), resamples, _SEED)}
        wanted += [(cell, base) for cell in others]
        made += [found[_name(cell)] for cell in others]
        spread |= {cell: _spread(table, arms[cell]) for cell in (base, *others)}
    gains = {}
    for (arm, base), comparison in zip(wanted, corrected(made), strict=True):
        claim = next(claim for claim in comparison.claims if claim.task == AVERAGE)
        gains[arm, base] = Gain(arm, base, claim, comparison)
    return Findings(spread, gains)


def cells(plan: Matrix) -> list[Cell]:
    """Every arm: recipes on the base world, then MCSE and MCSEO on the other worlds, then MCSEO on the other pairs."""
    found = [(plan.base, recipe) for recipe in (UNTRAINED, *plan.grid["recipes"])]
    found += [(world, recipe) for world in plan.grid["noise"] for recipe in (MCSE, MCSEO)]
    return found + [(source, MCSEO) for source in plan.grid["sources"]]


def comparisons(plan: Matrix) -> list[tuple[Cell, list[Cell]]]:
    """Baselines, and what is compared with each.

    MCSE reads no pairs, so that of the base world is the baseline of every source of pairs. MCSEO's controls are
    compared with MCSEO too.
    """
    base, own = plan.base, plan.grid["recipes"]
    others = [(base, recipe) for recipe in (UNTRAINED, *own) if recipe != MCSE]
    found = [((base, MCSE), [*others, *((source, MCSEO) for source in plan.grid["sources"])])]
    if controls := [(base, recipe) for recipe in own if recipe.startswith(f"{MCSEO}-")]:
        found.append(((base, MCSEO), controls))
    return found + [((world, MCSE), [(world, MCSEO)]) for world in plan.grid["noise"]]


def curve(plan: Matrix) -> list[str]:
    """The worlds of the plot against noise, the base world in its place."""
    return [world for world in plan.worlds if world == plan.base or world in plan.grid["noise"]]


def sources(plan: Matrix) -> list[str]:
    """The datasets of the plot against quality: the base world's gold pairs first."""
    known = [name for name in (*plan.sources, MODELS) if name in plan.grid["sources"]]
    return [plan.base, *known]


def gain_of(found: Findings, plan: Matrix, dataset: str) -> Gain:
    """MCSEO - MCSE on a dataset."""
    return found.gains[(dataset, MCSEO), (plan.world_of(dataset), MCSE)]


def _arm(runs: Path, cell: Cell, seeds: Iterable[int]) -> Arm:
    dataset, recipe = cell
    return arms_of([], [(_name(cell), [runs / dataset / recipe / str(seed) / "scores" for seed in seeds])])[0]


def _name(cell: Cell) -> str:
    return f"{cell[1]} on {cell[0]}"


def _spread(table: Board, arm: Arm) -> Spread:
    return spreads(table, arm)[AVERAGE]
