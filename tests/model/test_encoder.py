import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from model.encoder import load_encoder, stored_pooling
from model.errors import ModelError

TEXTS = ["a red dog", "the cat", "a small old horse near the blue boat", "a red dog", "", "boat " * 100]


def states(folder, encoder, text):
    tokens = encoder.tokenizer(text, return_tensors="pt", truncation=True, max_length=48)
    with torch.inference_mode():
        return AutoModel.from_pretrained(folder).eval()(**tokens).last_hidden_state[0].numpy()


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_encode_is_the_pooled_last_layer(tiny, pooling):
    encoder = load_encoder(tiny, pooling=pooling)
    vectors = encoder.encode(TEXTS, batch_rows=4)
    assert vectors.shape == (6, 32) and vectors.dtype == np.float32
    for text, vector in zip(TEXTS, vectors, strict=True):
        token_states = states(tiny, encoder, text)
        wanted = token_states[0] if pooling == "cls" else token_states.mean(0)
        np.testing.assert_allclose(vector, wanted, atol=1e-5)


def test_first_last_is_for_scoring_alone(tiny, data, tmp_path):
    from model.export import export
    from model.recipes import resolve
    from model.trainer import train

    encoder = load_encoder(tiny, pooling="first_last")
    for text, vector in zip(TEXTS, encoder.encode(TEXTS), strict=True):
        tokens = encoder.tokenizer(text, return_tensors="pt", truncation=True, max_length=48)
        with torch.inference_mode():
            layers = AutoModel.from_pretrained(tiny).eval()(**tokens, output_hidden_states=True).hidden_states
        np.testing.assert_allclose(vector, ((layers[1] + layers[-1]) / 2)[0].mean(0).numpy(), atol=1e-5)
    with pytest.raises(ModelError, match="first_last is for evaluation"):
        train(encoder, data, resolve("simcse", {"batch_size": 4}), seed=0, work_dir=tmp_path)
    with pytest.raises(ModelError, match="first_last is for evaluation"):
        export(tmp_path / "x", encoder, resolve("simcse"), 0)


def test_cls_mlp_is_tanh_of_a_seeded_layer(tiny):
    encoder = load_encoder(tiny, pooling="cls_mlp", seed=3)
    weight, bias = encoder.mlp.dense.weight.detach().numpy(), encoder.mlp.dense.bias.detach().numpy()
    wanted = np.tanh(load_encoder(tiny, pooling="cls").encode(TEXTS) @ weight.T + bias)
    np.testing.assert_allclose(encoder.encode(TEXTS), wanted, atol=1e-5)
    assert (load_encoder(tiny, pooling="cls_mlp", seed=3).mlp.dense.weight.detach().numpy() == weight).all()
    assert (load_encoder(tiny, pooling="cls_mlp", seed=4).mlp.dense.weight.detach().numpy() != weight).any()


def test_encode_does_not_depend_on_batches_order_or_mode(encoder):
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(["red", "dog", "a", "boat", "sees"], rng.integers(1, 30))) for _ in range(80)]
    one = encoder.encode(texts, batch_rows=1)
    for rows in (7, 64, 1000):
        np.testing.assert_allclose(encoder.encode(texts, batch_rows=rows), one, atol=1e-5)
    np.testing.assert_allclose(encoder.encode(texts[::-1])[::-1], one, atol=1e-5)
    encoder.train()
    np.testing.assert_allclose(encoder.encode(texts), one, atol=1e-5)
    assert encoder.training and encoder.model.training


def test_encode_encodes_each_text_once(encoder, monkeypatch):
    seen = []
    monkeypatch.setattr(encoder, "_encode_unique", lambda texts, *_: seen.append(texts) or torch.eye(len(texts)))
    assert encoder.encode(["b", "a", "b", "c", "a"]).argmax(1).tolist() == [0, 1, 0, 2, 1] and seen == [["b", "a", "c"]]


def test_encode_options(encoder):
    assert encoder.encode([]).shape == (0, 32)
    assert np.linalg.norm(encoder.encode(TEXTS, normalize=True), axis=1) == pytest.approx(1, abs=1e-6)
    assert [len(i) for i in encoder.token_ids(TEXTS)] == [5, 4, 10, 5, 2, 48], "cut where the positions end"
    short = encoder.encode(["a red dog sees the cat", "a red cat"], max_length=4)  # [CLS] a red [SEP]
    np.testing.assert_allclose(short[0], short[1], atol=1e-6)
    with pytest.raises(ModelError, match="batch_rows"):
        encoder.encode(TEXTS, batch_rows=0)


def test_positions_of_roberta_like_models_start_after_padding(tiny):
    from transformers import RobertaConfig, RobertaModel

    encoder = load_encoder(tiny, pooling="cls")
    encoder.tokenizer.model_max_length = 10**30
    assert encoder.max_positions == 48
    config = RobertaConfig(vocab_size=80, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    encoder.model = RobertaModel(
        config.__class__(**config.to_dict() | {"max_position_embeddings": 20, "pad_token_id": 1})
    )
    assert encoder.max_positions == 18
    assert np.isfinite(encoder.encode(["a red dog " * 30])).all()


def test_scratch_is_seeded_and_needs_no_weights(tiny, tmp_path):
    folder = copy(tiny, tmp_path)
    (folder / "model.safetensors").unlink()
    one, same, other = (load_encoder(folder, "scratch", seed=s, pooling="mean") for s in (1, 1, 2))
    weights = [e.model.embeddings.word_embeddings.weight for e in (one, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    with pytest.raises(ModelError, match=r"no model\.safetensors.*scratch"):
        load_encoder(folder, pooling="cls")


def test_loading_leaves_the_random_state_alone(tiny):
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    load_encoder(tiny, "scratch", seed=9, pooling="cls_mlp")
    assert torch.equal(torch.rand(3), wanted)


def copy(tiny, tmp_path):
    return shutil.copytree(tiny, tmp_path / "copy")


def rewrite(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_weights_that_no_embedding_uses_may_be_there_or_not(tiny, tmp_path):
    folder = copy(tiny, tmp_path)
    wanted = load_encoder(folder, pooling="cls").encode(TEXTS)

    def change(weights):
        weights["cls.predictions.bias"] = torch.zeros(4)
        weights["embeddings.position_ids"] = torch.arange(48)[None]
        del weights["pooler.dense.weight"], weights["pooler.dense.bias"]

    rewrite(folder, change)
    encoder = load_encoder(folder, pooling="cls")
    assert (encoder.encode(TEXTS) == wanted).all() and encoder.model.pooler is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda w: w.pop("encoder.layer.1.output.dense.weight"), "1 missing keys .*encoder.layer.1.output.dense"),
        (lambda w: w.update({"encoder.layer.2.output.dense.bias": torch.zeros(32)}), "1 unexpected keys .*layer.2"),
        (lambda w: w.update({"embeddings.LayerNorm.bias": torch.zeros(31)}), "1 mismatched keys .*LayerNorm.bias"),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_weights_that_do_not_belong_are_an_error(tiny, tmp_path, change, says):
    folder = copy(tiny, tmp_path)
    rewrite(folder, change)
    with pytest.raises(ModelError, match=says) as raised:
        load_encoder(folder, pooling="cls")
    assert raised.value.code == 3 and "\n" not in str(raised.value)


def broken(folder, what):
    if what == "folder":
        shutil.rmtree(folder)
    elif what == "weights":
        data = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    elif what == "config":
        (folder / "config.json").write_text("{")
    elif what == "model type":
        (folder / "config.json").write_text('{"model_type": "nonsense"}')
    elif what == "tokenizer":
        (folder / "tokenizer.json").write_text("[]")
    elif what == "vocabulary":
        config = json.loads((folder / "config.json").read_text()) | {"vocab_size": 50}
        (folder / "config.json").write_text(json.dumps(config))
        rewrite(
            folder,
            lambda w: w.update(
                {"embeddings.word_embeddings.weight": w["embeddings.word_embeddings.weight"][:50].clone()}
            ),
        )


@pytest.mark.parametrize("what", ["folder", "weights", "config", "model type", "tokenizer", "vocabulary"])
def test_a_broken_folder_is_one_clear_line(tiny, tmp_path, what):
    folder = copy(tiny, tmp_path)
    broken(folder, what)
    with pytest.raises(ModelError, match=str(folder)) as raised:
        load_encoder(folder, pooling="cls")
    assert raised.value.code == 3 and "\n" not in str(raised.value)


def test_pooling_is_stored_and_not_changed_in_silence(tiny, tmp_path):
    folder = copy(tiny, tmp_path)
    assert stored_pooling(folder) is None
    with pytest.raises(ModelError, match="stores no pooling"):
        load_encoder(folder)
    with pytest.raises(ModelError, match="choose one of cls, cls_mlp, mean"):
        load_encoder(folder, pooling="max")
    with pytest.raises(ModelError, match="choose one of pretrained, scratch"):
        load_encoder(folder, "random", pooling="cls")
    for config in ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, {"pooling_mode": "mean"}):
        store(folder, config)
        assert load_encoder(folder).pooling == load_encoder(folder, pooling="mean").pooling == "mean"
        with pytest.raises(ModelError, match="made with pooling 'mean' but 'cls'"):
            load_encoder(folder, pooling="cls")
        assert load_encoder(folder, pooling="cls", repool=True).pooling == "cls"
    for config in ({"pooling_mode": "max"}, {"pooling_mode": ["cls", "mean"]}):
        store(folder, config)
        with pytest.raises(ModelError, match="is not supported"):
            load_encoder(folder)


def store(folder, config):
    modules = [{"type": "sentence_transformers.models.Transformer", "path": ""}]
    modules.append({"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"})
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
