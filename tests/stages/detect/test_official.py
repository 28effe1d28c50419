"""The backend `groundingdino` is the original package, and the backend `transformers` gives what it gives."""

import json
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from PIL import Image
from small import environment, in_process, write_params
from transformers import BertConfig, GroundingDinoConfig
from vision import GROUNDING_DINO, grounding_dino_pth

from pipeline.errors import InputError, StageError
from pipeline.params import load
from pipeline.shards import read_all
from stages.common.checkpoints import load_strict, read_state
from stages.detect import official, official_fixes
from stages.detect.convert import convert
from stages.detect.loading import load as load_port
from stages.detect.names import to_official
from stages.detect.network import Network, Texts
from stages.detect.prompts import Prompt, write_prompts
from stages.detect.vocabulary import read_tokenizer

PHRASES = [["a red ball", "a cup"], ["the kite", "two big boxes", "dog", "an old bicycle"], ["cat"]]
CLOSE = 1e-4


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("dino")
    convert(grounding_dino_pth(root / "small.pth"), root / "weights", "small")
    return root / "weights"


def config_of(folder: Path) -> GroundingDinoConfig:
    return GroundingDinoConfig.from_dict(json.loads((folder / "config.json").read_text()))


@pytest.fixture(scope="module")
def package(weights) -> torch.nn.Module:
    return official.load(config_of(weights), read_tokenizer(weights), weights)


@pytest.fixture(scope="module")
def network(weights) -> Network:
    """The network of the backend `transformers`, of the same weights."""
    return Network(load_port(weights))


@pytest.fixture(scope="module")
def prompts(weights) -> list[Prompt]:
    tokenizer = read_tokenizer(weights)
    return [prompt_of(texts, tokenizer) for texts in PHRASES]


def prompt_of(texts: list[str], tokenizer) -> Prompt:
    rows = [{"id": text, "caption_id": "c", "text": text, "count": None} for text in texts]
    (prompt,), misses = write_prompts(rows, "per_image", tokenizer, 256, 3)
    assert not misses
    return prompt


def pixels(count: int, height: int = 160, width: int = 224, seed: int = 0) -> torch.Tensor:
    """Smooth random images, normalised: [count, 3, height, width]."""
    noise = torch.randn(count, 3, height // 10, width // 10, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(noise, (height, width), mode="bicubic")


def said_by_package(model, images, prompts, dtype=torch.float32):
    """Probabilities [B, Q, T] of the tokens of the longest prompt, and boxes [B, Q, 4]."""
    said = official.forward(model, images, [prompt.text for prompt in prompts], dtype)
    length = max(len(prompt.tokens) for prompt in prompts)
    assert not said["pred_logits"][..., length:].isfinite().any()
    return said["pred_logits"][..., :length].float().sigmoid(), said["pred_boxes"].float()


def said_by_network(network, images, prompts):
    texts = Texts(prompts, max(len(prompt.tokens) for prompt in prompts), torch.device("cpu"))
    logits, boxes = network.read(*network.look(images), texts)
    return logits.sigmoid(), boxes


def assert_close(one, other, tolerance=CLOSE):
    for a, b in zip(one, other, strict=True):
        assert a.shape == b.shape and torch.isfinite(a).all()
        assert (a - b).abs().max() <= tolerance, (a - b).abs().max()


# What the package is


@pytest.mark.parametrize(
    ("name", "swin"),
    [
        ("GroundingDINO_SwinT_OGC", {}),
        (
            "GroundingDINO_SwinB_cfg",
            {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32], "window_size": 12},
        ),
    ],
)
def test_a_config_of_transformers_builds_what_the_packages_own_config_builds(weights, name, swin):
    """Names and shapes of all tensors; two layers of six, and a small BERT, to be quick."""
    import groundingdino
    from groundingdino.util.slconfig import SLConfig

    given = SLConfig.fromfile(str(Path(groundingdino.__file__).parent / "config" / f"{name}.py"))
    given.enc_layers = given.dec_layers = 2
    text = BertConfig(hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    with official_fixes.building(read_tokenizer(weights), text) as module:
        own = module.build_groundingdino(given)
    shape = {"model_type": "swin", "image_size": 384 if swin else 224, "out_indices": [2, 3, 4]} | swin
    config = GroundingDinoConfig(backbone_config=shape, text_config=text.to_dict(), encoder_layers=2, decoder_layers=2)
    ours = official.build(config, read_tokenizer(weights), weights)
    shapes = [{name: tuple(value.shape) for name, value in model.state_dict().items()} for model in (own, ours)]
    assert shapes[0] == shapes[1] and len(shapes[0]) > 400


def test_the_package_is_left_as_it_was(package):
    from groundingdino.models.GroundingDINO import bertwarper, groundingdino
    from groundingdino.util import get_tokenlizer

    assert groundingdino.BertModelWarper is bertwarper.BertModelWarper
    assert groundingdino.get_tokenlizer is get_tokenlizer


def test_a_failed_build_leaves_it_as_it_was_too(weights):
    from groundingdino.models.GroundingDINO import bertwarper, groundingdino

    with pytest.raises(ZeroDivisionError), official_fixes.building(read_tokenizer(weights), BertConfig()):
        raise ZeroDivisionError
    assert groundingdino.BertModelWarper is bertwarper.BertModelWarper


def test_nothing_is_said_while_it_is_imported_built_and_run(weights):
    """In a process of its own, every warning switched on; the second image is NaN, which the package would print."""
    code = (
        "import json, sys, torch; from pathlib import Path; from transformers import GroundingDinoConfig; "
        "from stages.detect import official; from stages.detect.vocabulary import read_tokenizer; "
        "folder = Path(sys.argv[1]); "
        "config = GroundingDinoConfig.from_dict(json.loads((folder / 'config.json').read_text())); "
        "sys.stderr.write('MARK'); "
        "model = official.load(config, read_tokenizer(folder), folder); "
        "images = [torch.full((1, 3, 96, 96), value) for value in (0.0, torch.nan)]; "
        "said = [official.forward(model, images[0], ['a dog.'], torch.float32), "
        "official.forward(model, images[1], ['a dog.'], torch.bfloat16)]; "
        "assert [bool(each['pred_boxes'].isfinite().all()) for each in said] == [True, False]"
    )
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", code, str(weights)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and done.stderr.split("MARK")[1] == "", done.stdout + done.stderr


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"d_model": 128}, "d_model 256"),
        ({"encoder_attention_heads": 4}, "heads"),
        ({"decoder_ffn_dim": 512}, "wide"),
        ({"max_text_len": 128}, "max_text_len 256"),
        ({"backbone_config": {"model_type": "resnet"}}, "backbone model_type 'swin'"),
    ],
)
def test_a_model_the_package_has_not_is_refused(weights, change, says):
    config = GroundingDinoConfig.from_dict(GROUNDING_DINO | change)
    with pytest.raises(InputError, match=says):
        official.build(config, read_tokenizer(weights), weights / "config.json")


def test_every_tensor_must_be_there(weights, package):
    state = to_official(read_state(weights / "model.safetensors"))
    assert set(state) == set(package.state_dict())
    for key in ("bbox_embed.1.layers.0.weight", "backbone.0.norm3.bias", "bert.encoder.layer.0.output.dense.weight"):
        with pytest.raises(InputError, match="1 missing"):
            load_strict(package, {name: value for name, value in state.items() if name != key}, weights)


# Its way and ours


def test_as_the_packages_own_predict_does(package, weights):
    """A caption as a user would write it, through the package's own preprocessing of captions and its inference."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from groundingdino.util.inference import predict

    image = pixels(1)
    with official_fixes.quiet():
        boxes, best, _ = predict(package, image[0], " A cup. A red ball", 0.0, 0.9, device="cpu")
    tokenizer = read_tokenizer(weights)
    probability, ours = said_by_package(package, image, [prompt_of(["A cup", "a red ball"], tokenizer)])
    assert torch.equal(boxes, ours[0]) and torch.allclose(best, probability[0].max(1)[0], rtol=0, atol=1e-6)


def test_images_are_prepared_as_the_package_prepares_them(weights, tmp_path):
    """`load_image` of the package has 800 and 1333 in its code; so has the folder here."""
    from groundingdino.util.inference import load_image

    settings = json.loads((weights / "preprocessor_config.json").read_text())
    settings["size"] = {"shortest_edge": 800, "longest_edge": 1333}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    prepare = official.preparation(tmp_path)
    for width, height in ((640, 480), (427, 640), (300, 1200)):
        noise = torch.randint(256, (height // 4, width // 4, 3), dtype=torch.uint8)
        image = Image.fromarray(noise.numpy()).resize((width, height))
        image.save(tmp_path / "image.png")
        assert torch.equal(prepare(image), load_image(tmp_path / "image.png")[1])


# Parity


@pytest.mark.parametrize("which", range(len(PHRASES)))
def test_both_give_the_same_boxes_and_probabilities(package, network, prompts, which):
    for seed, (height, width) in enumerate(((160, 224), (230, 160), (161, 267))):
        image = pixels(1, height, width, seed)
        one = said_by_package(package, image, prompts[which : which + 1])
        assert_close(one, said_by_network(network, image, prompts[which : which + 1]))
        assert one[1].std(1).min() > 0.01 and one[0].std(1).max() > 0.01  # not all the same


def test_captions_that_differ_in_a_batch(package, network, prompts):
    images = pixels(3)
    together = said_by_package(package, images, prompts)
    for row, prompt in enumerate(prompts):
        probability, boxes = said_by_package(package, images[row : row + 1], [prompt])
        mine = together[0][row : row + 1, :, : len(prompt.tokens)], together[1][row : row + 1]
        assert_close((probability, boxes), mine, 1e-5)
    assert_close(together, said_by_network(network, images, prompts))


def test_without_the_repair_they_would_be_wrong(weights, package, prompts):
    """The package as it comes, with no more than a BERT that works."""
    bare = official.load(config_of(weights), read_tokenizer(weights), weights)
    for layer in bare.transformer.encoder.text_layers:
        layer._forward_pre_hooks.clear()
        layer._forward_pre_hooks_with_kwargs.clear()
    images = pixels(3)
    right, wrong = said_by_package(package, images, prompts), said_by_package(bare, images, prompts)
    assert (wrong[0] - right[0]).abs().max() > 1e-3
    # One caption for all rows comes out right without it.
    assert_close(
        said_by_package(bare, images, prompts[:1] * 3), said_by_package(package, images, prompts[:1] * 3), 1e-6
    )


def test_boxes_as_large_as_the_image(weights, prompts):
    """Their logits are beyond what the published code takes for one; transformers' own pass has other limits."""
    package = official.load(config_of(weights), read_tokenizer(weights), weights)
    port = load_port(weights)
    large = torch.tensor([0.0, 0.0, 9.0, 9.0])
    package.transformer.enc_out_bbox_embed.layers[-1].bias.data.copy_(large)
    port.model.encoder_output_bbox_embed.layers[-1].bias.data.copy_(large)
    image = pixels(1)
    right = said_by_package(package, image, prompts[:1])
    assert right[1][..., 2:].max() > 0.999
    with torch.inference_mode():
        as_it_comes = port.eval()(pixel_values=image, input_ids=torch.tensor([prompts[0].tokens]))
    assert (as_it_comes.pred_boxes - right[1]).abs().max() > 1e-3
    assert_close(right, said_by_network(Network(port), image, prompts[:1]))


@pytest.mark.parametrize(("dtype", "most"), [(torch.bfloat16, 0.03), (torch.float16, 0.004)])
def test_half_precision_moves_little(package, prompts, dtype, most):
    """What the encoder makes of image and text, on average. (Random weights let many queries change ranks after it.)"""
    seen = []
    handle = package.transformer.encoder.register_forward_hook(lambda module, given, made: seen.append(made))
    try:
        said = [said_by_package(package, pixels(3), prompts, kind) for kind in (torch.float32, dtype)]
    finally:
        handle.remove()
    for whole, half in zip(*seen, strict=True):
        moved = ((whole - half).abs().mean() / whole.abs().mean()).item()
        assert 0 < moved < most
    assert all(torch.isfinite(tensor).all() for tensor in said[1])


# Over photos


@pytest.fixture(scope="module")
def photos(shared, tmp_path_factory) -> Path:
    """A working folder in which six photos of COCO and their captions have been ingested, with phrases of the captions
    marked by a plain rule.
    """
    folder = tmp_path_factory.mktemp("photos")
    collection = folder / "collection"
    (collection / "images").mkdir(parents=True)
    told = json.loads((shared / "data/coco/annotations/captions_val2017_subset.json").read_text())
    names = {image["id"]: image["file_name"] for image in told["images"]}
    captions, marked = [], []
    for number in sorted(names)[:6]:
        name = Path(names[number]).name
        shutil.copyfile(shared / "data/coco/val2017" / name, collection / "images" / name)
        of_photo = [annotation for annotation in told["annotations"] if annotation["image_id"] == number]
        for annotation in of_photo[:2]:
            caption = " ".join(annotation["caption"].split())
            captions.append({"id": annotation["id"], "image_id": number, "caption": caption})
            marked.append(re.sub(r"(?i)\b(an?|the|two|some) \w+( \w+)?", r"[/EN#1/other \g<0>]", caption))
    kept = [{"id": number, "file_name": Path(names[number]).name} for number in sorted(names)[:6]]
    (collection / "captions.json").write_text(json.dumps({"images": kept, "annotations": captions}))
    (collection / "marked.txt").write_text("\n".join(marked) + "\n")
    (collection / "instances.json").write_text("{}")
    write_params(folder / "params.yaml", collection, ingest__shards=1)
    for stage in ("ingest", "parse"):
        in_process(stage, folder)
    return folder


def detector_of(folder: Path, weights: Path, **changes: object) -> official.OfficialDetector:
    write_detect(folder, weights, **changes)
    params = load(folder / "params.yaml")
    return official.OfficialDetector(params.detect, params.runtime, torch.device("cpu"))


def write_detect(folder: Path, weights: Path, **changes: object) -> None:
    changes = {"backend": "groundingdino", "path": str(weights), "box_threshold": 0.0, "top_k": 3} | changes
    write_params(folder / "params.yaml", folder / "collection", **{f"detect__{key}": v for key, v in changes.items()})


def tables_of(folder: Path):
    return read_all(folder / "data/small/ingest/images"), read_all(folder / "data/small/parse/phrases")


def found_by(detector, images, phrases) -> dict:
    found = list(detector.detect(images, phrases))
    assert len(found) == len(dict(found)) == phrases.num_rows
    return dict(found)


@pytest.mark.parametrize("prompting", ["per_image", "per_caption"])
def test_the_order_of_arrival_does_not_matter(photos, weights, prompting):
    detector = detector_of(photos, weights, prompting=prompting)
    images, phrases = tables_of(photos)
    first = found_by(detector, images, phrases)
    assert all(isinstance(boxes, list) and boxes for boxes in first.values()) and len(first) > 20
    order = torch.randperm(images.num_rows).tolist(), torch.randperm(phrases.num_rows).tolist()
    assert found_by(detector, images.take(order[0]), phrases.take(order[1])) == first


def test_a_phrase_of_low_score_and_an_image_that_is_damaged(photos, weights):
    detector = detector_of(photos, weights, box_threshold=0.99)
    images, phrases = tables_of(photos)
    damaged = images.column("id")[2].as_py()
    data = [b"\xff\xd8 no image" if i == 2 else value for i, value in enumerate(images.column("bytes").to_pylist())]
    images = images.set_column(images.column_names.index("bytes"), "bytes", pa.array(data, pa.binary()))
    found = found_by(detector, images, phrases)
    image_of = dict(zip(phrases.column("id").to_pylist(), phrases.column("image_id").to_pylist(), strict=True))
    assert {miss.reason for key, miss in found.items() if image_of[key] == damaged} == {"unreadable"}
    assert {miss.reason for key, miss in found.items() if image_of[key] != damaged} == {"no_box"}


def test_a_model_that_gives_nan_ends_the_shard(photos, weights, capfd):
    detector = detector_of(photos, weights)
    detector.model.transformer.decoder.norm.weight.data[3] = torch.nan
    images, phrases = tables_of(photos)
    with pytest.raises(StageError, match=f"image {images.column('id')[0]}: the detector gave NaN"):
        list(detector.detect(images, phrases))
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("prompting", ["per_image", "per_caption"])
def test_the_stage_finds_the_same_with_either_backend(photos, weights, prompting):
    rows = {}
    for backend in ("groundingdino", "transformers"):
        write_detect(photos, weights, backend=backend, prompting=prompting)
        in_process("detect", photos)
        rows[backend] = read_all(photos / "data/small/detect/boxes").sort_by("id").to_pylist()
    images, phrases = tables_of(photos)
    sides = {row["id"]: (row["width"], row["height"]) for row in images.select(["id", "width", "height"]).to_pylist()}
    assert len(rows["groundingdino"]) > 2 * phrases.num_rows
    assert [row["id"] for row in rows["groundingdino"]] == [row["id"] for row in rows["transformers"]]
    for one, other in zip(*rows.values(), strict=True):
        assert one["label"] == other["label"] and abs(one["score"] - other["score"]) <= CLOSE
        width, height = sides[one["image_id"]]
        for corner, side in (("x0", width), ("y0", height), ("x1", width), ("y1", height)):
            assert abs(one[corner] - other[corner]) <= 1e-3 * side
