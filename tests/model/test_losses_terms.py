"""Each term on numbers that can be worked out by hand, and its options."""

import math

import naive_losses as naive
import pytest
import torch
from torch.nn import functional as F

from model.losses.angular_margin import angular_info_nce
from model.losses.consistency import consistency
from model.losses.cross_modal_kl import cross_modal_kl
from model.losses.divergence import divergence
from model.losses.global_to_local import global_to_local
from model.losses.hard_negatives import hard_negative_info_nce
from model.losses.info_nce import info_nce
from model.losses.intra_modal_kl import intra_modal_kl
from model.losses.list_mle import falling, list_mle
from model.losses.mil_nce import mil_nce
from model.losses.object_phrase import object_phrase
from model.losses.replaced_token import replaced_labels, replaced_token
from model.losses.soft_object_phrase import soft_object_phrase
from model.losses.span_mean import span_mean, token_span
from model.losses.teacher_mask import teacher_mask
from model.losses.teacher_similarity import teacher_similarity

EYE = torch.eye(3, dtype=torch.float64)
E = math.e


def near(value, wanted):
    assert value.item() == pytest.approx(wanted, rel=1e-12, abs=1e-12)


def test_hard_negatives():
    # cosines: 1 with the own positive, 0 with all others and with every hard negative
    z, hard = torch.eye(4, dtype=torch.float64)[:2], torch.eye(4, dtype=torch.float64)[2:]
    near(hard_negative_info_nce(z, z, hard, 1.0), math.log((E + 1 + 2) / E))
    near(hard_negative_info_nce(z, z, hard, 1.0, weight=math.log(3)), math.log((E + 1 + 3 + 1) / E))
    # a hard negative as near as the positive
    near(hard_negative_info_nce(z, z, z, 0.5), math.log((2 * E**2 + 2) / E**2))


def test_a_mask_takes_negatives_out_of_the_denominator():
    keep = torch.tensor([[True, False, True], [False, True, True], [False, False, True]])
    wanted = (2 * math.log((E + 1) / E) + 0) / 3
    near(info_nce(EYE, EYE, 1.0, keep=keep), wanted)
    near(angular_info_nce(EYE, EYE, 1.0, 0.0, keep=keep), wanted)
    # the other direction reads the mask by columns
    near(info_nce(EYE, EYE, 1.0, symmetric=True, keep=keep), (wanted + math.log((E + 2) / E) / 3) / 2)
    # the positive stays whatever the mask says
    near(info_nce(EYE, EYE, 1.0, keep=torch.zeros(3, 3, dtype=torch.bool)), 0)


def test_the_masked_entries_get_no_gradient():
    a = torch.randn(3, 5, dtype=torch.float64)
    c = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    keep = torch.tensor([[True, False, True], [True, True, True], [True, False, True]])
    loss = angular_info_nce(a[[0, 2]], c[[0, 2]], 0.1, 0.1)
    wanted = torch.autograd.grad(loss, c)[0]
    # rows 0 and 2 alone, with item 1 masked
    full = angular_info_nce(a, c, 0.1, 0.1, keep=keep)
    own = angular_info_nce(a, c, 0.1, 0.1, keep=torch.tensor([[False] * 3, [True] * 3, [False] * 3]))
    torch.testing.assert_close(torch.autograd.grad(full - own, c)[0] * 3 / 2, wanted)


def test_margins():
    # right angles: cos(pi/2 - m D) = sin(m D)
    fixed = math.log((E + 2 * math.exp(math.sin(0.3))) / E)
    near(angular_info_nce(EYE, EYE, 1.0, 0.3), fixed)
    difference = torch.tensor([[9.0, 0.0, 0.0], [0.5, 9.0, 2.0], [1.0, 1.0, 9.0]], dtype=torch.float64)
    rows = [E + 2, E + math.exp(math.sin(0.15)) + math.exp(math.sin(0.6)), E + 2 * math.exp(math.sin(0.3))]
    near(angular_info_nce(EYE, EYE, 1.0, 0.3, difference), sum(math.log(r / E) for r in rows) / 3)


def test_teacher_mask():
    similarity = torch.tensor([[0.1, 0.9, 0.5], [0.8, 1.0, 0.2], [0.5, 0.4, 0.9]])
    assert teacher_mask(similarity, 0.5).tolist() == [[1, 0, 1], [0, 1, 1], [1, 1, 1]]
    assert teacher_mask(similarity, 0.5, "paper").tolist() == [[1, 0, 0], [0, 1, 1], [0, 1, 1]]
    assert teacher_mask(similarity, None).all()
    image = torch.tensor([7, 3, 7])
    assert teacher_mask(similarity, None, image=image).tolist() == [[1, 1, 0], [1, 1, 1], [0, 1, 1]]
    assert teacher_mask(similarity, 0.5, image=image).tolist() == [[1, 0, 0], [0, 1, 1], [0, 1, 1]]


def test_teacher_similarity():
    one, two = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [5.0, 0.0]])
    assert teacher_similarity((one, two), (0.25, 0.75)).tolist() == [[1, 0.75], [0.75, 1]]
    mixed = F.normalize(0.25 * one + 0.75 * two, dim=1)
    torch.testing.assert_close(teacher_similarity((one, two), (0.25, 0.75), "vectors"), mixed @ mixed.T)
    assert teacher_similarity((one, torch.rand(2, 7)), (1.0, 0.0)).tolist() == [[1, 0], [0, 1]]
    with pytest.raises(ValueError):
        teacher_similarity((one, two), (1.0,))


def test_consistency():
    text = torch.tensor([[1.0, 0.0], [1.0, 0.0], [2.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    image = torch.tensor([[3.0, 0.0], [0.0, 1.0], [1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    matched = torch.tensor([True, True, False, False])
    near(consistency(text, image, matched), (0 + 1 + 0.8 + 0) / 4)
    near(consistency(text, image, matched, margin=0.5, reduction="sum"), 1.5)


def test_divergences():
    teacher = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]], dtype=torch.float64)  # 1/4 3/4, 1/2 1/2
    student = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]], dtype=torch.float64)  # 1/2 1/2, 3/4 1/4
    first = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    second = 0.5 * math.log(2 / 3) + 0.5 * math.log(2)
    near(divergence(teacher, student), (first + second) / 2)
    near(divergence(teacher, student, "sum"), first + second)
    near(intra_modal_kl(student / 2, teacher / 3, 0.5, 1 / 3, "sum"), first + second)
    near(divergence(teacher, teacher + 5), 0)
    # the student's columns: softmax of (0, log 3) and of (0, 0); its softmax transposed: (1/2, 3/4), (1/2, 1/4)
    flat = torch.zeros(2, 2, dtype=torch.float64)
    columns = divergence(flat, student.T, "sum").item()
    near(cross_modal_kl(student, teacher, flat, 1.0, 1.0, "sum"), (first + second + columns) / 2)
    literal = sum(0.5 * math.log(0.5 / p) for p in (0.5, 0.75, 0.5, 0.25))
    near(cross_modal_kl(student, teacher, flat, 1.0, 1.0, "sum", "probabilities"), (first + second + literal) / 2)


def test_sharp_students_keep_divergences_finite():
    student = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]) / 0.0005
    assert divergence(torch.zeros(2, 2), student.requires_grad_()).isfinite()


def test_list_mle():
    scores = torch.tensor([[9.0, 1.0, 2.0], [0.5, 9.0, 0.5], [0.0, 0.0, 9.0]], dtype=torch.float64)
    order = torch.tensor([[0, 1, 2], [1, 2, 0], [2, 0, 1]])

    def first_of(*v):
        return -math.log(math.exp(v[0]) / sum(math.exp(x) for x in v))

    without = [first_of(1, 2), first_of(0.5, 0.5), first_of(0, 0)]
    near(list_mle(scores, order, 1.0, reduction="sum"), sum(without))
    near(list_mle(scores, order, 1.0, reduction="rows"), sum(without) / 3)
    near(list_mle(scores, order, 1.0), sum(without) / 6)
    own = [first_of(9, 1, 2), first_of(9, 0.5, 0.5), first_of(9, 0, 0)]
    near(list_mle(scores, order, 1.0, include_self=True, reduction="sum"), sum(without) + sum(own))
    near(list_mle(3 * scores, order, 3.0, reduction="sum"), sum(without))
    # uninformative scores cost log(M!) a row
    near(list_mle(torch.zeros(64, 64).double(), falling(torch.rand(64, 64)), 0.05, True, "rows"), math.lgamma(65))


def test_list_mle_prefers_the_teachers_order_and_stays_exact_where_the_codes_eps_does_not():
    teacher = torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    order = falling(teacher)
    assert list_mle(teacher, order, 0.1) < list_mle(torch.zeros(6, 6), order, 0.1) < list_mle(-teacher, order, 0.1)
    wide = teacher * 40  # tails far below eps
    exact = naive.mean(naive.list_mle_rows(list(wide), teacher))
    near(list_mle(wide, order, 1.0, include_self=True, reduction="rows"), exact.item())
    assert list_mle(wide, order, 1.0, include_self=True, reduction="rows", eps=1e-7) > 1.5 * exact
    single = list_mle(wide.float(), order, 1.0, include_self=True, reduction="rows")
    assert single.item() == pytest.approx(exact.item(), rel=1e-5)


def test_falling_takes_the_lower_column_of_equals():
    assert falling(torch.tensor([[1.0, 3.0, 3.0, 2.0]])).tolist() == [[1, 2, 3, 0]]


def test_global_to_local():
    # one real token a sentence, each feature of norm 1 over it: w = sign of the feature
    z = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    tokens = torch.tensor([[[4.0, 3.0]], [[-2.0, 1.0]]], dtype=torch.float64)
    mask = torch.ones(2, 1)
    near(
        global_to_local(z, tokens, mask, 1.0),
        (math.log(1 + math.exp(-1 - 1)) + math.log(1 + math.exp(2 - 2))) / 2,
    )
    # padding counts in the norm, not in the sums
    padded = torch.cat([tokens, torch.tensor([[[3.0, 4.0]], [[0.0, 0.0]]], dtype=torch.float64)], 1)
    real = torch.tensor([[1, 0], [1, 0]])
    rows = [math.log(1 + math.exp(-1 - 0.8)), math.log(1 + math.exp(2 * 0.6 - 2))]
    near(global_to_local(z, padded, real, 1.0), sum(rows) / 2)
    near(global_to_local(z, padded, torch.tensor([[0, 0], [1, 0]]), 1.0), 0)  # nothing to tell apart, nothing to say


def test_replaced_tokens():
    ids = torch.tensor([[101, 5, 6, 102, 0], [101, 7, 102, 0, 0]])
    mask = (ids != 0).int()
    best = torch.tensor([[9, 5, 8, 102, 4], [3, 7, 103, 4, 101]])
    read, labels = replaced_labels(ids, best, mask, cls_id=101)
    assert read.tolist() == [[101, 5, 8, 102, 0], [101, 7, 103, 0, 0]]
    assert labels.tolist() == [[0, 0, 1, 0, 0], [0, 0, 1, 0, 0]]
    assert replaced_labels(ids, best, mask, 101, pad_id=1)[0][:, -1].tolist() == [1, 1]
    assert best[0, 0] == 9  # the generator's tokens are left as they were
    logits = torch.zeros(2, 5, 2, dtype=torch.float64)
    logits[:, 2, 1] = math.log(3)  # 3/4 for replaced where it is
    logits[:, 3:, 1] = math.log(3)  # and where it is not, padding but for one
    sure, unsure, wrong = -math.log(0.75), math.log(2), -math.log(0.25)
    near(replaced_token(logits, labels, mask), (2 * sure + 4 * unsure + wrong) / 7)
    near(replaced_token(logits, labels, mask, "count"), (2 * sure + 4 * unsure + 4 * wrong) / 10)


def test_soft_object_phrase_is_the_formula():
    g = torch.Generator().manual_seed(1)
    views = F.normalize(torch.randn(2, 4, 6, generator=g, dtype=torch.float64), dim=-1)
    objects = F.normalize(torch.randn(4, 6, generator=g, dtype=torch.float64), dim=-1)
    teacher = torch.rand(4, 4, generator=g, dtype=torch.float64)
    key, image, box = torch.tensor([0, 1, 0, 2]), torch.tensor([0, 0, 1, 1]), torch.rand(4, 4, generator=g)
    box[:, 2:] += 1
    t, student = naive.over(teacher, 0.1), [naive.over(naive.cosines(v, objects), 0.2) for v in views]
    there = naive.mean(naive.mean(naive.kl(t, s)) for s in student)
    back = naive.mean(naive.mean(naive.kl(naive.turned(t), naive.turned(s))) for s in student)
    soft = ((there + back) / 2).item()
    rest = (teacher, key, image, box, 0.2, 0.1)
    near(soft_object_phrase(views, objects, *rest, beta=1), soft)
    hard = object_phrase(views, objects, key, image, box, 0.2, direction="symmetric").item()
    near(soft_object_phrase(views, objects, *rest, beta=0.25), 0.75 * hard + 0.25 * soft)
    # a student that says what the teacher says costs nothing
    same = soft_object_phrase(views[:1], objects, (views[0] @ objects.T) / 2, key, image, box, 0.2, 0.1, beta=1)
    near(same, 0)


def test_mil_nce():
    captions = torch.eye(3, dtype=torch.float64)
    objects = torch.eye(3, dtype=torch.float64)[[0, 1, 1, 0]]
    owner = torch.tensor([0, 0, 1, 1])  # caption 2 has none
    first = math.log((E + 1 + 1 + E) / (E + 1))  # scores of caption 0: 1, 0 | 0, 1
    near(mil_nce(captions, objects, owner, 1.0), first)  # caption 1 sees the same two of each
    near(
        mil_nce(captions, objects[:3], torch.tensor([0, 0, 1]), 0.5),
        (math.log((E**2 + 2) / (E**2 + 1)) + math.log((1 + 2 * E**2) / E**2)) / 2,
    )
    near(mil_nce(captions, objects, torch.zeros(4, dtype=torch.int64), 1.0), 0)
    near(mil_nce(captions, objects[:0], owner[:0], 1.0), 0)


def test_span_mean_and_object_phrase_are_variant_b():
    states = torch.arange(24, dtype=torch.float64).view(2, 4, 3)
    row, first, end = torch.tensor([0, 1, 1]), torch.tensor([0, 1, 3]), torch.tensor([1, 3, 4])
    assert span_mean(states, row, first, end).tolist() == [
        [0.0, 1.0, 2.0],
        [16.5, 17.5, 18.5],
        [21.0, 22.0, 23.0],
    ]
    leaf = states.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(span_mean(leaf, row, first, end).sum(), leaf)
    assert gradient[0].tolist() == [[1.0] * 3, [0.0] * 3, [0.0] * 3, [0.0] * 3]
    assert gradient[1].tolist() == [[0.0] * 3, [0.5] * 3, [0.5] * 3, [1.0] * 3]


def test_token_span():
    #          [CLS]    a      red     dog    ##gy    .     [SEP]  [PAD]
    offsets = [(0, 0), (0, 1), (2, 5), (6, 9), (9, 11), (11, 12), (0, 0), (0, 0)]
    assert token_span(offsets, 2, 11) == (2, 5)
    assert token_span(offsets, 0, 1) == (1, 2)
    assert token_span(offsets, 3, 4) == (2, 3)  # inside one token
    cut = [*offsets[:4], (0, 0)]  # truncated after "dog"
    assert token_span(cut, 2, 11) is None and token_span(cut, 9, 11) is None
    assert token_span(cut, 2, 9) == (2, 4)
    assert token_span([(0, 0), (0, 0)], 0, 3) is None


@pytest.mark.parametrize(
    ("call", "known"),
    [
        (lambda: teacher_mask(EYE, 0.5, "both"), "code, paper"),
        (lambda: teacher_similarity((EYE,), (1.0,), "tokens"), "cosines, vectors"),
        (lambda: consistency(EYE, EYE, torch.ones(3, dtype=torch.bool), reduction="rows"), "mean, sum"),
        (lambda: divergence(EYE, EYE, "rows"), "mean, sum"),
        (lambda: cross_modal_kl(EYE, EYE, EYE, 1.0, 1.0, transpose="no"), "scores, probabilities"),
        (lambda: list_mle(EYE, falling(EYE), 1.0, reduction="all"), "mean, rows, sum"),
        (lambda: replaced_token(torch.zeros(1, 1, 2), torch.zeros(1, 1), torch.ones(1, 1), "drop"), "ignore, count"),
    ],
)
def test_an_unknown_option_names_the_known_ones(call, known):
    with pytest.raises(ValueError, match=known):
        call()
