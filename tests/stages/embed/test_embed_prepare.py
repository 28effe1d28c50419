"""Images are prepared as the checkpoint's own image processor prepares them."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from small_encoders import PROCESSORS, SIDE, noise, planes
from transformers import AutoImageProcessor, CLIPConfig, ResNetConfig, ViTConfig

from stages.embed.prepare import mirror, on_host
from stages.embed.sampling import resize_many

SIDES = ((48, 64), (300, 410), (200, 30), (16, 16), (3, 500), (640, 7), (1, 1), (SIDE, SIDE), (33, 48))
CONFIGS = {"clip": CLIPConfig, "vit": ViTConfig, "resnet": ResNetConfig}


def processor(folder, kind, backend="pil", **changes):
    CONFIGS[kind]().save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSORS[kind] | changes))
    return AutoImageProcessor.from_pretrained(folder, backend=backend)


def levels(preparation, ours, theirs):
    """Differences in grey levels."""
    return ((ours - theirs) * torch.tensor(preparation.std).view(-1, 1, 1)).abs()


def real_or_made(request) -> list[torch.Tensor]:
    images = [planes(noise(*sides)) for sides in SIDES]
    folder = request.config.rootpath.parent / "shared"
    if (folder / "data" / "coco").is_dir():
        from annotated_photos import photos

        images += [planes(photo.image) for photo in photos(folder, 3)]
    return images


@pytest.mark.parametrize("kind", sorted(PROCESSORS))
def test_pixels_are_those_of_the_processor(tmp_path, request, kind):
    official = processor(tmp_path, kind)
    preparation = mirror(official)
    images = real_or_made(request)
    expected = on_host(official, images)
    ours = preparation.values(preparation.pixels(images), torch.float32)
    assert ours.shape == (len(images), 3, SIDE, SIDE)
    assert levels(preparation, ours, expected).max() < 0.001, "the same grey levels"


@pytest.mark.parametrize("kind", sorted(PROCESSORS))
def test_processors_on_torchvision_differ_by_no_more_than_two_grey_levels(tmp_path, kind):
    official = processor(tmp_path, kind, backend="torchvision")
    preparation = mirror(official)
    images = [planes(noise(*sides)) for sides in ((48, 64), (300, 410), (410, 300), (20, 20))]
    differences = levels(
        preparation, preparation.values(preparation.pixels(images), torch.float32), on_host(official, images)
    )
    assert differences.max() < 2.01 and (differences > 0.5).float().mean() < 0.05


@pytest.mark.parametrize("kind", sorted(PROCESSORS))
def test_a_gpu_resizes_many_crops_at_once_to_the_same_pixels(tmp_path, request, kind):
    preparation = mirror(processor(tmp_path, kind))
    images = real_or_made(request)
    frames = [preparation.frame(*image.shape[1:]) for image in images]
    together = resize_many(images, frames, preparation.side, preparation.mode)
    assert torch.equal(together, preparation.pixels(images))
    alone = [resize_many([i], [f], preparation.side, preparation.mode)[0] for i, f in zip(images, frames, strict=True)]
    assert torch.equal(together, torch.stack(alone)), "whatever is beside it"


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_many_are_resized_as_pillow_resizes_each(mode):
    draw = np.random.default_rng(0)
    images, frames, expected = [], [], []
    for number in range(40):
        high, wide = (int(side) for side in draw.integers(1, 200, 2))
        frame = tuple(int(side) for side in draw.integers(20, 150, 2))
        image = noise(high, wide, number)
        resized = image.resize(frame[::-1], Image.Resampling[mode.upper()])
        top, left = (frame[0] - 20) // 2, (frame[1] - 20) // 2
        images.append(planes(image))
        frames.append(frame)
        expected.append(planes(resized.crop((left, top, left + 20, top + 20))))
    assert torch.equal(resize_many(images, frames, (20, 20), mode), torch.stack(expected))


def test_a_processor_that_has_no_equal_is_used_itself(tmp_path):
    lanczos = processor(tmp_path, "clip", resample=1)
    assert mirror(lanczos) is None
    assert on_host(lanczos, [planes(noise(40, 60)), planes(noise(60, 40))]).shape == (2, 3, SIDE, SIDE)


def test_a_processor_that_makes_no_batch_is_refused(tmp_path):
    with pytest.raises(ValueError, match="of one size"):
        mirror(processor(tmp_path, "clip", do_center_crop=False))


def test_normalisation_follows_the_settings(tmp_path):
    for changes in ({"do_rescale": False}, {"do_normalize": False}, {"rescale_factor": 1 / 127.5}):
        official = processor(tmp_path, "vit", **changes)
        preparation, images = mirror(official), [planes(noise(40, 60))]
        ours = preparation.values(preparation.pixels(images), torch.float32)
        torch.testing.assert_close(ours, on_host(official, images), atol=1e-4, rtol=1e-5)
