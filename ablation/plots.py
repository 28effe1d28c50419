"""The two plots, as SVG that is the same for the same figures."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib

from ablation.gains import Findings, Gain, curve, gain_of, sources
from ablation.matrix import MODELS, Matrix
from ablation.pages import Quality

matplotlib.use("agg")

from matplotlib.figure import Figure

_STYLE = {
    "svg.hashsalt": "ablation",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "path.simplify": False,
}
_SIZE = 6.4, 3.8  # inches
_COLOURS = ("#1f6f8b", "#c2571a", "#5b8c2a", "#7a4f9a")
_UNDER = "thick: 95 % interval over seeds and sentence pairs; thin: over seeds; filled: shown after Holm's correction"


@dataclass(frozen=True)
class Point:
    """A gain at `x`; `label` (the share that was spoilt) is written beside it."""

    x: float
    gain: Gain
    label: str = ""


@dataclass(frozen=True)
class Line:
    """Points of one kind, joined if there are several."""

    label: str
    points: tuple[Point, ...]


def against_noise(plan: Matrix, found: Findings) -> str:
    """Gain of MCSEO over MCSE against noise: of both kinds together, and of either alone."""
    lines = []
    for label, of in _NOISE:
        worlds = [(of(plan.worlds[name]), name) for name in curve(plan)]
        points = sorted((100 * x, name) for x, name in worlds if x is not None)
        if any(x for x, _ in points):
            lines.append(Line(label, tuple(Point(x, gain_of(found, plan, name)) for x, name in points)))
    return _drawn(lines, "noise, % (shown but not said; said but not shown)", spread=1.0)


_Share = Callable[[dict[str, float]], float | None]
_NOISE: tuple[tuple[str, _Share], ...] = (
    ("both", lambda noise: noise["image_noise"] if noise["image_noise"] == noise["caption_noise"] else None),
    ("shown but not said", lambda noise: noise["image_noise"] if not noise["caption_noise"] else None),
    ("said but not shown", lambda noise: noise["caption_noise"] if not noise["image_noise"] else None),
)


def against_quality(plan: Matrix, found: Findings, quality: Quality) -> str:
    """Gain of MCSEO over MCSE against the measured precision of its pairs."""
    kinds: dict[str, list[Point]] = {}
    for name in sources(plan):
        kind = "gold" if name == plan.base else MODELS if name == MODELS else plan.sources[name]["kind"]
        label = f"{100 * plan.sources[name]['share']:g} %" if name in plan.sources else ""
        point = Point(100 * quality[name]["precision"], gain_of(found, plan, name), label)
        kinds.setdefault(kind, []).append(point)
    lines = [Line(kind, tuple(sorted(points, key=lambda point: point.x))) for kind, points in kinds.items()]
    return _drawn(lines, "precision of the pairs against gold, %", spread=0.7)


def _drawn(lines: Sequence[Line], what: str, spread: float) -> str:
    """`spread`: how far lines of several points stand apart along x, so that points at one x do not hide each other."""
    joined = [line for line in lines if len(line.points) > 1]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.add_subplot()
        axes.axhline(0, color="black", linewidth=0.8)
        for line, colour in zip(lines, _COLOURS, strict=False):
            apart = spread * (joined.index(line) - (len(joined) - 1) / 2) if line in joined else 0.0
            _line(axes, line, colour, apart)
        axes.grid(axis="y", linewidth=0.4)
        axes.set_axisbelow(True)
        axes.set_xlabel(what)
        axes.set_ylabel("MCSEO - MCSE, Spearman x 100")
        axes.legend(frameon=False)
        figure.supxlabel(_UNDER, fontsize=7, color="#555555")
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return buffer.getvalue()


def _line(axes, line: Line, colour: str, apart: float) -> None:
    xs = [point.x + apart for point in line.points]
    axes.plot(xs, [point.gain.claim.difference for point in line.points], color=colour, linewidth=1, label=line.label)
    for x, point in zip(xs, line.points, strict=True):
        claim = point.gain.claim
        for result, width in ((claim.bootstrap, 3.0), (claim.seeds, 1.0)):
            if result is not None and result.low is not None:
                axes.plot([x, x], [result.low, result.high], color=colour, linewidth=width, alpha=0.5)
        axes.plot(x, claim.difference, "o", color=colour, fillstyle="full" if claim.shown else "none", markersize=5)
        if point.label:
            place = {"xytext": (4, 3) if apart < 0 else (4, -9), "textcoords": "offset points"}
            axes.annotate(point.label, (x, claim.difference), **place, fontsize=7, color=colour)
