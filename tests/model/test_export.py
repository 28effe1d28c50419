import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

from model.encoder import load_encoder
from model.errors import ModelError
from model.export import export
from model.recipes import resolve
from model.trainer import train

TEXTS = ["a red dog", "the cat near a blue boat", "", "a small bird sees the old tree", "boat " * 100]
POOLINGS = pytest.mark.parametrize("pooling", ["cls", "mean", "cls_mlp"])


@pytest.fixture
def trained(tiny, data, tmp_path):
    def run(pooling):
        recipe = resolve("mcse", {"steps": 5, "batch_size": 8, "learning_rate": 1e-3})
        encoder = load_encoder(tiny, pooling=pooling)
        return recipe, train(encoder, data, recipe, seed=0, work_dir=tmp_path / "work")

    return run


@POOLINGS
def test_all_readers_embed_identically(trained, tmp_path, pooling):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    recipe, run = trained(pooling)
    wanted = run.encoder.encode(TEXTS)
    folder = export(tmp_path / "m", run.encoder, recipe, 0, heads=run.heads)
    ours = load_encoder(folder)
    assert ours.pooling == pooling
    np.testing.assert_allclose(ours.encode(TEXTS), wanted, atol=1e-6)
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    np.testing.assert_allclose(theirs.encode(TEXTS), wanted, atol=1e-6)
    np.testing.assert_allclose(auto_model(folder, pooling), wanted, atol=1e-6)


@POOLINGS
def test_auto_model_gives_the_same_token_states(trained, tmp_path, pooling):
    recipe, run = trained(pooling)
    states, tokens = token_states(export(tmp_path / "m", run.encoder, recipe, 0))
    with torch.inference_mode():
        own = run.encoder.model(tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state
    torch.testing.assert_close(states, own, atol=1e-6, rtol=0)


@POOLINGS
def test_a_folder_that_normalises(trained, tmp_path, pooling):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    recipe, run = trained(pooling)
    folder = export(tmp_path / "m", run.encoder, recipe, 0, normalize=True)
    wanted = run.encoder.encode(TEXTS, normalize=True)
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(theirs, wanted, atol=1e-6)
    reloaded = load_encoder(folder)
    assert reloaded.pooling == pooling
    np.testing.assert_allclose(reloaded.encode(TEXTS, normalize=True), wanted, atol=1e-6)
    assert "vectors of length 1" in (folder / "README.md").read_text()


def token_states(folder):
    model, report = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), "AutoModel finds every weight and no other"
    tokens = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        return model.eval()(**tokens).last_hidden_state, tokens


def auto_model(folder, pooling):
    states, tokens = token_states(folder)
    if pooling == "mean":
        mask = tokens["attention_mask"][..., None]
        return ((states * mask).sum(1) / mask.sum(1)).numpy()
    if pooling == "cls":
        return states[:, 0].numpy()
    dense = load_file(folder / "2_Dense" / "model.safetensors")
    return torch.tanh(states[:, 0] @ dense["linear.weight"].T + dense["linear.bias"]).numpy()


def contents(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def test_equal_content_gives_equal_bytes_and_no_paths(trained, tmp_path):
    recipe, run = trained("cls")
    extra = {"heads": run.heads, "metrics": {"STS-B dev": 0.5}, "data_hashes": {"captions": "abc"}}
    one = contents(export(tmp_path / "a" / "m", run.encoder, recipe, 0, **extra))
    run.encoder.encode(TEXTS, max_length=7)  # the tokenizer remembers its last truncation, the folder must not
    two = contents(export(tmp_path / "b" / "m", run.encoder, recipe, 0, **extra))
    assert one == two
    assert not [name for name, data in one.items() if str(tmp_path).encode() in data or b"/tiny" in data]
    reloaded = load_encoder(tmp_path / "a" / "m")
    three = contents(export(tmp_path / "c" / "m", reloaded, recipe, 0, **extra))
    assert three == two


def test_what_the_folder_says(trained, tmp_path):
    recipe, run = trained("cls")
    hashes, metrics = {"captions": "sha256:12"}, {"STS-B dev": 12.34}
    folder = export(
        tmp_path / "m", run.encoder, recipe, 3, heads=run.heads, data_hashes=hashes, metrics=metrics, random_vision=True
    )
    record = json.loads((folder / "recipe.json").read_text())
    assert record["recipe"] == json.loads(json.dumps(recipe.to_dict()))
    assert (record["seed"], record["pooling"], record["data"], record["metrics"]) == (3, "cls", hashes, metrics)
    card = (folder / "README.md").read_text()
    for part in (
        "random weights",
        "`mcse`, seed 3",
        "| image | 0.01 | 0.05 | pair |",
        "bert, 2 layers, 32 dimensions",
        "sha256:12",
        "12.34",
        "pooling `cls`",
        "| steps | 5 |",
    ):
        assert part in card, part
    heads = load_file(folder / "heads.safetensors")
    assert torch.equal(heads["visual.dense.weight"], run.heads["visual"].dense.weight)
    plain = export(tmp_path / "n", run.encoder, resolve("untrained"), 0)
    assert "random weights" not in (plain / "README.md").read_text() and not (plain / "heads.safetensors").exists()
    assert json.loads((plain / "tokenizer.json").read_text())["truncation"] is None


def test_a_second_encoder_among_the_heads_stays_behind(trained, tmp_path):
    recipe, run = trained("cls")
    heads = torch.nn.ModuleDict({**run.heads, "discriminator": torch.nn.Linear(2, 2)})
    kept = load_file(export(tmp_path / "m", run.encoder, recipe, 0, heads=heads) / "heads.safetensors")
    assert {name.split(".")[0] for name in kept} == set(run.heads)


def test_the_card_says_what_a_term_is_set_to(encoder, tmp_path):
    notes = {"notes": ["one | two", "three"], "steps": 1.5}
    folder = export(tmp_path / "m", encoder, resolve("kdmcse", {"margin": 0.125}), 0, metrics=notes)
    card = (folder / "README.md").read_text()
    for part in ("margin 0.125", "threshold 0.9", "| needs | images; caption_text |", "| notes | one \\| two; three |"):
        assert part in card, part


def test_a_folder_is_replaced_whole_or_not_at_all(trained, tmp_path, monkeypatch):
    recipe, run = trained("cls")
    export(tmp_path / "m", run.encoder, recipe, 0)
    before = contents(tmp_path / "m")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("model.export._card", fail)
    with pytest.raises(OSError, match="disk full"):
        export(tmp_path / "m", run.encoder, recipe, 1)
    assert contents(tmp_path / "m") == before
    monkeypatch.undo()
    export(tmp_path / "m", run.encoder, recipe, 1)
    assert contents(tmp_path / "m") != before
    assert [p.name for p in tmp_path.iterdir() if p.name != "work"] == ["m"]


def test_nothing_but_a_model_is_replaced(trained, tmp_path):
    recipe, run = trained("cls")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    (tmp_path / "file").write_text("x")
    for name in ("mine", "file"):
        with pytest.raises(ModelError, match="in the way"):
            export(tmp_path / name, run.encoder, recipe, 0)
    assert (tmp_path / "mine" / "thesis.txt").exists()
    (tmp_path / "empty").mkdir()
    assert (export(tmp_path / "empty", run.encoder, recipe, 0) / "config.json").exists()


def test_a_pooler_missing_at_the_start_is_not_invented(tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "bare")
    weights = {k: v for k, v in load_file(folder / "model.safetensors").items() if not k.startswith("pooler")}
    from safetensors.torch import save_file

    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    out = export(tmp_path / "m", load_encoder(folder, pooling="cls"), resolve("untrained"), 0)
    assert not [k for k in load_file(out / "model.safetensors") if k.startswith("pooler")]
