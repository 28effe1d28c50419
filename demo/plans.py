"""What a caption says, before it has words: which objects it mentions, with which attributes, relations and place.

A plan is drawn from a scene and leaves things out (`Knobs.image_noise`) or, now and then, says too much
(`Knobs.caption_noise`). Plans are also what world STS grades: see `demo.sts`.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from demo.scenes import BACKDROPS, COLOURS, CONVERSE, KINDS, Object, Scene, fits, relation


@dataclass(frozen=True)
class Knobs:
    """How captions stray from their scenes.

    image_noise: chance that an object of the scene is left out of a caption.
    caption_noise: chance that a caption also names something the scene does not show.
    synonymy: chance that a noun or a size is said with another word than the plain one.
    attribute_dropout: chance that a colour, or a size other than medium, is not said.
    """

    image_noise: float = 0.25
    caption_noise: float = 0.1
    synonymy: float = 0.4
    attribute_dropout: float = 0.4


@dataclass(frozen=True)
class Mention:
    """One thing, or several of a kind, as a caption speaks of them. `objects` are ids in the scene (none: invented);
    `zone` only steers the wording ("any": in several zones, or on top of a thing). `ambiguous`: the words fit others
    too."""

    kind: str
    count: int = 1
    colour: str | None = None
    size: str | None = None  # small, large or None: what is said, not what is
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


def _shared(values: Sequence[str]) -> str | None:
    return values[0] if len(set(values)) == 1 else None


def matching(scene: Scene, kind: str, colour: str | None, size: str | None) -> tuple[int, ...]:
    """Ids of the objects that the words fit."""
    return tuple(
        o.id for o in scene.objects if o.kind == kind and colour in (None, o.colour) and size in (None, o.size)
    )


def _mention(scene: Scene, unit: tuple[Object, ...], rng: random.Random, knobs: Knobs) -> Mention:
    """The unit with attributes chosen by lot, and more of them where the words would fit other objects too."""
    kind, colour, size = unit[0].kind, _shared([o.colour for o in unit]), _shared([o.size for o in unit])
    size = None if size == "medium" else size
    said_colour = colour if rng.random() >= knobs.attribute_dropout else None
    said_size = size if rng.random() >= knobs.attribute_dropout else None
    ids = tuple(o.id for o in unit)
    options = ((said_colour, said_size), (colour, said_size), (said_colour, size), (colour, size))
    for option in options:
        if matching(scene, kind, *option) == ids:
            said_colour, said_size = option
            break
    clear = matching(scene, kind, said_colour, said_size) == ids
    zone = _shared(["any" if o.on is not None else o.zone for o in unit]) or "any"
    return Mention(kind, len(unit), said_colour, said_size, zone, ids, ambiguous=not clear)


def _holding(scene: Scene, a: Mention, b: Mention) -> list[str]:
    """Relations that hold between every object of `a` and every one of `b`."""
    pairs = [set(relation(scene.objects[i], scene.objects[j])) for i in a.objects for j in b.objects]
    return sorted(set.intersection(*pairs)) if pairs else []


def _bonds(scene: Scene, mentions: list[Mention], rng: random.Random) -> tuple[list[Mention], list[Bond]]:
    """The mentions in an order that suits the relations chosen among them."""
    links = {
        (i, j): names
        for i in range(len(mentions))
        for j in range(len(mentions))
        if i != j and (names := [n for n in _holding(scene, mentions[i], mentions[j]) if n != "under"])
    }
    if not links or rng.random() < 0.15:
        return mentions, []
    stands = [pair for pair in sorted(links) if "on" in links[pair]]
    first = rng.choice(stands or sorted(links))
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
    made = Mention(kind, 1, colour, size, zone)
    kept, bonds = mentions[:2], [b for b in bonds if max(b.a, b.b) < 2]
    if not bonds and zone == kept[0].zone and rng.random() < 0.6:
        return [kept[0], made, *kept[1:]], [Bond(rng.choice(("next to", "left of", "right of")), 0, 1)]
    return [*kept, made], bonds


def turned(bond: Bond) -> Bond:
    """The same fact told from the other side; `on` has no turned form of its own."""
    return replace(bond, name=CONVERSE[bond.name], a=bond.b, b=bond.a)
