"""A sentence's vector against the teacher's token states of its own and of other sentences."""

import torch
from torch import Tensor
from torch.nn import functional as F

from model.losses.precision import full_precision, softplus


@full_precision
def global_to_local(sentence: Tensor, tokens: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """For each real token of sentence i: cross-entropy of it against all real tokens of the other sentences; mean
    over the tokens of a sentence, then over sentences.

        -1/N sum_i mean_t log( e(i,i,t) / ( e(i,i,t) + sum_{j != i} sum_s e(i,j,s) ) ),  e(i,j,s) = exp(z_i . w_js / T)

    sentence: z [N, D], used as it is (not normalised); tokens: [N, L, D] frozen teacher states without position 0;
    mask: [N, L], 1 where a token is real. w = tokens, each feature divided by its L2 norm over all L positions of its
    sentence, padding included (so the same sentence weighs differently in a longer batch). A sentence without real
    tokens counts 0; with N = 1 there is nothing to tell apart and the loss is 0.

    Source: the released code of DALR (2025), after the local term of TCL; the paper does not have it.
    There both views are z, never z', and the states are 0.33 SimCSE + 0.67 DiffCSE, positions 1 to the end.
    Off by default.
    """
    n, length, width = tokens.shape
    real = mask.bool()
    local = F.normalize(tokens, dim=1).reshape(n * length, width)
    scores = (sentence @ local.T / temperature).view(n, n, length)
    own = torch.eye(n, dtype=torch.bool, device=scores.device)
    # the lowest finite number, not -inf: a row without other tokens would get a NaN gradient
    lowest = torch.finfo(scores.dtype).min
    others = scores.masked_fill(own[:, :, None] | ~real[None], lowest).flatten(1).logsumexp(1, keepdim=True)
    each = softplus(others - scores.diagonal().T)  # [N, L]; = -log( e^s / (e^s + sum of the others) )
    weight = real.to(each.dtype)
    return ((each * weight).sum(1) / weight.sum(1).clamp(min=1)).mean()
