"""ListMLE: the student's scores must put each list in the teacher's order."""

import math

import torch
from torch import Tensor

from model.losses.precision import full_precision

REDUCTIONS = ("mean", "rows", "sum")


@full_precision
def list_mle(
    scores: Tensor,
    order: Tensor,
    temperature: float,
    include_self: bool = False,
    reduction: str = "mean",
    eps: float | None = None,
) -> Tensor:
    """Minus the log-likelihood (Plackett-Luce) of the teacher's order under the student's scores.

        row i:  sum_k ( log sum_{l >= k} exp(v_l) - v_k ),  v = scores_i / t in the teacher's order

    scores: [N, M] student similarities; order: [N, M] int, per row the columns by falling teacher value (see
    `falling`). include_self: whether column i stays in list i, where it is always first; leaving it out needs M >= N.
    `sum`: over rows and positions; `rows`: mean over rows of the sum over positions; `mean`: over rows and positions,
    which alone does not grow with the batch (uninformative scores cost log(M!) a row: 205 at M = 64).
    eps: None = exact. A number: log(eps + sum) with the row's maximum taken from v, as the released code of DALR
    has it with 1e-7; at temperature 0.05 that is not negligible in the tail of a list (docs/recipes.md, dalr).

    Source: ListMLE (Xia et al. 2008) as L_rank of DALR (2025). Code: eps, `rows`, self in, on fixed-margin logits.
    Paper: exact, `sum`. Recommended: exact, `mean`, self out.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction {reduction!r} is not one of {', '.join(REDUCTIONS)}")
    if not include_self:
        order = _without_self(order)
    if order.numel() == 0:  # a list of one has one order
        return scores.sum() * 0.0
    v = scores.gather(1, order.long()) / temperature
    v = v - v.max(dim=1, keepdim=True).values
    tail = v.flip(1).logcumsumexp(1).flip(1)
    if eps is not None:
        tail = torch.logaddexp(tail, tail.new_tensor(math.log(eps)))
    each = tail - v
    return {"mean": each.mean, "rows": each.sum(1).mean, "sum": each.sum}[reduction]()


def _without_self(order: Tensor) -> Tensor:
    """[N, M] -> [N, M - 1]: row i without column i, found by position: a mask would make the device count and wait."""
    n, m = order.shape
    at = (order == torch.arange(n, device=order.device)[:, None]).int().argmax(1, keepdim=True)
    rest = torch.arange(m - 1, device=order.device).expand(n, -1)
    return order.gather(1, rest + (rest >= at).long())


def falling(teacher: Tensor) -> Tensor:
    """Per row the columns by falling teacher value: [N, M] -> [N, M] int64. Of equals, the lower column comes first."""
    return teacher.argsort(dim=1, descending=True, stable=True)
