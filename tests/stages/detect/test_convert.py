"""An official checkpoint becomes a folder that transformers itself reads; what does not fit is refused."""

import json
import shutil

import pytest
import torch
from PIL import Image
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor
from vision import grounding_dino_pth

from pipeline.errors import InputError
from stages.common.checkpoints import read_state
from stages.detect.convert import ARCHITECTURES, convert
from stages.detect.loading import load
from stages.detect.sides import Sides, read_sides
from stages.detect.vocabulary import read_tokenizer


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = grounding_dino_pth(tmp_path_factory.mktemp("source") / "small.pth")
    shape = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(shape | {"size": {"shortest_edge": 160, "longest_edge": 267}}))
    return path


@pytest.fixture(scope="module")
def folder(source, tmp_path_factory):
    place = tmp_path_factory.mktemp("converted") / "weights"
    convert(source, place, "small")
    return place


@pytest.fixture
def spoilt(source, tmp_path):
    """A copy of the source that a test may damage."""
    for file in source.parent.iterdir():
        shutil.copyfile(file, tmp_path / file.name)
    return tmp_path / source.name


def test_the_folder_is_one_that_transformers_reads(source, folder):
    model = AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()
    ours = load(folder)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), ours.state_dict().values(), strict=True))
    key = "backbone.0.layers.2.blocks.1.mlp.fc2.weight"
    swin = ours.model.backbone.conv_encoder.model.swin
    assert torch.equal(swin.encoder.layers[2].blocks[1].mlp.fc2.weight, read_state(source)[key])
    processor = AutoProcessor.from_pretrained(folder)
    given = processor(images=Image.new("RGB", (64, 48)), text=[["a dog", "two men"]], return_tensors="pt")
    assert given["pixel_values"].shape[2:] == (160, 213)
    assert given["input_ids"][0].tolist() == read_tokenizer(folder)("a dog. two men.")["input_ids"]
    with torch.inference_mode():
        assert torch.isfinite(model(**given).pred_boxes).all()


def test_the_same_checkpoint_makes_the_same_bytes(source, folder, tmp_path):
    convert(source, tmp_path / "again", "small")
    for file in folder.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_published_architectures_are_those_of_the_packages_configs():
    import groundingdino
    from groundingdino.util.slconfig import SLConfig

    from stages.detect.loading import parse_config

    for name, file in (("SwinT-OGC", "GroundingDINO_SwinT_OGC"), ("SwinB", "GroundingDINO_SwinB_cfg")):
        theirs = SLConfig.fromfile(f"{groundingdino.__path__[0]}/config/{file}.py")
        ours = parse_config({"model_type": "grounding-dino", **ARCHITECTURES[name]}, name)
        assert (ours.num_queries, ours.d_model, ours.max_text_len) == (
            theirs.num_queries,
            theirs.hidden_dim,
            theirs.max_text_len,
        )
        assert ours.encoder_layers == theirs.enc_layers and ours.decoder_layers == theirs.dec_layers
        assert ours.encoder_ffn_dim == ours.decoder_ffn_dim == theirs.dim_feedforward
        assert ours.backbone_config.image_size == int(theirs.backbone.split("_")[2])
        assert [index - 1 for index in ours.backbone_config.out_indices] == theirs.return_interm_indices
        assert ours.positional_embedding_temperature == theirs.pe_temperatureH == theirs.pe_temperatureW
        assert ours.text_config.hidden_size == 768 and ours.text_config.vocab_size == 30522


def broken(path, change):
    state = torch.load(path, weights_only=True)["model"]
    change(state)
    torch.save({"model": state}, path)


@pytest.mark.fault("F50")
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.pop("module.transformer.level_embed"), r"1 missing \(model.level_embed\)"),
        (lambda s: s.update({"module.mask_decoder.x": torch.zeros(1)}), "does not have: mask_decoder.x"),
        (lambda s: s["module.transformer.level_embed"].fill_(torch.nan), "NaN or infinity"),
        (lambda s: s.update({"module.transformer.level_embed": torch.zeros(5, 256)}), r"1 of another shape"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(spoilt, change, says):
    broken(spoilt, change)
    with pytest.raises(InputError, match=says) as error:
        convert(spoilt, spoilt.parent / "weights", "small")
    assert str(spoilt) in str(error.value) and "\n" not in str(error.value)
    assert not (spoilt.parent / "weights").exists()


@pytest.mark.fault("F50")
def test_a_checkpoint_of_another_architecture_is_refused(spoilt):
    with pytest.raises(InputError, match="not of this architecture: .* missing"):
        convert(spoilt, spoilt.parent / "weights", "SwinT-OGC")


def test_an_architecture_must_be_known(spoilt):
    spoilt.with_suffix(".json").write_text("{")
    with pytest.raises(InputError, match=r"small\.json: cannot be read"):
        convert(spoilt, spoilt.parent / "weights", "small")
    spoilt.with_suffix(".json").unlink()
    with pytest.raises(InputError, match="'small' is no architecture of Grounding DINO; it is one of SwinT-OGC, SwinB"):
        convert(spoilt, spoilt.parent / "weights", "small")


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ({"two_stage": False}, "two_stage False is not supported"),
        ({"num_feature_levels": "four"}, "cannot be used"),
        ({"model_type": "sam"}, "not of a Grounding DINO but of 'sam'"),
    ],
)
def test_a_config_that_cannot_be_built_is_refused(spoilt, shape, says):
    file = spoilt.with_suffix(".json")
    file.write_text(json.dumps(json.loads(file.read_text()) | shape))
    with pytest.raises(InputError, match=says) as error:
        convert(spoilt, spoilt.parent / "weights", "small")
    assert "\n" not in str(error.value)


def test_a_vocabulary_larger_than_the_model_is_refused(spoilt):
    with (spoilt.parent / "vocab.txt").open("a", encoding="utf-8") as handle:
        handle.write("onewordmore\n")
    with pytest.raises(InputError, match="30523 tokens, but the model knows 30522"):
        convert(spoilt, spoilt.parent / "weights", "small")


def test_a_folder_lost_a_tensor(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, tmp_path / "weights")
    file = tmp_path / "weights" / "model.safetensors"
    state = load_file(file)
    for name in ("model.level_embed", "bbox_embed.0.layers.1.bias"):
        save_file({key: value for key, value in state.items() if key != name}, file)
        with pytest.raises(InputError, match=r"missing \("):
            load(tmp_path / "weights")
    save_file(state | {"model.encoder.layers.9.fusion_layer.vision_param": torch.zeros(256)}, file)
    with pytest.raises(InputError, match="1 unexpected"):
        load(tmp_path / "weights")


def test_names_of_a_file_that_holds_every_copy_of_the_box_head(source, folder, tmp_path):
    """As older files do: the same head under every decoder layer."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, tmp_path / "weights")
    state = load_file(folder / "model.safetensors")
    copies = {
        key.replace("bbox_embed.0", f"{place}bbox_embed.{layer}"): value.clone()
        for key, value in state.items()
        if key.startswith("bbox_embed.0")
        for layer in (0, 1)
        for place in ("", "model.decoder.")
    }
    save_file(state | copies, tmp_path / "weights" / "model.safetensors")
    one, other = load(folder).state_dict(), load(tmp_path / "weights").state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)


SIDES = Sides(800, 1333, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


@pytest.mark.parametrize("height", [1, 16, 100, 333, 426, 427, 480, 500, 640, 799, 800, 801, 1333, 3000])
def test_images_are_scaled_as_the_original_code_scales_them(height):
    from groundingdino.datasets.transforms import resize

    for width in (height, height + 1, 2 * height + 1, 640, 480, 800, 1000, 7 * height):
        if max(height, width) <= 10 * min(height, width) and width >= 16:
            theirs, _ = resize(Image.new("L", (width, height)), None, 800, 1333)
            assert SIDES.scaled(height, width) == theirs.size[::-1]


@pytest.mark.parametrize(
    ("text", "says"),
    [("{", "JSONDecodeError"), ("[]", "cannot be read"), ('{"size": {"shortest_edge": 8}}', "KeyError")],
)
def test_image_sizes_that_cannot_be_read(tmp_path, text, says):
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(InputError, match=says):
        read_sides(tmp_path)
