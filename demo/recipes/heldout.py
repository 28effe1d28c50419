"""Colour-thing combinations that no vision recipe trains on, so that binding can be measured on unseen ones.

One combination of every kind of thing. The demo world shows them all; scenes that the recipes train on show none.
"""

from demo.scenes import BACKDROPS, COLOURS, KINDS, Scene, sample_scene

# Colours some backdrop leaves out (white snow, black night) would be held out unevenly; the rest take turns.
_TURNS = tuple(c for c in COLOURS if not any(c in place.without for place in BACKDROPS.values()))

HELD_OUT: frozenset[tuple[str, str]] = frozenset(
    (kind, _TURNS[number % len(_TURNS)]) for number, kind in enumerate(sorted(KINDS))
)


def is_seen(scene: Scene) -> bool:
    """Whether a scene shows no held-out combination."""
    return not any((thing.kind, thing.colour) in HELD_OUT for thing in scene.objects)


def training_scene(seed: int, index: int) -> Scene:
    """Training scene number `index` of a recipe's seed: the first of its draws without a held-out combination."""
    attempt = 0
    while not is_seen(scene := sample_scene(seed, "recipe", index, attempt)):
        attempt += 1
    return scene
