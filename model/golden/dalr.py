"""dalr: every term in the form of the released code and in that of the paper."""

import re

import torch
from torch import Tensor

from model.golden.contrastive import head
from model.golden.measure import Computed
from model.golden.vectors import Given
from model.losses.angular_margin import angular_info_nce, angular_margin
from model.losses.consistency import consistency
from model.losses.cosine import cosine_matrix
from model.losses.cross_modal_kl import cross_modal_kl
from model.losses.divergence import divergence
from model.losses.global_to_local import global_to_local
from model.losses.info_nce import info_nce
from model.losses.intra_modal_kl import intra_modal_kl
from model.losses.list_mle import falling, list_mle
from model.losses.teacher_similarity import teacher_similarity


def dalr(given: Given) -> Computed:
    return lists(given) if given.has("scores") else losses(given)


def lists(given: Given) -> Computed:
    """ListMLE alone. With ties in the teacher the given order is one of several: it stands if it falls."""
    scores, teacher, order = given.leaf("scores"), given.fixed("teacher"), given.fixed("order")
    ours = falling(teacher)
    if order.shape == ours.shape and torch.equal(order.sort(1).values, ours.sort(1).values):
        ours = order if torch.equal(teacher.gather(1, order), teacher.gather(1, ours)) else ours
    given.taken -= {"order"}  # it is compared
    given.taken |= {"column_permutation"}  # how the order came about
    gamma = given.setting("gamma")
    options = {"include_self": True, "reduction": "rows"}
    code = gamma * list_mle(scores, ours, 1.0, eps=given.setting("eps"), **options)
    values = {"code_loss": code, "exact_mean_rows": list_mle(scores, ours, 1.0, **options)}
    return Computed(values, {"order": ours}, alone={"d_scores": (code, "scores")})


def losses(given: Given) -> Computed:
    given.taken |= {"listmle_column_permutation"}
    teacher = _teachers(given)
    values = _code(given, teacher)
    values |= _paper(given, teacher)
    matrices = {f"teacher_{name}": teacher[name] for name in ("list_logits", "text_cos", "img_cos")}
    matrices["listmle_order"] = teacher["order"]
    groups = {f"grad_{name}": name for name in values}
    # only the derivatives with respect to the text side are listed there
    return Computed(values, matrices, groups, partial=("grad_code_total_without_g2l",))


def _teachers(given: Given) -> dict[str, Tensor]:
    alpha = given.setting("alpha_first_teacher")
    texts, weights = (given.fixed("teacher1"), given.fixed("teacher2")), (alpha, 1 - alpha)
    ranking = teacher_similarity(texts, weights, "cosines") / given.setting("tau_teacher_list")
    image = given.fixed("clip_img")
    return {
        "list_logits": ranking,
        "order": falling(ranking),
        "text_cos": teacher_similarity(texts, weights, "vectors"),
        "img_cos": cosine_matrix(image, image),
        "tokens": alpha * given.fixed("teacher1_tokens") + (1 - alpha) * given.fixed("teacher2_tokens"),
    }


def _consistency(given: Given, reduction: str) -> Tensor:
    text = torch.cat([given.leaf("cons_text_match"), given.leaf("cons_text_mismatch")])
    image = torch.cat([given.leaf("cons_img_match"), given.leaf("cons_img_mismatch")])
    matched = torch.arange(len(text)) < len(given.leaf("cons_text_match"))
    return consistency(text, image, matched, given.setting("cons_margin"), reduction)


def _code(given: Given, teacher: dict[str, Tensor]) -> dict[str, Tensor]:
    z, z2, image = given.leaf("z"), given.leaf("z2"), given.fixed("clip_img")
    tau, tau_vl, fixed = given.setting("tau"), given.setting("tau_vl"), given.setting("margin_intra")
    text_scores = angular_margin(cosine_matrix(z, z2), fixed) / tau
    image_scores = angular_margin(cosine_matrix(z, image), fixed) / tau
    student, taught = given.setting("kl_student_divisor"), given.setting("kl_teacher_divisor")
    views = [
        angular_info_nce(
            head(given, "text", given.leaf(name)),
            head(given, "img", image),
            tau_vl,
            given.setting("margin_adaptive"),
            1 - teacher["img_cos"],
        )
        for name in ("h", "h2")
    ]
    own = {"include_self": True, "reduction": "rows"}
    v = {
        "info_text": angular_info_nce(z, z2, tau, fixed),
        "cons": _consistency(given, "mean"),
        "kl_text_teacher": divergence(teacher["text_cos"] / taught, image_scores / student),
        "kl_img_teacher": divergence(teacher["img_cos"] / taught, image_scores.T / student),
        "cma": cross_modal_kl(image_scores, teacher["text_cos"], teacher["img_cos"], student, taught),
        "img_view1": views[0],
        "img_view2": views[1],
        "img": (views[0] + views[1]) / 2,
        "ima": intra_modal_kl(text_scores, teacher["text_cos"], student, taught),
        "rank_listmle": given.setting("gamma")
        * list_mle(text_scores, teacher["order"], 1.0, eps=given.setting("listmle_eps"), **own),
        "g2l": global_to_local(z, teacher["tokens"], given.fixed("attention_mask")[:, 1:], tau),
    }
    weight = given.setting("weights")
    v["cross_group"] = weight["cons_inside_cross"] * v["cons"] + v["cma"] + v["img"]
    v["intra_group"] = v["ima"] + v["rank_listmle"] + v["g2l"]
    v["total"] = (
        weight["info"] * v["info_text"] + weight["cross"] * v["cross_group"] + weight["intra"] * v["intra_group"]
    )
    v["total_without_g2l"] = v["total"] - weight["intra"] * v["g2l"]
    exact = list_mle(text_scores, teacher["order"], 1.0, **own)
    return {f"code_{name}": value for name, value in v.items()} | {"paper_rank_exact_on_code_scores_mean_rows": exact}


def _paper(given: Given, teacher: dict[str, Tensor]) -> dict[str, Tensor]:
    z, z2, image = given.leaf("z"), given.leaf("z2"), given.fixed("clip_img")
    tau, tau_vl = given.setting("tau"), given.setting("tau_vl")
    text, text2 = (head(given, "text", given.leaf(name)) for name in ("h", "h2"))
    seen = head(given, "img", image)
    cosine, order = cosine_matrix(z, z2), teacher["order"]
    views = [info_nce(text, seen, tau_vl), info_nce(text2, seen, tau_vl)]
    v = {
        "info_text": info_nce(z, z2, tau),
        "img_view1": views[0],
        "img_view2": views[1],
        "img": (views[0] + views[1]) / 2,
        "cons_mean": _consistency(given, "mean"),
        "cons_sum": _consistency(given, "sum"),
        "rank_sum": list_mle(cosine, order, tau, include_self=True, reduction="sum"),
        "rank_mean_rows": list_mle(cosine, order, tau, include_self=True, reduction="rows"),
        "rank_mean_rows_positions": list_mle(cosine, order, tau, include_self=True, reduction="mean"),
        "rank_noself_sum": list_mle(cosine, order, tau, reduction="sum"),
        "rank_noself_mean_rows": list_mle(cosine, order, tau, reduction="rows"),
        "rank_noself_mean_rows_positions": list_mle(cosine, order, tau, reduction="mean"),
    }
    spaces = {"proj": cosine_matrix(text, seen), "raw": cosine_matrix(z, image)}
    for name, taus in given.setting("paper_tau_settings").items():
        options = (taus["student"], taus["teacher"], "sum")
        v[f"ima_sum_{name}"] = intra_modal_kl(cosine, teacher["text_cos"], *options)
        for space, student in spaces.items():
            both = (teacher["text_cos"], teacher["img_cos"], *options)
            v[f"cma_sum_{name}_{space}"] = cross_modal_kl(student, *both)
            v[f"cma_literal_transpose_sum_{name}_{space}"] = cross_modal_kl(student, *both, transpose="probabilities")
    for key in given.case.expected:
        if found := re.fullmatch(r"paper_total_sum_(.+)_(proj|raw)", key):
            cross = v["cons_mean"] + v[f"cma_sum_{found[1]}_{found[2]}"]
            intra = v["rank_sum"] + v[f"ima_sum_{found[1]}"]
            total = v["info_text"] + given.setting("paper_lambda") * cross + given.setting("paper_mu") * intra
            v[key.removeprefix("paper_")] = total
    return {f"paper_{name}": value for name, value in v.items()}
