"""Colour-thing combinations that no vision recipe trains on, so that binding can be measured on unseen ones.

One combination of every kind of thing. The demo world shows them all; scenes that the recipes train on show none.
"""

from demo.scenes import BACKDROPS, COLOURS, KINDS, Scene, sample_scene

# Colours some backdrop leaves out (white snow, black night) would be held out unevenly; the rest take turns.
_TURNS = tuple(c for c in COLOURS if not any(c in place.without for place in BACKDROPS.values()))

HELD_OUT: frozenset[tuple[str, str]] = frozenset(
    (kind, _TURNS[number % len(_TURNS)]) for number, kind in enumerate(sorted(KINDS))
)

WORLD_SEED = 0  # of the demo world as it is committed
RECIPE_SEED = 1  # of the scenes that the vision recipes train on
FIGURES_SEED = 2025  # of the scenes whose figures a recipe states of itself
OWN_SEEDS = range(FIGURES_SEED, FIGURES_SEED + 10)  # the recipes' own looks: while they train, to choose a threshold


def check_scene(seed: int, index: int) -> Scene:
    """Scene number `index` on which figures are measured; it may show held-out combinations."""
    return sample_scene(seed, "check", index)


def is_seen(scene: Scene) -> bool:
    """Whether a scene shows no held-out combination."""
    return not any((thing.kind, thing.colour) in HELD_OUT for thing in scene.objects)


def training_scene(seed: int, index: int) -> Scene:
    """Training scene number `index` of a recipe's seed: the first of its draws without a held-out combination."""
    attempt = 0
    while not is_seen(scene := sample_scene(seed, "recipe", index, attempt)):
        attempt += 1
    return scene
