"""Attention with relative positions, three ways, and the encoder's windows: the published numbers."""

import pytest
import torch
from segment_anything.modeling.image_encoder import Attention as OfficialAttention
from vision import SAM, small_sam

from stages.segment import attention
from stages.segment.attention import Attention, blocked, fastest, folded, masked
from stages.segment.encoder import Encoder, windows

CPU = torch.device("cpu")
WAYS = (masked, folded, blocked)


def layer(side: int, heads: int, width: int) -> OfficialAttention:
    torch.manual_seed(side)
    made = OfficialAttention(heads * width, heads, use_rel_pos=True, input_size=(side, side))
    for table in (made.rel_pos_h, made.rel_pos_w):
        torch.nn.init.normal_(table)
    return made.requires_grad_(False)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("side", "heads", "width"), [(1, 1, 8), (6, 4, 16), (14, 2, 64), (7, 3, 20), (33, 1, 16)])
def test_every_way_gives_the_published_numbers(way, side, heads, width):
    official = layer(side, heads, width)
    x = torch.randn(3, side, side, heads * width)
    ours = Attention(official, way)
    with torch.inference_mode():
        expected = official(x).flatten(1, 2)
        seen = official.proj(ours(official.qkv(x).flatten(1, 2)))
    assert expected.std() > 0.1
    torch.testing.assert_close(seen, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_stays_close_in_bf16(way):
    official = layer(8, 2, 32)
    x = torch.randn(2, 64, 64)
    with torch.inference_mode():
        exact = Attention(official, masked)(official.qkv(x))
        rough = Attention(official, way).bfloat16()(official.bfloat16().qkv(x.bfloat16()))
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).pow(2).mean().sqrt() < 0.02 * exact.std()


def test_blocks_that_do_not_divide_the_queries_are_whole(monkeypatch):
    official = layer(9, 2, 8)
    qkv = torch.randn(2, 81, 48)
    with torch.inference_mode():
        whole = Attention(official, masked)(qkv)
        for size in (1, 9, 30, 45, 1000):
            monkeypatch.setattr(attention, "_BLOCK", size)
            torch.testing.assert_close(Attention(official, blocked)(qkv), whole, atol=1e-5, rtol=1e-5)


def test_the_way_follows_from_the_device_and_the_length():
    assert fastest(torch.device("cuda"), 196, False) is folded and fastest(torch.device("cuda"), 4096, True) is folded
    assert fastest(CPU, 4096, False) is blocked and fastest(CPU, 196, False) is masked
    assert fastest(CPU, 4096, True) is masked and fastest(torch.device("mps"), 4096, False) is masked


@pytest.mark.parametrize(("grid", "side"), [(6, 3), (7, 3), (16, 6), (5, 9)])
def test_windows_hold_every_token_once(grid, side):
    into, filler, back = windows(grid, side)
    assert len(into) == (-(-grid // side) * side) ** 2 and len(filler) == len(into) - grid**2
    assert into[back].tolist() == list(range(grid**2))
    assert not set(filler.tolist()) & set(back.tolist())
    first = into[: side**2][~torch.isin(torch.arange(side**2), filler)]
    assert first.tolist() == [y * grid + x for y in range(min(side, grid)) for x in range(min(side, grid))]


@pytest.mark.parametrize("way", [None, *WAYS])
@pytest.mark.parametrize(
    "changes",
    [{}, {"window": 8}, {"global_attention": (0, 1, 2, 3), "window": 0}, {"global_attention": (), "window": 5}],
    ids=["windows filled up", "windows that fit", "global only", "windows only"],
)
def test_the_encoder_gives_the_published_embedding(way, changes):
    official = small_sam(**changes).image_encoder
    pixels = torch.randn(3, 3, SAM["image_side"], SAM["image_side"])
    with torch.inference_mode():
        expected = official(pixels)
        together = Encoder(official, CPU, False, way)(pixels)
        alone = torch.cat([Encoder(official, CPU, False, way)(one[None]) for one in pixels])
    torch.testing.assert_close(together, expected, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_encoder_on_a_gpu_agrees_with_the_cpu(dtype):
    official = small_sam().image_encoder
    pixels = torch.randn(2, 3, SAM["image_side"], SAM["image_side"])
    with torch.inference_mode():
        expected = official(pixels)
        encoder = Encoder(official, torch.device("cuda"), False).cast(dtype).to("cuda")
        seen = encoder(pixels.to("cuda", dtype)).cpu()
    error = (seen - expected).pow(2).mean().sqrt() / expected.std()
    assert error < (0.003 if dtype == torch.float32 else 0.03)
