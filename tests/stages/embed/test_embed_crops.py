"""Crops are cut on the device as Pillow cuts them, to the bit."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from small_encoders import cut as pillow_cut
from small_encoders import noise, planes

from stages.common import rle
from stages.embed.crops import blur, blur_exactly, cut, expand, repeat_on_device, windows
from stages.embed.objects import run_lengths

CPU = torch.device("cpu")
FILL = (1, 2, 3)


def blob(height: int, width: int, draw: np.random.Generator) -> np.ndarray:
    """A mask of a few boxes with a hole, never empty."""
    mask = np.zeros((height, width), bool)
    for _ in range(int(draw.integers(1, 4))):
        top, left = int(draw.integers(height)), int(draw.integers(width))
        mask[top : top + int(draw.integers(1, height)), left : left + int(draw.integers(1, width))] ^= True
    mask[int(draw.integers(height)), int(draw.integers(width))] = True
    return mask


def cut_all(image: Image.Image, masks: list[rle.Mask], mode: str, margin: float) -> list[np.ndarray]:
    """Crops as the stage makes them, [height, width, 3]."""
    lengths, begin = run_lengths([mask.counts for mask in masks])
    boxes = rle.boxes(*(list(column) for column in zip(*masks, strict=True)))
    fill = torch.tensor(FILL, dtype=torch.uint8).view(3, 1, 1)
    places = windows(boxes, margin, image.height, image.width)
    shown = expand(lengths, begin, places, image.height, CPU)
    crops = [cut(planes(image), place, one, mode, fill) for place, one in zip(places.tolist(), shown, strict=True)]
    return [crop.permute(1, 2, 0).numpy() for crop in crops]


@pytest.mark.parametrize("mode", ["masked", "box", "blur"])
def test_crops_are_those_that_pillow_cuts(mode):
    draw = np.random.default_rng(1)
    for height, width in ((48, 64), (90, 31), (17, 200), (16, 16)):
        image = noise(height, width)
        masks = [rle.Mask(rle.encode(blob(height, width, draw)), height, width) for _ in range(5)]
        masks.append(rle.Mask(rle.encode(np.ones((height, width), bool)), height, width))
        for margin in (0.0, 0.1, 1.0):
            for ours, mask in zip(cut_all(image, masks, mode, margin), masks, strict=True):
                expected = np.asarray(pillow_cut(image, mask, mode, margin, FILL))
                assert ours.shape == expected.shape and (ours == expected).all()


def test_crops_of_real_photos_are_those_that_pillow_cuts(shared):
    from annotated_photos import photos

    for photo in photos(shared, 4):
        for mode in ("masked", "blur"):
            for ours, mask in zip(cut_all(photo.image, photo.masks, mode, 0.1), photo.masks, strict=True):
                assert (ours == np.asarray(pillow_cut(photo.image, mask, mode, 0.1, FILL))).all()


def test_a_crop_shows_the_mask_and_its_surroundings_as_asked():
    mask = np.zeros((48, 64), bool)
    mask[10:30, 20:40] = True
    mask[10:15, 20:25] = False
    image, inside = noise(48, 64), mask[10:30, 20:40]
    masks, pixels = [rle.Mask(rle.encode(mask), 48, 64)], np.asarray(image)[10:30, 20:40]
    assert (cut_all(image, masks, "box", 0.0)[0] == pixels).all()
    (masked,), (blurred,) = (cut_all(image, masks, mode, 0.0) for mode in ("masked", "blur"))
    assert (masked[inside] == pixels[inside]).all() and (masked[~inside] == FILL).all()
    assert (blurred[inside] == pixels[inside]).all() and (blurred[~inside] != pixels[~inside]).any()
    assert cut_all(image, masks, "box", 0.1)[0].shape == (24, 24, 3)
    whole = [rle.Mask(rle.encode(np.ones((48, 64), bool)), 48, 64)]
    assert cut_all(image, whole, "box", 1.0)[0].shape == (48, 64, 3), "the image's edge is the limit"


def test_the_blur_of_devices_without_pillow_is_pillows():
    draw = np.random.default_rng(2)
    for _ in range(60):
        height, width = (int(side) for side in draw.integers(1, 120, 2))
        radius = float(draw.choice([0.05, 0.3, 1.0, draw.random() * 12, 0.05 * max(height, width)]))
        image = noise(height, width)
        expected = planes(image.filter(ImageFilter.GaussianBlur(radius)))
        assert torch.equal(blur_exactly(planes(image), radius), expected), (height, width, radius)
        assert torch.equal(blur(planes(image), radius), expected)


def test_run_lengths_are_those_of_the_masks():
    draw = np.random.default_rng(3)
    for _ in range(50):
        height, width = (int(side) for side in draw.integers(1, 60, 2))
        masks = [
            draw.random((height, width)) < draw.choice([0.0, 0.02, 0.5, 1.0]) for _ in range(int(draw.integers(6)))
        ]
        lengths, begin = run_lengths([rle.encode(mask) for mask in masks])
        left = draw.integers(0, width, len(masks))
        right = left + 1 + draw.integers(0, width - left)
        places = np.stack([0 * left, left, 0 * left + height, right], 1)
        shown = expand(lengths, begin, places, height, CPU)
        for ours, mask, a, b in zip(shown, masks, left, right, strict=True):
            assert (ours.numpy() == mask[:, a:b]).all() and ours.shape == (height, b - a)


def test_runs_are_repeated_on_a_device_as_on_the_host():
    draw = np.random.default_rng(4)
    for runs in (0, 1, 50):
        values, often = draw.random(runs) < 0.5, draw.integers(0, 9, runs)
        assert (repeat_on_device(values, often, CPU).numpy() == np.repeat(values, often)).all()


def test_a_damaged_mask_does_not_touch_the_next_one():
    mask = np.zeros((40, 50), bool)
    mask[5:20, 7:30] = True
    counts = rle.encode(mask)
    alone, _ = run_lengths([counts])
    for damaged in (counts[:-1], counts[:3], b"", b"o" * 3, counts + b"h"):
        lengths, begin = run_lengths([damaged, counts])
        assert (lengths[begin[1] :] == alone).all() and len(begin) == 3
