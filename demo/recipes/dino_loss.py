"""What the detector is told it did wrong: every place of the image that may become a query, and every decoder layer.

A place is told of the object whose middle it lies in, at the resolutions that suit the object's size; a query, of the
object that it is matched to (Hungarian). Both learn which tokens name the object (focal loss; all tokens of a phrase)
and where it is (L1 and GIoU). What no phrase of the prompt denotes counts as background.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou, generalized_box_iou_loss

CLASS, SIDES, GIOU = 2.0, 5.0, 2.0
MIDDLE = 0.3  # share of an object's sides, to each side of its centre, where places are told of it


@dataclass(frozen=True)
class Truth:
    """boxes [B, O, 4] centre x, y, width, height in shares; denoted bool [B, O, T]: whether a token is of a phrase
    that denotes the object; asked bool [B, T]: tokens of a phrase. Objects that nothing denotes, and those that are
    there only to fill the tensor, are False in all of `denoted`; these have width 0."""

    boxes: Tensor
    denoted: Tensor
    asked: Tensor


class _Focal(torch.autograd.Function):
    """Focal loss, gamma 2, of every logit; by hand, because there are millions of them in a step."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, wanted: Tensor, alpha: float) -> Tensor:
        sign = 1 - 2 * wanted.to(logits.dtype)
        log = F.softplus(logits * sign)  # minus the log of the probability of what is wanted
        off = -torch.expm1(-log)
        scale = off * off * (wanted * (2 * alpha - 1) + (1 - alpha))
        ctx.save_for_backward(scale * ((1 - off) * (2 * log) + off) * sign)
        return scale * log

    @staticmethod
    def backward(ctx: Any, grown: Tensor) -> tuple[Tensor, None, None]:
        return grown * ctx.saved_tensors[0], None, None


def focal(logits: Tensor, wanted: Tensor, alpha: float = 0.25) -> Tensor:
    """Focal loss, gamma 2, of every logit. wanted: 0 or 1, or bool."""
    return _Focal.apply(logits, wanted, alpha)


def owners(boxes: Tensor, shapes: tuple[tuple[int, int], ...]) -> tuple[Tensor, Tensor]:
    """Which object each place is told of, [B, S] (-1: none), and bool [B, S, O] the objects whose box it is in.

    Args:
        boxes: [B, O, 4]; objects of width 0 are none.
        shapes: height and width of each resolution, finest first.
    """
    inside, own = [], []
    side = boxes[..., 2:].prod(-1).sqrt()  # [B, O]
    for number, (height, width) in enumerate(shapes):
        y = (torch.arange(height, device=boxes.device) + 0.5) / height
        x = (torch.arange(width, device=boxes.device) + 0.5) / width
        centres = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).view(-1, 2)  # row by row
        off = (centres[:, None] - boxes[:, None, :, :2]).abs() / boxes[:, None, :, 2:].clamp(min=1e-6)  # [B, S, O, 2]
        steps = side * height  # the object's side in steps of this resolution
        suits = (steps > 1.6) & ((steps < 5.2) | (number == len(shapes) - 1))
        suits = suits & (side > 0)
        own.append((off < MIDDLE).all(-1) & suits[:, None])
        inside.append((off < 0.5).all(-1) & (side > 0)[:, None])
    own, inside = torch.cat(own, 1), torch.cat(inside, 1)
    area = torch.where(own, side[:, None], torch.inf)
    smallest, who = area.min(2)
    return torch.where(torch.isfinite(smallest), who, -1), inside


def place_loss(logits: Tensor, boxes: Tensor, truth: Truth, own: Tensor, inside: Tensor) -> dict[str, Tensor]:
    """Of all places: logits [B, S, T], boxes [B, S, 4]."""
    batch = torch.arange(len(own), device=own.device)[:, None]
    mine = own.clamp(min=0)
    wanted = truth.denoted[batch, mine] & (own >= 0)[..., None]  # [B, S, T]
    # In an object's box but not told of it: neither right nor wrong for the phrases that denote it.
    spared = (inside.float() @ truth.denoted.float() > 0) & ~wanted
    counted = truth.asked[:, None] & ~spared
    loss = (focal(logits, wanted) * counted).sum() / wanted.sum().clamp(min=1)
    used = wanted.any(2)
    sides, giou = box_loss(boxes[used], truth.boxes[batch, mine][used])
    return {"place": CLASS * loss, "place_box": SIDES * sides + GIOU * giou}


def box_loss(boxes: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    if not len(boxes):
        return boxes.sum(), boxes.sum()
    one, other = (box_convert(b, "cxcywh", "xyxy") for b in (boxes, wanted))
    return F.l1_loss(boxes, wanted, reduction="sum") / len(boxes), generalized_box_iou_loss(one, other).mean()


def match(logits: Tensor, boxes: Tensor, truth: Truth, row: int, copies: int) -> tuple[list[int], list[int]]:
    """Queries and the objects they are to be, of one image."""
    objects = truth.denoted[row].any(1).nonzero().flatten()
    if not len(objects):
        return [], []
    asked = truth.asked[row]
    logit, tokens = logits[row][:, asked], truth.denoted[row][objects][:, asked].float()
    gain = focal(logit, torch.ones_like(logit)) - focal(logit, torch.zeros_like(logit))
    cost = CLASS * (gain @ tokens.T) / tokens.sum(1).clamp(min=1)
    wanted = truth.boxes[row][objects]
    cost = cost + SIDES * torch.cdist(boxes[row], wanted, p=1)
    cost = cost - GIOU * generalized_box_iou(*(box_convert(b, "cxcywh", "xyxy") for b in (boxes[row], wanted)))
    queries, columns = linear_sum_assignment(cost.repeat(1, copies).cpu().numpy())
    return queries.tolist(), objects[torch.from_numpy(columns).to(objects.device) % len(objects)].tolist()


def layer_loss(logits: Tensor, boxes: Tensor, truth: Truth, copies: int) -> tuple[Tensor, Tensor]:
    """Of a decoder layer: logits [B, Q, T], boxes [B, Q, 4]. Class and box loss."""
    rows, queries, objects = [], [], []
    with torch.no_grad():
        for row in range(len(boxes)):
            some, theirs = match(logits, boxes, truth, row, copies)
            rows += [row] * len(some)
            queries += some
            objects += theirs
    wanted = torch.zeros_like(logits, dtype=torch.bool)
    wanted[rows, queries] = truth.denoted[rows, objects]
    counted = truth.asked[:, None]
    loss = (focal(logits, wanted) * counted).sum() / wanted.sum().clamp(min=1)
    sides, giou = box_loss(boxes[rows, queries], truth.boxes[rows, objects])
    return CLASS * loss, SIDES * sides + GIOU * giou
