"""Makes directories of reference vectors out of the naive losses, in sizes of the caller's choosing."""

import json
from itertools import product
from pathlib import Path

import naive_losses as naive
import torch
from safetensors.torch import save_file

TAU = 0.07  # not the usual 0.05: it must be read from the settings


class Vectors:
    """Cases of one file."""

    def __init__(self, seed: int):
        self.random = torch.Generator().manual_seed(seed)
        self.cases, self.tensors = {}, {}

    def draw(self, *shape, scale=1.0, unit=False):
        """float32 numbers as float64."""
        x = torch.randn(shape, generator=self.random) * scale
        return (torch.nn.functional.normalize(x, dim=-1) if unit else x).double()

    def add(self, name, settings, expected, inputs, matrices=None, gradients=None, group=None, plain=None):
        """inputs: float64 tensors (stored as float32) or integers; gradients: {group: (scalar, {name: leaf})}."""
        self.cases[name] = {
            "settings": settings | ({"inputs_group": group} if group else {}),
            "expected": {k: v.item() if isinstance(v, torch.Tensor) else float(v) for k, v in expected.items()},
            "info": {},
        }
        for key, value in inputs.items():
            stored = value.detach().float() if value.is_floating_point() else value
            self.tensors[f"{group or name}/{key}"] = stored.clone()
        for key, value in (matrices or {}).items():
            value = value if isinstance(value, torch.Tensor) else torch.stack([torch.stack(row) for row in value])
            self.tensors[f"{name}/{key}"] = value.detach().clone()
        for key, (scalar, leaves) in (gradients or {}).items():
            found = torch.autograd.grad(scalar, list(leaves.values()), retain_graph=True, allow_unused=True)
            for leaf, gradient in zip(leaves, found, strict=True):
                if gradient is not None:
                    self.tensors[f"{name}/{key}/d_{leaf}"] = gradient
        for key, value in (plain or {}).items():
            self.tensors[f"{name}/{key}"] = value

    def write(self, folder: Path, name: str):
        table = {"file": f"{name}.safetensors", "about": "made by loops", "cases": self.cases}
        (folder / f"{name}.json").write_text(json.dumps(table))
        save_file({k: v.contiguous() for k, v in self.tensors.items()}, folder / f"{name}.safetensors")


def leaves(**tensors):
    return {name: tensor.requires_grad_() for name, tensor in tensors.items()}


def near(v: Vectors, z, strength=0.3):
    """A second view: close to the first, and item 0 so close to item 1 that their angle is under any margin."""
    second = z + strength * v.draw(*z.shape)
    second[0] = z[1] + 0.01 * v.draw(z.shape[1])
    return second.float().double()


def simcse_unsup(v: Vectors, name="a", n=5, d=7):
    x = leaves(z=(z := v.draw(n, d)), z2=near(v, z.detach()))
    logits = naive.over(naive.cosines(x["z"], x["z2"]), TAU)
    loss = naive.contrast(logits)
    v.add(name, {"N": n, "D": d, "tau": TAU}, {"loss": loss}, x, {"logits": logits}, {"grad": (loss, x)})


def simcse_sup(v: Vectors, name="a", n=5, d=7, weight=0.7):
    x = leaves(z0=(z := v.draw(n, d)), z1=near(v, z.detach()), z2=v.draw(n, d))
    hard = naive.over(naive.cosines(x["z0"], x["z2"]), TAU)
    hard = [[s + (weight if i == j else 0.0) for j, s in enumerate(row)] for i, row in enumerate(hard)]
    easy = naive.over(naive.cosines(x["z0"], x["z1"]), TAU)
    logits = [a + b for a, b in zip(easy, hard, strict=True)]
    loss = naive.contrast(logits)
    settings = {"tau": TAU, "hard_negative_weight": weight}
    v.add(name, settings, {"loss": loss}, x, {"logits": logits}, {"grad": (loss, x)})


def text_side(v: Vectors, n, d, p):
    z, h = v.draw(n, d), v.draw(n, d)
    return leaves(
        z=z, z2=near(v, z.clone()), h=h, h2=near(v, h.clone()), W_text=v.draw(p, d, scale=0.4), b_text=v.draw(p)
    )


def mcse(v: Vectors, name="a", n=5, d=6, p=4, d_img=9):
    x = text_side(v, n, d, p) | leaves(W_img=v.draw(p, d_img, scale=0.4), b_img=v.draw(p))
    u = v.draw(n, d_img)
    image = naive.head(x["W_img"], x["b_img"], u)
    texts = [naive.head(x["W_text"], x["b_text"], x[k]) for k in ("h", "h2")]
    logits = [naive.over(naive.cosines(text, image), 0.09) for text in texts]
    view1, view2 = (naive.contrast(m) for m in logits)
    intra, inter = naive.contrast(naive.over(naive.cosines(x["z"], x["z2"]), TAU)), (view1 + view2) / 2
    values = {"intra": intra, "inter": inter, "inter_view1": view1, "inter_view2": view2}
    values["total_lambda_0.3"] = intra + 0.3 * inter
    groups = {"grad_intra": (intra, x), "grad_inter": (inter, x), "grad_total_0.3": (values["total_lambda_0.3"], x)}
    v.add(name, {"tau": TAU, "tau_vl": 0.09}, values, x | {"u": u}, {"logits_inter_view1": logits[0]}, groups)


def kdmcse(v: Vectors, name="a", n=6, d=6, p=5, d_clip=8, threshold=0.4):
    x = text_side(v, n, d, p)
    x |= leaves(W_img=v.draw(p, d_clip), b_img=v.draw(p), W_cap=v.draw(p, d_clip), b_cap=v.draw(p))
    clip = {"img": v.draw(n, d_clip, unit=True)}
    clip["cap"] = torch.nn.functional.normalize(clip["img"] + 0.3 * v.draw(n, d_clip), dim=-1).float().double()
    clip["img"][2] = clip["img"][3]
    texts = [naive.head(x["W_text"], x["b_text"], x[k]) for k in ("h", "h2")]
    s = {"tau": TAU, "tau_vl": 0.06, "margin_intra": 0.2, "margin_adaptive": 0.11, "threshold": threshold}
    intra_logits = naive.over(naive.margined(naive.cosines(x["z"], x["z2"]), s["margin_intra"]), TAU)
    values, matrices = {"intra": naive.contrast(intra_logits)}, {"logits_intra": intra_logits}
    for own, other in (("img", "cap"), ("cap", "img")):
        target = naive.head(x[f"W_{own}"], x[f"b_{own}"], clip[own])
        gone = {
            (i, j)
            for i, j in product(range(n), repeat=2)
            if threshold is not None and i != j and float(clip[other][i] @ clip[own][j]) > threshold
        }
        for k, text in enumerate(texts, 1):
            difference = naive.apart(clip[own])
            logits = naive.over(
                naive.margined(naive.cosines(text, target), s["margin_adaptive"], difference), s["tau_vl"]
            )
            values[f"{own}_view{k}"] = naive.contrast(logits, gone)
            if k == 1:
                matrices[f"logits_{own}_view1"] = [
                    [e - 99999.99 if (i, j) in gone else e for j, e in enumerate(row)] for i, row in enumerate(logits)
                ]
        assert threshold is None or gone
        values[f"{own}_loss"] = (values[f"{own}_view1"] + values[f"{own}_view2"]) / 2
    values["inter"] = values["img_loss"] + values["cap_loss"]
    values["total_lambda_0.02"] = values["intra"] + 0.02 * values["inter"]
    groups = {f"grad_{k}": (values[of], x) for k, of in (("intra",) * 2, ("img", "img_loss"), ("cap", "cap_loss"))}
    inputs = x | {f"clip_{k}": t for k, t in clip.items()}
    v.add(name, s, values, inputs, matrices, groups, group=f"inputs/{name}")


def margin_map(v: Vectors, name="m", n=5, margin=0.3):
    cosine = torch.rand(n, n, generator=v.random).mul(1.7).sub(0.8).double()
    cosine[0, 1] = 0.96875
    teacher = torch.rand(n, n, generator=v.random).mul(1.8).sub(0.9).double()
    weight, (leaf,) = v.draw(n, n), leaves(cos=cosine).values()
    found = {}
    for kind, difference in (("adaptive", 1 - teacher), ("fixed", None)):
        found[kind] = torch.stack(
            [torch.stack(row) for row in naive.over(naive.margined(leaf, margin, difference), TAU)]
        )
    plain = {f"d_cos_{k}": torch.autograd.grad((weight * m).sum(), leaf)[0] for k, m in found.items()}
    inputs = {"cos": leaf, "teacher_cos": teacher, "weight": weight}
    matrices = {f"logits_{k}": m for k, m in found.items()}
    v.add(name, {"tau": TAU, "margin": margin}, {}, inputs, matrices, plain=plain)


def diffcse_rtd(v: Vectors, name="a", n=3, length=5, d=6, cls=11):
    ids = torch.randint(20, 40, (n, 1, length), generator=v.random).repeat(1, 2, 1)
    mask = torch.ones(n, 2, length, dtype=torch.int32)
    mask[1, :, 3:] = 0
    ids[:, :, 0] = cls
    ids = ids * mask
    changed = torch.rand(2 * n, length, generator=v.random) < 0.4
    generated = torch.where(changed, torch.randint(20, 40, (2 * n, length), generator=v.random), ids.view(-1, length))
    generated[:, 0], generated[2:4, 3:] = 33, 38  # overwritten: position 0 by the CLS id, padding by 0
    x = leaves(logits=v.draw(2 * n, length, 2), z=(z := v.draw(n, d)), z2=near(v, z.detach()))
    flat, real = ids.view(-1, length), mask.view(-1, length)
    read = torch.tensor(
        [[cls if t == 0 else int(generated[r, t]) * int(real[r, t]) for t in range(length)] for r in range(2 * n)]
    )
    labels = torch.tensor(
        [[int(read[r, t] != flat[r, t] and real[r, t] == 1) for t in range(length)] for r in range(2 * n)]
    )
    contrastive = naive.contrast(naive.over(naive.cosines(x["z"], x["z2"]), TAU))
    code, ignored = (naive.replaced(x["logits"], labels, real, count) for count in (True, False))
    values = {"contrastive": contrastive, "rtd_code_mean_over_all_positions": code, "rtd_padding_ignored": ignored}
    values |= {"total_code": contrastive + 0.3 * code, "total_padding_ignored": contrastive + 0.3 * ignored}
    inputs = {"discriminator_logits": x["logits"], "z": x["z"], "z2": x["z2"], "input_ids": ids}
    inputs |= {"attention_mask": mask, "generator_argmax": generated}
    groups = {"grad_code": (code, x), "grad_padding_ignored": (ignored, x)}
    plain = {"labels": labels, "discriminator_input_ids": read}
    v.add(name, {"tau": TAU, "lambda_rtd": 0.3, "cls_id": cls}, values, inputs, None, groups, plain=plain)


def mcseo(v: Vectors, name="a", m=7, d=5, threshold=0.3):
    x = leaves(**{k: v.draw(m, d, unit=True) for k in ("phrase_view1", "phrase_view2", "object")})
    corner = torch.rand(m, 2, generator=v.random).mul(20).double()
    box = torch.cat([corner, corner + torch.rand(m, 2, generator=v.random).mul(40).add(1).double()], 1)
    box[1], box[4] = box[0] + 1.0, box[3] + 200.0  # one image: overlapping; another: apart
    box = box.float().double()
    image, key = torch.tensor([9, 9, 2, 3, 3, 2, 9])[:m], torch.tensor([4, 5, 4, 6, 7, 5, 4])[:m]
    views, rest = (x["phrase_view1"], x["phrase_view2"]), (key.tolist(), image.tolist(), box.tolist(), TAU, threshold)
    values, groups = {}, {}
    options = product(
        ("multi_positive", "mask", "negative"), ("iou_ignore", "ignore", "negative"), ("t2v", "symmetric")
    )
    for dup, same, direction in options:
        value = naive.object_phrase(views, x["object"], *rest, dup, same, direction)
        values[f"{dup}|{same}|{direction}"] = value
        groups[f"numgrad_{dup}_{same}_{direction}"] = (value, x)
    inputs = x | {"image_id": image, "phrase_key": key.int(), "boxes_xyxy": box}
    v.add(name, {"tau_o": TAU, "iou_threshold": threshold}, values, inputs, None, groups)


def sts_aggregation(v: Vectors):
    sizes = [6, 11]
    parts = [
        (v.draw(k).mul(2).round(), torch.randint(0, 4, (k,), generator=v.random).double().add(0.25)) for k in sizes
    ]
    pairs = [(s.tolist(), g.tolist()) for s, g in parts]
    expected = {}
    for name, correlation in (("spearman", naive.spearman), ("pearson", naive.pearson)):
        each = [correlation(s, g) for s, g in pairs]
        expected |= {f"{name}_subset_{i}": e for i, e in enumerate(each)}
        expected[f"{name}_all"] = correlation(sum((s for s, _ in pairs), []), sum((g for _, g in pairs), []))
        expected[f"{name}_mean"] = naive.mean(each)
        expected[f"{name}_wmean"] = sum(e * k for e, k in zip(each, sizes, strict=True)) / sum(sizes)
    inputs = {f"{k}_{i}": t for i, part in enumerate(parts) for k, t in zip(("system", "gold"), part, strict=True)}
    v.add("agg", {"subset_sizes": sizes}, expected, inputs)
    _alignuni(v, "alignuni", n=7, d=4, batch=3)


def _alignuni(v: Vectors, name, n, d, batch):
    x, y = v.draw(n, d, unit=True), v.draw(n, d, unit=True)
    gold = torch.tensor([4.0, 1, 0, 3.5, 2, 1, 5])[:n]  # no pair reaches 4 in the second batch

    def unit(rows):
        return [[e / sum(f * f for f in row) ** 0.5 for e in row] for row in rows.tolist()]

    def align(a, b, g):
        chosen = [naive.distance2(p, q) for p, q, s in zip(a, b, g, strict=True) if s >= 4]
        return naive.mean(chosen) if chosen else 0.0

    def uniform(rows):
        far = [naive.distance2(rows[i], rows[j]) for i in range(len(rows)) for j in range(i)]
        return torch.tensor([-2 * f for f in far], dtype=torch.float64).exp().mean().log().item()

    a, b, g = unit(x), unit(y), gold.tolist()
    cuts = [slice(k, k + batch) for k in range(0, n, batch)]
    expected = {
        "align_dataset": align(a, b, g),
        "uniform_dataset_x_and_y": uniform(a + b),
        "uniform_dataset_x_only": uniform(a),
        "align_batch_mean": naive.mean(align(a[c], b[c], g[c]) for c in cuts),
        "uniform_batch_mean": naive.mean(uniform(a[c] + b[c]) for c in cuts),
        "spearman_cosine": naive.spearman(
            [sum(p * q for p, q in zip(*r, strict=True)) for r in zip(a, b, strict=True)], g
        ),
    }
    settings = {"n": n, "dim": d, "gold_threshold": 4.0, "alpha": 2, "t": 2, "batch_size": batch}
    v.add(name, settings, expected, {"x": x, "y": y, "gold": gold})


def schedule(v: Vectors, sizes=((70, 9, 4), (10, 40, 3), (40, 25, 5))):
    for n_text, n_pairs, size in sizes:
        kinds, w, p, every = naive.schedule(n_text, n_pairs, size, 200)
        pair_steps = kinds[: w + p].count("pair") if w + p <= 200 else None
        expected = {"text_batches_per_pass": w, "pair_batches_per_pass": p, "pair_every_K": every}
        expected |= {"steps_per_epoch": w + p, "pair_steps_per_epoch": pair_steps}
        expected["text_steps_per_epoch"] = w + p - pair_steps
        first = {"kind_first_200": torch.tensor([int(k == "pair") for k in kinds])}
        settings = {"n_text": n_text, "n_pairs": n_pairs, "batch_size": size}
        v.add(f"t{n_text}_p{n_pairs}", settings, expected, {}, plain=first)


MAKERS = {
    "simcse_unsup": simcse_unsup,
    "simcse_sup": simcse_sup,
    "mcse": mcse,
    "kdmcse": kdmcse,
    "diffcse_rtd": diffcse_rtd,
    "mcseo": mcseo,
    "sts_aggregation": sts_aggregation,
    "schedule": schedule,
}


def file_of(kind: str, seed: int = 0) -> Vectors:
    """One file of `kind`, of two cases or more where sizes are free."""
    v = Vectors(seed)
    if kind == "kdmcse":
        kdmcse(v, "masked")
        kdmcse(v, "open", n=4, d=5, threshold=None)
        margin_map(v)
    elif kind in ("sts_aggregation", "schedule"):
        MAKERS[kind](v)
    else:
        MAKERS[kind](v, "small")
        MAKERS[kind](v, "other/size", **({"m": 5, "d": 9} if kind == "mcseo" else {"n": 3, "d": 9}))
    return v
