"""Names of tensors: every one is known, both ways, and what is written twice is the same twice."""

import pytest
import torch
from vision import grounding_dino_pth

from pipeline.errors import InputError
from stages.common.checkpoints import read_state
from stages.detect.names import to_official, to_transformers

# What an official checkpoint may hold and no forward pass reads.
UNREAD = ("bert.pooler.dense.weight", "bert.pooler.dense.bias", "bert.embeddings.position_ids", "label_enc.weight")


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    return read_state(grounding_dino_pth(tmp_path_factory.mktemp("names") / "small.pth"))


def assert_same(one, other):
    assert set(one) == set(other)
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_there_and_back_again(official):
    state = official | {"label_enc.weight": torch.zeros(3, 256)}
    there = to_transformers(state)
    read = {key: value for key, value in state.items() if key not in UNREAD}
    assert len(read) == len(state) - 4
    assert_same(to_official(there), read)
    assert_same(to_transformers(to_official(there)), there)


def test_names_are_those_that_transformers_writes(official, tmp_path):
    """`save_pretrained` of a model with these weights makes the same file, but for a norm that nothing reads."""
    from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection
    from vision import GROUNDING_DINO

    made = to_transformers(official)
    config = GroundingDinoConfig.from_dict(GROUNDING_DINO)
    model = GroundingDinoForObjectDetection.from_pretrained(None, config=config, state_dict=dict(made))
    model.save_pretrained(tmp_path)
    written = read_state(tmp_path / "model.safetensors")
    extra = {f"model.backbone.conv_encoder.model.swin.layernorm.{kind}" for kind in ("weight", "bias")}
    assert_same(made, {key: value for key, value in written.items() if key not in extra})
    assert extra < set(written) and set(to_official(written)) == set(to_official(made))


def test_queries_keys_and_values_are_cut_in_that_order(official):
    made = to_transformers(official)
    fused = official["backbone.0.layers.2.blocks.1.attn.qkv.weight"]
    block = "model.backbone.conv_encoder.model.encoder.layers.2.blocks.1.attention.self"
    for number, part in enumerate(("query", "key", "value")):
        assert torch.equal(made[f"{block}.{part}.weight"], fused[128 * number : 128 * (number + 1)])
        in_decoder = official["transformer.decoder.layers.1.ca_text.in_proj_bias"][256 * number : 256 * (number + 1)]
        assert torch.equal(made[f"model.decoder.layers.1.encoder_attn_text.{part}.bias"], in_decoder)


def test_tables_of_indices_are_those_of_the_package(official):
    for key, value in to_official(to_transformers(official)).items():
        if key.endswith("relative_position_index"):
            assert value.dtype == torch.int64 and torch.equal(value, official[key])


def test_a_tensor_of_another_model_is_named(official):
    with pytest.raises(InputError, match=r"x\.pth: tensors that Grounding DINO does not have: image_encoder\.neck"):
        to_transformers(official | {"image_encoder.neck.0.weight": torch.zeros(1)}, "x.pth")
    there = to_transformers(official)
    with pytest.raises(InputError, match="does not have: a.b, model.decoder.layers.0.norm4.weight, z and 1 more"):
        to_official(there | dict.fromkeys(("z", "zz", "a.b", "model.decoder.layers.0.norm4.weight"), torch.zeros(1)))


def test_box_heads_must_be_one(official):
    key = "transformer.decoder.bbox_embed.1.layers.2.weight"
    with pytest.raises(InputError, match="differs between decoder layers"):
        to_transformers(official | {key: official[key] + 1})


def test_a_part_that_is_missing_is_named(official):
    there = to_transformers(official)
    del there["model.decoder.layers.0.self_attn.key.weight"]
    with pytest.raises(InputError, match=r"transformer\.decoder\.layers\.0\.self_attn\.in_proj_weight lacks its key"):
        to_official(there)
