"""Where models differ: Spearman's correlation on kinds of sentence pairs, and the pairs that two models place most
differently.

`compare` gives `Differences`; all of it is description, of the pairs and runs at hand: whether a difference between
recipes is more than chance is for `python -m stages.evaluate compare` to say.
"""

import re
import statistics
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from stages.report.near_text import plain
from stages.report.pair_scores import Pairs

PREFERRED = ("mcseo", "simcse")
SHOWN = 8  # pairs a list
FEWEST = 20  # pairs of a slice, for a correlation of it
_NEGATION = re.compile(r"\b(?:no|not|never|none|nobody|nothing|nowhere|neither|nor|without|cannot)\b|n['’]t\b")
_DIGITS = re.compile(r"\b\d+(?:[.,]\d+)*\b")
_WORDS = {
    **{"zero": "0", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8"},
    **{"nine": "9", "ten": "10", "eleven": "11", "twelve": "12", "dozen": "12", "thirteen": "13", "fourteen": "14"},
    **{"fifteen": "15", "sixteen": "16", "seventeen": "17", "eighteen": "18", "nineteen": "19", "twenty": "20"},
    **{"hundred": "100", "thousand": "1000", "million": "1000000", "billion": "1000000000"},
}  # without `one`, a pronoun as often as a number


@dataclass(frozen=True)
class Slice:
    """A kind of pairs. `scores`: recipe -> (Spearman's correlation x 100, mean over seeds; its standard deviation, None
    for one seed); None where it has fewer than `FEWEST` pairs or nothing varies.
    """

    name: str
    pairs: int
    scores: dict[str, tuple[float, float | None] | None]


@dataclass(frozen=True)
class Odd:
    """A pair on which two models differ. Places are percents: 0 the least, 100 the most similar pair of the task."""

    first: str
    second: str
    task: str
    subset: str
    gold: float
    people: float
    places: dict[str, float]


@dataclass(frozen=True)
class Differences:
    """`slices`: by group. `two`: the recipes compared, or None; `why`: how they were chosen; `nearer`: recipe -> how
    many pairs it places nearer to people than the other, and those that differ most among them.
    """

    pairs: int
    left_out: list[str]
    slices: dict[str, list[Slice]]
    two: tuple[str, str] | None
    why: str
    nearer: dict[str, tuple[int, list[Odd]]]


def compare(pairs: Pairs, recipes: list[str]) -> Differences:
    """`recipes`: in the order of the page; of those in `pairs.places`."""
    if not pairs.task:
        return Differences(0, pairs.left_out, {}, None, "", {})
    groups = {
        group: [_slice(name, rows, pairs, recipes) for name, rows in parts.items()]
        for group, parts in kinds(pairs.first, pairs.second).items()
    }
    every = _slice("all pairs", np.ones(len(pairs.task), bool), pairs, recipes)
    two, why = chosen(recipes, every)
    nearer = {} if two is None else _nearer(pairs, two)
    return Differences(len(pairs.task), pairs.left_out, {"": [every], **groups}, two, why, nearer)


def chosen(recipes: list[str], every: Slice) -> tuple[tuple[str, str] | None, str]:
    """The two recipes whose pairs are listed, and why these."""
    if set(PREFERRED) <= set(recipes):
        return PREFERRED, "objects and phrases against text alone"
    ranked = sorted(
        (recipe for recipe in recipes if every.scores[recipe] is not None), key=lambda r: -every.scores[r][0]
    )
    return ((ranked[0], ranked[1]), "the best two of the grid over all pairs") if len(ranked) > 1 else (None, "")


# ---------------------------------------------------------------- slices


def kinds(first: list[str], second: list[str]) -> dict[str, dict[str, np.ndarray]]:
    """{group: {name: which pairs [n] are of that kind}}; the kinds of a group are all pairs, each once."""
    words = [(plain(a).split(), plain(b).split()) for a, b in zip(first, second, strict=True)]
    longer = np.array([max(len(a), len(b)) for a, b in words])
    shared = np.array([jaccard(set(a), set(b)) for a, b in words])
    negated = np.array([negative(a) + negative(b) for a, b in zip(first, second, strict=True)])
    counted = [(numbers(a), numbers(b)) for a, b in zip(first, second, strict=True)]
    none = np.array([not a and not b for a, b in counted])
    same = np.array([a == b for a, b in counted]) & ~none
    return {
        "words of the longer sentence": {
            "up to 7": longer <= 7,
            "8 to 12": (longer > 7) & (longer <= 12),
            "13 to 20": (longer > 12) & (longer <= 20),
            "over 20": longer > 20,
        },
        "words in common": {
            "under a quarter": shared < 0.25,
            "a quarter to half": (shared >= 0.25) & (shared < 0.5),
            "half to three quarters": (shared >= 0.5) & (shared < 0.75),
            "three quarters and more": shared >= 0.75,
        },
        "negation": {
            "in neither sentence": negated == 0,
            "in one of them": negated == 1,
            "in both": negated == 2,
        },
        "numbers": {"in neither sentence": none, "the same in both": same, "not the same": ~none & ~same},
    }


def jaccard(one: set[str], two: set[str]) -> float:
    """Shared words over all words; two sentences without a word are alike."""
    return len(one & two) / len(one | two) if one | two else 1.0


def negative(text: str) -> bool:
    """Whether an English sentence has a word that negates: no, not, never, n't, without ..."""
    return _NEGATION.search(text.lower()) is not None


def numbers(text: str) -> set[str]:
    """The numbers of a sentence, in digits, whether written in digits or as an English word."""
    lower = text.lower()
    return {n.replace(",", "") for n in _DIGITS.findall(lower)} | {
        _WORDS[word] for word in plain(text).split() if word in _WORDS
    }


def _slice(name: str, rows: np.ndarray, pairs: Pairs, recipes: list[str]) -> Slice:
    count = int(rows.sum())
    scores: dict[str, tuple[float, float | None] | None] = dict.fromkeys(recipes)
    for recipe in recipes if count >= FEWEST else ():
        values = [_spearman(own[rows], pairs.gold_place[rows]) for own in pairs.places[recipe]]
        if None not in values:
            spread = statistics.stdev(values) if len(values) > 1 else None
            scores[recipe] = (statistics.fmean(values), spread)
    return Slice(name, count, scores)


def _spearman(x: np.ndarray, y: np.ndarray) -> float | None:
    """x 100; None where one of them does not vary."""
    a, b = rankdata(x), rankdata(y)
    if not (np.ptp(a) and np.ptp(b)):
        return None
    return 100 * float(np.corrcoef(a, b)[0, 1])


# ---------------------------------------------------------------- pairs


def _nearer(pairs: Pairs, two: tuple[str, str]) -> dict[str, tuple[int, list[Odd]]]:
    """For each of the two how many pairs it places nearer to people, and those it does so the most differently."""
    place = {recipe: pairs.places[recipe].mean(axis=0) for recipe in two}
    off = {recipe: np.abs(own - pairs.gold_place) for recipe, own in place.items()}
    apart = np.abs(place[two[0]] - place[two[1]])
    found = {}
    for recipe, other in (two, two[::-1]):
        rows = np.flatnonzero(off[recipe] < off[other])
        order = sorted(rows.tolist(), key=lambda row: (-apart[row], pairs.task[row], pairs.subset[row], row))
        shown, seen = [], set()
        for row in order:
            texts = frozenset((plain(pairs.first[row]), plain(pairs.second[row])))
            if texts not in seen and len(shown) < SHOWN:
                seen.add(texts)
                shown.append(_odd(pairs, row, {name: 100 * float(own[row]) for name, own in place.items()}))
        found[recipe] = (len(rows), shown)
    return found


def _odd(pairs: Pairs, row: int, places: dict[str, float]) -> Odd:
    return Odd(
        pairs.first[row],
        pairs.second[row],
        pairs.task[row],
        pairs.subset[row],
        float(pairs.gold[row]),
        100 * float(pairs.gold_place[row]),
        places,
    )
