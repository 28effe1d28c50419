import math

import pytest
import torch

from model.heads import Head
from model.losses.info_nce import info_nce
from model.losses.object_phrase import box_iou, object_phrase

# relative to the largest absolute entry of the expected tensor: (losses, gradients, numeric gradients)
TOLERANCE = {torch.float64: (1e-10, 1e-9, 1e-7), torch.float32: (1e-5, 5e-5, 1e-5)}
PRECISIONS = pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)


def assert_near(actual, expected, tolerance):
    expected = torch.as_tensor(expected, dtype=torch.float64)
    error = (actual.detach().double() - expected).abs().max() / expected.abs().max()
    assert error <= tolerance, f"off by {error:.1e} of the largest entry, allowed {tolerance:.0e}"


def test_info_nce_by_hand():
    rows = torch.tensor([[3.0, 0.0], [0.0, 0.5]])  # cosines: the identity
    assert info_nce(rows, rows, 1.0).item() == pytest.approx(math.log(1 + math.exp(-1)))
    assert info_nce(rows, rows, 0.5).item() == pytest.approx(math.log(1 + math.exp(-2)))
    # rows: anchor 0 sees cosines (1, 1), anchor 1 sees (0, 0); columns: each candidate sees (1, 0)
    both = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    columns = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(1))) / 2
    assert info_nce(rows, both, 1.0).item() == pytest.approx(math.log(2))
    assert info_nce(rows, both, 1.0, symmetric=True).item() == pytest.approx((math.log(2) + columns) / 2)


def test_info_nce_of_one_row_is_zero():
    row = torch.randn(1, 4, requires_grad=True)
    loss = info_nce(row, torch.randn(1, 4), 0.05)
    loss.backward()
    assert loss.item() == 0 and row.grad.abs().max() == 0


def three(key, image=(0, 1, 2), box=((0, 0, 1, 1),) * 3, **options):
    """Three phrases and objects with logits equal to the identity."""
    eye = torch.eye(3)
    box = torch.tensor(box, dtype=torch.float32)
    return object_phrase(eye[None], eye, torch.tensor(key), torch.tensor(image), box, 1.0, **options).item()


def minus_log(*others, own=1.0):
    return math.log(1 + sum(math.exp(o - own) for o in others))


def test_object_phrase_by_hand():
    plain = minus_log(0, 0)
    assert three((0, 1, 2)) == pytest.approx(plain)
    # 0 and 1 share a key: each has both as positives against object 2 alone
    duplicated = (minus_log(0) + minus_log(0, own=0)) / 2
    assert three((5, 5, 2)) == pytest.approx((2 * duplicated + plain) / 3)
    assert three((5, 5, 2), phrase_dup="mask") == pytest.approx((2 * minus_log(0) + plain) / 3)
    assert three((5, 5, 2), phrase_dup="negative") == pytest.approx(plain)
    # 0 and 1 in one image: apart, then overlapping
    apart = ((0, 0, 1, 1), (5, 5, 6, 6), (0, 0, 1, 1))
    left_out = (2 * minus_log(0) + plain) / 3
    assert three((0, 1, 2), (9, 9, 1), apart) == pytest.approx(plain)
    assert three((0, 1, 2), (9, 9, 1), apart, same_image="ignore") == pytest.approx(left_out)
    assert three((0, 1, 2), (9, 9, 1)) == pytest.approx(left_out)
    assert three((0, 1, 2), (9, 9, 1), same_image="negative") == pytest.approx(plain)
    assert three((0, 1, 2), (9, 9, 1), iou_threshold=1.1) == pytest.approx(plain)


def test_object_phrase_without_negatives_is_zero_with_finite_gradient():
    phrases = torch.nn.functional.normalize(torch.randn(2, 3, 4), dim=-1).requires_grad_()
    objects = torch.nn.functional.normalize(torch.randn(3, 4), dim=-1)
    one = torch.zeros(3, dtype=torch.int64)
    for direction in ("t2v", "symmetric"):
        loss = object_phrase(phrases, objects, one, one, torch.rand(3, 4), 0.05, direction=direction)
        (gradient,) = torch.autograd.grad(loss, phrases)
        assert loss.item() == 0 and gradient.abs().max() == 0


def test_object_phrase_directions_differ_by_transposition():
    torch.manual_seed(0)
    phrase, objects = torch.nn.functional.normalize(torch.randn(2, 5, 8), dim=-1).unbind(0)
    rest = (torch.tensor([0, 1, 0, 2, 3]), torch.tensor([0, 0, 1, 1, 2]), torch.rand(5, 4).cumsum(1), 0.1)
    there, back = object_phrase(phrase[None], objects, *rest), object_phrase(objects[None], phrase, *rest)
    both = object_phrase(phrase[None], objects, *rest, direction="symmetric")
    assert there != back
    torch.testing.assert_close(both, (there + back) / 2)


def test_object_phrase_names_an_unknown_option():
    with pytest.raises(ValueError, match="multi_positive"):
        three((0, 1, 2), phrase_dup="drop")


def test_box_iou():
    box = torch.tensor([[0.0, 0, 2, 2], [1, 0, 3, 2], [1, 1, 1, 1], [5, 5, 6, 6]])
    iou = box_iou(box)
    assert iou[0].tolist() == pytest.approx([1, 1 / 3, 0, 0])
    assert iou[2, 2] == 0 and torch.isfinite(iou).all()


@PRECISIONS
def test_simcse_equals_the_reference(golden, dtype):
    for settings, expected, tensors in golden("simcse_unsup").values():
        z, z2 = (tensors[k].to(dtype).requires_grad_() for k in ("z", "z2"))
        loss = info_nce(z, z2, settings["tau"])
        assert_near(loss, expected["loss"], TOLERANCE[dtype][0])
        for name, gradient in zip(("z", "z2"), torch.autograd.grad(loss, (z, z2)), strict=True):
            assert_near(gradient, tensors[f"grad/d_{name}"], TOLERANCE[dtype][1])


def head(weight, bias):
    built = Head(weight.shape[1], weight.shape[0], unit=True).to(weight.dtype)
    built.dense.weight, built.dense.bias = torch.nn.Parameter(weight), torch.nn.Parameter(bias)
    return built


@PRECISIONS
def test_mcse_equals_the_reference(golden, dtype):
    for settings, expected, tensors in golden("mcse").values():
        given = {k: v.to(dtype).requires_grad_() for k, v in tensors.items() if not k.startswith(("grad", "logits"))}
        text, image = head(given["W_text"], given["b_text"]), head(given["W_img"], given["b_img"])
        inputs = given | {
            "W_text": text.dense.weight,
            "b_text": text.dense.bias,
            "W_img": image.dense.weight,
            "b_img": image.dense.bias,
        }
        views = [info_nce(text(inputs[h]), image(inputs["u"]), settings["tau_vl"]) for h in ("h", "h2")]
        values = {"inter_view1": views[0], "inter_view2": views[1], "inter": (views[0] + views[1]) / 2}
        values["intra"] = info_nce(inputs["z"], inputs["z2"], settings["tau"])
        for weight in (0.01, 0.05):
            values[f"total_lambda_{weight}"] = values["intra"] + weight * values["inter"]
        assert values.keys() == expected.keys()
        for name, value in values.items():
            assert_near(value, expected[name], TOLERANCE[dtype][0])
        checked = 0
        for scalar, key in (("intra", "grad_intra"), ("inter", "grad_inter"), ("total_lambda_0.05", "grad_total_0.05")):
            wanted = {k.removeprefix(f"{key}/d_"): v for k, v in tensors.items() if k.startswith(f"{key}/d_")}
            got = torch.autograd.grad(values[scalar], [inputs[k] for k in wanted], retain_graph=True)
            for gradient, reference in zip(got, wanted.values(), strict=True):
                assert_near(gradient, reference, TOLERANCE[dtype][1])
            checked += len(wanted)
        assert checked == sum(k.startswith("grad") for k in tensors)


@PRECISIONS
def test_mcseo_equals_the_reference(golden, dtype):
    numeric = 0
    for settings, expected, tensors in golden("mcseo").values():
        view1, view2, objects = (
            tensors[k].to(dtype).requires_grad_() for k in ("phrase_view1", "phrase_view2", "object")
        )
        for key, value in expected.items():
            dup, same, direction = key.split("|")
            loss = object_phrase(
                torch.stack([view1, view2]),
                objects,
                tensors["phrase_key"],
                tensors["image_id"],
                tensors["boxes_xyxy"].to(dtype),
                settings["tau_o"],
                phrase_dup=dup,
                same_image=same,
                direction=direction,
                iou_threshold=settings["iou_threshold"],
            )
            assert_near(loss, value, TOLERANCE[dtype][0])
            stem = f"numgrad_{dup}_{same}_{direction}/d_"
            names = {"phrase_view1": view1, "phrase_view2": view2, "object": objects}
            for name, of in names.items():
                if stem + name in tensors:
                    (gradient,) = torch.autograd.grad(loss, of, retain_graph=True)
                    assert_near(gradient, tensors[stem + name], TOLERANCE[dtype][2])
                    numeric += 1
    assert numeric >= 6
