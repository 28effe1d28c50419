"""What the vision recipes never see, and what the demo world shows all the same."""

from collections import Counter

from demo.recipes.heldout import HELD_OUT, check_scene, is_seen, training_scene
from demo.scenes import BACKDROPS, COLOURS, KINDS, sample_scene


def combinations(scenes):
    return Counter((thing.kind, thing.colour) for scene in scenes for thing in scene.objects)


def test_one_combination_of_every_kind_in_colours_that_every_place_allows():
    assert Counter(kind for kind, _ in HELD_OUT) == Counter(list(KINDS))
    colours = Counter(colour for _, colour in HELD_OUT)
    assert set(colours) <= set(COLOURS) and max(colours.values()) - min(colours.values()) <= 1
    assert not {c for place in BACKDROPS.values() for c in place.without} & set(colours)


def test_training_scenes_show_none_and_all_the_rest():
    found = combinations(training_scene(1, index) for index in range(1500))
    assert not set(found) & HELD_OUT
    every = {(kind, colour) for kind in KINDS for colour in COLOURS}
    assert len(set(found)) >= 0.97 * len(every - HELD_OUT)


def test_scenes_of_the_world_and_of_the_check_show_them():
    world = combinations(sample_scene(0, index) for index in range(1500))
    check = combinations(check_scene(5, index) for index in range(1500))
    assert set(world) >= HELD_OUT and set(check) >= HELD_OUT


def test_a_training_scene_depends_on_its_seed_and_number_alone():
    assert training_scene(1, 7) == training_scene(1, 7) != training_scene(2, 7)
    assert all(is_seen(training_scene(1, index)) for index in range(50))
    assert len({training_scene(1, index) for index in range(50)}) == 50


def test_check_scenes_are_no_training_scenes_and_none_of_the_world():
    check = {check_scene(1, index) for index in range(50)}
    assert not check & {training_scene(1, index) for index in range(50)}
    assert not check & {sample_scene(1, index) for index in range(50)}
