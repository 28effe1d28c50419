"""Differences with their intervals, a panel a comparison, as SVG that is the same for the same figures."""

import io
from collections.abc import Sequence

import matplotlib

from stages.evaluate.compare.claims import Comparison, Result

matplotlib.use("agg")

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

# inches: the picture's width, a task's height, and what is around a panel
_WIDTH, _ROW, _LEFT, _RIGHT, _ABOVE, _BELOW = 7.2, 0.3, 0.9, 0.2, 0.35, 0.85
_SHOWN, _NOT = "#1f6f8b", "#8a8a8a"
_STYLE = {
    "svg.hashsalt": "compare",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "ytick.major.size": 0,
    "path.simplify": False,
}
_APART = 0.16  # of the two intervals of a task, in rows


def svg(comparisons: Sequence[Comparison]) -> str:
    """The picture: thick, the bootstrap's 95 % interval; thin, that of the t test; coloured where one is shown."""
    heights = [_ABOVE + _ROW * len(made.claims) + _BELOW for made in comparisons]
    high = top = sum(heights)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, high))
        for height, made in zip(heights, comparisons, strict=True):
            low, width = top - height + _BELOW, 1 - (_LEFT + _RIGHT) / _WIDTH
            _panel(figure.add_axes((_LEFT / _WIDTH, low / high, width, (height - _ABOVE - _BELOW) / high)), made)
            top -= height
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return buffer.getvalue()


def _panel(axes, made: Comparison) -> None:
    axes.axvline(0, color="black", linewidth=0.8)
    for row, claim in enumerate(made.claims):
        colour = _SHOWN if claim.shown else _NOT
        apart = _APART if claim.seeds else 0.0
        _bar(axes, claim.bootstrap, row - apart, colour, 3.2)
        if claim.seeds:
            _bar(axes, claim.seeds, row + apart, colour, 1.2)
        axes.plot(claim.difference, row, "o", color=colour, markersize=4.5, zorder=3)
    axes.set_yticks(range(len(made.claims)), [claim.task for claim in made.claims])
    axes.set_ylim(len(made.claims) - 0.5, -0.5)
    axes.grid(axis="x", linewidth=0.4)
    axes.set_axisbelow(True)
    axes.set_xlabel("points of Spearman x 100, with 95 % intervals")
    if made.of_recipe:
        title, handles = "", [Line2D([], [], color=_NOT, linewidth=3.2, label="bootstrap over seeds and pairs")]
        handles.append(Line2D([], [], color=_NOT, linewidth=1.2, label=made.test))
    else:
        title = f" ({made.these})"
        handles = [Line2D([], [], color=_NOT, linewidth=3.2, label="bootstrap over pairs alone")]
    handles.append(Line2D([], [], color=_SHOWN, marker="o", linestyle="", markersize=4.5, label="shown after Holm"))
    # a name of the user's may hold $, which would be read as mathematics
    axes.set_title(f"{made.arm} - {made.baseline}{title}".replace("$", r"\$"), loc="left", fontsize=10)
    under = -0.4 / (_ROW * len(made.claims))
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, under), ncols=3, frameon=False)


def _bar(axes, result: Result, row: float, colour: str, width: float) -> None:
    if result.low is not None:
        axes.plot([result.low, result.high], [row, row], color=colour, linewidth=width, solid_capstyle="butt")
