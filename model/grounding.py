"""The grounding space of a trained model: where its texts lie beside images and objects.

A text is the grounding head g_t of its pooled vector h, an image the visual head of its frozen feature, an object the
object head (the visual one where they are shared), all unit rows. The heads are no part of the embedding; `export`
puts them beside it, and this reads them again.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from model.encoder import Encoder
from model.errors import ModelError
from model.heads import Head
from model.losses.span_mean import span_mean, token_span
from model.packed import packed

HEADS = ("grounding", "visual", "object", "span")
_OBJECT_TERMS = ("object", "span", "soft")
_ROWS = 8192  # features that go through a head at once


@dataclass(frozen=True)
class Grounding:
    """The unit heads of a model folder, and how it was trained on phrases.

    `heads`: those of `HEADS` that are there. `terms`: the terms of its recipe, empty where none is stored. `options`:
    those of the term that trained phrases (phrase_dup, same_image, iou_threshold), empty if none did.
    """

    heads: nn.ModuleDict
    terms: tuple[str, ...] = ()
    options: dict = field(default_factory=dict)

    @property
    def lacks(self) -> str:
        """Why texts cannot be compared with images here, or ""."""
        absent = [name for name in ("grounding", "visual") if name not in self.heads]
        return f"the model has no head {' and no head '.join(absent)}: it was not trained on images" if absent else ""

    @property
    def spans(self) -> bool:
        """Whether phrases are read out of their captions' token states, as the recipe's term `span` does."""
        return "span" in self.terms and "span" in self.heads

    def texts(self, h: np.ndarray) -> np.ndarray:
        """Unit rows of pooled vectors h [n, H]."""
        return _through(self.heads["grounding"], h)

    def phrases(self, h: np.ndarray) -> np.ndarray:
        """Unit rows of phrases [n, H]: pooled vectors of phrases encoded alone, or means of their spans."""
        return _through(self.heads["span" if self.spans else "grounding"], h)

    def images(self, features: np.ndarray) -> np.ndarray:
        """Unit rows of frozen features of images [n, d]. Raises ModelError if they are of another width."""
        return _through(self.heads["visual"], features, "image features")

    def objects(self, features: np.ndarray) -> np.ndarray:
        """Unit rows of frozen features of objects [n, d]. Raises ModelError if they are of another width."""
        return _through(self.heads["object" if "object" in self.heads else "visual"], features, "object features")


def load_grounding(folder: str | Path) -> Grounding:
    """The grounding space of a model folder; one without heads gives a Grounding that lacks them.

    Raises ModelError (3) for a file that cannot be read or is not what `export` writes.
    """
    folder = Path(folder)
    heads = _read_heads(folder / "heads.safetensors")
    terms = _read_terms(folder / "recipe.json") if len(heads) else {}
    trained = next((options for name, options in terms.items() if name in _OBJECT_TERMS), {})
    return Grounding(heads.eval(), tuple(terms), trained)


def _read_heads(file: Path) -> nn.ModuleDict:
    heads = nn.ModuleDict()
    if not file.is_file():
        return heads
    try:
        weights = load_file(file)
        for name in HEADS:
            own = {k.removeprefix(f"{name}."): v.float() for k, v in weights.items() if k.startswith(f"{name}.")}
            if own:
                d_out, d_in = own["dense.weight"].shape
                heads[name] = Head(d_in, d_out, unit=True)
                heads[name].load_state_dict(own)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{file}: not the heads of a model ({str(error).strip().splitlines()[0]})") from error
    return heads


def _read_terms(file: Path) -> dict[str, dict]:
    """Options by term of the recipe that is stored with the model; none where there is no such file."""
    if not file.is_file():
        return {}
    try:
        recipe = json.loads(file.read_text(encoding="utf-8"))["recipe"]
        return {term["name"]: dict(term["options"]) for term in recipe["terms"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{file}: not what a model of this project stores ({type(error).__name__}: {error})"
        ) from error


@torch.inference_mode()
def _through(head: Head, rows: np.ndarray, what: str = "vectors") -> np.ndarray:
    """head(rows): [n, d_in] of any float type -> float32 [n, d_out]."""
    width = head.dense.in_features
    if rows.shape[1] != width:
        raise ModelError(
            f"{what} have {rows.shape[1]} dimensions, the model's head was trained on {width}: give the collection "
            f"it was trained on, or one embedded by the same vision encoder"
        )
    parts = [head(torch.from_numpy(np.array(rows[at : at + _ROWS], np.float32))) for at in range(0, len(rows), _ROWS)]
    return torch.cat(parts).numpy() if parts else np.zeros((0, head.dense.out_features), np.float32)


@torch.inference_mode()
def pooled(
    encoder: Encoder,
    texts: Sequence[str],
    batch_rows: int = 64,
    max_length: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> np.ndarray:
    """h of texts, float32 [n, H]: the vector that the heads read, which pooling `cls_mlp` passes on through its MLP.

    `max_length` and `dtype`: as in `Encoder.encode`.
    """
    ids = encoder.token_ids(texts, max_length)
    return _by_length(encoder, ids, batch_rows, dtype, lambda tokens, mask, _: encoder(tokens, mask))


def span_vectors(
    encoder: Encoder,
    captions: Sequence[str],
    spans: Sequence[tuple[int, int]],
    batch_rows: int = 64,
    max_length: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> np.ndarray:
    """Mean of the last token states over the characters spans[i] of captions[i], float32 [n, H]; NaN where the
    caption is cut before its phrase ends. `max_length` and `dtype`: as in `Encoder.encode`.
    """
    offsets = encoder.token_offsets(captions, max_length)
    found = [token_span(own, *span) for own, span in zip(offsets, spans, strict=True)]

    def means(tokens: Tensor, mask: Tensor, rows: list[int]) -> Tensor:
        states = encoder.model(input_ids=tokens, attention_mask=mask).last_hidden_state.float()
        first, end = torch.tensor([found[row] or (0, 1) for row in rows], device=states.device).T
        h = span_mean(states, torch.arange(len(rows), device=states.device), first, end)
        lost = torch.tensor([found[row] is None for row in rows], device=states.device)
        return h.masked_fill(lost[:, None], torch.nan)

    with torch.inference_mode():
        return _by_length(encoder, encoder.token_ids(captions, max_length), batch_rows, dtype, means)


def _by_length(encoder: Encoder, ids: list[list[int]], batch_rows: int, dtype: torch.dtype, run) -> np.ndarray:
    """run(tokens, mask, rows) -> [rows, H] over batches of like length, put back into the order of `ids`."""
    was_training, result = encoder.training, np.zeros((len(ids), encoder.hidden), np.float32)
    encoder.eval()
    try:
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        with packed(encoder, encoder.device, dtype):
            for start in range(0, len(order), batch_rows):
                rows = order[start : start + batch_rows]
                tokens, mask = encoder.pad([ids[i] for i in rows])
                result[rows] = run(tokens.to(encoder.device), mask.to(encoder.device), rows).float().cpu().numpy()
    finally:
        encoder.train(was_training)
    return result
