"""The faster attentions give what transformers' own modules give."""

import copy

import pytest
import torch
from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection
from vision import GROUNDING_DINO

from stages.detect.attention import Attention, Fusion, Sampling, geometry

SHAPES = ((7, 9), (4, 5), (2, 3), (1, 2))
PLACES = sum(height * width for height, width in SHAPES)


@pytest.fixture(scope="module")
def model():
    """Every weight drawn, those that start at zero too."""
    torch.manual_seed(0)
    model = GroundingDinoForObjectDetection(GroundingDinoConfig.from_dict(GROUNDING_DINO)).eval()
    for name, value in model.named_parameters():
        value.data = torch.randn_like(value) * (0.3 if "offsets" in name else 0.1)
    return model.requires_grad_(False).model


def drawn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_close(one, other, relative=1e-5):
    assert one.shape == other.shape and other.abs().max() > 0.1
    assert (one - other).abs().max() <= relative * other.abs().max()


@pytest.mark.parametrize("tokens", [1, 9, 40])
def test_fusion_of_image_and_text(model, tokens):
    theirs = model.encoder.layers[0].fusion_layer.attn
    ours = Fusion(copy.deepcopy(theirs))
    image, text = drawn(3, PLACES, 256), drawn(3, tokens, 256, seed=2)
    padding = torch.zeros(3, tokens, dtype=torch.bool)
    padding[1, tokens // 2 + 1 :] = True
    unmasked = torch.zeros(3, PLACES, dtype=torch.bool)
    (vision, _), (words, _) = theirs(image, text, vision_attention_mask=unmasked, text_attention_mask=padding)
    made = ours(image, text, vision_attention_mask=unmasked, text_attention_mask=padding)
    assert_close(made[0][0], vision)
    assert_close(made[1][0], words)


@pytest.mark.parametrize("layer", ["encoder", "decoder"])
@pytest.mark.parametrize("outside", [False, True])
def test_sampling_between_pixels(model, layer, outside):
    """Reference points (encoder) and boxes (decoder); inside the image, and far out of it on every side."""
    if layer == "encoder":
        theirs, coordinates, count = model.encoder.layers[0].deformable_layer.self_attn, 2, PLACES
    else:
        theirs, coordinates, count = model.decoder.layers[1].encoder_attn, 4, 40
    ours = Sampling(copy.deepcopy(theirs))
    asked = drawn(2, count, 256) * (3 if outside else 0.1)
    points = torch.rand(2, count, 1, coordinates, generator=torch.Generator().manual_seed(3))
    if outside:
        points = points * 3 - 1
        # Exactly on pixels, on the border of the image, and where the frame ends.
        points[0, :6, 0, 0] = torch.tensor([0.0, 1.0, 1 + 0.5 / 9, 1 + 1 / 9, -0.5 / 9, 1e6])
        points[0, :6, 0, 1] = torch.tensor([1.0, 0.0, 1 + 0.5 / 7, 1 + 1 / 7, -1e6, 1e6])
    given = {
        "hidden_states": asked,
        "position_embeddings": drawn(2, count, 256, seed=4) * 0.1,
        "encoder_hidden_states": drawn(2, PLACES, 256, seed=5),
        "reference_points": points.expand(-1, -1, len(SHAPES), -1),
        "spatial_shapes_list": SHAPES,
    }
    right, _ = theirs(**given, spatial_shapes=torch.tensor(SHAPES))
    made, _ = ours(**given, spatial_shapes=geometry(SHAPES, ours.points, 2 * ours.heads, torch.device("cpu")))
    assert_close(made, right)


def test_attention_of_queries(model):
    theirs = model.decoder.layers[0].self_attn
    queries, keys = drawn(2, 5, 256), drawn(2, 9, 256, seed=2)
    added = torch.zeros(2, 1, 1, 9)
    added[1, ..., 4:] = torch.finfo(torch.float32).min
    for mask in (None, added):
        right = theirs(queries, keys, keys, attention_mask=mask)[0]
        assert_close(Attention(theirs)(queries, keys, keys, attention_mask=mask)[0], right)
