"""The ledger as a flow: from images to pairs, one stream drawn to scale, with what leaves it at every stage.

The stream is a list of steps, top to bottom. All widths are to one scale, one item of whatever unit, so the stream
grows where the unit changes (an image has several captions, a caption several phrases) and shrinks by what is
dropped.
"""

from dataclasses import dataclass

from pipeline.ledger import plural
from stages.report.records import StageRecord

# The way of a pair: a stage and the unit that it counts. Several units follow one another where a stage makes new ones.
WAY = (
    ("ingest", "image"),
    ("ingest", "caption"),
    ("parse", "caption"),
    ("parse", "phrase"),
    ("detect", "phrase"),
    ("segment", "box"),
    ("align", "candidate"),
)
# Of the width of the picture, in percent: the widest stream, and how far a branch moves aside.
STREAM, ASIDE = 74.0, 22.0
TURNS = {
    ("image", "caption"): "every image with its captions",
    ("caption", "phrase"): "phrases are cut out of the captions",
    ("phrase", "box"): "boxes are looked for; a phrase may get several",
    ("box", "candidate"): "each mask is a candidate for its phrase, and so is the union where the phrase counts",
    ("candidate", "pair"): "one phrase, one pair",
}


@dataclass(frozen=True)
class Step:
    """A piece of the stream.

    `kind` is `level` (`number` items of `unit` arrive), `branch` (`number` of them leave, for `reason`; `outcome`
    says by rule or as bad records), or `turn` (the unit changes). `stream` and `branch` are SVG path data in a box of
    100 x 100 that is stretched to the step's own height.
    """

    kind: str
    number: int
    unit: str
    stream: str
    stage: str = ""
    whole: int = 0
    branch: str = ""
    reason: str = ""
    outcome: str = ""
    note: str = ""


def steps(records: list[StageRecord]) -> list[Step]:
    """The flow of a finished dataset, from the ledgers of its stages."""
    ledgers = {(record.name, unit): counts for record in records for unit, counts in record.ledger.items()}
    way = [(stage, unit, ledgers[stage, unit]) for stage, unit in WAY if (stage, unit) in ledgers]
    scale = STREAM / max(1, *(counts["in"] for _, _, counts in way))
    made: list[Step] = []
    unit, left = "", 0
    for stage, next_unit, counts in way:
        came = counts["in"]
        if made and (next_unit != unit or came != left):
            made.append(_turn(unit, next_unit, left, came, scale))
        if not made or next_unit != unit:
            made.append(Step("level", came, _plural(next_unit, came), _band(came * scale, came * scale)))
        unit, left = next_unit, came
        for outcome in ("dropped", "rejected"):
            for reason, number in sorted(counts[outcome].items(), key=lambda item: (-item[1], item[0])):
                made.append(_branch(unit, stage, outcome, reason, number, left, came, scale))
                left -= number
    made.append(_turn(unit, "pair", left, left, scale))
    made.append(Step("level", left, _plural("pair", left), _band(left * scale, left * scale)))
    return made


def _turn(unit: str, next_unit: str, left: int, came: int, scale: float) -> Step:
    note = TURNS.get((unit, next_unit), "")
    return Step("turn", left, _plural(unit, left), _band(left * scale, came * scale), note=note)


def _branch(unit: str, stage: str, outcome: str, reason: str, number: int, left: int, came: int, scale: float) -> Step:
    stays, goes = (left - number) * scale, left * scale
    # Drawn from the stream's right edge; hairlines are widened a little so that one lost item can be seen.
    end = stays + ASIDE
    width = max(goes - stays, 0.5)
    path = (
        f"M{_n(stays)},0C{_n(stays)},55 {_n(end)},45 {_n(end)},100L{_n(end + width)},100"
        f"C{_n(end + width)},45 {_n(stays + width)},55 {_n(stays + width)},0Z"
    )
    stream = _band(stays, stays)
    return Step("branch", number, _plural(unit, number), stream, stage, came, path, reason, outcome)


def _band(top: float, bottom: float) -> str:
    """The stream from one width to another; at least a hairline where there is anything at all."""
    top, bottom = (max(width, 0.4) if width else 0.0 for width in (top, bottom))
    return f"M0,0L{_n(top)},0C{_n(top)},50 {_n(bottom)},50 {_n(bottom)},100L0,100Z"


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _plural(unit: str, number: int) -> str:
    return unit if number == 1 else plural(unit)
