"""The terms a recipe may sum: from what the encoder made of a batch to a scalar and its statistics.

Terms read the text encoder's work from `Encoded` alone, so that it may have been done in chunks or in several
processes. What else they compute (heads, discriminator, frozen companions) they compute on the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from model.batches import Batch, Objects
from model.encoded import Encoded
from model.losses.angular_margin import angular_info_nce, angular_margin
from model.losses.consistency import consistency
from model.losses.cosine import cosine_matrix
from model.losses.cross_modal_kl import cross_modal_kl
from model.losses.global_to_local import global_to_local
from model.losses.hard_negatives import hard_negative_info_nce
from model.losses.info_nce import info_nce
from model.losses.intra_modal_kl import intra_modal_kl
from model.losses.list_mle import falling, list_mle
from model.losses.mil_nce import mil_nce
from model.losses.object_phrase import object_phrase
from model.losses.replaced_token import replaced_labels, replaced_token
from model.losses.soft_object_phrase import soft_object_phrase
from model.losses.span_mean import span_mean
from model.losses.teacher_mask import teacher_mask
from model.losses.teacher_similarity import teacher_similarity
from model.recipes import TEACHERS, Term

if TYPE_CHECKING:
    from model.network import Network

Statistics = dict[str, Tensor]
TermFunction = Callable[["Network", Encoded, Batch, Term], tuple[Tensor, Statistics] | None]

# ------------------------------------------------------------ text


def text_term(network: Network, encoded: Encoded, batch: Batch, term: Term) -> tuple[Tensor, Statistics]:
    """Two dropout views against each other; with a margin, or with the batch's phrases as further sentences."""
    h, keep = encoded.h, None
    if term.options.get("phrases") and encoded.phrases is not None:
        h, keep = torch.cat([h, encoded.phrases]), _apart(len(h), batch.objects.key)
    one, two = sentence(network, h).unbind(1)
    margin = term.options.get("margin")
    if margin is None:
        return info_nce(one, two, term.temperature, keep=keep), _cosines(one, two)
    return angular_info_nce(one, two, term.temperature, margin, keep=keep), _cosines(one, two)


def triplet_term(network: Network, encoded: Encoded, batch: Batch, term: Term) -> tuple[Tensor, Statistics]:
    """Premises against entailments, contradictions as hard negatives."""
    anchor, positive, negative = sentence(network, encoded.h).unbind(1)
    value = hard_negative_info_nce(anchor, positive, negative, term.temperature, **term.options)
    hard = F.cosine_similarity(anchor.detach(), negative.detach(), dim=-1).mean()
    return value, _cosines(anchor, positive) | {"hard_cos": hard}


def replaced_term(network: Network, encoded: Encoded, batch: Batch, term: Term) -> tuple[Tensor, Statistics]:
    """The discriminator's loss. Of the text encoder it reads the sentence vectors alone, so these get its gradient."""
    vectors, tokenizer = sentence(network, encoded.h).flatten(0, 1), network.encoder.tokenizer
    ids, mask = batch.tokens.input_ids.flatten(0, 1), batch.tokens.attention_mask.flatten(0, 1)
    counted = term.options["padding"] == "count"  # the released code's form, which writes 0 into padding
    pad = 0 if counted else tokenizer.pad_token_id
    with torch.autocast(ids.device.type, torch.bfloat16, enabled=network.precision == "bf16"):
        generated = network.teachers.generator.fill(batch.masked.flatten(0, 1), mask)
        read, labels = replaced_labels(ids, generated, mask, tokenizer.cls_token_id, pad)
        logits = network.heads["discriminator"](read, mask, vectors)
    value = replaced_token(logits, labels, mask, **term.options)
    real = mask.sum()
    right = ((logits.detach().argmax(-1) == labels) & mask.bool()).sum()
    return value, {"replaced": labels.sum() / real, "right": right / real}


def sentence(network: Network, h: Tensor) -> Tensor:
    """What the text term compares, of h [N, V, H]: z of the SimCSE head, or DiffCSE's projection."""
    return network.heads["projector"](h) if "projector" in network.heads else network.simcse(h)


def _apart(texts: int, key: Tensor) -> Tensor:
    """Which of texts and phrases are negatives of each other: phrases that mean the same are not."""
    code = torch.cat([torch.arange(texts, device=key.device), key + texts])
    return code[:, None] != code[None, :]


# ------------------------------------------------------------ captions and images


def image_term(network: Network, encoded: Encoded, batch: Batch, term: Term) -> tuple[Tensor, Statistics]:
    return _grounded(network, encoded, batch, term, "visual", batch.image)


def caption_term(network: Network, encoded: Encoded, batch: Batch, term: Term) -> tuple[Tensor, Statistics]:
    """The image term with the teacher's vectors of the captions in the images' place."""
    return _grounded(network, encoded, batch, term, "caption", batch.caption_text)


def _grounded(
    network: Network, encoded: Encoded, batch: Batch, term: Term, head: str, feature: Tensor
) -> tuple[Tensor, Statistics]:
    """Each view of the texts against the features' projections; with a margin, and without the negatives masked."""
    h, options = encoded.h, term.options
    feature = feature.to(h.dtype)
    text, target = network.heads["grounding"](h), network.heads[head](feature)
    margin = options.get("margin")
    if margin is None:
        value = torch.stack([info_nce(view, target, term.temperature) for view in text.unbind(1)]).mean()
        return value, _cosines(text[:, 0], target)
    difference, keep = 1 - cosine_matrix(feature, feature), _keep(batch, options)
    views = [angular_info_nce(v, target, term.temperature, margin, difference, keep) for v in text.unbind(1)]
    return torch.stack(views).mean(), _cosines(text[:, 0], target) | _masked_share(keep)


def _keep(batch: Batch, options: dict) -> Tensor | None:
    """Which negatives stay, by the teacher's cosines of captions (C) and images (I), and by equal images."""
    image = batch.image_id if options.get("same_image") else None
    threshold = options.get("threshold")
    if threshold is None:
        if image is None:
            return None
        return teacher_mask(torch.zeros(len(image), len(image), device=image.device), None, image=image)
    of = {"C": batch.caption_text, "I": batch.image}
    rows, columns = options["mask"].split(".")
    return teacher_mask(cosine_matrix(of[rows], of[columns]), threshold, options["form"], image)


def consistency_term(network: Network, encoded: Encoded, batch: Batch, term: Term) -> tuple[Tensor, Statistics] | None:
    """None for a batch of one, of which batch norm has no statistics."""
    if len(batch) < 2:
        return None
    z = sentence(network, encoded.h)[:, 0]
    text = network.heads["consistency_text"](z)
    image = network.heads["consistency_image"](batch.image.to(z.dtype))
    row, other = batch.mismatched
    matched = torch.arange(len(text) + len(row), device=text.device) < len(text)
    pairs = torch.cat([text, text[row]]), torch.cat([image, image[other]])
    value = consistency(*pairs, matched, term.options["margin"], term.options["reduction"])
    cosines = F.cosine_similarity(pairs[0].detach(), pairs[1].detach(), dim=-1)
    statistics = {"pos_cos": cosines[: len(text)].mean()}
    return value, statistics | ({"neg_cos": cosines[len(text) :].mean()} if len(row) else {})


def cross_kl_term(network: Network, encoded: Encoded, batch: Batch, term: Term) -> tuple[Tensor, Statistics]:
    """Text-to-image cosines, of the first view, against the teachers' among texts and among images."""
    h, options = encoded.h, term.options
    image = batch.image.to(h.dtype)
    if options["space"] == "raw":
        student = cosine_matrix(sentence(network, h)[:, 0], image)
    else:
        student = cosine_matrix(network.heads["grounding"](h[:, 0]), network.heads["visual"](image))
    teacher = _teacher(batch, options, options["form"])
    reduced = (term.temperature, options["tau_teacher"], options["reduction"], options["transpose"])
    value = cross_modal_kl(_with_margin(student, options), teacher, cosine_matrix(image, image), *reduced)
    return value, _of_cosines(student)


# ------------------------------------------------------------ texts among themselves


def rank_term(network: Network, encoded: Encoded, batch: Batch, term: Term) -> tuple[Tensor, Statistics]:
    options, student = term.options, _between_views(network, encoded)
    order = falling(_teacher(batch, options, "cosines"))
    how = {key: options[key] for key in ("include_self", "reduction", "eps")}
    return list_mle(_with_margin(student, options), order, term.temperature, **how), _of_cosines(student)


def intra_kl_term(network: Network, encoded: Encoded, batch: Batch, term: Term) -> tuple[Tensor, Statistics]:
    options, student = term.options, _between_views(network, encoded)
    teacher = _teacher(batch, options, options["form"])
    reduced = (term.temperature, options["tau_teacher"], options["reduction"])
    return intra_modal_kl(_with_margin(student, options), teacher, *reduced), _of_cosines(student) | {
        "teacher_cos": _of_cosines(teacher).get("neg_cos", teacher.new_zeros(()))
    }


def g2l_term(network: Network, encoded: Encoded, batch: Batch, term: Term) -> tuple[Tensor, Statistics]:
    """z of the first view against the mixed token states of the teachers, which read the student's token ids."""
    ids, mask = batch.tokens.input_ids[:, 0], batch.tokens.attention_mask[:, 0]
    z = sentence(network, encoded.h)[:, 0]
    states = [network.teachers.text[name].states(ids, mask) for name in TEACHERS]
    tokens = sum(share * state for share, state in zip(term.options["shares"], states, strict=True))
    return global_to_local(z, tokens[:, 1:].to(z.dtype), mask[:, 1:], term.temperature), {}


def _between_views(network: Network, encoded: Encoded) -> Tensor:
    return cosine_matrix(*sentence(network, encoded.h).unbind(1))


def _teacher(batch: Batch, options: dict, form: str) -> Tensor:
    return teacher_similarity(batch.teacher_text, options["shares"], form)


def _with_margin(cosines: Tensor, options: dict) -> Tensor:
    return cosines if options["margin"] is None else angular_margin(cosines, options["margin"])


# ------------------------------------------------------------ objects


def object_term(network: Network, encoded: Encoded, batch: Batch, term: Term) -> tuple[Tensor, Statistics] | None:
    """Variant A: phrases encoded alone. None for a batch without object-phrase pairs."""
    if batch.objects is None or encoded.phrases is None:
        return None
    phrases = network.heads["grounding"](encoded.phrases).transpose(0, 1)
    return _object_phrase(network, phrases, batch.objects, term)


def span_term(network: Network, encoded: Encoded, batch: Batch, term: Term) -> tuple[Tensor, Statistics] | None:
    """Variant B: phrases out of their captions' token states."""
    objects = batch.objects
    if objects is None:
        return None
    views = [span_mean(view, objects.row, objects.first, objects.end) for view in encoded.states.unbind(1)]
    return _object_phrase(network, network.heads["span"](torch.stack(views)), objects, term)


def _object_phrase(network: Network, phrases: Tensor, objects: Objects, term: Term) -> tuple[Tensor, Statistics]:
    seen = network.object(objects.feature.to(phrases.dtype))
    value = object_phrase(phrases, seen, objects.key, objects.image, objects.box, term.temperature, **term.options)
    return value, _cosines(phrases[0], seen)


def soft_term(network: Network, encoded: Encoded, batch: Batch, term: Term) -> tuple[Tensor, Statistics] | None:
    """Variant C: A with soft targets of CLIP, text of the phrase against image of the object."""
    objects, options = batch.objects, dict(term.options)
    if objects is None or encoded.phrases is None:
        return None
    phrases = network.heads["grounding"](encoded.phrases).transpose(0, 1)
    seen = network.object(objects.feature.to(phrases.dtype))
    teacher = cosine_matrix(objects.phrase_text, objects.feature)
    places = (objects.key, objects.image, objects.box, term.temperature, options.pop("tau_teacher"))
    value = soft_object_phrase(phrases, seen, teacher, *places, **options)
    return value, _cosines(phrases[0], seen) | {"teacher_cos": teacher.diagonal().mean()}


def bag_term(network: Network, encoded: Encoded, batch: Batch, term: Term) -> tuple[Tensor, Statistics] | None:
    """Captions against their bags of objects."""
    objects = batch.objects
    if objects is None:
        return None
    captions = network.heads["grounding"](encoded.h)
    seen = network.object(objects.feature.to(captions.dtype))
    value = torch.stack([mil_nce(view, seen, objects.row, term.temperature) for view in captions.unbind(1)]).mean()
    with torch.no_grad():
        cosines = captions[:, 0] @ seen.T
        own = objects.row[None, :] == torch.arange(len(captions), device=objects.row.device)[:, None]
        total, others = (cosines * own).sum(), cosines.numel() - len(seen)
        statistics = {"pos_cos": total / len(seen)}
        if others:
            statistics["neg_cos"] = (cosines.sum() - total) / others
    return value, statistics


# ------------------------------------------------------------ statistics


@torch.no_grad()
def _cosines(anchors: Tensor, candidates: Tensor) -> Statistics:
    """Mean cosine of the pairs that belong together and, where there are others, of those that do not."""
    return _of_cosines(F.normalize(anchors.detach(), dim=-1) @ F.normalize(candidates.detach(), dim=-1).T)


@torch.no_grad()
def _of_cosines(cosines: Tensor) -> Statistics:
    n, own = len(cosines), cosines.diagonal().sum()
    return {"pos_cos": own / n} | ({"neg_cos": (cosines.sum() - own) / (n * (n - 1))} if n > 1 else {})


@torch.no_grad()
def _masked_share(keep: Tensor | None) -> Statistics:
    """The share of negatives that are left out."""
    if keep is None or len(keep) < 2:
        return {}
    return {"masked": (~keep).sum() / (len(keep) * (len(keep) - 1))}


TERMS: dict[str, TermFunction] = {
    "text": text_term,
    "triplet": triplet_term,
    "replaced": replaced_term,
    "image": image_term,
    "caption": caption_term,
    "consistency": consistency_term,
    "cross_kl": cross_kl_term,
    "rank": rank_term,
    "intra_kl": intra_kl_term,
    "g2l": g2l_term,
    "object": object_term,
    "span": span_term,
    "soft": soft_term,
    "bag": bag_term,
}
