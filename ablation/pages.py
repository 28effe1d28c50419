"""The findings as a table in Markdown and as plain values for metrics.json."""

from collections.abc import Mapping, Sequence
from typing import Any

from ablation.gains import MCSE, MCSEO, UNTRAINED, Cell, Findings, Gain, curve, gain_of, sources
from ablation.matrix import Matrix
from stages.evaluate.compare.claims import LEVEL, NO_DIFFERENCE, Result, Spread

Quality = Mapping[str, Mapping[str, float]]  # dataset -> precision, recall, mean_iou of its pairs, 0 to 1
_HOW = (
    "Mean of the seven tasks of the demo world's STS, Spearman x 100, with its standard deviation over {seeds} seeds. "
    "In brackets the 95 % interval of the bootstrap over seeds and sentence pairs, then of the t test over seeds; "
    "intervals are of one test each, p is after Holm's correction over all {tests} differences of this page, the "
    f"larger of both methods'. A difference is shown only if it is under {LEVEL}; otherwise: {NO_DIFFERENCE}."
)


def markdown(plan: Matrix, found: Findings, quality: Quality) -> str:
    """The page."""
    parts = ["# What the experiment shows", _how(plan, found), *found.caution()]
    parts += [f"## Recipes, on {plan.base} with gold pairs", _recipes(plan, found)]
    parts += ["## Noise", "![gain against noise](gain_noise.svg)", _noise(plan, found)]
    parts += ["## Quality of pairs", "![gain against the quality of pairs](gain_quality.svg)"]
    parts.append(_sources(plan, found, quality))
    return "\n\n".join(parts) + "\n"


def values(plan: Matrix, found: Findings, quality: Quality) -> dict[str, Any]:
    """What metrics.json holds."""
    return {
        "average": {_named(cell): _spread_values(one) for cell, one in found.spread.items()},
        "gain": {f"{_named(arm)} - {_named(base)}": _gain_values(one) for (arm, base), one in found.gains.items()},
        "pairs": {name: dict(quality[name]) for name in [*curve(plan), *sources(plan)[1:]]},
    }


def _named(cell: Cell) -> str:
    return "/".join(cell)


def _spread_values(one: Spread) -> dict[str, float | None]:
    return {"mean": round(one.mean, 3), "sd": None if one.sd is None else round(one.sd, 3)}


def _gain_values(one: Gain) -> dict[str, Any]:
    claim, found = one.claim, {"points": round(one.claim.difference, 3), "verdict": one.claim.verdict}
    for name, result in (("bootstrap", claim.bootstrap), ("seeds", claim.seeds)):
        if result is not None:
            told = {"low": result.low, "high": result.high, "p": result.p, "p_holm": result.holm}
            found[name] = {key: None if value is None else round(value, 4) for key, value in told.items()}
    return found


def _how(plan: Matrix, found: Findings) -> str:
    return _HOW.format(seeds=len(plan.grid["seeds"]), tests=len(found.gains))


def _recipes(plan: Matrix, found: Findings) -> str:
    base, rows = plan.base, []
    for recipe in (UNTRAINED, *plan.grid["recipes"]):
        against = [found.gains.get(((base, recipe), (base, other))) for other in (MCSE, MCSEO)]
        rows.append([recipe, _score(found.spread[base, recipe]), *map(_told, against)])
    return _table(["recipe", "average", "against mcse", "against mcseo"], rows)


def _noise(plan: Matrix, found: Findings) -> str:
    rows = []
    for world in curve(plan):
        noise = plan.worlds[world]
        scores = [_score(found.spread[world, recipe]) for recipe in (MCSE, MCSEO)]
        shares = [f"{100 * noise[name]:g} %" for name in ("image_noise", "caption_noise")]
        rows.append([world, *shares, *scores, _told(gain_of(found, plan, world))])
    return _table(["world", "shown, not said", "said, not shown", MCSE, MCSEO, "gain"], rows)


def _sources(plan: Matrix, found: Findings, quality: Quality) -> str:
    rows = []
    for name in sources(plan):
        known = [f"{100 * quality[name][key]:.1f}" for key in ("precision", "recall", "mean_iou")]
        called = "gold" if name == plan.base else name
        rows.append([called, *known, _score(found.spread[name, MCSEO]), _told(gain_of(found, plan, name))])
    return _table(["pairs", "precision", "recall", "mean IoU", MCSEO, "gain over mcse"], rows)


def _score(one: Spread) -> str:
    return f"{one.mean:.2f}" if one.sd is None else f"{one.mean:.2f} ± {one.sd:.2f}"


def _told(one: Gain | None) -> str:
    if one is None:
        return ""
    results = [result for result in (one.claim.bootstrap, one.claim.seeds) if result is not None]
    p = max(result.holm for result in results)
    return f"{one.claim.difference:+.2f} {' '.join(map(_interval, results))} p {p:.3f}: {one.claim.verdict}"


def _interval(result: Result) -> str:
    return "[no interval]" if result.low is None else f"[{result.low:+.2f}, {result.high:+.2f}]"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
