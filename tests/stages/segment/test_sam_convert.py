"""From an official checkpoint to a weights folder and back into a network; and what is no such checkpoint."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from segment_anything import sam_model_registry
from vision import SAM, sam_pth, small_sam

from pipeline.errors import InputError
from pipeline.files import sha256_file
from stages.segment.architecture import OFFICIAL, build, encoder_flop, of_config, of_state, to_config
from stages.segment.convert import convert
from stages.segment.network import Network


def test_the_folder_holds_every_tensor_under_its_official_name(pth, weights):
    official, ours = torch.load(pth, weights_only=True), load_file(weights / "model.safetensors")
    assert official.keys() == ours.keys()
    assert all(torch.equal(official[name], ours[name]) for name in official)
    config = json.loads((weights / "config.json").read_text())
    encoder = {name: SAM[name] for name in ("dim", "depth", "heads", "window")}
    assert config["encoder"] == encoder | {"global_attention": [1, 3]}
    assert {name: config[name] for name in ("image_side", "patch", "prompt_dim", "architecture")} == {
        "image_side": 128,
        "patch": 8,
        "prompt_dim": 32,
        "architecture": "small",
    }
    assert config["source_sha256"] == sha256_file(pth)


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_shapes_are_those_of_the_package(name):
    with torch.device("meta"):
        state = sam_model_registry[name]().state_dict()
    assert of_state(state, name) == OFFICIAL[name]
    ours = build(OFFICIAL[name]).state_dict()
    assert {key: value.shape for key, value in state.items()} == {key: value.shape for key, value in ours.items()}
    assert of_config(json.loads(json.dumps(to_config(OFFICIAL[name], name, ""))), Path()) == (OFFICIAL[name])


def test_operations_are_the_published_ones():
    tera = {name: encoder_flop(shape) / 1e12 for name, shape in OFFICIAL.items()}
    assert tera == {
        "vit_b": pytest.approx(0.97, abs=0.005),
        "vit_l": pytest.approx(2.99, abs=0.005),
        "vit_h": pytest.approx(5.96, abs=0.005),
    }


def test_operations_are_those_that_torch_counts():
    from torch.utils.flop_counter import FlopCounterMode

    sam = small_sam()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        sam.image_encoder(torch.zeros(1, 3, 128, 128))
    shape = of_state(sam.state_dict(), "")
    assert encoder_flop(shape) == counter.get_total_flops()


@pytest.mark.fault("F50")
def test_another_architecture_than_the_one_named_is_refused(pth, tmp_path):
    with pytest.raises(InputError, match=r"sam\.pth: is of another shape \(4 blocks of 64\), not of vit_h"):
        convert(pth, tmp_path / "x", "vit_h")
    assert not (tmp_path / "x").exists()


@pytest.mark.fault("F50")
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda s: s.pop("image_encoder.pos_embed"),
            "not an official checkpoint of segment-anything: it has no image_enc",
        ),
        (lambda s: s.pop("mask_decoder.iou_token.weight"), r"1 missing \(mask_decoder\.iou_token\.weight\)"),
        (lambda s: s.update(extra=torch.ones(1)), r"1 unexpected \(extra\)"),
        (lambda s: s.update({"mask_decoder.iou_token.weight": torch.ones(1, 7)}), "1 of another shape"),
        (lambda s: s["image_encoder.pos_embed"].fill_(float("nan")), "NaN or infinity in the weights"),
        (lambda s: (s.clear(), s.update({"vision_encoder.pos_embed": torch.ones(1)})), "layout of transformers"),
        (lambda s: s.update({"image_encoder.blocks.0.attn.rel_pos_h": torch.ones(3, 16)}), "windows of several sizes"),
    ],
)
def test_what_is_no_sam_is_refused(pth, tmp_path, change, says):
    state = torch.load(pth, weights_only=True)
    change(state)
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(InputError, match=says):
        convert(tmp_path / "odd.pth", tmp_path / "x", "small")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "sam2"}, "is of sam2, not of segment-anything"),
        ({"patch": 7}, "not a shape of segment-anything"),
        ({"prompt_dim": "32"}, "'32' is no count"),
        ({"encoder": {}}, "KeyError: 'global_attention'"),
        ({"encoder": {"dim": 64, "depth": 5, "heads": 4, "window": 6, "global_attention": [1, 3]}}, "missing"),
    ],
)
def test_a_config_that_does_not_fit_is_named(weights, tmp_path, change, says):
    config = json.loads((weights / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    (tmp_path / "model.safetensors").write_bytes((weights / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match=says):
        Network(tmp_path, torch.device("cpu"), torch.float32)


def test_a_folder_with_the_pth_alone_says_how_to_convert_it(tmp_path):
    sam_pth(tmp_path / "sam_vit_b_01ec64.pth")
    with pytest.raises(InputError, match=r"weights convert .*sam_vit_b_01ec64\.pth"):
        Network(tmp_path, torch.device("cpu"), torch.float32)
