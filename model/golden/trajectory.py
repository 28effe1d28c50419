"""trajectory: a short deterministic training run of the mixed loop on a tiny BERT, MCSE or KDMCSE.

Built from the parts the trainer is built of (Encoder, Head, the losses, the mixing schedule, the learning rate, the
optimizer); the files `visn_model.vmlp` and `.tmlp` among the initial weights tell KDMCSE from MCSE.
"""

import math
import re
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from model.batches import plan
from model.encoder import Encoder
from model.errors import ModelError
from model.golden.early_adamw import EarlyEpsAdamW
from model.golden.measure import TOLERANCES, Check, deviation, mismatches, relative
from model.golden.vectors import Case, Given
from model.heads import Head
from model.losses.angular_margin import angular_info_nce
from model.losses.cosine import cosine_matrix
from model.losses.info_nce import info_nce
from model.losses.teacher_mask import teacher_mask
from model.optimizer import build_optimizer, learning_rate
from model.recipes import Recipe

_HEADS = {
    "lang_model.pooler": "simcse",
    "grounding": "grounding",
    "visn_model.mlp": "visual",
    "visn_model.vmlp": "visual",
    "visn_model.tmlp": "caption",
}
_ENCODER = "lang_model.bert."
_RUN = re.compile(r"(torch_adamw|early_eps_adamw)_(f64|f32)/(loss|intra|inter|lr|grad_norm_before_clip)")
_NORM = re.compile(r"(final_norm|update_norm)\[(torch_adamw|early_eps_adamw)\]/(.+)")
_NOISE = 1e-4  # a key bias below this norm is nothing but rounding
_DTYPE = {"f64": torch.float64, "f32": torch.float32}
_STREAM = re.compile(r"(text|pair)_(input_ids|attention_mask)|pair_img|pair_clip_text_feat")


def trajectory(case: Case) -> tuple[list[Check], list[str]]:
    """(checks, names of what was not checked)."""
    runs = {m.groups() for name in case.tensors if (m := _RUN.fullmatch(name))}
    checks, seen = _schedule(case), {"step_kind"}
    for optimizer, precision in sorted({run[:2] for run in runs}):
        dtype = _DTYPE[precision]
        initial, final, rows = _run(case, optimizer, dtype)
        for column in sorted(r[2] for r in runs if r[:2] == (optimizer, precision)):
            name = f"{optimizer}_{precision}/{column}"
            seen.add(name)
            ours, wanted = torch.tensor([row[column] for row in rows], dtype=torch.float64), case.tensors[name]
            loss = column in ("loss", "intra", "inter")
            error = deviation(ours, wanted) if loss else relative(ours, wanted)
            group = "trajectory losses (absolute)" if loss else "trajectory norms"
            checks.append(Check(case.file, case.name, group, dtype, name, error, TOLERANCES[group][dtype]))
        checks += _norms(case, optimizer, dtype, initial, final)
    inputs = {n for n in case.tensors if n.startswith("init/") or _STREAM.fullmatch(n)}
    ran = {optimizer for optimizer, _, _ in runs}
    open_ = sorted(case.tensors.keys() - inputs - seen)
    open_ += [key for key in case.expected if not ((m := _NORM.fullmatch(key)) and m[2] in ran)]
    return checks, open_


def _schedule(case: Case) -> list[Check]:
    given = Given(case, torch.float64, "trajectory")
    size, text, pair = (given.setting(n) for n in ("batch_size", "text_batches_per_pass", "pair_batches_per_pass"))
    ours, total = plan(text * size, pair * size, size), given.setting("total_steps")
    kinds = torch.tensor([int(ours.kind(step) == "pair") for step in range(total)])
    found = {"step_kind": mismatches(kinds, given.fixed("step_kind"))}
    if "pair_every_K" in case.settings:
        found["pair_every_K"] = float(ours.pair_every != given.setting("pair_every_K"))
    if "epochs" in case.settings:
        found["total_steps"] = float(ours.steps_per_epoch * given.setting("epochs") != total)
    return [Check(case.file, case.name, "schedule (exact)", torch.float64, n, e, 0.0) for n, e in found.items()]


def _our_name(name: str) -> str:
    if name.startswith(_ENCODER):
        return f"encoder.model.{name.removeprefix(_ENCODER)}"
    stem, _, last = name.rpartition(".")
    head = _HEADS.get(stem.removesuffix(".dense"))
    if head is None:
        raise ModelError(f"the weight {name} has no place in encoder or heads")
    return f"heads.{head}.dense.{last}"


class _Network(nn.Module):
    def __init__(self, config: dict, weights: dict[str, Tensor]):
        super().__init__()
        self.encoder = Encoder(BertModel(BertConfig(**config)), SimpleNamespace(), "cls")
        shapes = {k.split(".")[1]: w.shape for k, w in weights.items() if re.fullmatch(r"heads\.\w+\.dense\.weight", k)}
        lacking = {"simcse", "grounding", "visual"} - shapes.keys()
        if lacking:
            raise ModelError(f"the initial weights lack the head {sorted(lacking)[0]}")
        self.heads = nn.ModuleDict({n: Head(s[1], s[0], unit=n != "simcse") for n, s in shapes.items()})
        self.load_state_dict(weights)


def _run(case: Case, optimizer: str, dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, Tensor], list[dict]]:
    """Initial and final weights in float64 by our name, and what each step gave."""
    given = Given(case, dtype, "trajectory")
    total = given.setting("total_steps")
    weights = {n.removeprefix("init/"): t for n, t in case.tensors.items() if n.startswith("init/")}
    initial = {_our_name(name): tensor for name, tensor in weights.items()}
    with torch.random.fork_rng(devices=[]):
        network = _Network(given.setting("bert_config"), initial).to(dtype).train()
    recipe = Recipe(
        "golden",
        learning_rate=given.setting("lr"),
        weight_decay=given.setting("weight_decay"),
        adam_eps=given.setting("eps"),
        grad_clip=given.setting("clip_grad_norm"),
    )
    built = _optimizer(optimizer, network, recipe, tuple(given.setting("betas")))
    streams = {n: given.fixed(n) for n in case.tensors if _STREAM.fullmatch(n)}
    read, rows = {"text": 0, "pair": 0}, []
    for number, kind in enumerate("pair" if k else "text" for k in given.fixed("step_kind").tolist()):
        batch = {n.removeprefix(f"{kind}_"): t[read[kind]] for n, t in streams.items() if n.startswith(kind)}
        read[kind] += 1
        intra, inter = _terms(network, batch, given)
        loss = intra if inter is None else intra + given.setting("lambda_") * inter
        for group in built.param_groups:
            group["lr"] = learning_rate(number, total, recipe)
        built.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(network.parameters(), recipe.grad_clip)
        built.step()
        rows.append(
            {
                "loss": loss.item(),
                "intra": intra.item(),
                "inter": math.nan if inter is None else inter.item(),
                "lr": built.param_groups[0]["lr"],
                "grad_norm_before_clip": norm.item(),
            }
        )
    final = {name: tensor.detach().double() for name, tensor in network.state_dict().items()}
    return {name: tensor.double() for name, tensor in initial.items()}, final, rows


def _optimizer(name: str, network: _Network, recipe: Recipe, betas: tuple[float, float]) -> torch.optim.Optimizer:
    if name == "torch_adamw":
        built = build_optimizer(network, recipe)
        for group in built.param_groups:
            group["betas"] = betas
        return built
    trained = [p for p in network.parameters() if p.requires_grad]
    return EarlyEpsAdamW(trained, recipe.learning_rate, betas, recipe.adam_eps, recipe.weight_decay)


def _terms(network: _Network, batch: dict[str, Tensor], given: Given) -> tuple[Tensor, Tensor | None]:
    """The intra-text loss and, on a pair batch, the sum of the losses to the frozen features."""
    ids = batch["input_ids"]
    n, views, length = ids.shape
    h = network.encoder(ids.reshape(n * views, length), batch["attention_mask"].reshape(n * views, length))
    h = h.view(n, views, -1)
    z, tau, tau_vl = network.heads["simcse"](h), given.setting("tau"), given.setting("tau_vl")
    distilled = "caption" in network.heads
    if distilled:
        intra = angular_info_nce(z[:, 0], z[:, 1], tau, given.setting("margin_intra"))
    else:
        intra = info_nce(z[:, 0], z[:, 1], tau)
    if "img" not in batch:
        return intra, None
    texts, image = network.heads["grounding"](h).unbind(1), network.heads["visual"](batch["img"])
    if not distilled:
        return intra, sum(info_nce(text, image, tau_vl) for text in texts) / len(texts)
    inter = torch.zeros((), dtype=h.dtype)
    feature = {"img": batch["img"], "clip_text_feat": batch["clip_text_feat"]}
    for (own, target), other in zip(
        (("img", image), ("clip_text_feat", network.heads["caption"](feature["clip_text_feat"]))),
        ("clip_text_feat", "img"),
        strict=True,
    ):
        threshold = given.setting("threshold") if given.case.settings.get("threshold_masks_on", True) else None
        keep = teacher_mask(feature[other] @ feature[own].T, threshold)
        options = (tau_vl, given.setting("margin_adaptive"), 1 - cosine_matrix(feature[own], feature[own]), keep)
        inter = inter + sum(angular_info_nce(text, target, *options) for text in texts) / len(texts)
    return intra, inter


def _norms(
    case: Case, optimizer: str, dtype: torch.dtype, initial: dict[str, Tensor], final: dict[str, Tensor]
) -> list[Check]:
    checks = []
    for key, wanted in case.expected.items():
        found = _NORM.fullmatch(key)
        if not found or found[2] != optimizer:
            continue
        measure, _, name = found.groups()
        # the true gradient of a key bias is zero: the optimizer amplifies rounding noise
        group = "norms of key biases" if name.endswith("key.bias") else "trajectory norms"
        tolerance = TOLERANCES[group][dtype]
        if tolerance is None or (group == "norms of key biases" and measure == "update_norm"):
            continue
        ours = _our_name(name)
        if ours not in final:
            raise ModelError(f"the weight {name} has no initial value")
        weight = final[ours] - initial[ours] if measure == "update_norm" else final[ours]
        # a key bias that starts at zero stays there but for noise, which no two programs share
        scale = max(abs(wanted), _NOISE) if group == "norms of key biases" else abs(wanted) or 1.0
        error = deviation(weight.norm(), torch.tensor(wanted, dtype=torch.float64)) / scale
        checks.append(Check(case.file, case.name, group, dtype, key, error, tolerance))
    return checks
