"""Reference vectors of the larger kinds: every DALR term, and short training runs. See naive_vectors."""

import naive_losses as naive
import torch
from naive_vectors import TAU, Vectors, text_side
from transformers import BertConfig, BertModel


def dalr(v: Vectors, name="a", n=5, d=6, p=4, length=5):
    x = text_side(v, n, d, p) | {k: t.requires_grad_() for k, t in (("W_img", v.draw(p, d)), ("b_img", v.draw(p)))}
    cons = {
        f"cons_{side}_{kind}": v.draw(n, 4).abs().requires_grad_()
        for kind in ("match", "mismatch")
        for side in ("text", "img")
    }
    clip, t1, t2 = v.draw(n, d), v.draw(n, d), v.draw(n, d)
    tokens1, tokens2 = v.draw(n, length - 1, d), v.draw(n, length - 1, d)
    mask = torch.ones(n, length, dtype=torch.int64)
    mask[0, 3:], mask[2, 2:] = 0, 0
    s = {
        "tau": TAU,
        "tau_vl": 0.06,
        "tau_teacher_list": 0.04,
        "alpha_first_teacher": 0.25,
        "gamma": 1.5,
        "margin_intra": 0.2,
        "margin_adaptive": 0.15,
        "kl_student_divisor": 0.6,
        "kl_teacher_divisor": 0.4,
        "cons_margin": 0.3,
        "listmle_eps": 1e-6,
        "weights": {"info": 0.9, "cross": 0.2, "intra": 0.3, "cons_inside_cross": 0.05},
        "paper_lambda": 0.15,
        "paper_mu": 0.25,
        "paper_tau_settings": {"one": {"student": 0.08, "teacher": 0.3}, "two": {"student": 0.2, "teacher": 0.2}},
    }
    a = s["alpha_first_teacher"]
    one, two = naive.cosines(t1, t1), naive.cosines(t2, t2)
    ranking = [
        [(a * p + (1 - a) * q) / s["tau_teacher_list"] for p, q in zip(*rows, strict=True)]
        for rows in zip(one, two, strict=True)
    ]
    text_cos, img_cos = (naive.cosines(t, t) for t in (a * t1 + (1 - a) * t2, clip))
    cosines, to_image = naive.cosines(x["z"], x["z2"]), naive.cosines(x["z"], clip)
    text_scores, image_scores = (naive.over(naive.margined(m, s["margin_intra"]), TAU) for m in (cosines, to_image))
    student, taught = s["kl_student_divisor"], s["kl_teacher_divisor"]
    texts = [naive.head(x["W_text"], x["b_text"], x[k]) for k in ("h", "h2")]
    seen = naive.head(x["W_img"], x["b_img"], clip)
    each = naive.consistency_each(
        torch.cat([cons["cons_text_match"], cons["cons_text_mismatch"]]),
        torch.cat([cons["cons_img_match"], cons["cons_img_mismatch"]]),
        [True] * n + [False] * n,
        s["cons_margin"],
    )
    kl_text = naive.mean(naive.kl(naive.over(text_cos, taught), naive.over(image_scores, student)))
    kl_img = naive.mean(naive.kl(naive.over(img_cos, taught), naive.over(naive.turned(image_scores), student)))
    views = [
        naive.contrast(
            naive.over(
                naive.margined(naive.cosines(t, seen), s["margin_adaptive"], [[1 - c for c in r] for r in img_cos]),
                s["tau_vl"],
            )
        )
        for t in texts
    ]
    mixed = a * tokens1 + (1 - a) * tokens2
    code = {
        "info_text": naive.contrast(text_scores),
        "cons": naive.mean(each),
        "kl_text_teacher": kl_text,
        "kl_img_teacher": kl_img,
        "cma": (kl_text + kl_img) / 2,
        "img_view1": views[0],
        "img_view2": views[1],
        "img": (views[0] + views[1]) / 2,
        "ima": naive.mean(naive.kl(naive.over(text_cos, taught), naive.over(text_scores, student))),
        "rank_listmle": s["gamma"] * naive.mean(naive.list_mle_rows(text_scores, ranking, eps=s["listmle_eps"])),
        "g2l": naive.global_to_local(x["z"], mixed, mask[:, 1:], TAU),
    }
    w = s["weights"]
    code["cross_group"] = w["cons_inside_cross"] * code["cons"] + code["cma"] + code["img"]
    code["intra_group"] = code["ima"] + code["rank_listmle"] + code["g2l"]
    code["total_without_g2l"] = (
        w["info"] * code["info_text"]
        + w["cross"] * code["cross_group"]
        + w["intra"] * (code["ima"] + code["rank_listmle"])
    )
    code["total"] = code["total_without_g2l"] + w["intra"] * code["g2l"]
    values = {f"code_{k}": value for k, value in code.items()}
    values |= _paper(s, cosines, text_scores, ranking, text_cos, img_cos, to_image, texts, seen, each)
    inputs = x | cons | {"clip_img": clip, "teacher1": t1, "teacher2": t2, "attention_mask": mask}
    inputs |= {"teacher1_tokens": tokens1, "teacher2_tokens": tokens2}
    matrices = {"teacher_list_logits": ranking, "teacher_text_cos": text_cos, "teacher_img_cos": img_cos}
    groups = {f"grad_code_{k}": (value, x | cons) for k, value in code.items() if not k.endswith("g2l")}
    groups |= {
        "grad_code_g2l": (code["g2l"], x),
        "grad_code_total_without_g2l": (code["total_without_g2l"], {"z": x["z"]}),
    }
    plain = {
        "listmle_order": torch.tensor([naive.falls(row) for row in ranking]),
        "listmle_column_permutation": torch.randperm(n, generator=v.random),
    }
    v.add(name, s, values, inputs, matrices, groups, plain=plain)


def _paper(s, cosines, text_scores, ranking, text_cos, img_cos, to_image, texts, seen, each):
    views = [naive.contrast(naive.over(naive.cosines(t, seen), s["tau_vl"])) for t in texts]
    scores = naive.over(cosines, TAU)
    n = len(scores)
    rows, without = naive.list_mle_rows(scores, ranking), naive.list_mle_rows(scores, ranking, include_self=False)
    v = {
        "info_text": naive.contrast(scores),
        "img_view1": views[0],
        "img_view2": views[1],
        "img": (views[0] + views[1]) / 2,
        "cons_mean": naive.mean(each),
        "cons_sum": sum(each),
        "rank_sum": sum(rows),
        "rank_mean_rows": naive.mean(rows),
        "rank_mean_rows_positions": naive.mean(rows) / n,
        "rank_noself_sum": sum(without),
        "rank_noself_mean_rows_positions": naive.mean(without) / (n - 1),
        "rank_exact_on_code_scores_mean_rows": naive.mean(naive.list_mle_rows(text_scores, ranking)),
    }
    spaces = {"proj": naive.cosines(texts[0], seen), "raw": to_image}
    for name, taus in s["paper_tau_settings"].items():
        text, image = (naive.over(m, taus["teacher"]) for m in (text_cos, img_cos))
        v[f"ima_sum_{name}"] = sum(naive.kl(text, naive.over(cosines, taus["student"])))
        for space, matrix in spaces.items():
            student = naive.over(matrix, taus["student"])
            literal = naive.turned([naive.softmax(row) for row in student])
            there = sum(naive.kl(text, student))
            v[f"cma_sum_{name}_{space}"] = (there + sum(naive.kl(image, naive.turned(student)))) / 2
            back = sum(naive.kl_rows([naive.softmax(row) for row in image], literal))
            v[f"cma_literal_transpose_sum_{name}_{space}"] = (there + back) / 2
    cross = v["cons_mean"] + v["cma_sum_one_proj"]
    v["total_sum_one_proj"] = (
        v["info_text"] + s["paper_lambda"] * cross + s["paper_mu"] * (v["rank_sum"] + v["ima_sum_one"])
    )
    return {f"paper_{k}": value for k, value in v.items()}


def listmle(v: Vectors, name="list", m=6, ties=False):
    teacher, scores = v.draw(m, m, scale=4.0), v.draw(m, m, scale=6.0).requires_grad_()
    permutation = torch.randperm(m, generator=v.random)
    if ties:
        teacher[:, 1] = teacher[:, 4]
    order = permutation[teacher[:, permutation].argsort(dim=1, descending=True)]
    place = torch.empty_like(order).scatter_(1, order, torch.arange(m).expand(m, m))
    code, exact = (naive.mean(naive.list_mle_rows(scores, -place, eps=eps)) for eps in (1e-4, None))
    plain = {"d_scores": torch.autograd.grad(2 * code, scores)[0], "order": order, "column_permutation": permutation}
    values = {"code_loss": 2 * code, "exact_mean_rows": exact}
    v.add(name, {"M": m, "eps": 1e-4, "gamma": 2.0}, values, {"scores": scores, "teacher": teacher}, plain=plain)


# ---------------------------------------------------------------- training runs

HEADS = {"lang_model.pooler.dense": (12, 12), "grounding.dense": (5, 12)}


def trajectory(v: Vectors, name="run", distilled=False, size=4, steps=14, length=6, d_img=7):
    """14 steps: 5 text and 2 pair batches a pass, so K = 2; every weight and optimizer step written out."""
    config = {"vocab_size": 30, "hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
    config |= {"intermediate_size": 16, "max_position_embeddings": 8, "type_vocab_size": 2, "hidden_act": "gelu"}
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.2}
    s = {"bert_config": config, "batch_size": size, "text_batches_per_pass": 5, "pair_batches_per_pass": 2}
    s |= {"epochs": 2, "total_steps": steps, "pair_every_K": 2, "lr": 2e-3, "betas": [0.8, 0.99], "eps": 1e-5}
    s |= {"weight_decay": 0.0, "clip_grad_norm": 0.7, "lambda_": 0.2, "tau": TAU, "tau_vl": 0.1}
    visual = ("vmlp", "tmlp") if distilled else ("mlp",)
    if distilled:
        s |= {"margin_intra": 0.1, "margin_adaptive": 0.12, "threshold": 0.45, "threshold_masks_on": True}
    shapes = HEADS | {f"visn_model.{k}.dense": (5, d_img) for k in visual}
    with torch.random.fork_rng():
        torch.manual_seed(int(torch.randint(1 << 30, (1,), generator=v.random)))
        bert = BertModel(BertConfig(**config)).double().train()
        init = {f"lang_model.bert.{k}": t.detach().clone() for k, t in bert.state_dict().items()}
    for stem, (out, width) in shapes.items():
        init[f"{stem}.weight"], init[f"{stem}.bias"] = v.draw(out, width, scale=0.3), v.draw(out, scale=0.1)
        if distilled:  # the other run starts from biases of zero, as a new BERT has them
            init |= {k: t + v.draw(*t.shape, scale=0.1) for k, t in init.items() if t.ndim == 1}
    init = {k: t.float().double() for k, t in init.items() if t.is_floating_point()}
    kinds, *_ = naive.schedule(5 * size, 2 * size, size, steps)
    inputs = {f"init/{k}": t for k, t in init.items()}
    for kind in ("text", "pair"):
        shape = (kinds.count(kind), size, 1, length)
        ids = torch.randint(3, 30, shape, generator=v.random, dtype=torch.int32).repeat(1, 1, 2, 1)
        ids[:, :, 1, 2] = torch.randint(3, 30, shape[:2], generator=v.random, dtype=torch.int32)
        inputs[f"{kind}_input_ids"], mask = ids, torch.ones_like(ids)
        mask[:, 0, :, 4:] = 0
        inputs[f"{kind}_attention_mask"] = mask
    inputs["pair_img"] = v.draw(kinds.count("pair"), size, d_img, unit=distilled)
    if distilled:
        mixed = inputs["pair_img"] + 0.4 * v.draw(*inputs["pair_img"].shape)
        inputs["pair_clip_text_feat"] = torch.nn.functional.normalize(mixed, dim=-1).float().double()
    plain, expected = {"step_kind": torch.tensor([int(k == "pair") for k in kinds])}, {}
    for optimizer in ("torch_adamw", "early_eps_adamw"):
        columns, norms = _train(bert, init, inputs, kinds, s, optimizer == "early_eps_adamw")
        plain |= {f"{optimizer}_f64/{k}": t for k, t in columns.items()}
        expected |= {f"{measure}[{optimizer}]/{k}": value for (measure, k), value in norms.items()}
        if optimizer == "torch_adamw":
            plain["torch_adamw_f32/loss"] = columns["loss"].float()
    v.add(name, s, expected, inputs, plain=plain)


def _train(bert, init, inputs, kinds, s, early):
    bert.load_state_dict({k.removeprefix("lang_model.bert."): t for k, t in init.items() if ".bert." in k})
    weights = {f"lang_model.bert.{k}": p.requires_grad_() for k, p in bert.named_parameters()}
    weights |= {k: t.clone().requires_grad_() for k, t in init.items() if k not in weights}
    first, second = ({k: torch.zeros_like(w) for k, w in weights.items()} for _ in range(2))
    count, read, columns = (
        {},
        {"text": 0, "pair": 0},
        {k: [] for k in ("loss", "intra", "inter", "lr", "grad_norm_before_clip")},
    )
    for step, kind in enumerate(kinds):
        batch = {k.removeprefix(f"{kind}_"): t[read[kind]] for k, t in inputs.items() if k.startswith(f"{kind}_")}
        read[kind] += 1
        intra, inter = _terms(bert, weights, batch, s)
        loss = intra if inter is None else intra + s["lambda_"] * inter
        found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        gradients = {k: g for k, g in zip(weights, found, strict=True) if g is not None}
        norm = sum(float((g**2).sum()) for g in gradients.values()) ** 0.5
        shrink, lr = min(1.0, s["clip_grad_norm"] / (norm + 1e-6)), s["lr"] * (1 - step / len(kinds))
        b1, b2 = s["betas"]
        with torch.no_grad():
            for name, g in gradients.items():
                count[name] = k = count.get(name, 0) + 1  # a weight's own steps: heads see pair batches alone
                first[name] = b1 * first[name] + (1 - b1) * shrink * g
                second[name] = b2 * second[name] + (1 - b2) * (shrink * g) ** 2
                if early:
                    move = first[name] / (second[name].sqrt() + s["eps"]) * (1 - b2**k) ** 0.5 / (1 - b1**k)
                else:
                    move = first[name] / (1 - b1**k) / ((second[name] / (1 - b2**k)).sqrt() + s["eps"])
                weights[name] -= lr * move
        row = (loss.item(), intra.item(), float("nan") if inter is None else inter.item(), lr, norm)
        for column, value in zip(columns.values(), row, strict=True):
            column.append(value)
    norms = {("final_norm", k): w.detach().norm().item() for k, w in weights.items()}
    norms |= {("update_norm", k): (w.detach() - init[k]).norm().item() for k, w in weights.items()}
    return {k: torch.tensor(c, dtype=torch.float64) for k, c in columns.items()}, norms


def _terms(bert, weights, batch, s):
    def dense(stem, x):
        return naive.head(weights[f"{stem}.dense.weight"], weights[f"{stem}.dense.bias"], x)

    ids, mask = batch["input_ids"], batch["attention_mask"]
    views = [bert(input_ids=ids[:, k], attention_mask=mask[:, k]).last_hidden_state[:, 0] for k in range(2)]
    z = [dense("lang_model.pooler", h) for h in views]
    cosines = naive.cosines(*z)
    if "margin_intra" in s:
        cosines = naive.margined(cosines, s["margin_intra"])
    intra = naive.contrast(naive.over(cosines, s["tau"]))
    if "img" not in batch:
        return intra, None
    texts = [dense("grounding", h) for h in views]
    if "margin_intra" not in s:
        image = dense("visn_model.mlp", batch["img"])
        return intra, naive.mean(naive.contrast(naive.over(naive.cosines(t, image), s["tau_vl"])) for t in texts)
    inter, n = 0.0, len(ids)
    for own, other, stem in (("img", "clip_text_feat", "vmlp"), ("clip_text_feat", "img", "tmlp")):
        target = dense(f"visn_model.{stem}", batch[own])
        gone = {
            (i, j)
            for i in range(n)
            for j in range(n)
            if i != j and float(batch[other][i] @ batch[own][j]) > s["threshold"]
        }
        logits = [
            naive.margined(naive.cosines(t, target), s["margin_adaptive"], naive.apart(batch[own])) for t in texts
        ]
        inter = inter + naive.mean(naive.contrast(naive.over(m, s["tau_vl"]), gone) for m in logits)
    return intra, inter


def family(kind: str, seed: int = 0) -> Vectors:
    """A file of dalr or trajectory."""
    v = Vectors(seed)
    if kind == "dalr":
        dalr(v, "five")
        dalr(v, "three", n=3, d=4, p=6, length=4)
        listmle(v)
        listmle(v, "tied", m=5, ties=True)
    else:
        trajectory(v, "plain")
        trajectory(v, "distilled", distilled=True, size=3)
    return v
