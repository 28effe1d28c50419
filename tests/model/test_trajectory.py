"""Forty steps of the published MCSE loop on a tiny BERT without dropout, reproduced by the trainer's own step."""

from types import SimpleNamespace

import pytest
import torch
from transformers import BertConfig, BertModel

from model.batches import Batch, Tokens, plan
from model.data import TrainingData
from model.encoder import Encoder
from model.network import Network
from model.recipes import resolve
from model.trainer import build_optimizer, learning_rate, step

HEADS = {"lang_model.pooler.dense": "simcse", "grounding.dense": "grounding", "visn_model.mlp.dense": "visual"}
ENCODER = "lang_model.bert."


def our_name(reference: str) -> str:
    for prefix, head in HEADS.items():
        if reference.startswith(prefix):
            return f"heads.{head}.dense{reference.removeprefix(prefix)}"
    return f"encoder.model.{reference.removeprefix(ENCODER)}"


def build(settings, tensors, recipe, dtype):
    model = BertModel(BertConfig(**settings["bert_config"]))
    data = TrainingData(image_features=torch.zeros(1, settings["d_img"]).numpy())
    network = Network(Encoder(model, SimpleNamespace(), "cls"), recipe, data, seed=0)
    initial = {our_name(k.removeprefix("init/")): v for k, v in tensors.items() if k.startswith("init/")}
    network.load_state_dict(initial)
    return network.to(dtype).train(), {k: v.double() for k, v in initial.items()}


def batch(tensors, kind, number, dtype):
    tokens = Tokens(tensors[f"{kind}_input_ids"][number].long(), tensors[f"{kind}_attention_mask"][number].long())
    return Batch(kind, tokens, tensors["pair_img"][number].to(dtype) if kind == "pair" else None)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("case", ["mcse_same_views", "mcse_two_views"])
def test_forty_steps_equal_the_reference(golden, case, dtype):
    settings, expected, tensors = golden("trajectory")[case]
    total = settings["total_steps"]
    recipe = resolve(
        "mcse",
        {"lambda": settings["lambda_"], "tau": settings["tau"], "projection": settings["proj_dim"], "steps": total}
        | {"learning_rate": settings["lr"], "adam_eps": settings["eps"], "grad_clip": settings["clip_grad_norm"]},
    )
    network, initial = build(settings, tensors, recipe, dtype)
    optimizer = build_optimizer(network, recipe)
    size = settings["batch_size"]
    schedule = plan(settings["text_batches_per_pass"] * size, settings["pair_batches_per_pass"] * size, size)
    read = {"text": 0, "pair": 0}
    rows = []
    for number in range(total):
        kind = schedule.kind(number)
        assert kind == ("text", "pair")[tensors["step_kind"][number]]
        lr = learning_rate(number, total, recipe)
        rows.append(step(network, batch(tensors, kind, read[kind], dtype), recipe, optimizer, lr) | {"lr": lr})
        read[kind] += 1
    exact = dtype == torch.float64
    columns = {"loss": "loss", "intra": "text", "inter": "image", "lr": "lr", "grad_norm_before_clip": "grad_norm"}
    for reference, ours in columns.items() if exact else (("loss", "loss"),):
        wanted = tensors[f"torch_adamw_{'f64' if exact else 'f32'}/{reference}"].double()
        got = torch.tensor([row.get(ours, float("nan")) for row in rows], dtype=torch.float64)
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-8 if exact else 1e-4, equal_nan=True)
    compare_norms(network, initial, expected, exact)


def compare_norms(network, initial, expected, exact):
    checked = 0
    for key, wanted in expected.items():
        measure, _, name = key.partition("[torch_adamw]/")
        key_bias = name.endswith("key.bias")  # its true gradient is zero: the optimizer amplifies rounding noise
        if not name or (key_bias and (not exact or measure == "update_norm")):
            continue
        weight = network.state_dict()[our_name(name)].double()
        norm = (weight - initial[our_name(name)] if measure == "update_norm" else weight).norm().item()
        assert norm == pytest.approx(wanted, rel=1e-8 if exact else 1e-3, abs=1e-12), key
        checked += 1
    assert checked > 60
