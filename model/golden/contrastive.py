"""simcse_unsup, simcse_sup, mcse, diffcse_rtd: what our losses give on their inputs."""

import re

import torch
from torch import Tensor

from model.golden.measure import Computed
from model.golden.vectors import Given
from model.heads import Head
from model.losses.cosine import cosine_matrix
from model.losses.hard_negatives import hard_negative_info_nce, hard_negative_logits
from model.losses.info_nce import info_nce
from model.losses.replaced_token import replaced_labels, replaced_token


def head(given: Given, name: str, x: Tensor) -> Tensor:
    """x through the grounding head whose weights are the inputs W_name and b_name."""
    weight, bias = given.leaf(f"W_{name}"), given.leaf(f"b_{name}")
    built = Head(weight.shape[1], weight.shape[0], unit=True)
    return torch.func.functional_call(built, {"dense.weight": weight, "dense.bias": bias}, x)


def totals(given: Given, intra: Tensor, inter: Tensor) -> tuple[dict[str, Tensor], dict[str, str]]:
    """intra + x * inter for each x that an expected value or a group of gradients names: values, and gradients."""
    values, gradients = {}, {}
    for key in given.case.expected:
        if found := re.fullmatch(r"total_lambda_(.+)", key):
            values[key] = intra + float(found[1]) * inter
    for key in given.case.tensors:
        if found := re.match(r"(grad_total(?:_lambda)?_([^/]+))/", key):
            values[f"total_lambda_{found[2]}"] = intra + float(found[2]) * inter
            gradients[found[1]] = f"total_lambda_{found[2]}"
    return values, gradients


def simcse_unsup(given: Given) -> Computed:
    z, z2, tau = given.leaf("z"), given.leaf("z2"), given.setting("tau")
    return Computed({"loss": info_nce(z, z2, tau)}, {"logits": cosine_matrix(z, z2) / tau}, {"grad": "loss"})


def simcse_sup(given: Given) -> Computed:
    z0, z1, z2 = (given.leaf(name) for name in ("z0", "z1", "z2"))
    options = (given.setting("tau"), given.setting("hard_negative_weight"))
    return Computed(
        {"loss": hard_negative_info_nce(z0, z1, z2, *options)},
        {"logits": hard_negative_logits(z0, z1, z2, *options)},
        {"grad": "loss"},
    )


def mcse(given: Given) -> Computed:
    tau, tau_vl = given.setting("tau"), given.setting("tau_vl")
    image = head(given, "img", given.fixed("u"))
    texts = [head(given, "text", given.leaf(name)) for name in ("h", "h2")]
    view1, view2 = (info_nce(text, image, tau_vl) for text in texts)
    intra, inter = info_nce(given.leaf("z"), given.leaf("z2"), tau), (view1 + view2) / 2
    values = {"intra": intra, "inter": inter, "inter_view1": view1, "inter_view2": view2}
    matrices = {f"logits_inter_view{i}": cosine_matrix(text, image) / tau_vl for i, text in enumerate(texts, 1)}
    matrices["logits_intra"] = cosine_matrix(given.leaf("z"), given.leaf("z2")) / tau
    more, gradients = totals(given, intra, inter)
    return Computed(values | more, matrices, {f"grad_{name}": name for name in values} | gradients)


def diffcse_rtd(given: Given) -> Computed:
    rows = given.fixed("input_ids").flatten(0, 1)
    mask = given.fixed("attention_mask").flatten(0, 1)
    ids, labels = replaced_labels(rows, given.fixed("generator_argmax"), mask, given.setting("cls_id"))
    logits = given.leaf("discriminator_logits")
    weight = given.setting("lambda_rtd")
    contrastive = info_nce(given.leaf("z"), given.leaf("z2"), given.setting("tau"))
    code = replaced_token(logits, labels, mask, padding="count")
    ignored = replaced_token(logits, labels, mask, padding="ignore")
    values = {
        "contrastive": contrastive,
        "rtd_code_mean_over_all_positions": code,
        "total_code": contrastive + weight * code,
        "rtd_padding_ignored": ignored,
        "total_padding_ignored": contrastive + weight * ignored,
    }
    groups = {"grad_code": "rtd_code_mean_over_all_positions", "grad_padding_ignored": "rtd_padding_ignored"}
    return Computed(
        values,
        {"discriminator_input_ids": ids, "labels": labels},
        groups | {f"grad_{name}": name for name in values},
        aliases={"logits": "discriminator_logits"},
    )
