"""The forward pass: what a prompt or an image sees must not depend on what else is in its batch."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection
from transformers.models.grounding_dino import modeling_grounding_dino
from vision import GROUNDING_DINO, grounding_dino_pth, vocabulary

from stages.common.checkpoints import read_state
from stages.detect.flop import look_flop, read_flop
from stages.detect.loading import fit
from stages.detect.names import to_transformers
from stages.detect.network import Network, Texts
from stages.detect.prompts import write_prompts
from stages.detect.vocabulary import MARKS, read_tokenizer

CPU = torch.device("cpu")
CONFIG = GroundingDinoConfig.from_dict(GROUNDING_DINO)


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    path = grounding_dino_pth(tmp_path_factory.mktemp("network") / "small.pth")
    return to_transformers(read_state(path))


def network_of(state, dtype=torch.float32):
    return Network(fit(CONFIG, state, "small.pth"), dtype)


@pytest.fixture(scope="module")
def network(state):
    return network_of(state)


@pytest.fixture(scope="module")
def prompts():
    tokenizer = read_tokenizer(vocabulary().parent)
    made = []
    for texts in (["a dog"], ["two men", "a very old bicycle", "grass"], ["x " * 30, "a hat"]):
        rows = [{"id": text, "caption_id": "c", "text": text, "count": None} for text in texts]
        made += write_prompts(rows, "per_image", tokenizer, 256, 3)[0]
    return made


def pixels(count, height=96, width=131):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def answers(network, images, prompts, length=None):
    """Probabilities [B, Q, T] and boxes [B, Q, 4]."""
    length = length or max(len(prompt.tokens) for prompt in prompts)
    logits, boxes = network.read(*network.look(images), Texts(prompts, length, CPU))
    return logits.sigmoid(), boxes


def assert_close(one, other, tolerance=1e-5):
    for a, b in zip(one, other, strict=True):
        assert a.shape == b.shape and torch.isfinite(a).all()
        assert (a - b).abs().max() <= tolerance


def test_texts_are_masked_as_transformers_masks_them(prompts):
    for length in (37, 64):
        texts = Texts(prompts, length, CPU)
        masks, positions = modeling_grounding_dino.generate_masks_with_special_tokens_and_transfer_map(
            texts.tokens, torch.tensor(list(MARKS.values()))
        )
        assert torch.equal(texts.blocks, masks) and torch.equal(texts.positions, positions)
        assert texts.padding.sum(1).tolist() == [length - len(prompt.tokens) for prompt in prompts]


def test_padding_of_texts_changes_nothing(network, prompts):
    for prompt in prompts:
        count = len(prompt.tokens)
        for length in (count + 1, 256):
            probabilities, boxes = answers(network, pixels(1), [prompt], length)
            assert not probabilities[..., count:].any()
            assert_close(answers(network, pixels(1), [prompt]), (probabilities[..., :count], boxes))


def test_rows_of_a_batch_do_not_see_each_other(network, prompts):
    images = pixels(3)
    together = answers(network, images, prompts)
    for row, prompt in enumerate(prompts):
        alone = answers(network, images[row : row + 1], [prompt])
        assert_close(alone, (together[0][row : row + 1, :, : len(prompt.tokens)], together[1][row : row + 1]))
    assert (together[1][0] - together[1][1]).abs().max() > 0.01


def test_an_image_looked_at_once_answers_any_prompt(network, prompts):
    images = pixels(2)
    states, shapes = network.look(images)
    for prompt in prompts:
        texts = Texts([prompt, prompt], len(prompt.tokens), CPU)
        logits, boxes = network.read(states, shapes, texts)
        assert_close((logits.sigmoid(), boxes), answers(network, images, [prompt, prompt]), 0.0)


def test_half_precision_is_kept_out_of_the_boxes(state, network, prompts, monkeypatch):
    """Image and text after their fusion move by little; queries and boxes are computed in fp32."""
    half = network_of(state, torch.bfloat16)
    seen, formats = [], set()
    fuse, match = Network._fuse, modeling_grounding_dino.encode_sinusoidal_position_embedding

    def watch(self, *given):
        seen.append(fuse(self, *given))
        return seen[-1]

    def sines(boxes, **named):
        formats.update({boxes.dtype, torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None})
        return match(boxes, **named)

    monkeypatch.setattr(Network, "_fuse", watch)
    monkeypatch.setattr("stages.detect.network.encode_sinusoidal_position_embedding", sines)
    for one in (network, half):
        logits, boxes = one.read(*one.look(pixels(3)), Texts(prompts, 40, CPU))
        assert logits.dtype == boxes.dtype == torch.float32 and torch.isfinite(boxes).all()
    assert formats == {torch.float32, None}
    for whole, rounded in zip(*seen, strict=True):
        moved = ((whole - rounded).abs().mean() / whole.abs().mean()).item()
        assert 0 < moved < 0.03


@pytest.mark.parametrize(("height", "width"), [(96, 131), (224, 160)])
def test_operations_are_counted(network, prompts, height, width):
    with FlopCounterMode(display=False) as looked:
        states, shapes = network.look(pixels(1, height, width))
    assert look_flop(CONFIG, height, width) == looked.get_total_flops()
    for prompt in prompts:
        texts = Texts([prompt], len(prompt.tokens), CPU)
        with FlopCounterMode(display=False) as read:
            network.read(states, shapes, texts)
        assert read_flop(CONFIG, shapes, len(prompt.tokens)) == read.get_total_flops()


def test_operations_of_the_published_architecture():
    """SwinT at 800 x 1066: 0.16 TFLOP for the image, 0.35 for a prompt of 43 tokens."""
    config = GroundingDinoConfig()
    shapes = ((100, 134), (50, 67), (25, 34), (13, 17))
    assert look_flop(config, 800, 1066) == pytest.approx(0.164e12, rel=0.01)
    assert read_flop(config, shapes, 43) == pytest.approx(0.353e12, rel=0.01)


def test_a_network_is_made_of_the_layers_that_are_compiled(network):
    kinds = [type(block).__name__ for block in network.blocks()]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "SwinLayer": 6,
        "BertLayer": 2,
        "GroundingDinoEncoderLayer": 2,
        "GroundingDinoDecoderLayer": 2,
    }


def test_weights_are_shared_with_the_model_they_came_from(state):
    model = fit(CONFIG, state, "small.pth")
    assert isinstance(model, GroundingDinoForObjectDetection)
    before = {value.data_ptr() for value in model.parameters()}
    held = {value.data_ptr() for value in Network(model).parameters()}
    # All but the two products per deformable attention that were put together.
    assert len(held - before) == 2 * 4
