"""kdmcse: angular margins and threshold masks."""

from torch import Tensor

from model.golden.contrastive import head, totals
from model.golden.measure import Computed
from model.golden.vectors import Given
from model.losses.angular_margin import angular_info_nce, angular_margin
from model.losses.cosine import cosine_matrix
from model.losses.teacher_mask import teacher_mask


def kdmcse(given: Given) -> Computed:
    return margin_map(given) if given.has("cos") else losses(given)


def margin_map(given: Given) -> Computed:
    """The margin alone; the derivatives are those of sum(weight * logits) with respect to `cos`."""
    cosine, margin, tau = given.leaf("cos"), given.setting("margin"), given.setting("tau")
    weight = given.fixed("weight")
    adaptive = angular_margin(cosine, margin, 1 - given.fixed("teacher_cos")) / tau
    fixed = angular_margin(cosine, margin) / tau
    return Computed(
        matrices={"logits_adaptive": adaptive, "logits_fixed": fixed},
        alone={
            "d_cos_adaptive": ((weight * adaptive).sum(), "cos"),
            "d_cos_fixed": ((weight * fixed).sum(), "cos"),
        },
    )


def losses(given: Given) -> Computed:
    z, z2, tau, tau_vl = given.leaf("z"), given.leaf("z2"), given.setting("tau"), given.setting("tau_vl")
    fixed, adaptive = given.setting("margin_intra"), given.setting("margin_adaptive")
    threshold = given.setting("threshold")
    clip = {"img": given.fixed("clip_img"), "cap": given.fixed("clip_cap")}
    # raw dot products, as the released code compares them; the vectors have unit norm
    crossed = {"img": clip["cap"] @ clip["img"].T, "cap": clip["img"] @ clip["cap"].T}
    texts = [head(given, "text", given.leaf(name)) for name in ("h", "h2")]

    intra = angular_info_nce(z, z2, tau, fixed)
    values: dict[str, Tensor] = {"intra": intra}
    matrices = {"logits_intra": angular_margin(cosine_matrix(z, z2), fixed) / tau}
    for name in ("img", "cap"):
        target = head(given, name, clip[name])
        difference = 1 - cosine_matrix(clip[name], clip[name])
        keep = teacher_mask(crossed[name], threshold)
        for number, text in enumerate(texts, 1):
            values[f"{name}_view{number}"] = angular_info_nce(text, target, tau_vl, adaptive, difference, keep)
            logits = angular_margin(cosine_matrix(text, target), adaptive, difference) / tau_vl
            matrices[f"logits_{name}_view{number}"] = logits.masked_fill(~keep, -float("inf"))
        values[f"{name}_loss"] = (values[f"{name}_view1"] + values[f"{name}_view2"]) / 2
    values["inter"] = values["img_loss"] + values["cap_loss"]
    more, gradients = totals(given, intra, values["inter"])
    groups = {f"grad_{name}": name for name in values} | {"grad_img": "img_loss", "grad_cap": "cap_loss"}
    return Computed(values | more, matrices, groups | gradients)
