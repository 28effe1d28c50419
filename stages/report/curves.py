"""Training curves as inline SVG that takes its colours from the page, so that it reads in the light and in the dark."""

import io
import re
import statistics
import xml.etree.ElementTree as ET
from dataclasses import dataclass

import matplotlib
from markupsafe import Markup

from stages.report.scores import Log

matplotlib.use("agg")

from matplotlib.figure import Figure

POINTS = 120
SERIES = 6
_SIZE = (4.4, 2.6)  # inches of 72 units
# Stand-ins that are swapped for the page's colours (CSS classes) once the chart is drawn.
_INK, _MUTED, _RULE = "#00000a", "#00000b", "#00000c"
_SERIES = [f"#0000a{i}" for i in range(SERIES)]
_CLASS = {_INK: "ink", _MUTED: "muted", _RULE: "rule", **{colour: f"s{i}" for i, colour in enumerate(_SERIES)}}
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.size": 9,
    "axes.edgecolor": _RULE,
    "axes.linewidth": 0.8,
    "xtick.color": _RULE,
    "ytick.color": _RULE,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "grid.color": _RULE,
    "grid.linewidth": 0.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "ytick.major.size": 0,
    "xtick.major.size": 3,
    "path.simplify": False,
}
_URL = re.compile(r"url\(#([^)]+)\)")


@dataclass(frozen=True)
class Chart:
    """`title` and `note` are set beside the picture; `note` says what a point is."""

    title: str
    note: str
    svg: Markup


def charts(runs: list[Log], recipes: list[str]) -> list[Chart]:
    """STS-B dev by step, and the loss by step for each kind of batch (losses of different kinds do not compare)."""
    drawn = []
    dev = [(run, run.dev) for run in runs if run.dev]
    if any(len(points) > 1 for _, points in dev):
        lines = [(run.recipe, points) for run, points in dev if len(points) > 1]
        levels = [(run.recipe, points[0][1]) for run, points in dev if len(points) == 1]
        note = "Spearman × 100 on the development set, by step" + (
            "; dashed: a run that takes no step" if levels else ""
        )
        drawn.append(Chart("Development score", note, _svg("dev", recipes, lines, levels)))
    for kind in dict.fromkeys(kind for run in runs for kind in run.losses):
        of_kind = [(run.recipe, run.losses[kind]) for run in runs if kind in run.losses]
        width = max(-(-len(points) // POINTS) for _, points in of_kind)
        lines = [(recipe, binned(points, width)) for recipe, points in of_kind]
        note = "by step" + (f"; each point is the mean of {width} such batches" if width > 1 else "")
        drawn.append(Chart(f"Loss on {kind} batches", note, _svg(f"loss-{len(drawn)}", recipes, lines, [])))
    return drawn


def binned(points: list[tuple[int, float]], width: int) -> list[tuple[float, float]]:
    """Means over `width` points in a row; the last bin may hold fewer."""
    parts = [points[i : i + width] for i in range(0, len(points), width)]
    return [(statistics.fmean(s for s, _ in part), statistics.fmean(v for _, v in part)) for part in parts]


def _svg(name: str, recipes: list[str], lines: list, levels: list) -> Markup:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=_SIZE)
        axes = figure.add_axes((0.09, 0.11, 0.86, 0.85))
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        for recipe, value in levels:
            axes.axhline(value, color=_colour(recipes, recipe), linewidth=1.4, dashes=(4, 3))
        for recipe, points in lines:
            mark = "o" if len(points) <= 40 else None
            axes.plot(
                *zip(*points, strict=True), color=_colour(recipes, recipe), linewidth=1.6, marker=mark, markersize=2.6
            )
        axes.margins(x=0.02, y=0.08)
        axes.locator_params(axis="both", nbins=6)
        buffer = io.StringIO()
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    return for_page(buffer.getvalue(), name)


def _colour(recipes: list[str], recipe: str) -> str:
    return _SERIES[recipes.index(recipe) % SERIES]


def for_page(svg: str, prefix: str) -> Markup:
    """An SVG document as an element of the page.

    Style attributes become presentation attributes (the page's Content-Security-Policy lets no inline style through),
    stand-in colours become classes, fonts are the page's, and ids get a prefix. Text stays text, escaped.
    """
    root = ET.fromstring(svg)
    used = {match for element in root.iter() for value in element.attrib.values() for match in _URL.findall(value)}
    used |= {
        v[1:] for element in root.iter() for k, v in element.attrib.items() if k.endswith("href") and v.startswith("#")
    }
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = _attributes(element.attrib, used, prefix)
    for extra in ("width", "height", "version"):
        root.attrib.pop(extra, None)
    root.attrib.update({"aria-hidden": "true", "stroke-linejoin": "round", "class": "chart"})
    return Markup(ET.tostring(root, encoding="unicode"))


def _local(name: str) -> str:
    return name.rsplit("}", 1)[-1]


def _attributes(given: dict[str, str], used: set[str], prefix: str) -> dict[str, str]:
    flat = {_local(key): value for key, value in given.items() if _local(key) != "style"}
    for declaration in given.get("style", "").split(";"):
        key, _, value = declaration.partition(":")
        if value:
            flat[key.strip()] = value.strip()
    if font := flat.pop("font", None):
        flat["font-size"] = re.search(r"([\d.]+)px", font)[1]
    classes = []
    for key in ("fill", "stroke"):
        if colour := _CLASS.get(flat.get(key, "")):
            classes.append(f"{key}-{colour}")
            del flat[key]
    if classes:
        flat["class"] = " ".join(classes)
    if "id" in flat and flat.pop("id") in used:
        flat["id"] = f"{prefix}-{given['id']}"
    for key, value in flat.items():
        flat[key] = _URL.sub(rf"url(#{prefix}-\1)", value)
        if key == "href" and value.startswith("#"):
            flat[key] = f"#{prefix}-{value[1:]}"
    return flat
