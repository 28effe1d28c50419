"""The recipes' terms, with their own settings and weights, on the released code's inputs: the sums it returned."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from model.batches import Batch, Tokens
from model.encoded import Encoded
from model.heads import Head
from model.network import losses
from model.recipes import resolve
from tests.model.conftest import shared


def head(tensors, name):
    weight = tensors[f"W_{name}"].double()
    built = Head(weight.shape[1], weight.shape[0], unit=True).double()
    built.load_state_dict({"dense.weight": weight, "dense.bias": tensors[f"b_{name}"].double()})
    return built


def stacked(tensors, *names):
    return torch.stack([tensors[name].double() for name in names], dim=1)


def network(tensors, heads, teachers=None, **more):
    """What the terms read of a network, with z as the reference's own (the SimCSE head is its business)."""
    z = stacked(tensors, "z", "z2")
    tokenizer = SimpleNamespace(cls_token_id=101, pad_token_id=0)
    fields = {"simcse": lambda h: z, "heads": heads, "teachers": teachers, "precision": "fp32"}
    return SimpleNamespace(**fields, encoder=SimpleNamespace(tokenizer=tokenizer), **more)


def total(found, recipe, without=()):
    weight = {t.name: t.weight for t in recipe.terms}
    return sum(weight[name] * value for name, (value, _) in found.items() if name not in without).item()


def pair(n, length=2, **features):
    tokens = torch.zeros(n, 2, length, dtype=torch.int64)
    return Batch("pair", Tokens(tokens, torch.ones_like(tokens)), image_id=torch.arange(n), **features)


def test_kdmcse_code(golden):
    cases, checked = golden("kdmcse"), 0
    # inputs stand under their group's name, which is no case
    stored = load_file(shared() / "golden" / "kdmcse.safetensors")
    for settings, expected, _ in cases.values():
        if "inputs_group" not in settings:
            continue
        group = f"{settings['inputs_group']}/"
        tensors = {k.removeprefix(group): v for k, v in stored.items() if k.startswith(group)}
        own = {"margin": settings["margin_intra"], "margin_teacher": settings["margin_adaptive"]}
        recipe = resolve("kdmcse-code", own | {"threshold": settings["threshold"], "lambda": 0.05})
        heads = {"grounding": head(tensors, "text"), "visual": head(tensors, "img"), "caption": head(tensors, "cap")}
        batch = pair(settings["N"], image=tensors["clip_img"].double(), caption_text=tensors["clip_cap"].double())
        found = losses(network(tensors, heads), Encoded(stacked(tensors, "h", "h2")), batch, recipe)
        for ours, theirs in (("text", "intra"), ("image", "img_loss"), ("caption", "cap_loss")):
            assert found[ours][0].item() == pytest.approx(expected[theirs], rel=1e-10)
        assert total(found, recipe) == pytest.approx(expected["total_lambda_0.05"], rel=1e-10)
        checked += 1
    assert checked >= 9


def companions(tensors):
    """Teachers that make the reference's token states, after a position 0 that nothing may read."""

    def states(name):
        tokens = tensors[f"{name}_tokens"].double()
        return lambda ids, mask: torch.cat([torch.full_like(tokens[:, :1], 1e6), tokens], dim=1)

    text = {n: SimpleNamespace(states=states(f"teacher{i}")) for i, n in enumerate(("simcse", "diffcse"), 1)}
    return SimpleNamespace(text=text)


def dalr(tensors, recipe):
    mask = tensors["attention_mask"].long().unsqueeze(1).repeat(1, 2, 1)
    heads = {"grounding": head(tensors, "text"), "visual": head(tensors, "img")}
    teacher_text = (tensors["teacher1"].double(), tensors["teacher2"].double())
    batch = Batch(
        "pair",
        Tokens(torch.zeros_like(mask), mask),
        image=tensors["clip_img"].double(),
        teacher_text=teacher_text,
        image_id=torch.arange(len(mask)),
    )
    return losses(network(tensors, heads, companions(tensors)), Encoded(stacked(tensors, "h", "h2")), batch, recipe)


def test_dalr_code(golden):
    for name, (_, expected, tensors) in golden("dalr").items():
        if name.startswith("listmle"):
            continue
        recipe = resolve("dalr-code", {"consistency_weight": 0})  # its heads' outputs are compared in test_terms
        found = dalr(tensors, recipe)
        ours = {"text": "info_text", "image": "img", "cross_kl": "cma", "rank": "rank_listmle"}
        for term, theirs in (ours | {"intra_kl": "ima", "g2l": "g2l"}).items():
            assert found[term][0].item() == pytest.approx(expected[f"code_{theirs}"], rel=1e-9), term
        wanted = expected["code_total"] - 0.1 * 0.01 * expected["code_cons"]
        assert total(found, recipe) == pytest.approx(wanted, rel=1e-9)
        assert next(t.weight for t in resolve("dalr-code").terms if t.name == "consistency") == pytest.approx(0.001)


def of_mixed_vectors(recipe):
    """The vectors here are for teachers' vectors added up; the recipes weigh their cosines (see test_losses_terms)."""
    terms = (replace(t, options=t.options | {"form": "vectors"}) if "form" in t.options else t for t in recipe.terms)
    return replace(recipe, terms=tuple(terms))


def test_dalr_paper_and_recommended(golden):
    for name, (settings, expected, tensors) in golden("dalr").items():
        if name.startswith("listmle"):
            continue
        recipe = of_mixed_vectors(resolve("dalr-paper", {"consistency_weight": 0}))
        found = dalr(tensors, recipe)
        wanted = expected["paper_total_sum_equal_tau_proj"] - 0.1 * expected["paper_cons_mean"]
        assert total(found, recipe, without=("image",)) == pytest.approx(wanted, rel=1e-9)
        assert found["image"][0].item() == pytest.approx(expected["paper_img"], rel=1e-10)
        literal = resolve("dalr-paper", {"consistency_weight": 0, "transpose": "probabilities"})
        literal = dalr(tensors, of_mixed_vectors(literal))
        theirs = expected["paper_cma_literal_transpose_sum_equal_tau_proj"]
        assert literal["cross_kl"][0].item() == pytest.approx(theirs, rel=1e-9)
        found, n = dalr(tensors, of_mixed_vectors(resolve("dalr", {"consistency_weight": 0}))), settings["N"]
        assert found["rank"][0].item() == pytest.approx(expected["paper_rank_noself_mean_rows_positions"], rel=1e-9)
        for term, theirs in (("cross_kl", "cma_sum_equal_tau_proj"), ("text", "info_text"), ("image", "img")):
            scale = n if term == "cross_kl" else 1
            assert found[term][0].item() * scale == pytest.approx(expected[f"paper_{theirs}"], rel=1e-9)


def test_diffcse(golden):
    for _, expected, tensors in golden("diffcse_rtd").values():
        rows = tensors["discriminator_logits"].double()
        heads = {"projector": lambda h, t=tensors: stacked(t, "z", "z2")}

        def discriminator(ids, mask, z, tensors=tensors, rows=rows):
            assert torch.equal(ids, tensors["discriminator_input_ids"].long())
            return rows

        generator = SimpleNamespace(fill=lambda ids, mask, t=tensors: t["generator_argmax"].long())
        batch = Batch(
            "text",
            Tokens(tensors["input_ids"].long(), tensors["attention_mask"].long()),
            masked=tensors["input_ids"].long(),
        )
        teachers = SimpleNamespace(generator=generator)
        made = network(tensors, heads | {"discriminator": discriminator}, teachers)
        encoded = Encoded(torch.zeros_like(stacked(tensors, "z", "z2")))
        for name, theirs in (("diffcse", "total_padding_ignored"), ("diffcse-code", "total_code")):
            recipe = resolve(name)
            found = losses(made, encoded, batch, recipe)
            assert total(found, recipe) == pytest.approx(expected[theirs], rel=1e-10)


def test_simcse_sup(golden):
    for settings, expected, tensors in golden("simcse_sup").values():
        z = stacked(tensors, "z0", "z1", "z2")
        recipe = resolve("simcse-sup", {"hard_negative_weight": settings["hard_negative_weight"]})
        made = SimpleNamespace(simcse=lambda h, z=z: z, heads={})
        tokens = torch.zeros(len(z), 3, 2, dtype=torch.int64)
        batch = Batch("triplet", Tokens(tokens, torch.ones_like(tokens)))
        found = losses(made, Encoded(z), batch, recipe)
        assert total(found, recipe) == pytest.approx(expected["loss"], rel=1e-10)
