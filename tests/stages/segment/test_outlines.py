"""From pixels to run lengths: figures, clean-up, waiting for room."""

import threading

import numpy as np
import pytest
import torch
from segment_anything.utils.amg import calculate_stability_score, remove_small_regions

from pipeline.errors import StageError
from stages.common import rle
from stages.segment import outlines
from stages.segment.outlines import Bits, Outliner, clean, measure, outline, send


def test_figures_and_pixels_of_logits():
    logits = 3 * torch.randn(4, 9, 13, generator=torch.Generator().manual_seed(0))
    low, iou = torch.zeros(4, 3, 3), torch.tensor([0.1, 0.2, float("nan"), 0.4])
    low[3, 1, 1] = float("inf")
    pixels, figures = measure(logits, low, iou)
    assert pixels.shape == (4, 13, 9) and pixels.dtype == torch.uint8
    assert torch.equal(pixels.transpose(1, 2).bool(), logits > 0)
    assert torch.equal(figures[:, 1], calculate_stability_score(logits, 0.0, 1.0))
    assert figures[:, 2].tolist() == [1, 1, 0, 0]


def test_masks_come_in_order_with_their_figures():
    masks = np.random.default_rng(0).random((5, 20, 31)) < 0.4
    masks[2] = False
    pixels = torch.from_numpy(masks).transpose(1, 2).contiguous().view(torch.uint8)
    figures = torch.tensor([[0.1 * i, 0.2, 1.0] for i in range(5)])
    found = outline(send(pixels, figures), "i", 0)
    assert found[2] is None
    for index in (0, 1, 3, 4):
        assert (rle.decode(found[index].counts, 20, 31) == masks[index]).all()
        assert found[index].predicted_iou == pytest.approx(0.1 * index)
    with pytest.raises(StageError, match="image i: NaN"):
        outline(Bits(pixels, torch.zeros(5, 3), None), "i", 0)


@pytest.mark.parametrize("seed", range(12))
def test_clean_up_is_the_published_one(seed):
    draw = np.random.default_rng(seed)
    from scipy.ndimage import gaussian_filter

    mask = gaussian_filter(draw.normal(size=(60, 80)), 1.0 + seed % 3) > draw.normal(0, 0.1)
    if seed == 3:
        mask[:] = False
        mask[5:8, 5:8] = mask[20, 20] = True  # all islands are small: the largest stays
    if seed == 4:
        mask[:] = seed % 2 == 0
    for least in (1, 5, 20, 100):
        expected, first = remove_small_regions(mask, least, "holes")
        expected, second = remove_small_regions(expected, least, "islands")
        found, changed = clean(mask, least)
        assert (found == expected).all() and changed == (first or second)


def test_an_empty_mask_stays_empty():
    found, changed = clean(np.zeros((5, 5), bool), 3)
    assert not found.any() and not changed


def test_whoever_brings_too_much_waits(monkeypatch):
    """No more bits are kept than there is room for."""
    hold, most, now = threading.Event(), [0], [0]
    plain = outlines.outline

    def slow(*arguments):
        hold.wait(10)
        now[0] -= 1
        return plain(*arguments)

    monkeypatch.setattr(outlines, "outline", slow)
    outliner = Outliner(2)
    bits = Bits(torch.ones(1, 4, 4, dtype=torch.uint8), torch.ones(1, 3), None)
    made = []

    def bring():
        for _ in range(30):
            made.append(outliner.outline(bits, "i", 0))
            now[0] += 1
            most[0] = max(most[0], now[0])

    bringer = threading.Thread(target=bring)
    bringer.start()
    bringer.join(0.3)
    assert bringer.is_alive() and len(made) == 2 * outlines._AHEAD
    hold.set()
    bringer.join(10)
    assert len(made) == 30 and all(len(future.result()) == 1 for future in made)
