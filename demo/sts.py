"""World STS: pairs of sentences graded 0-5 by how far what they assert overlaps.

A sentence asserts what its plan holds: things with their number, colour, size and pattern, relations between them, a
place. Wording asserts nothing, so two sentences of one plan are graded 5 however they are put, and the same words in
other roles ("a red ball and a blue car", "a blue ball and a red car") lose. `similarity` is the whole rule.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import permutations

from demo.captions import realise
from demo.plans import Bond, Knobs, Mention, Plan, plan_caption, turned
from demo.scenes import (
    BACKDROPS,
    COLOURS,
    HELD,
    HOLDERS,
    KINDS,
    PATTERNED,
    PATTERNS,
    RIDERS,
    Scene,
    fits,
    rng_for,
    sample_scene,
)

# What an assertion weighs. A relation between the right things that is not the one asserted earns a third.
KIND, COUNT, COLOUR, SIZE, PATTERN, BOND, PLACE = 2, 1, 2, 1, 1, 3, 1
WRONG_BOND = 1
_RICH = Knobs(image_noise=0.15, caption_noise=0.0, attribute_dropout=0.25)


def _canonical(bond: Bond) -> Bond:
    """One form for the two tellings of a relation."""
    told_back = ("right of", "below", "in front of", "held by")
    mirrored = bond.name in told_back or (bond.name == "next to" and bond.a > bond.b)
    return turned(bond) if mirrored else bond


def _alike(a: Mention, b: Mention) -> int:
    """Weight of what two mentions of one kind both assert."""
    return (
        KIND
        + COUNT * (a.count == b.count)
        + COLOUR * (a.colour is not None and a.colour == b.colour)
        + SIZE * (a.size is not None and a.size == b.size)
        + PATTERN * (a.pattern is not None and a.pattern == b.pattern)
    )


def weight(plan: Plan) -> int:
    """Weight of everything a plan asserts."""
    return sum(_alike(m, m) for m in plan.mentions) + BOND * len(plan.bonds) + PLACE * (plan.place is not None)


def _pairings(a: Plan, b: Plan) -> Iterator[dict[int, int]]:
    """Ways to take mentions of `a` for mentions of `b`; things of different kinds are never the same."""
    small, large = len(a.mentions), len(b.mentions)
    for order in permutations(range(max(small, large)), small):
        yield {i: j for i, j in enumerate(order) if j < large and a.mentions[i].kind == b.mentions[j].kind}


def _shared(a: Plan, b: Plan, same: dict[int, int]) -> int:
    total = sum(_alike(a.mentions[i], b.mentions[j]) for i, j in same.items())
    total += PLACE * (a.place is not None and a.place == b.place)
    theirs = {_canonical(bond) for bond in b.bonds}
    linked = {frozenset((bond.a, bond.b)) for bond in theirs}
    for bond in a.bonds:
        if bond.a in same and bond.b in same:
            moved = _canonical(replace(bond, a=same[bond.a], b=same[bond.b]))
            total += BOND if moved in theirs else WRONG_BOND * (frozenset((moved.a, moved.b)) in linked)
    return total


def _best(a: Plan, b: Plan) -> tuple[int, dict[int, int]]:
    return max(((_shared(a, b, same), same) for same in _pairings(a, b)), key=lambda found: found[0])


def similarity(a: Plan, b: Plan) -> float:
    """Overlap of what two plans assert, 0 to 1: twice the shared weight over the sum of both weights (F1), under the
    best way to take the things of one for those of the other. Symmetric."""
    return 2 * _best(a, b)[0] / (weight(a) + weight(b))


def judgment(premise: Plan, hypothesis: Plan) -> str:
    """ENTAILMENT if all that the hypothesis asserts is asserted, CONTRADICTION if a thing both speak of differs in
    number, colour, size, pattern or relation, else NEUTRAL."""
    shared, same = _best(premise, hypothesis)
    if shared == weight(hypothesis):
        return "ENTAILMENT"
    for i, j in same.items():
        a, b = premise.mentions[i], hypothesis.mentions[j]
        clash = [
            x
            for x in ("colour", "size", "pattern", "count")
            if None not in (getattr(a, x), getattr(b, x)) and getattr(a, x) != getattr(b, x)
        ]
        if clash:
            return "CONTRADICTION"
    theirs = {frozenset((bond.a, bond.b)): _canonical(bond) for bond in hypothesis.bonds}
    for bond in premise.bonds:
        ends = frozenset((same.get(bond.a, -1), same.get(bond.b, -2)))
        if ends in theirs and _canonical(replace(bond, a=same[bond.a], b=same[bond.b])) != theirs[ends]:
            return "CONTRADICTION"
    return "NEUTRAL"


# --- edits: another plan that asserts something else, or None where the edit does not apply ---------------------------


def _set(plan: Plan, number: int, **changes: object) -> Plan:
    mentions = list(plan.mentions)
    mentions[number] = replace(mentions[number], **changes)
    return replace(plan, mentions=tuple(mentions))


def _pick(plan: Plan, rng: random.Random, wanted: Callable[[Mention], bool]) -> int | None:
    options = [i for i, m in enumerate(plan.mentions) if wanted(m)]
    return rng.choice(options) if options else None


def _colour(plan: Plan, scene: Scene, rng: random.Random) -> Plan | None:
    i = _pick(plan, rng, lambda m: m.colour is not None)
    others = [c for c in COLOURS if i is not None and c != plan.mentions[i].colour] + [None]
    return None if i is None else _set(plan, i, colour=rng.choice(others))


def _size(plan: Plan, scene: Scene, rng: random.Random) -> Plan | None:
    i = _pick(plan, rng, lambda m: m.size is not None)
    if i is None:
        return None
    return _set(plan, i, size=rng.choice([s for s in ("small", "large", None) if s != plan.mentions[i].size]))


def _count(plan: Plan, scene: Scene, rng: random.Random) -> Plan | None:
    i = rng.randrange(len(plan.mentions))
    return _set(plan, i, count=rng.choice([n for n in (1, 2, 3) if n != plan.mentions[i].count]))


def _pattern(plan: Plan, scene: Scene, rng: random.Random) -> Plan | None:
    i = _pick(plan, rng, lambda m: m.pattern is not None)
    if i is None:
        return None
    return _set(plan, i, pattern=rng.choice([p for p in (*PATTERNS, None) if p != plan.mentions[i].pattern]))


def _can(a: str, name: str, b: str) -> bool:
    """Whether one could say it of things of the kinds `a` and `b`."""
    if name == "on":
        return a in RIDERS.get(b, ())
    if name in ("holding", "held by"):
        holder, held = (a, b) if name == "holding" else (b, a)
        return holder in HOLDERS and held in HELD
    if name in ("behind", "in front of"):
        return "ground" in KINDS[a].zones and "ground" in KINDS[b].zones
    return True


def _kind(plan: Plan, scene: Scene, rng: random.Random) -> Plan | None:
    i, taken = rng.randrange(len(plan.mentions)), {m.kind for m in plan.mentions}
    options = [
        k
        for k in KINDS
        if fits(k, scene.backdrop)
        and plan.mentions[i].zone in (*KINDS[k].zones, "any")
        and k not in taken
        and (plan.mentions[i].pattern is None or k in PATTERNED)
        and all(_can(*_ends(plan, bond, {i: k})) for bond in plan.bonds)
    ]
    return _set(plan, i, kind=rng.choice(options)) if options else None


def _ends(plan: Plan, bond: Bond, instead: dict[int, str]) -> tuple[str, str, str]:
    """Kind, relation, kind: as the plan has them, but for the kinds given by number of mention."""
    a, b = (instead.get(n, plan.mentions[n].kind) for n in (bond.a, bond.b))
    return a, bond.name, b


def _relation(plan: Plan, scene: Scene, rng: random.Random) -> Plan | None:
    """Another relation between the same things, of those that kinds and number allow."""
    if len(plan.bonds) != 1:
        return None
    bond = plan.bonds[0]
    a, b = plan.mentions[bond.a], plan.mentions[bond.b]
    others = ["left of", "right of", "next to", "behind", "in front of"]
    others += ["holding", "held by"] * 3 if a.count == b.count == 1 else []  # few kinds can: then more often than not
    options = [n for n in others if n != bond.name and _can(a.kind, n, b.kind)]
    return replace(plan, bonds=(replace(bond, name=rng.choice(options)),))


# Either side may stand where the other does; who is held could not hold, and what is above is in the air.
_EITHER_WAY = ("left of", "right of", "behind", "in front of")


def _roles(plan: Plan, scene: Scene, rng: random.Random) -> Plan | None:
    """The same words, another fact: colours or patterns change places, or the two sides of a relation do."""
    can_turn = len(plan.mentions) == 2 and plan.bonds and plan.bonds[0].name in _EITHER_WAY
    if can_turn and rng.random() < 0.5:
        return replace(plan, mentions=plan.mentions[::-1])
    if len(plan.mentions) < 2:
        return None
    a, b = plan.mentions[:2]
    said = [
        x
        for x in ("colour", "pattern")
        if None not in (getattr(a, x), getattr(b, x)) and getattr(a, x) != getattr(b, x)
    ]
    if not said:
        return None
    x = rng.choice(said)
    return _set(_set(plan, 0, **{x: getattr(b, x)}), 1, **{x: getattr(a, x)})


def _omit(plan: Plan, scene: Scene, rng: random.Random) -> Plan | None:
    last = len(plan.mentions) - 1
    if last == 0:
        return None
    return replace(plan, mentions=plan.mentions[:-1], bonds=tuple(b for b in plan.bonds if last not in (b.a, b.b)))


def _add(plan: Plan, scene: Scene, rng: random.Random) -> Plan | None:
    options = [k for k in KINDS if fits(k, scene.backdrop) and k not in {m.kind for m in plan.mentions}]
    if len(plan.mentions) > 2 or not options:
        return None
    kind = rng.choice(options)
    zone = next(z for z in KINDS[kind].zones if getattr(BACKDROPS[scene.backdrop], z))
    return replace(plan, mentions=(*plan.mentions, Mention(kind, 1, rng.choice((*COLOURS, None)), zone=zone)))


def _place(plan: Plan, scene: Scene, rng: random.Random) -> Plan | None:
    options = [
        b
        for b in sorted(BACKDROPS)
        if b != plan.place
        and all(fits(m.kind, b) and (m.zone == "any" or getattr(BACKDROPS[b], m.zone)) for m in plan.mentions)
    ]
    return replace(plan, place=rng.choice([*options, None])) if plan.place else None


Edit = Callable[[Plan, Scene, random.Random], Plan | None]
EDITS: dict[str, Edit] = {
    "addition": _add,
    "colour": _colour,
    "count": _count,
    "kind": _kind,
    "omission": _omit,
    "pattern": _pattern,
    "place": _place,
    "relation": _relation,
    "roles": _roles,
    "size": _size,
}


# --- pairs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """Two sentences and their grade, 0-5; `genre` names what was varied."""

    genre: str
    first: str
    second: str
    grade: float
    judgment: str


def plain(text: str) -> str:
    """A sentence without its case and final period: what makes two sentences the same one."""
    return text.lower().rstrip(".")


def _sound(plan: Plan) -> bool:
    """No two mentions that the words could not tell apart."""
    told = [(m.kind, m.colour, m.size, m.pattern) for m in plan.mentions]
    return len(set(told)) == len(told)


def _second_plan(
    genre: str, plan: Plan, scene: Scene, rng: random.Random, elsewhere: tuple[str | int, ...]
) -> Plan | None:
    """The plan to compare with: the same, edited in the genre's way, edited further, or of another scene."""
    lot = rng.random()
    if lot < 0.16:
        return plan
    if lot > 0.86:
        return plan_caption(sample_scene(*elsewhere), rng, _RICH)
    names = [rng.choice(sorted(EDITS))] if genre in ("mixed", "paraphrase") else [genre] * rng.choice((1, 1, 2))
    if lot > 0.36:
        names += [rng.choice(sorted(EDITS)) for _ in range(rng.choice((1, 2, 3, 4)))]
    edited: Plan | None = plan
    for name in names:
        edited = EDITS[name](edited, scene, rng) if edited is not None else None
    return edited


def sample_pair(seed: int, genre: str, stream: tuple[str | int, ...], used: set[str]) -> Pair:
    """A pair of the genre whose sentences are not in `used` (see `plain`); they are added to it."""
    for attempt in range(500):
        rng = rng_for(seed, "sts", *stream, attempt)
        scene = sample_scene(seed, "sts", *stream, attempt)
        for _ in range(4):  # several things to say about one scene before another is drawn
            pair = _pair(genre, scene, rng, (seed, "sts", *stream, attempt, "other"))
            fresh = {plain(pair.first), plain(pair.second)} if pair is not None else set()
            if len(fresh) == 2 and not fresh & used:
                used |= fresh
                return pair
    raise RuntimeError(f"no fresh pair of genre {genre} in 500 attempts; the world has too few sentences left")


def _pair(genre: str, scene: Scene, rng: random.Random, elsewhere: tuple[str | int, ...]) -> Pair | None:
    """One try, None where the genre's edit does not apply or a sentence would be unsound."""
    a = plan_caption(scene, rng, _RICH)
    if genre in EDITS and EDITS[genre](a, scene, rng) is None:
        return None
    b = _second_plan(genre, a, scene, rng, elsewhere)
    if b is None or not (_sound(a) and _sound(b)):
        return None
    words = Knobs(synonymy=0.7 if genre == "paraphrase" else 0.4)
    return Pair(genre, realise(a, rng, words).text, realise(b, rng, words).text, 5 * similarity(a, b), judgment(a, b))
