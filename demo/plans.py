"""What a caption says, before it has words: which objects it mentions, with which attributes, relations and place.

A plan is drawn from a scene and leaves things out (`Knobs.image_noise`) or, now and then, says too much
(`Knobs.caption_noise`). Plans are also what world STS grades: see `demo.sts`.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

from demo.scenes import (
    BACKDROPS,
    COLOURS,
    CONVERSE,
    HELD,
    HOLDERS,
    KINDS,
    PATTERNED,
    PATTERNS,
    Object,
    Scene,
    fits,
    relation,
)


@dataclass(frozen=True)
class Knobs:
    """How captions stray from their scenes.

    image_noise: chance that an object of the scene is left out of a caption.
    caption_noise: chance that a caption also names something the scene does not show.
    synonymy: chance that a noun or a size is said with another word than the plain one.
    attribute_dropout: chance that a colour, a pattern, or a size other than medium, is not said.
    """

    image_noise: float = 0.25
    caption_noise: float = 0.1
    synonymy: float = 0.4
    attribute_dropout: float = 0.4


@dataclass(frozen=True)
class Mention:
    """One thing, or several of a kind, as a caption speaks of them. `objects` are ids in the scene (none: invented);
    `zone` only steers the wording ("any": in several zones, on top of a thing, or held by one). `ambiguous`: the words
    fit others too."""

    kind: str
    count: int = 1
    colour: str | None = None
    size: str | None = None  # small, large or None: what is said, not what is
    pattern: str | None = None
    zone: str = "ground"
    objects: tuple[int, ...] = ()
    ambiguous: bool = False


@dataclass(frozen=True)
class Bond:
    """Mention number `a` stands in the named relation to mention number `b`."""

    name: str
    a: int
    b: int


@dataclass(frozen=True)
class Plan:
    """One to three mentions. `bonds` is empty, one bond (0, 1), or two: (0, 1), (1, 2) a chain; (0, 1), (0, 2) a fork;
    (0, 1), (2, 1) of one name a shared anchor. `place` names the backdrop if the caption says it."""

    mentions: tuple[Mention, ...]
    bonds: tuple[Bond, ...] = ()
    place: str | None = None


def plan_caption(scene: Scene, rng: random.Random, knobs: Knobs) -> Plan:
    """One thing to say about a scene."""
    told = [o for o in scene.objects if rng.random() >= knobs.image_noise] or [rng.choice(scene.objects)]
    units = _units(scene, told, rng)
    rng.shuffle(units)
    units = _with_holders(units, rng)
    units = units[: rng.choices((1, 2, 3), (1, 5, 4))[0]]
    mentions = [m for m in (_mention(scene, unit, rng, knobs) for unit in units) if m is not None]
    mentions = [m for m in mentions if not m.ambiguous] or mentions[:1]
    mentions, bonds = _bonds(scene, mentions, rng)
    if rng.random() < knobs.caption_noise:
        mentions, bonds = _invent(scene, mentions, bonds, rng, knobs)
    place = scene.backdrop if rng.random() < (0.3 if len(mentions) > 1 else 0.6) else None
    return Plan(tuple(mentions), tuple(bonds), place)


def _units(scene: Scene, told: Sequence[Object], rng: random.Random) -> list[tuple[Object, ...]]:
    """What is spoken of together: all objects of a kind, or of a kind and colour, or one alone."""
    units: list[tuple[Object, ...]] = []
    for kind in sorted({o.kind for o in told}):
        rest = [o for o in told if o.kind == kind]
        same_kind = tuple(o for o in scene.objects if o.kind == kind)
        one_colour = len({o.colour for o in same_kind}) == 1
        if len(rest) == len(same_kind) > 1 and rng.random() < (0.9 if one_colour else 0.45):
            units.append(same_kind)
            continue
        for colour in sorted({o.colour for o in rest}):
            alike = tuple(o for o in same_kind if o.colour == colour)
            if len(alike) > 1 and len(alike) == sum(o.colour == colour for o in rest) and rng.random() < 0.9:
                units.append(alike)
                rest = [o for o in rest if o.colour != colour]
        units.extend((o,) for o in rest)
    return units


def _with_holders(units: list[tuple[Object, ...]], rng: random.Random) -> list[tuple[Object, ...]]:
    """Most often a held thing and its holder, each told alone, come first: "a bear" leaves out what one sees it do."""
    alone = {unit[0].id: unit for unit in units if len(unit) == 1}
    for thing in [unit[0] for unit in units if len(unit) == 1 and unit[0].held in alone]:
        if rng.random() < 0.7:
            pair = [alone[thing.id], alone[thing.held]]
            units = pair + [unit for unit in units if unit not in pair]
    return units


def _shared(values: Sequence[str | None]) -> str | None:
    return values[0] if len(set(values)) == 1 else None


def matching(
    scene: Scene, kind: str, colour: str | None = None, size: str | None = None, pattern: str | None = None
) -> tuple[int, ...]:
    """Ids of the objects that the words fit; an attribute that is None is not said."""
    return tuple(
        o.id
        for o in scene.objects
        if o.kind == kind and colour in (None, o.colour) and size in (None, o.size) and pattern in (None, o.pattern)
    )


# which attributes to add to those said, few before many: colour, size, pattern
_ADDED = sorted(product((True, False), repeat=3), key=sum)


def _mention(scene: Scene, unit: tuple[Object, ...], rng: random.Random, knobs: Knobs) -> Mention:
    """The unit with attributes chosen by lot, and more of them where the words would fit other objects too."""
    kind, size = unit[0].kind, _shared([o.size for o in unit])
    true = (_shared([o.colour for o in unit]), None if size == "medium" else size, _shared([o.pattern for o in unit]))
    by_lot = tuple(value if rng.random() >= knobs.attribute_dropout else None for value in true)
    ids = tuple(o.id for o in unit)
    options = [tuple(t if add else b for t, b, add in zip(true, by_lot, added, strict=True)) for added in _ADDED]
    said = next((option for option in options if matching(scene, kind, *option) == ids), by_lot)
    clear = matching(scene, kind, *said) == ids
    zone = _shared([o.zone if o.on is None and o.held is None else "any" for o in unit]) or "any"
    return Mention(kind, len(unit), *said, zone, ids, ambiguous=not clear)


def _in_common(scene: Scene, a: Mention, b: Mention) -> list[str]:
    """Relations in which every object of `a` stands to every one of `b`."""
    pairs = [set(relation(scene.objects[i], scene.objects[j])) for i in a.objects for j in b.objects]
    return sorted(set.intersection(*pairs)) if pairs else []


_TIGHT = {"on", "holding", "held by"}  # told before the others of a scene: they are what one sees first


def _bonds(scene: Scene, mentions: list[Mention], rng: random.Random) -> tuple[list[Mention], list[Bond]]:
    """The mentions in an order that suits the relations chosen among them."""
    links = {
        (i, j): names
        for i in range(len(mentions))
        for j in range(len(mentions))
        if i != j and (names := [n for n in _in_common(scene, mentions[i], mentions[j]) if n != "under"])
    }
    if not links or rng.random() < 0.15:
        return mentions, []
    tight = [pair for pair in sorted(links) if _TIGHT & set(links[pair])]
    first = rng.choice(tight or sorted(links))
    name = rng.choice(links[first])
    third = next((k for k in range(len(mentions)) if k not in first), None)
    a, b = first
    ordered = [mentions[a], mentions[b]] + ([] if third is None else [mentions[third]])
    bonds = [Bond(name, 0, 1)]
    if third is not None and rng.random() < 0.75:
        chain, fork, anchor = links.get((b, third), []), links.get((a, third), []), links.get((third, b), [])
        options = [Bond(n, 1, 2) for n in chain] + [Bond(n, 0, 2) for n in fork]
        options += [Bond(n, 2, 1) for n in anchor if n == name]
        if options:
            bonds.append(rng.choice(options))
    return ordered, bonds


def _invent(
    scene: Scene, mentions: list[Mention], bonds: list[Bond], rng: random.Random, knobs: Knobs
) -> tuple[list[Mention], list[Bond]]:
    """One more mention, of a kind the scene does not show; of three mentions it takes the place of the last."""
    shown = {o.kind for o in scene.objects} | set(BACKDROPS[scene.backdrop].suggests)
    kind = rng.choice([k for k in KINDS if k not in shown and fits(k, scene.backdrop)])
    zone = next(z for z in KINDS[kind].zones if getattr(BACKDROPS[scene.backdrop], z))
    colour = rng.choice(COLOURS) if rng.random() >= knobs.attribute_dropout else None
    size = rng.choice(("small", "large")) if rng.random() < 0.3 else None
    pattern = rng.choice(PATTERNS) if kind in PATTERNED and rng.random() < 0.15 else None
    made = Mention(kind, 1, colour, size, pattern, zone)
    kept, bonds = mentions[:2], [b for b in bonds if max(b.a, b.b) < 2]
    if not bonds and kind in HELD and _free_hands(scene, kept[0]) and rng.random() < 0.6:
        return [kept[0], replace(made, zone="any"), *kept[1:]], [Bond("holding", 0, 1)]
    if not bonds and zone == kept[0].zone and rng.random() < 0.6:
        return [kept[0], made, *kept[1:]], [Bond(rng.choice(("next to", "left of", "right of")), 0, 1)]
    return [*kept, made], bonds


def _free_hands(scene: Scene, mention: Mention) -> bool:
    """Whether it is one holder that holds nothing."""
    return mention.kind in HOLDERS and mention.count == 1 and all(o.held not in mention.objects for o in scene.objects)


def turned(bond: Bond) -> Bond:
    """The same fact told from the other side; `on` has no turned form of its own."""
    return replace(bond, name=CONVERSE[bond.name], a=bond.b, b=bond.a)
