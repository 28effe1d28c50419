"""What must hold for every loss: derivatives, invariances, extreme inputs, low precision."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from model.losses.angular_margin import angular_info_nce, angular_margin
from model.losses.consistency import consistency
from model.losses.cosine import cosine_matrix, unit
from model.losses.cross_modal_kl import cross_modal_kl
from model.losses.divergence import divergence
from model.losses.global_to_local import global_to_local
from model.losses.hard_negatives import hard_negative_info_nce
from model.losses.info_nce import info_nce
from model.losses.intra_modal_kl import intra_modal_kl
from model.losses.list_mle import falling, list_mle
from model.losses.mil_nce import mil_nce
from model.losses.object_phrase import object_phrase
from model.losses.replaced_token import replaced_token
from model.losses.soft_object_phrase import soft_object_phrase
from model.losses.span_mean import span_mean
from model.losses.teacher_mask import teacher_mask

Given = dict[str, Tensor]
L = 4  # tokens of a sentence


@dataclass(frozen=True)
class Loss:
    """A loss of a batch of N items.

    learned: inputs with gradients, by name; fixed: the others. Names tell the shapes (see `draw`). scaled: inputs
    whose rows may have any norm. alone: whether one item is a batch, and whether its loss is then 0.
    """

    of: Callable[[Given, float], Tensor]
    learned: tuple[str, ...]
    fixed: tuple[str, ...] = ()
    scaled: tuple[str, ...] = ()
    alone_is_zero: bool = True


SHAPES = {
    **dict.fromkeys(("a", "b", "c", "image", "teacher_text", "teacher_image"), "nd"),
    **dict.fromkeys(("p1", "p2", "objects"), "unit nd"),
    **dict.fromkeys(("scores", "teacher"), "nn"),
    "tokens": "nld",
    "mask": "mask",
    "logits": "nl2",
    "labels": "labels",
    "matched": "matched",
    "key": "codes",
    "of_image": "codes",
    "owner": "rows",
    "box": "box",
}


def draw(names, n: int, d: int, dtype=torch.float64, seed=0) -> Given:
    g = torch.Generator().manual_seed(seed)
    made = {}
    for name in names:
        shape = SHAPES[name]
        if shape == "mask":
            value = (torch.rand(n, L, generator=g) < 0.7).long()
            value[:, 0] = 1
        elif shape == "labels":
            value = torch.randint(0, 2, (n, L), generator=g)
        elif shape == "matched":
            value = torch.rand(n, generator=g) < 0.5
        elif shape == "codes":
            value = torch.randint(0, max(1, 2 * n // 3), (n,), generator=g)
        elif shape == "rows":
            value = torch.randint(0, n, (n,), generator=g)
        elif shape == "box":
            corner = torch.rand(n, 2, generator=g) * 10
            value = torch.cat([corner, corner + 1 + torch.rand(n, 2, generator=g) * 20], 1).to(dtype)
        else:
            sizes = {"nd": (n, d), "unit nd": (n, d), "nn": (n, n), "nld": (n, L, d), "nl2": (n, L, 2)}[shape]
            value = torch.randn(sizes, generator=g).to(dtype)
            value = F.normalize(value, dim=-1) if shape == "unit nd" else value
        made[name] = value
    return made


def teachers(x: Given) -> tuple[Tensor, Tensor]:
    return cosine_matrix(x["teacher_text"], x["teacher_text"]), cosine_matrix(x["teacher_image"], x["teacher_image"])


def phrases(x: Given):
    return torch.stack([x["p1"], x["p2"]]), x["objects"], x["key"], x["of_image"], x["box"]


def adaptive(x: Given, t: float) -> Tensor:
    text, image = teachers(x)
    return angular_info_nce(x["a"], x["b"], t, 0.15, 1 - image, teacher_mask(text, 0.3))


def ranked(**options):
    return lambda x, t: list_mle(x["scores"], falling(x["teacher"]), t, **options)


LOSSES = {
    "info_nce": Loss(lambda x, t: info_nce(x["a"], x["b"], t), ("a", "b"), scaled=("a", "b")),
    "info_nce, symmetric, masked": Loss(
        lambda x, t: info_nce(x["a"], x["b"], t, symmetric=True, keep=teacher_mask(teachers(x)[0], 0.2)),
        ("a", "b"),
        ("teacher_text", "teacher_image"),
        ("a", "b", "teacher_text"),
    ),
    "hard negatives": Loss(
        lambda x, t: hard_negative_info_nce(x["a"], x["b"], x["c"], t, 0.5),
        ("a", "b", "c"),
        scaled=("a", "b", "c"),
        alone_is_zero=False,
    ),
    "fixed margin": Loss(lambda x, t: angular_info_nce(x["a"], x["b"], t, 0.15), ("a", "b"), scaled=("a", "b")),
    "adaptive margin": Loss(adaptive, ("a", "b"), ("teacher_text", "teacher_image"), ("a", "b", "teacher_image")),
    "consistency": Loss(
        lambda x, t: consistency(x["a"], x["b"], x["matched"]), ("a", "b"), ("matched",), ("a", "b"), False
    ),
    "divergence": Loss(lambda x, t: divergence(x["teacher"], x["scores"] / t), ("scores",), ("teacher",)),
    **{
        f"cross-modal, {how}": Loss(
            lambda x, t, how=how: cross_modal_kl(
                cosine_matrix(x["a"], x["image"]), *teachers(x), t, 0.5, transpose=how
            ),
            ("a",),
            ("image", "teacher_text", "teacher_image"),
            ("a", "image", "teacher_text", "teacher_image"),
        )
        for how in ("scores", "probabilities")
    },
    "intra-modal": Loss(
        lambda x, t: intra_modal_kl(cosine_matrix(x["a"], x["b"]), teachers(x)[0], t, 0.5),
        ("a", "b"),
        ("teacher_text", "teacher_image"),
        ("a", "b"),
    ),
    "list_mle": Loss(ranked(), ("scores",), ("teacher",)),
    "list_mle, own item in, rows": Loss(ranked(include_self=True, reduction="rows"), ("scores",), ("teacher",)),
    "list_mle, eps": Loss(ranked(include_self=True, eps=1e-7), ("scores",), ("teacher",), alone_is_zero=False),
    "global to local": Loss(
        lambda x, t: global_to_local(x["a"], x["tokens"], x["mask"], t), ("a",), ("tokens", "mask")
    ),
    "replaced token": Loss(
        lambda x, t: replaced_token(x["logits"] / t, x["labels"], x["mask"]),
        ("logits",),
        ("labels", "mask"),
        alone_is_zero=False,
    ),
    "object phrase": Loss(
        lambda x, t: object_phrase(*phrases(x), t, direction="symmetric"),
        ("p1", "p2", "objects"),
        ("key", "of_image", "box"),
    ),
    "bags of objects": Loss(lambda x, t: mil_nce(x["p1"], x["objects"], x["owner"], t), ("p1", "objects"), ("owner",)),
    "soft object phrase": Loss(
        lambda x, t: soft_object_phrase(*phrases(x)[:2], x["teacher"], *phrases(x)[2:], t, 0.05),
        ("p1", "p2", "objects"),
        ("teacher", "key", "of_image", "box"),
    ),
}
each = pytest.mark.parametrize("name", LOSSES)


def inputs(loss: Loss, n: int, d: int, dtype=torch.float64, seed=0) -> Given:
    return draw((*loss.learned, *loss.fixed), n, d, dtype, seed)


def value_and_gradients(loss: Loss, x: Given, temperature: float) -> tuple[Tensor, list[Tensor]]:
    leaves = {name: x[name].clone().requires_grad_() for name in loss.learned}
    value = loss.of(x | leaves, temperature)
    return value.detach(), list(torch.autograd.grad(value, list(leaves.values())))


@each
@pytest.mark.parametrize("n", [2, 5])
def test_derivatives_are_those_of_the_value(name, n):
    loss = LOSSES[name]
    x = inputs(loss, n, 6)
    leaves = [x[k].requires_grad_() for k in loss.learned]
    assert torch.autograd.gradcheck(lambda *v: loss.of(x | dict(zip(loss.learned, v, strict=True)), 0.3), leaves)


@each
def test_the_order_of_the_items_does_not_matter(name):
    loss = LOSSES[name]
    x = inputs(loss, 6, 5)
    order = torch.tensor([3, 5, 0, 1, 4, 2])
    moved = {k: v[order][:, order] if SHAPES[k] == "nn" else v[order] for k, v in x.items()}
    moved |= {k: order.argsort()[v] for k, v in moved.items() if SHAPES[k] == "rows"}
    torch.testing.assert_close(loss.of(moved, 0.1), loss.of(x, 0.1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [k for k, loss in LOSSES.items() if loss.scaled])
def test_norms_of_rows_do_not_matter_where_cosines_are_compared(name):
    loss = LOSSES[name]
    x = inputs(loss, 5, 6)
    size = torch.tensor([1e-6, 0.3, 1.0, 40.0, 1e7], dtype=torch.float64)[:, None]
    moved = x | {k: x[k] * size for k in loss.scaled}
    torch.testing.assert_close(loss.of(moved, 0.1), loss.of(x, 0.1), rtol=1e-10, atol=1e-12)


@each
def test_one_item_is_a_batch(name):
    loss = LOSSES[name]
    value, gradients = value_and_gradients(loss, inputs(loss, 1, 4), 0.05)
    assert value.isfinite() and all(g.isfinite().all() for g in gradients)
    if loss.alone_is_zero:
        assert value == 0 and all(g.abs().max() == 0 for g in gradients)


def extremes(x: Given, learned: tuple[str, ...]):
    """The same inputs with what is learned at an extreme."""
    n = len(x[learned[0]])

    def every(change):
        return x | {k: change(k, x[k]) for k in learned}

    yield "all rows alike", every(lambda k, v: v[:1].expand_as(v))
    yield "all inputs the same", every(lambda k, v: x[learned[0]] if v.shape == x[learned[0]].shape else v)
    yield "opposite", every(lambda k, v: -x[learned[0]] if k != learned[0] and v.shape == x[learned[0]].shape else v)
    yield "constant", every(lambda k, v: torch.full_like(v, v.shape[-1] ** -0.5))
    yield "one axis", every(lambda k, v: torch.eye(v.shape[-1], dtype=v.dtype)[0].expand_as(v))
    if all(x[k].ndim == 2 and x[k].shape[1] >= n for k in learned):
        yield "orthogonal", every(lambda k, v: torch.eye(*v.shape, dtype=v.dtype))
        yield "orthogonal, each to its own", every(lambda k, v: torch.eye(*v.shape, dtype=v.dtype).roll(len(k), 0))


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_extreme_inputs_have_finite_losses_and_gradients(name, dtype):
    loss = LOSSES[name]
    for what, x in extremes(inputs(loss, 4, 8, dtype), loss.learned):
        for temperature in (0.01, 1.0):
            value, gradients = value_and_gradients(loss, x, temperature)
            assert value.isfinite() and value > -1e-5, (what, temperature, value)
            assert all(g.isfinite().all() for g in gradients), (what, temperature)
            assert max(g.abs().max() for g in gradients) < 1e6, (what, temperature)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(sorted(LOSSES)), st.integers(1, 6), st.integers(1, 9), st.integers(0, 10**6), st.floats(0.01, 2.0)
)
def test_float32_is_near_float64(name, n, d, seed, temperature):
    loss = LOSSES[name]
    x = inputs(loss, n, d, torch.float32, seed)
    if name == "adaptive margin" or name.endswith("masked"):
        x |= {"teacher_text": torch.eye(n, d), "teacher_image": torch.eye(n, d)}  # no score near a threshold
    if "margin" in name:
        cosine = cosine_matrix(x["a"].double(), x["b"].double())
        if (cosine.clamp(-1, 1).acos() - 0.15).abs().min() < 1e-3:
            return  # no angle near the margin
    exact = {k: v.double() if v.is_floating_point() else v for k, v in x.items()}
    wanted = loss.of(exact, temperature)
    got = loss.of(x, temperature)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), wanted, rtol=3e-5, atol=1e-5 / temperature)


@each
def test_half_precision_inputs_give_a_float32_loss_and_autocast_does_not_reach_inside(name):
    loss = LOSSES[name]
    x = inputs(loss, 5, 6, torch.float32, seed=3)
    low = {k: v.bfloat16() if v.is_floating_point() else v for k, v in x.items()}
    wide = {k: v.float() if v.is_floating_point() else v for k, v in low.items()}
    leaves = {k: low[k].clone().requires_grad_() for k in loss.learned}
    with torch.autocast("cpu", torch.bfloat16):
        value = loss.of(low | leaves, 0.125)
        assert value.dtype == torch.float32
        gradients = torch.autograd.grad(value, list(leaves.values()))
    torch.testing.assert_close(value, loss.of(wide, 0.125), rtol=1e-6, atol=1e-6)
    assert all(g.dtype == torch.bfloat16 and g.isfinite().all() for g in gradients)


@each
def test_not_a_number_is_not_hidden(name):
    loss = LOSSES[name]
    x = inputs(loss, 4, 5)
    x[loss.learned[0]] = x[loss.learned[0]].clone()
    x[loss.learned[0]].view(-1)[1] = float("nan")  # [0, 1]: not an item's own score, which a list may leave out
    if name == "replaced token":
        x["mask"] = torch.ones_like(x["mask"])
    assert loss.of(x, 0.1).isnan()


@each
def test_nothing_given_is_changed(name):
    loss = LOSSES[name]
    x = inputs(loss, 4, 5)
    before = {k: v.clone() for k, v in x.items()}
    loss.of(x, 0.1)
    assert all(torch.equal(x[k], before[k]) for k in x)


# ---------------------------------------------------------------- parts


def test_the_margin_is_the_cosine_of_the_moved_angle():
    angles = torch.linspace(0.01, 3.1, 400, dtype=torch.float64)[: 20 * 20].view(20, 20)
    own = torch.eye(20, dtype=torch.bool)
    for margin in (0.0, 0.1, 0.5, 3.0):
        moved = torch.where(own | (angles <= margin), angles, angles - margin).cos()
        torch.testing.assert_close(angular_margin(angles.cos(), margin), moved, rtol=0, atol=1e-12)
    difference = torch.linspace(0, 2, 400, dtype=torch.float64).view(20, 20)
    moved = torch.where(own | (angles <= 0.2), angles, angles - 0.2 * difference).cos()
    torch.testing.assert_close(angular_margin(angles.cos(), 0.2, difference), moved, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_margin_is_exact_and_finite_at_the_ends(dtype):
    cosine = torch.tensor([[1.0, -1.0], [1.0, 1.0 + torch.finfo(dtype).eps]], dtype=dtype).requires_grad_()
    moved = angular_margin(cosine, 0.15)
    torch.testing.assert_close(moved[0, 1], torch.tensor(-0.15, dtype=torch.float64).cos().neg().to(dtype))
    assert moved[1, 0] == 1
    (gradient,) = torch.autograd.grad(moved.sum(), cosine)
    assert gradient.isfinite().all()


def test_the_margin_wants_a_square():
    with pytest.raises(ValueError, match=r"\[2, 3\]"):
        angular_margin(torch.zeros(2, 3), 0.1)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 7), st.integers(0, 10**6))
def test_unit_rows(n, d, seed):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    torch.testing.assert_close(unit(x), F.normalize(x, dim=-1), rtol=1e-14, atol=1e-15)


def test_a_zero_row_has_no_direction_and_gets_no_gradient():
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad((unit(x) * torch.tensor([1.0, 2.0])).sum(), x)
    assert torch.equal(unit(x)[0], torch.zeros(2)) and torch.equal(gradient[0], torch.zeros(2))
    assert gradient[1].abs().max() > 0
    loss = consistency(x, torch.ones(2, 2), torch.tensor([True, False]))
    assert loss.isfinite() and torch.autograd.grad(loss, x)[0].isfinite().all()


def test_span_mean_is_finite_in_bfloat16_and_differentiable():
    states = torch.randn(3, 6, 4, dtype=torch.float64, requires_grad=True)
    place = torch.tensor([0, 2, 2]), torch.tensor([1, 0, 5]), torch.tensor([3, 6, 6])
    assert torch.autograd.gradcheck(lambda s: span_mean(s, *place), [states])
    assert span_mean(states.bfloat16(), *place).dtype == torch.float32
