"""Perceptual hashes, and the search for hashes that are near."""

import io

import numpy as np
import pytest
from PIL import Image

from stages.common import phash
from stages.common.phash import BLANK, near, perceptual_hash


def drawn(number: int, seed: int) -> np.ndarray:
    """Hashes with their first bit set, as those of pictures nearly always have it."""
    return np.random.default_rng(seed).integers(2**63, 2**64, number, dtype=np.uint64)


def with_neighbours(hashes: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Each hash with some of its bits flipped."""
    draw = np.random.default_rng(seed)
    masks = [draw.choice(64, draw.integers(0, most + 1), replace=False) for _ in hashes]
    return hashes ^ np.array([sum(1 << int(bit) for bit in bits) for bits in masks], np.uint64)


@pytest.mark.parametrize("distance", [0, 1, 3, 4, 7, 8, 12, 16, 33, 63, 64])
@pytest.mark.parametrize("shape", [(400, 300), (3000, 8), (1, 1), (0, 5), (5, 0)])
def test_the_search_finds_what_comparing_all_with_all_finds(shape, distance):
    a = drawn(shape[0], 1)
    most = distance + 2 if distance < 60 else 4
    b = with_neighbours(np.resize(a, shape[1]) if shape[0] else drawn(shape[1], 2), most, 3)
    a[: min(2, len(a))] = BLANK
    bits = np.bitwise_count(a[:, None] ^ b[None]).astype(np.int64)
    i, j = np.nonzero((bits <= distance) & (a[:, None] != BLANK) & (b[None] != BLANK))
    assert np.array_equal(near(a, b, distance), np.stack([i, j, bits[i, j]], axis=1))


def test_many_of_one_hash_are_found_in_pieces(monkeypatch):
    monkeypatch.setattr(phash, "_PAIRS_AT_ONCE", 100)
    a = np.full(70, 5, np.uint64)
    assert len(near(a, a, 0)) == 4900 and len(near(a, a ^ np.uint64(1), 2)) == 4900


def test_large_searches_do_not_compare_all_with_all():
    """2e5 x 2e5 comparisons would be 4e10; the cut into bands makes it a matter of a moment."""
    a = drawn(200_000, 5)
    b = with_neighbours(a, 4, 6)
    found = near(a, b, 4)
    assert {(n, n) for n in range(len(a))} <= set(map(tuple, found[:, :2].tolist()))


def scene(seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((320, 240), Image.Resampling.BICUBIC)


def test_copies_are_near_and_other_pictures_far():
    hashes = np.array([perceptual_hash(scene(seed)) for seed in range(60)], np.uint64)
    assert len(near(hashes, hashes, 8)) == 60, "each only itself"
    for seed in range(60):
        data = io.BytesIO()
        scene(seed).resize((200, 150)).save(data, "JPEG", quality=40)
        copy = np.array([perceptual_hash(Image.open(data)), perceptual_hash(scene(seed).convert("L"))], np.uint64)
        assert {(row[0], row[1]) for row in near(hashes, copy, 4)} == {(seed, 0), (seed, 1)}


def test_a_real_photo_s_copies_are_near(shared):
    photos = sorted((shared / "data/flickr8k/images").glob("*.jpg"))
    images = [Image.open(path).convert("RGB") for path in photos]
    hashes = np.array([perceptual_hash(image) for image in images], np.uint64)
    copies = []
    for image in images:
        data = io.BytesIO()
        image.resize((image.width // 2, image.height // 2)).save(data, "JPEG", quality=50)
        copies.append(perceptual_hash(Image.open(data)))
    found = near(hashes, np.array(copies, np.uint64), 4)
    assert [(row[0], row[1]) for row in found] == [(n, n) for n in range(len(photos))]


def test_pictures_of_one_brightness_have_no_hash():
    for picture in (Image.new("RGB", (40, 30), "red"), Image.new("L", (7, 900)), Image.new("RGB", (1, 1), "white")):
        assert perceptual_hash(picture) == BLANK
    assert perceptual_hash(scene(1)) != BLANK
    assert len(near(np.array([BLANK], np.uint64), np.array([BLANK], np.uint64), 64)) == 0
