"""L2-regularised logistic regression over many training sets of the same rows at once.

The objective is scikit-learn's: C times the summed log-loss of the training rows plus half the squared weights, the
intercept free. It is convex with one lowest point, so whatever solves it finds what scikit-learn's solvers go to.
What cross-validation asks for is the same problem some hundred times over almost the same rows, and that is what
makes it cheap: one matrix product gives the logits of all training sets, one more their gradients, and the inverse
Hessian of all rows together, which each training set nearly shares, makes a quasi-Newton method (L-BFGS, with that
inverse to start from) arrive in a handful of steps. Each C starts where the one before it ended, whose logits and
gradients are at hand.

Binary problems have one column of logits (class 1 against class 0), others one a class, as scikit-learn has them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.errors import ModelError

# A problem is solved when the Newton decrement, g' H^-1 g a training row, is below this: the training rows' logits are
# then within some .001 of the optimum's (root mean square), which changes the class of a row or two of ten thousand.
TOLERANCE = 1e-7
_MEMORY = 8  # steps that the quasi-Newton method remembers
_MOST_STEPS = 300


@dataclass(frozen=True)
class _Rows:
    """What all problems share: x [N, D + 1] with a column of ones, target [N, K] (0 or 1), K columns of logits."""

    x: Tensor
    target: Tensor

    @property
    def columns(self) -> int:
        return self.target.shape[1]

    def logits(self, weights: Tensor) -> Tensor:
        """[D + 1, K, M] -> [N, K, M], in one product for all problems"""
        return _product(self.x, weights.flatten(1)).view(-1, *weights.shape[1:])

    def gradient(self, residual: Tensor) -> Tensor:
        """[N, K, M] -> [D + 1, K, M]"""
        return _product(self.x.T, residual.flatten(1)).view(-1, *residual.shape[1:])

    def probability(self, logits: Tensor) -> Tensor:
        return torch.sigmoid(logits) if self.columns == 1 else torch.softmax(logits, dim=1)

    def residual(self, logits: Tensor, train: Tensor) -> Tensor:
        """Derivative of the summed log-loss by the logits: probability less target, 0 outside of `train` [N, M]."""
        return self.probability(logits).sub_(self.target[:, :, None]).mul_(train[:, None])


@dataclass(frozen=True)
class _State:
    """Weights [D + 1, K, M] of M problems, their logits [N, K, M], and the gradients of the log-loss [D + 1, K, M]."""

    weights: Tensor
    logits: Tensor
    loss: Tensor

    def of(self, columns: Tensor) -> "_State":
        return _State(*(v[:, :, columns] for v in (self.weights, self.logits, self.loss)))


def predictions(
    features: Tensor, labels: Tensor, classes: int, train: Tensor, strengths: Sequence[float]
) -> Iterator[Tensor]:
    """For each C of `strengths`, in order, the predicted class of every row by every training set: int64 [N, M].

    features: float32 [N, D], in memory; labels: int64 [N], below `classes`; train: bool [N, M], the rows of each
    training set. Rows in none of them are predicted only. C should ascend: each starts from the one before.

    Raises ModelError if a problem is not solved after 300 steps.
    """
    x = torch.cat([features, torch.ones_like(features[:, :1])], dim=1)
    kinds = torch.arange(1, 2) if classes == 2 else torch.arange(classes)
    rows = _Rows(x, (labels[:, None] == kinds).to(x.dtype))
    mask = train.to(x.dtype)
    union = train.any(dim=1)
    share = float(mask.sum() / (union.sum() * train.shape[1]))
    state = _first(rows, union, mask, strengths[0])
    for strength in strengths:
        curvature = share * _curvature(rows, state.weights.mean(dim=2), union, train.shape[1])
        state = _solve(rows, mask, state, _inverse(curvature, strength), strength)
        yield (state.logits[:, 0] > 0).long() if rows.columns == 1 else state.logits.argmax(dim=1)


def _first(rows: _Rows, union: Tensor, mask: Tensor, strength: float) -> _State:
    """Where all problems start: at the solution of one, whose training set is the rows of `union`."""
    one = union[:, None].to(mask.dtype)
    zero = rows.x.new_zeros(rows.x.shape[1], rows.columns, 1)
    state = _State(zero, rows.logits(zero), rows.gradient(rows.residual(rows.logits(zero), one)))
    middle = _solve(rows, one, state, _inverse(_curvature(rows, zero[:, :, 0], union, 1), strength), strength)
    weights, logits = (v.expand(-1, -1, mask.shape[1]).contiguous() for v in (middle.weights, middle.logits))
    return _State(weights, logits, rows.gradient(rows.residual(logits, mask)))


def _curvature(rows: _Rows, weights: Tensor, union: Tensor, problems: int) -> Tensor:
    """Hessian of the summed log-loss over the rows of `union` at weights [D + 1, K], a block a class: [K, D+1, D+1].

    What couples the classes is left out: the blocks only say how far to step. For the same reason some of the rows
    do: so many that making this costs about as much as a step or two of all problems.
    """
    index = union.nonzero()[:, 0]
    width = rows.x.shape[1]
    most = max(8 * width, 8 * len(index) * problems // width)
    some = index[:: max(1, len(index) // most)]
    x = rows.x[some]
    p = rows.probability((x @ weights)[:, :, None])[:, :, 0]
    scale = len(index) / len(some)
    weighted = (x * (scale * w * (1 - w)).sqrt()[:, None] for w in p.T)
    return torch.stack([_product(v.T, v) for v in weighted])


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a b by numpy, whose library is the faster one for these shapes, and does half of the work where a is b'."""
    return torch.from_numpy(a.numpy() @ b.numpy())


def _inverse(curvature: Tensor, strength: float) -> Tensor:
    """Inverse of C times the curvature plus the penalty's identity, by Cholesky: [K, D + 1, D + 1]."""
    hessian = strength * curvature
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    diagonal[:, :-1] += 1
    diagonal[:, -1] += 1e-3 * strength  # rows that are all but certain leave the intercept no curvature
    # the trace bounds the condition number: the penalty keeps the other end at about 1
    hessian = hessian if float(diagonal.sum(dim=1).max()) < 1e5 else hessian.double()
    return torch.cholesky_inverse(torch.linalg.cholesky(hessian)).to(curvature.dtype)


def _solve(rows: _Rows, mask: Tensor, state: _State, inverse: Tensor, strength: float) -> _State:
    """The state at the solutions; a problem leaves the work when it is solved."""
    solved = _State(*(torch.empty_like(v) for v in (state.weights, state.logits, state.loss)))
    left = torch.arange(mask.shape[1])
    penalty = torch.ones_like(state.weights[:, :1, :1])
    penalty[-1] = 0
    enough = TOLERANCE * strength * mask.sum(dim=0)
    g = strength * state.loss + penalty * state.weights
    past: list[tuple[Tensor, Tensor]] = []
    for _ in range(_MOST_STEPS):
        direction = -_quasi_newton(g, past, inverse)
        slope = _dot(g, direction)
        if (done := -slope <= enough).any():
            for whole, part in zip(vars(solved).values(), vars(state.of(done)).values(), strict=True):
                whole[:, :, left[done]] = part
            if done.all():
                return solved
            keep = ~done
            left, mask, enough, slope, state = left[keep], mask[:, keep], enough[keep], slope[keep], state.of(keep)
            g, direction = g[:, :, keep], direction[:, :, keep]
            past = [(s[:, :, keep], y[:, :, keep]) for s, y in past]
        move = rows.logits(direction)
        step = torch.ones_like(slope)
        while True:
            # The objective is convex, so its slope along a line only rises. Where it has come to more than half of
            # what it began with, on the other side, the lowest point lies between, about where the secant says.
            logits = torch.addcmul(state.logits, move, step.expand_as(move))
            weights = state.weights + step * direction
            after = _State(weights, logits, rows.gradient(rows.residual(logits, mask)))
            g_after = strength * after.loss + penalty * weights
            now = _dot(g_after, direction)
            if not (far := now > -0.5 * slope).any():
                break
            step = torch.where(far, step * (slope / (slope - now)).clamp(min=0.05), step)
        past = [*past[1 - _MEMORY :], (step * direction, g_after - g)]
        state, g = after, g_after
    raise ModelError(
        f"logistic regression with C = {strength:g} is not solved after {_MOST_STEPS} steps: the embeddings are of "
        f"very unlike sizes (largest {float(rows.x.abs().max()):.3g})"
    )


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Sum over all but the last dimension: [M]"""
    return (a * b).sum(dim=(0, 1))


def _quasi_newton(g: Tensor, past: list[tuple[Tensor, Tensor]], inverse: Tensor) -> Tensor:
    """The L-BFGS two-loop product of the approximate inverse Hessian with g [D + 1, K, M]."""
    q = g.clone()
    kept = []
    for s, y in reversed(past):
        rho = 1 / _dot(s, y).clamp(min=1e-30)
        a = rho * _dot(s, q)
        q -= a * y
        kept.append((s, y, rho, a))
    q = (inverse @ q.transpose(0, 1)).transpose(0, 1).contiguous()
    if q.shape[1] > 1:  # a softmax does not see what all classes share, and of that the penalty leaves nothing
        q -= q.mean(dim=1, keepdim=True)
    for s, y, rho, a in reversed(kept):
        q += s * (a - rho * _dot(y, q))
    return q
