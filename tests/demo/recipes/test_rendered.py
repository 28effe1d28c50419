"""Training scenes on disk: the same arrays whoever renders them, true to the scenes, and whole after any kill."""

import multiprocessing
import os
import pickle
import signal
import time

import numpy as np
import pytest

from demo.recipes import rendered
from demo.recipes.heldout import training_scene
from demo.recipes.rendered import Rendered
from demo.render import render

BLOCK, COUNT = 3, 12


def store(folder, workers=1, count=COUNT):
    return Rendered(1, count, folder, workers, BLOCK)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*.npy")}


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    return store(folder), files(folder)


def test_any_number_of_workers_writes_the_same(one, tmp_path):
    store(tmp_path, workers=2)
    assert files(tmp_path) == one[1] and len(one[1]) == 2 * COUNT // BLOCK


def test_arrays_are_the_scene_s_picture_and_its_masks(one):
    for index in (0, 4, 11):
        scene = one[0].scene(index)
        assert scene == training_scene(1, index)
        image, labels = one[0].arrays(index)
        picture = render(scene)
        assert image.dtype == labels.dtype == np.uint8 and np.array_equal(image, np.asarray(picture.image))
        for number, mask in enumerate(picture.masks, 1):
            assert np.array_equal(labels == number, np.asarray(mask) > 0)
        assert np.array_equal(labels == 0, sum(np.asarray(m, int) for m in picture.masks) == 0)
        assert set(np.unique(labels)) == set(range(len(scene.objects) + 1))


def test_whole_blocks_only_and_none_beyond(one):
    assert one[0].count == COUNT
    for index in (-1, COUNT):
        with pytest.raises(IndexError):
            one[0].arrays(index)


def test_what_is_there_is_not_rendered_again_and_a_larger_store_adds(one, tmp_path, monkeypatch):
    store(tmp_path, count=4)  # two blocks
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    assert len(before) == 4
    done = []
    monkeypatch.setattr(
        rendered, "_render_block", lambda s, n, real=rendered._render_block: (done.append(n), real(s, n))
    )
    store(tmp_path)
    assert done == [2, 3] and all(path.stat().st_mtime_ns == at for path, at in before.items())
    assert files(tmp_path) == one[1]


def test_a_store_travels_to_another_process_without_its_open_files(one):
    one[0].arrays(0)
    copy = pickle.loads(pickle.dumps(one[0]))  # noqa: S301 - our own bytes
    assert np.array_equal(copy.arrays(5)[0], one[0].arrays(5)[0])


def test_a_changed_world_has_a_folder_of_its_own(tmp_path, monkeypatch):
    store(tmp_path, count=3)
    monkeypatch.setattr(rendered, "world_hash", lambda: "00000000")
    store(tmp_path, count=3)
    assert len(list(tmp_path.iterdir())) == 2


def test_the_hash_of_the_world_heeds_code_and_not_comments(tmp_path, monkeypatch):
    def hash_of(text):
        (tmp_path / "shapes.py").write_text(text)
        rendered.world_hash.cache_clear()
        return rendered.world_hash()

    class Changed:
        __file__ = str(tmp_path / "shapes.py")

    monkeypatch.setattr(rendered, "_DRAWN_BY", (Changed,))
    try:
        assert hash_of("x = 1\n") == hash_of("# a remark\nx = 1  # one\n") != hash_of("x = 2\n")
    finally:
        rendered.world_hash.cache_clear()


def _slowly(folder, ready):
    """Renders, and stands still before the second block is whole."""
    real = np.save

    def save(path, array):
        real(path, array)
        if "00001.labels" in str(path):
            ready.set()
            time.sleep(60)

    np.save = save
    store(folder)


@pytest.fixture
def standing_still(tmp_path):
    """A folder and the process that renders there, in the midst of block 1."""
    fork = multiprocessing.get_context("fork")
    ready = fork.Event()
    process = fork.Process(target=_slowly, args=(tmp_path, ready), daemon=True)
    process.start()
    assert ready.wait(60)
    yield tmp_path, process
    if process.is_alive():
        process.kill()
    process.join()


def test_a_killed_rendering_goes_on(one, standing_still):
    folder, process = standing_still
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert sorted(p.name for p in folder.rglob("*.labels.npy")) == ["00000.labels.npy"]
    store(folder)
    assert files(folder) == one[1]  # no draft is left either


@pytest.mark.parametrize("workers", [1, 2])
def test_a_block_that_another_process_is_at_is_left_to_it_while_others_are_rendered(one, standing_still, workers):
    folder, process = standing_still
    fork = multiprocessing.get_context("fork")
    second = fork.Process(target=store, args=(folder, workers))
    second.start()
    deadline = time.monotonic() + 60
    names = [f"{number:05d}.labels.npy" for number in (0, 2, 3)]
    while sorted(p.name for p in folder.rglob("*[0-9].labels.npy")) != names and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sorted(p.name for p in folder.rglob("*[0-9].labels.npy")) == names  # all but the one that is being rendered
    assert second.is_alive()  # waits for it
    os.kill(process.pid, signal.SIGKILL)  # and does it itself once the other is gone
    second.join(60)
    assert second.exitcode == 0 and files(folder) == one[1]
