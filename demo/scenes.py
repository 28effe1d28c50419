"""What a scene of the demo world is, and how one is drawn by lot.

A scene is a plain description (a backdrop and placed objects); `demo.render` turns it into pixels and `demo.captions`
into language. Coordinates are pixels of the 128 x 128 image, origin at the top left, y down; a box is x, y, w, h.

Everything comes from `random.Random` seeded with SHA-256, so a scene depends on (seed, stream...) and on nothing else.
"""

import hashlib
import random
from dataclasses import dataclass, field, replace

SIDE = 128
MIN_VISIBLE = 0.7  # share of an object's own mask that later objects must leave uncovered
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black")
PATTERNS = ("striped", "spotted", "checked")
SIZES = {"small": (22, 26), "medium": (33, 39), "large": (50, 57)}  # side of the square with the box's area, in pixels


_FULL = (0.8, 0.45)  # most of a box that its thing covers where it overlaps another; in a hand only its narrow end does


@dataclass(frozen=True)
class Kind:
    """One sort of thing. `aspect` is width / height of its box, `fill` a lower bound of mask area / box area, `top` the
    height of its upper surface below the top of its box (share of the height; None: nothing stands on it)."""

    zones: tuple[str, ...]
    aspect: float
    fill: float
    top: float | None = None


KINDS: dict[str, Kind] = {
    "ball": Kind(("ground",), 1.0, 0.70),
    "balloon": Kind(("air",), 0.62, 0.45),
    "bear": Kind(("ground",), 0.85, 0.50),
    "bird": Kind(("air", "ground"), 1.2, 0.40),
    "boat": Kind(("water",), 1.0, 0.40),
    "car": Kind(("ground",), 1.85, 0.55, top=0.04),
    "cat": Kind(("ground",), 0.8, 0.50),
    "cup": Kind(("ground",), 1.1, 0.60),
    "dog": Kind(("ground",), 1.2, 0.40),
    "fish": Kind(("water",), 1.6, 0.45),
    "flower": Kind(("ground",), 0.62, 0.40),
    "hat": Kind(("ground",), 1.35, 0.50, top=0.05),
    "house": Kind(("ground",), 1.0, 0.65, top=0.04),
    "kite": Kind(("air",), 0.62, 0.35),
    "robot": Kind(("ground",), 0.8, 0.45),
    "star": Kind(("air",), 1.05, 0.38),
    "table": Kind(("ground",), 1.5, 0.40, top=0.03),
    "tree": Kind(("ground",), 0.72, 0.50, top=0.05),
    "umbrella": Kind(("ground",), 1.0, 0.35),
}
RIDERS = {  # what may stand on what
    "car": ("bird", "cat", "hat", "dog", "ball"),
    "hat": ("bird",),
    "house": ("bird", "cat"),
    "table": ("cup", "ball", "cat", "hat", "flower", "bird", "dog"),
    "tree": ("bird", "cat"),
}
HOLDERS = {"bear": (0.93, 0.44), "robot": (0.95, 0.5)}  # where the hand is, as shares of the box
HELD = {  # what may be held, and where the hand takes it
    "ball": (0.1, 0.5),
    "balloon": (0.5, 0.95),
    "cup": (0.1, 0.55),
    "flower": (0.5, 0.85),
    "kite": (0.48, 0.95),
    "star": (0.5, 0.88),
    "umbrella": (0.5, 0.8),
}
PATTERNED = frozenset(  # kinds with enough of their own colour for a pattern to show
    ("ball", "balloon", "bear", "bird", "car", "cat", "cup", "dog", "fish", "hat", "house", "robot", "umbrella")
)


@dataclass(frozen=True)
class Backdrop:
    """A place. `air` bounds the centre and `ground`/`water` the lower edge of the objects of that zone (y, pixels);
    `without` names kinds and colours that would look wrong there or hardly be seen, `suggests` kinds that its details
    resemble (dots in a night sky, buildings): a caption that names one of those is not clearly wrong."""

    air: tuple[int, int]
    ground: tuple[int, int] | None = None
    water: tuple[int, int] | None = None
    without: tuple[str, ...] = ()
    suggests: tuple[str, ...] = ()


BACKDROPS: dict[str, Backdrop] = {
    "beach": Backdrop(air=(16, 40), ground=(98, 124), water=(64, 80), without=("table", "fish")),
    "meadow": Backdrop(air=(14, 54), ground=(84, 124), without=("table",)),
    "night": Backdrop(air=(14, 54), ground=(86, 124), without=("table", "black"), suggests=("star",)),
    "room": Backdrop(air=(18, 50), ground=(92, 124), without=("house", "tree", "car", "kite")),
    "sea": Backdrop(air=(14, 36), water=(66, 122)),
    "snow": Backdrop(air=(14, 52), ground=(84, 124), without=("table", "flower", "white")),
    "street": Backdrop(air=(14, 44), ground=(92, 124), without=("table", "flower"), suggests=("house",)),
}


@dataclass(frozen=True)
class Object:
    """A thing in a scene; `id` is its place in `Scene.objects`, which is also the order of painting, back to front."""

    id: int
    kind: str
    colour: str
    size: str
    zone: str
    x: int
    y: int
    w: int
    h: int
    flip: bool = False
    on: int | None = None  # id of the object it stands on
    pattern: str | None = None
    held: int | None = None  # id of the object that holds it

    @property
    def right(self) -> int:
        return self.x + self.w

    @property
    def bottom(self) -> int:
        return self.y + self.h


@dataclass(frozen=True)
class Scene:
    backdrop: str
    clutter: int  # seed of the backdrop's own details: clouds, hills, hues
    objects: tuple[Object, ...] = field(default=())


def rng_for(seed: int, *stream: str | int) -> random.Random:
    """A generator of its own for (seed, stream...), equal on every machine."""
    text = ":".join(str(part) for part in (seed, *stream))
    return random.Random(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))


def box_of(kind: str, size: str, rng: random.Random) -> tuple[int, int]:
    """Width and height of a thing of this kind and size."""
    side = rng.randint(*SIZES[size])
    root = KINDS[kind].aspect ** 0.5
    return round(side * root), round(side / root)


def overlap(a: Object, b: Object) -> int:
    """Pixels that two boxes share."""
    wide = min(a.right, b.right) - max(a.x, b.x)
    high = min(a.bottom, b.bottom) - max(a.y, b.y)
    return max(0, wide) * max(0, high)


def bearer_of(thing: Object) -> int | None:
    """Id of what a thing stands on or is held by."""
    return thing.on if thing.on is not None else thing.held


def all_visible(objects: list[Object]) -> bool:
    """Whether every object surely keeps `MIN_VISIBLE` of its mask: boxes of later objects are counted as if `_FULL`."""
    for i, back in enumerate(objects):
        covered = sum(overlap(back, front) * _FULL[front.held == back.id] for front in objects[i + 1 :])
        if covered > (1 - MIN_VISIBLE) * KINDS[back.kind].fill * back.w * back.h:
            return False
    return True


def in_order(objects: list[Object]) -> list[Object]:
    """Objects back to front: the sky first, then by where they stand; what is held or stands on a thing follows it."""
    base = {o.id: o.bottom for o in objects}

    def depth(o: Object) -> tuple[int, float, int]:
        bearer = bearer_of(o)
        stands = base[bearer] + 0.5 if bearer is not None else o.bottom
        return (0 if o.zone == "air" and bearer is None else 1, stands, o.id)

    return sorted(objects, key=depth)


def sample_scene(seed: int, *stream: str | int) -> Scene:
    """The scene of (seed, stream...): two to five objects, none hidden by more than 30 %."""
    rng = rng_for(seed, *stream)
    backdrop = rng.choice(sorted(BACKDROPS))
    clutter = rng.getrandbits(32)
    placed: list[Object] = []
    while len(placed) < 2:  # a start that leaves no room is drawn again
        placed = []
        for wish in _wanted(backdrop, rng):
            thing = _place(wish, backdrop, placed, rng)
            if thing is not None:
                placed.append(thing)
    placed = in_order(placed)
    new_id = {o.id: i for i, o in enumerate(placed)} | {None: None}
    return Scene(
        backdrop, clutter, tuple(replace(o, id=new_id[o.id], on=new_id[o.on], held=new_id[o.held]) for o in placed)
    )


def fits(kind: str, backdrop: str) -> bool:
    """Whether a kind may be shown before a backdrop."""
    place = BACKDROPS[backdrop]
    return kind not in place.without and any(getattr(place, zone) for zone in KINDS[kind].zones)


@dataclass(frozen=True)
class _Wish:
    """A thing to place. `held`: in the hand of a holder that is there; `behind`: partly hidden by a thing that is."""

    kind: str
    colour: str
    size: str
    pattern: str | None
    held: bool = False
    behind: bool = False


def _wanted(backdrop: str, rng: random.Random) -> list[_Wish]:
    """The things to place; now and then one on another, one held by another, or two or three of a kind, often alike."""
    kinds = [k for k in KINDS if fits(k, backdrop)]
    colours = [c for c in COLOURS if c not in BACKDROPS[backdrop].without]

    def wish(kind: str, sizes: tuple[str, ...] = (), **more: bool) -> _Wish:
        return _Wish(kind, rng.choice(colours), rng.choice(sizes) if sizes else _size(rng), _pattern(kind, rng), **more)

    number = rng.choices((2, 3, 4, 5), (2, 4, 4, 3))[0]
    wanted: list[_Wish] = []
    hosts, holders = [k for k in RIDERS if k in kinds], [k for k in HOLDERS if k in kinds]
    start = rng.random()
    if hosts and start < 0.3:
        host = rng.choice(hosts)
        wanted.append(wish(host, ("medium", "large")))
        wanted.append(wish(rng.choice([k for k in RIDERS[host] if k in kinds]), ("small", "medium")))
    elif holders and start < 0.5:
        wanted.append(wish(rng.choice(holders), ("medium", "large")))
        wanted.append(wish(rng.choice(sorted(k for k in HELD if k in kinds)), ("small", "medium"), held=True))
    elif rng.random() < 0.55:
        first = wish(rng.choice(kinds))
        alike = rng.random() < 0.65
        for _ in range(3 if number > 3 and rng.random() < 0.3 else 2):
            wanted.append(first if alike else wish(first.kind))
    while len(wanted) < number:
        taken = {w.kind for w in wanted}
        free = [k for k in kinds if k not in taken] if rng.random() < 0.85 else kinds
        wanted.append(wish(rng.choice(free or kinds), behind=rng.random() < 0.3))
    return wanted


def _size(rng: random.Random) -> str:
    return rng.choices(("small", "medium", "large"), (3, 4, 2))[0]


def _pattern(kind: str, rng: random.Random) -> str | None:
    return rng.choice(PATTERNS) if kind in PATTERNED and rng.random() < 0.3 else None


def _place(wish: _Wish, backdrop: str, placed: list[Object], rng: random.Random, tries: int = 40) -> Object | None:
    """The thing at a free spot, or None when none was found; it hides little of what is there already."""
    kind, busy = wish.kind, {bearer_of(o) for o in placed}
    hosts = [o for o in placed if kind in RIDERS.get(o.kind, ()) and o.size != "small" and o.id not in busy]
    holders = [o for o in placed if wish.held and o.kind in HOLDERS and o.id not in busy]
    covers = [o for o in placed if wish.behind and _stands(o)] if "ground" in KINDS[kind].zones else []
    for attempt in range(tries):
        w, h = box_of(kind, wish.size, rng)
        host = rng.choice(hosts) if hosts and attempt < 8 else None
        holder = rng.choice(holders) if holders and host is None else None
        cover = rng.choice(covers) if covers and attempt < 12 and host is None and holder is None else None
        if host is not None and w > 0.9 * host.w:
            host = None
        if holder is not None:
            (x, y), zone = _in_hand(kind, w, h, holder), KINDS[kind].zones[0]
        elif cover is not None:
            (x, y), zone = _half_hidden(w, h, cover, rng), "ground"
        else:
            x, y, zone = _spot(kind, w, h, host, backdrop, rng)
        if min(x, y) < 2 or x + w > SIDE - 2 or y + h > SIDE - 2:
            continue
        thing = Object(
            id=len(placed),
            kind=kind,
            colour=wish.colour,
            size=wish.size,
            zone=zone,
            x=x,
            y=y,
            w=w,
            h=h,
            flip=rng.random() < 0.5 if holder is None else holder.flip,
            on=host.id if host else None,
            pattern=wish.pattern,
            held=holder.id if holder else None,
        )
        near = (holder, cover)
        clear = all(o in near or overlap(thing, o) <= 0.12 * min(w * h, o.w * o.h) for o in placed)
        low, high = BACKDROPS[backdrop].ground or (0, 0)
        stands = cover is None or low <= thing.bottom <= high
        if clear and stands and all_visible(in_order([*placed, thing])):
            return thing
    return None


def _in_hand(kind: str, w: int, h: int, holder: Object) -> tuple[int, int]:
    """Corner of the box of a thing that a holder's hand takes at its grip."""
    (hand_x, hand_y), (grip_x, grip_y) = HOLDERS[holder.kind], HELD[kind]
    if holder.flip:
        hand_x, grip_x = 1 - hand_x, 1 - grip_x
    return round(holder.x + hand_x * holder.w - grip_x * w), round(holder.y + hand_y * holder.h - grip_y * h)


def _half_hidden(w: int, h: int, cover: Object, rng: random.Random) -> tuple[int, int]:
    """Corner of a box that stands a little farther off than `cover` and reaches behind it."""
    shared = rng.randint(round(0.25 * min(w, cover.w)), round(0.55 * min(w, cover.w)))
    x = cover.x - w + shared if rng.random() < 0.5 else cover.right - shared
    return x, cover.bottom - rng.randint(4, 12) - h


def _spot(kind: str, w: int, h: int, host: Object | None, backdrop: str, rng: random.Random) -> tuple[int, int, str]:
    """A random place for the box: x, y and the zone it stands in."""
    if host is not None:
        give = max(0, (host.w - w) // 6) if host.kind in ("car", "table", "house") else 0
        middle = host.x + host.w // 2 + rng.randint(-give, give)
        return middle - w // 2, host.y + round(KINDS[host.kind].top * host.h) - h + 1, "ground"
    place = BACKDROPS[backdrop]
    zones = [zone for zone in KINDS[kind].zones if getattr(place, zone)]
    zone = rng.choice(zones)
    low, high = getattr(place, zone)
    x = rng.randint(2, max(2, SIDE - 2 - w))
    if zone == "air":
        return x, rng.randint(low, high) - h // 2, zone
    if kind == "fish":  # under the surface
        low = min(high, low + h)
    return x, rng.randint(low, high) - h, zone


def _stands(thing: Object) -> bool:
    """Whether a thing stands on the ground itself."""
    return thing.zone == "ground" and bearer_of(thing) is None


# --- relations -------------------------------------------------------------------------------------------------------

CONVERSE = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
    "next to": "next to",
    "on": "under",
    "under": "on",
    "behind": "in front of",
    "in front of": "behind",
    "holding": "held by",
    "held by": "holding",
}
_HIDES = 0.06  # share of the smaller box that two boxes share where one thing is said to be behind the other


def relation(a: Object, b: Object) -> tuple[str, ...]:
    """The relations in which `a` stands to `b`, read off their boxes, their order and what bears them."""
    if a.on == b.id:
        return ("on",)
    if b.on == a.id:
        return ("under",)
    if a.held == b.id:
        return ("held by",)
    if b.held == a.id:
        return ("holding",)
    if _stands(a) and _stands(b) and overlap(a, b) >= _HIDES * min(a.w * a.h, b.w * b.h):
        return ("behind",) if a.id < b.id else ("in front of",)
    shared_y = min(a.bottom, b.bottom) - max(a.y, b.y)
    shared_x = min(a.right, b.right) - max(a.x, b.x)
    if shared_y >= 0.3 * min(a.h, b.h):
        if a.right <= b.x + 3:
            return ("left of", "next to") if b.x - a.right <= 16 and a.zone == b.zone else ("left of",)
        if b.right <= a.x + 3:
            return ("right of", "next to") if a.x - b.right <= 16 and a.zone == b.zone else ("right of",)
    if shared_x >= 0.4 * min(a.w, b.w):
        if a.bottom <= b.y + 4 and a.zone == "air":
            return ("above",)
        if b.bottom <= a.y + 4 and b.zone == "air":
            return ("below",)
    return ()
