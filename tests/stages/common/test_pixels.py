"""Decoding and resizing give Pillow's own pixels, by Pillow and by the products that an accelerator computes."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stages.common import pixels
from stages.common.images import BadImage, decode
from stages.common.pixels import decode_planes, normalise, resize, resize_by_products

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
SIDES = st.integers(1, 90)


def planes(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1).copy())


def by_pillow(image: np.ndarray, height: int, width: int, mode: str) -> torch.Tensor:
    return planes(np.asarray(Image.fromarray(image).resize((width, height), FILTERS[mode])))


def picture(height: int, width: int, seed: int, hard: bool = False) -> np.ndarray:
    drawn = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.where(drawn < 128, 0, 255).astype(np.uint8) if hard else drawn


def photos(shared, count: int) -> list[bytes]:
    found = sorted((shared / "data/coco").rglob("*.jpg"))[:count]
    assert len(found) == count
    return [path.read_bytes() for path in found]


@settings(max_examples=150, deadline=None)
@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from(sorted(FILTERS)), st.booleans(), st.integers(0, 2**31))
def test_any_size_to_any_size_is_as_pillow_has_it(before_h, before_w, height, width, mode, hard, seed):
    image = picture(before_h, before_w, seed, hard)
    right = by_pillow(image, height, width, mode)
    assert torch.equal(resize(planes(image), height, width, mode), right)
    assert torch.equal(resize_by_products(planes(image), height, width, mode), right)


@pytest.mark.parametrize("mode", sorted(FILTERS))
@pytest.mark.parametrize(("height", "width"), [(1024, 683), (224, 224), (800, 1066), (50, 640), (3, 2)])
def test_photos_are_resized_as_pillow_has_it(shared, mode, height, width):
    for data in photos(shared, 4):
        image = np.asarray(decode(data))
        right = by_pillow(image, height, width, mode)
        assert torch.equal(resize(planes(image), height, width, mode), right)
        assert torch.equal(resize_by_products(planes(image), height, width, mode), right)


def test_sums_of_very_many_taps_stay_within_a_grey_level():
    image = picture(4000, 12, 3, hard=True)
    for mode in FILTERS:
        off = resize_by_products(planes(image), 9, 5, mode).int() - by_pillow(image, 9, 5, mode).int()
        assert off.abs().max() <= 1


def test_what_has_the_size_already_is_kept():
    image = planes(picture(20, 30, 1))
    assert torch.equal(resize(image, 20, 30, "bicubic"), image)
    assert torch.equal(resize_by_products(image, 20, 30, "bicubic"), image)


def test_the_weights_of_a_line_add_up():
    for before, after in ((10, 7), (7, 10), (640, 224), (1, 5), (5, 1)):
        for mode in FILTERS:
            whole = pixels.weights(before, after, mode)
            assert whole.shape == (after, before)
            assert np.abs(whole.sum(1) - (1 << 22)).max() <= before, "but for the rounding of each"


def written(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("fast", [True, False])
def test_decoding_gives_the_pixels_of_decode(fast, monkeypatch):
    monkeypatch.setattr(pixels, "same_jpeg_decoder", lambda: fast)
    draw = np.random.default_rng(0)
    for number in range(60):
        height, width = draw.integers(1, 80, 2)
        image = Image.fromarray(picture(height, width, number))
        image = image.convert("L") if number % 5 == 0 else image
        options = {"quality": int(draw.integers(1, 101)), "progressive": number % 3 == 0, "subsampling": number % 3}
        for data in (written(image, "JPEG", **options), written(image, "PNG")):
            assert torch.equal(decode_planes(data), planes(np.asarray(decode(data))))


def test_photos_decode_to_the_pixels_of_decode(shared):
    for data in photos(shared, 40):
        assert torch.equal(decode_planes(data), planes(np.asarray(decode(data))))


def test_damage_is_told_as_decode_tells_it():
    whole = written(Image.fromarray(picture(60, 80, 1)), "JPEG")
    for data in (b"", b"<html>", whole[:40], whole[: len(whole) // 2], b"\xff\xd8" + b"\0" * 500):
        with pytest.raises(BadImage) as by_decode:
            decode(data)
        with pytest.raises(BadImage) as found:
            decode_planes(data)
        assert found.value.reason == by_decode.value.reason
        assert found.value.detail.split(" at 0x")[0] == by_decode.value.detail.split(" at 0x")[0]


def test_another_libjpeg_is_not_used(monkeypatch):
    decode_jpeg = pixels._decode_jpeg
    monkeypatch.setattr(pixels, "_decode_jpeg", lambda data: decode_jpeg(data) ^ 1)
    pixels.same_jpeg_decoder.cache_clear()
    try:
        data = written(Image.fromarray(picture(30, 40, 1)), "JPEG")
        assert not pixels.same_jpeg_decoder()
        assert torch.equal(decode_planes(data), planes(np.asarray(decode(data))))
    finally:
        pixels.same_jpeg_decoder.cache_clear()


def test_normalising_is_per_channel_on_the_scale_of_the_pixels():
    batch = torch.tensor([[[[0, 255]], [[10, 20]], [[128, 0]]]], dtype=torch.uint8)
    made = normalise(batch, (127.5, 10.0, 0.0), (127.5, 5.0, 2.0), torch.float32)
    assert made.tolist() == [[[[-1.0, 1.0]], [[0.0, 2.0]], [[64.0, 0.0]]]]
    assert normalise(batch.float(), (0.0,) * 3, (1.0,) * 3, torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("mode", sorted(FILTERS))
@pytest.mark.parametrize("tf32", [False, True])
def test_a_gpu_resizes_and_normalises_as_the_cpu_does(mode, tf32, monkeypatch):
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", tf32)
    for number, (height, width) in enumerate(((1024, 683), (224, 224), (60, 300), (480, 640))):
        image = planes(picture(480, 640, number, hard=number % 2 == 1))
        here, there = resize(image, height, width, mode), resize(image.cuda(), height, width, mode)
        assert there.is_cuda and torch.equal(there.cpu(), here)
        settings = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), torch.float32)
        off = normalise(there[None], *settings).cpu() - normalise(here[None], *settings)
        assert off.abs().max() < 1e-5
