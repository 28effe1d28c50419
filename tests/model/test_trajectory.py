"""Forty steps of the published MCSE and KDMCSE loops on a tiny BERT without dropout, by the trainer's own step."""

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
HEADS |= {"visn_model.vmlp.dense": "visual", "visn_model.tmlp.dense": "caption"}
ENCODER = "lang_model.bert."


def our_name(reference: str) -> str:
    for prefix, head in HEADS.items():
        if reference.startswith(prefix):
            return f"heads.{head}.dense{reference.removeprefix(prefix)}"
    return f"encoder.model.{reference.removeprefix(ENCODER)}"


def build(settings, tensors, recipe, dtype):
    model = BertModel(BertConfig(**settings["bert_config"]))
    frozen = torch.zeros(1, settings["d_img"]).numpy()
    data = TrainingData(image_features=frozen, caption_text=frozen)
    network = Network(Encoder(model, SimpleNamespace(), "cls"), recipe, data, seed=0)
    initial = {our_name(k.removeprefix("init/")): v for k, v in tensors.items() if k.startswith("init/")}
    network.load_state_dict(initial)
    return network.to(dtype).train(), {k: v.double() for k, v in initial.items()}


def batch(tensors, kind, number, dtype):
    tokens = Tokens(tensors[f"{kind}_input_ids"][number].long(), tensors[f"{kind}_attention_mask"][number].long())
    if kind == "text":
        return Batch(kind, tokens)
    caption = tensors["pair_clip_text_feat"][number].to(dtype) if "pair_clip_text_feat" in tensors else None
    return Batch(kind, tokens, tensors["pair_img"][number].to(dtype), caption_text=caption)


def recipe_of(case, settings, optimizer):
    overrides = {
        "lambda": settings["lambda_"],
        "tau": settings["tau"],
        "projection": settings["proj_dim"],
        "steps": settings["total_steps"],
        "learning_rate": settings["lr"],
        "adam_eps": settings["eps"],
        "grad_clip": settings["clip_grad_norm"],
        "optimizer": optimizer,
    }
    if not case.startswith("kdmcse"):
        return resolve("mcse", overrides)
    margins = {"margin": settings["margin_intra"], "margin_teacher": settings["margin_adaptive"]}
    return resolve("kdmcse-code", overrides | margins | {"threshold": settings["threshold"]})


@pytest.mark.parametrize(
    ("optimizer", "dtype"),
    [("torch_adamw", torch.float64), ("torch_adamw", torch.float32), ("early_eps_adamw", torch.float64)],
    ids=lambda value: str(value).removeprefix("torch."),
)
@pytest.mark.parametrize("case", ["mcse_same_views", "mcse_two_views", "kdmcse_two_views"])
def test_forty_steps_equal_the_reference(golden, case, optimizer, dtype):
    settings, expected, tensors = golden("trajectory")[case]
    total, exact = settings["total_steps"], dtype == torch.float64
    recipe = recipe_of(case, settings, {"torch_adamw": "adamw", "early_eps_adamw": "adamw_early_eps"}[optimizer])
    network, initial = build(settings, tensors, recipe, dtype)
    built = build_optimizer(network, recipe)
    size = settings["batch_size"]
    schedule = plan(settings["text_batches_per_pass"] * size, settings["pair_batches_per_pass"] * size, size)
    read = {"text": 0, "pair": 0}
    rows = []
    for number in range(total):
        kind = schedule.kind(number)
        assert kind == ("text", "pair")[tensors["step_kind"][number]]
        lr = learning_rate(number, total, recipe)
        rows.append(step(network, batch(tensors, kind, read[kind], dtype), recipe, built, lr) | {"lr": lr})
        read[kind] += 1
    for row in rows:  # the reference sums what its teachers' two targets give
        row["inter"] = row.get("image", float("nan")) + row.get("caption", 0.0)
    prefix = f"{optimizer}_{'f64' if exact else 'f32'}"
    columns = {"loss": "loss", "intra": "text", "inter": "inter", "lr": "lr", "grad_norm_before_clip": "grad_norm"}
    compared = 0
    for reference, ours in columns.items() if exact else (("loss", "loss"),):
        if f"{prefix}/{reference}" not in tensors:
            continue
        wanted = tensors[f"{prefix}/{reference}"].double()
        got = torch.tensor([row[ours] for row in rows], dtype=torch.float64)
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-8 if exact else 1e-4, equal_nan=True)
        compared += 1
    assert compared
    compare_norms(network, initial, expected, exact, optimizer)


def compare_norms(network, initial, expected, exact, optimizer):
    checked = 0
    for key, wanted in expected.items():
        measure, _, name = key.partition(f"[{optimizer}]/")
        key_bias = name.endswith("key.bias")  # its true gradient is zero: the optimizer amplifies rounding noise
        if not name or (key_bias and (not exact or measure == "update_norm")):
            continue
        weight = network.state_dict()[our_name(name)].double()
        norm = (weight - initial[our_name(name)] if measure == "update_norm" else weight).norm().item()
        assert norm == pytest.approx(wanted, rel=1e-8 if exact else 1e-3, abs=1e-12), key
        checked += 1
    assert checked > 60 or not any(f"[{optimizer}]/" in key for key in expected)
