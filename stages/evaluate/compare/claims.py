"""What may be said of a recipe: two methods, Holm's correction, and one rule.

1. Hierarchical bootstrap. A draw takes sentence pairs with replacement, the same for both arms, and seeds with
   replacement, the same for both where both arms have the same seeds, else of each arm by itself, and looks at the
   difference of the arms' means. It answers for the choice of seeds and of pairs together.
2. Student's t over seeds: paired where both arms have the same seeds, else Welch's. It answers for seeds alone, but
   knows how little so few of them tell.

The rule: a difference is shown if both methods have p < `LEVEL` after Holm's correction, else "no difference shown".
Under `ENOUGH` different checkpoints in an arm, or if its runs are not different seeds of one recipe, nothing is said of
the recipe: pairs alone are drawn, for these very checkpoints. One exception: `untrained` that is the same under all its
seeds. No step was taken, so no seed could have given another; that checkpoint is all there is of the recipe, and the
other arm's seeds are judged against it (Welch's t, which then is the one-sample t).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import stats

from model.sts import SEVEN
from stages.evaluate.compare.resample import generator, resample
from stages.evaluate.compare.runs import AVERAGE, Arm, Board, checkpoints

LEVEL = 0.05
ENOUGH = 3
UNTRAINED = "untrained"
NO_DIFFERENCE = "no difference shown"
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_ALIKE = 1e-9  # points of Spearman x 100 below which scores are the same


@dataclass(frozen=True)
class Spread:
    """A task's scores over an arm's seeds. `sd`: of the sample (n - 1); None for one seed."""

    mean: float
    sd: float | None


@dataclass(frozen=True)
class Result:
    """What one method says of a difference: 95 % interval (None if it has none), p, and p after Holm."""

    low: float | None
    high: float | None
    p: float
    holm: float = math.nan


@dataclass(frozen=True)
class Claim:
    """One task's difference, arm - baseline, in points of Spearman x 100. `seeds`: Student's t; None under 3 seeds."""

    task: str
    difference: float
    bootstrap: Result
    seeds: Result | None

    @property
    def shown(self) -> bool:
        return all(result.holm < LEVEL for result in (self.bootstrap, self.seeds) if result is not None)

    @property
    def verdict(self) -> str:
        return ("higher" if self.difference > 0 else "lower") if self.shown else NO_DIFFERENCE


@dataclass(frozen=True)
class Comparison:
    """An arm against the baseline. `of_recipe`: whether it may speak of recipes, or of these checkpoints only;
    `single`: one on either side, copies aside.

    `test`: the name of the t test. `caution`: what a reader must know before the figures.
    """

    arm: str
    baseline: str
    of_recipe: bool
    single: bool
    test: str
    claims: tuple[Claim, ...]
    caution: tuple[str, ...] = field(default=())

    @property
    def these(self) -> str:
        """What is compared where nothing is said of recipes."""
        return "these two checkpoints" if self.single else "these checkpoints"


def spreads(board: Board, arm: Arm) -> dict[str, Spread]:
    """Mean and standard deviation over the arm's seeds, by task, and of the average if there is one."""
    own = {name: scores[board.rows[arm.name]] for name, scores in board.points.items()}
    return {name: Spread(float(v.mean()), float(v.std(ddof=1)) if len(v) > 1 else None) for name, v in own.items()}


def compare(board: Board, baseline: str, resamples: int, seed: int) -> list[Comparison]:
    """Every other arm against `baseline`.

    Holm's correction is over the tasks of all comparisons; over their averages separately.
    """
    scores = resample(board.gold, board.cosines, resamples, seed)
    if AVERAGE in board.points:
        scores[AVERAGE] = np.mean([scores[name] for name in SEVEN], axis=0)
    arms = {arm.name: arm for arm in board.arms}
    found = [_one(board, scores, arm, arms[baseline], resamples, seed) for arm in board.arms if arm.name != baseline]
    return corrected(found)


def _one(board: Board, scores: dict[str, np.ndarray], arm: Arm, base: Arm, resamples: int, seed: int) -> Comparison:
    sides = arm, base
    sizes = tuple(len(checkpoints(board, side)) for side in sides)
    fixed = [side for side, size in zip(sides, sizes, strict=True) if size == 1 and _is_fixed(side)]
    silent = _silent(sides, sizes, fixed)
    of_recipe = not silent
    paired = arm.seeds is not None and arm.seeds == base.seeds and not fixed
    taken = {side.name: seed_draws(base if paired else side, resamples, seed) for side in sides}
    if not of_recipe:
        taken = dict.fromkeys(taken)  # every run once
    claims = []
    for name, values in scores.items():
        means = {side: arm_means(values[:, board.rows[side]], taken[side]) for side in taken}
        one, two = (board.points[name][board.rows[side]] for side in taken)
        claims.append(
            Claim(
                name,
                float(one.mean() - two.mean()),
                of_draws(means[arm.name] - means[base.name]),
                of_seeds(one, two, paired) if of_recipe else None,
            )
        )
    caution = [*silent, *filter(None, (of_one_checkpoint(board, side) for side in sides))]
    test = f"paired t over {len(arm.runs)} seeds" if paired else "Welch's t over seeds"
    if of_recipe and not paired:
        caution.append(f"Welch's t in place of the paired one: {_why_unpaired(sides, fixed)}")
    test = test if of_recipe else ""
    return Comparison(arm.name, base.name, of_recipe, sizes == (1, 1), test, tuple(claims), tuple(caution))


def _silent(sides: tuple[Arm, Arm], sizes: tuple[int, int], fixed: list[Arm]) -> list[str]:
    """Why nothing is said of the recipes; empty where something is. `sizes`: different checkpoints of each arm."""
    enough = [size >= ENOUGH or side in fixed for side, size in zip(sides, sizes, strict=True)]
    found = [] if all(enough) and len(fixed) < 2 else [_too_few(*sizes)]
    for side in sides:
        recipes = dict.fromkeys(run.recipe for run in side.runs if run.recipe is not None)
        seeds = [run.seed for run in side.runs if run.seed is not None]
        if len(recipes) > 1:
            found.append(f"{side.name} is runs of several recipes ({', '.join(recipes)})")
        elif len(set(seeds)) < len(seeds):
            found.append(f"{side.name} has a seed twice")
    return [f"{why}: no claim about the recipe" for why in found]


def _too_few(arm: int, baseline: int) -> str:
    words = [_NUMBERS[n] if n < len(_NUMBERS) else str(n) for n in (arm, baseline)]
    noun = "checkpoint" if arm == 1 else "checkpoints"
    return f"{words[0]} {noun} each" if arm == baseline else f"{words[0]} {noun} against {words[1]}"


def _is_fixed(arm: Arm) -> bool:
    """Whether an arm that is one checkpoint is so by nature: `untrained` under seeds enough to see it."""
    return arm.seeds is not None and len(arm.runs) >= ENOUGH and _is_untrained(arm)


def _is_untrained(arm: Arm) -> bool:
    return all(run.recipe == UNTRAINED for run in arm.runs)


def _why_unpaired(sides: tuple[Arm, Arm], fixed: list[Arm]) -> str:
    if fixed:
        return f"{fixed[0].name} does not vary with the seed"
    return "not all seeds are known" if None in (side.seeds for side in sides) else "the arms have different seeds"


def of_one_checkpoint(board: Board, arm: Arm) -> str | None:
    """What is to be told of an arm whose several runs are one checkpoint."""
    if len(arm.runs) == 1 or len(checkpoints(board, arm)) > 1:
        return None
    why = ", as nothing was trained" if _is_untrained(arm) else ""
    return f"all {len(arm.runs)} runs of {arm.name} score the same: they are one checkpoint, whatever their seeds{why}"


# ------------------------------------------------------------ hierarchical bootstrap


def seed_draws(arm: Arm, resamples: int, seed: int) -> np.ndarray:
    """How often each of the arm's runs is taken, float64 [resamples, n]; an arm's draws depend on no other arm."""
    count = len(arm.runs)
    return generator(seed, f"seeds of {arm.name}").multinomial(count, [1 / count] * count, size=resamples).astype(float)


def arm_means(scores: np.ndarray, taken: np.ndarray | None) -> np.ndarray:
    """The arm's mean in every draw: scores [B, n] on the draw's pairs, taken [B, n] (None: every run once) -> [B].

    Means of n values drawn from n values vary by (n - 1) / n of what they should; with five seeds that is a fifth too
    little, so the part of a mean that is due to the choice of seeds is stretched by sqrt(n / (n - 1)).
    """
    middle = scores.mean(axis=1)
    if taken is None:
        return middle
    count = scores.shape[1]
    return middle + math.sqrt(count / (count - 1)) * ((scores * taken).sum(axis=1) / count - middle)


def of_draws(differences: np.ndarray) -> Result:
    """Percentile interval, and the two-sided p at which it would just reach 0 (at best 2 / (draws + 1))."""
    low, high = np.quantile(differences, [LEVEL / 2, 1 - LEVEL / 2])
    beyond = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return Result(float(low), float(high), min(1.0, 2 * (beyond + 1) / (len(differences) + 1)))


# ------------------------------------------------------------ t over seeds


def of_seeds(one: np.ndarray, two: np.ndarray, paired: bool) -> Result:
    """Student's t of the difference of means of one [n] and two [m]; paired: row i of both is of one seed.

    Where nothing varies with the seed there is nothing to judge a difference by: p = 1 and no interval.
    """
    if paired:
        differences = one - two
    elif np.ptp(two) < _ALIKE:  # Welch's t with no variance on one side is the one-sample t of the other
        differences = one - two.mean()
    elif np.ptp(one) < _ALIKE:
        differences = one.mean() - two
    else:
        differences = None
    if differences is not None and np.ptp(differences) < _ALIKE:
        return Result(None, None, 1.0)
    test = stats.ttest_ind(one, two, equal_var=False) if differences is None else stats.ttest_1samp(differences, 0.0)
    interval = test.confidence_interval(1 - LEVEL)
    return Result(float(interval.low), float(interval.high), float(test.pvalue))


# ------------------------------------------------------------ Holm


def holm(values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: the k-th smallest of m p values times m - k + 1, never below a smaller one's."""
    adjusted, least = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        least = max(least, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = least
    return adjusted


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons with `holm` filled in, for each method by itself."""
    claims = {(i, claim.task): claim for i, made in enumerate(comparisons) for claim in made.claims}
    for method in ("bootstrap", "seeds"):
        for average in (False, True):
            family = [key for key, claim in claims.items() if (key[1] == AVERAGE) == average and getattr(claim, method)]
            adjusted = holm([getattr(claims[key], method).p for key in family])
            for key, value in zip(family, adjusted, strict=True):
                result = replace(getattr(claims[key], method), holm=value)
                claims[key] = replace(claims[key], **{method: result})
    return [
        replace(made, claims=tuple(claims[i, claim.task] for claim in made.claims))
        for i, made in enumerate(comparisons)
    ]
