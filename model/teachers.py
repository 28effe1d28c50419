"""Frozen companions of a recipe: text teachers with their own tokenizers, and the generator of replaced tokens.

They are never trained, never in training mode, and no part of the network's weights or checkpoints.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, AutoTokenizer

from model.data import TrainingData
from model.encoder import Encoder, load_encoder, quiet_transformers, stored_pooling
from model.errors import PARAMETERS, ModelError
from model.recipes import Recipe

GENERATOR = "generator"
_ROWS = 64


class Teacher:
    """A frozen text encoder."""

    def __init__(self, encoder: Encoder):
        self.encoder = _frozen(encoder)

    def vectors(self, texts: Sequence[str], max_length: int) -> np.ndarray:
        """Sentence vectors, float32 [n, d]; each distinct text is encoded once, by the teacher's own tokenizer."""
        return self.encoder.encode(texts, _ROWS, max_length)

    @torch.no_grad()
    def states(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Token states [N, L, d] of token ids, which have to be those of its own tokenizer."""
        return self.encoder.model(input_ids=ids, attention_mask=mask).last_hidden_state


class Generator:
    """A frozen masked language model that fills masked tokens."""

    def __init__(self, model: nn.Module, tokenizer):
        self.model = _frozen(model)
        self.tokenizer = tokenizer

    @torch.no_grad()
    def fill(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Its best token at every position, masked or not: [R, L] int64."""
        return self.model(input_ids=ids, attention_mask=mask).logits.argmax(-1)


@dataclass(frozen=True)
class Teachers:
    """What a recipe's frozen companions are: text teachers by name (`simcse`, `diffcse`), and a generator."""

    text: dict[str, Teacher] = field(default_factory=dict)
    generator: Generator | None = None

    def to(self, device: torch.device | str) -> "Teachers":
        """Moves them, in place."""
        for teacher in self.text.values():
            teacher.encoder.to(device)
        if self.generator is not None:
            self.generator.model.to(device)
        return self


def load_teachers(folder: str | Path, recipe: Recipe) -> Teachers | None:
    """Those that `recipe` needs, out of the sub-folders simcse, diffcse and generator of `folder` (Hugging Face
    layout, safetensors); None if it needs none. A teacher's pooling is the one stored with it, else `cls`.

    Raises ModelError (3) if one is not there or cannot be read.
    """
    folder = Path(folder)
    wanted = [*recipe.teachers, *([GENERATOR] if GENERATOR in recipe.needs else [])]
    missing = [name for name in wanted if not (folder / name / "config.json").is_file()]
    if missing:
        raise ModelError(_missing(recipe, missing, f"{folder} has no {', '.join(missing)}"))
    if not wanted:
        return None
    text = {name: Teacher(_load_text(folder / name)) for name in recipe.teachers}
    return Teachers(text, _load_generator(folder / GENERATOR) if GENERATOR in wanted else None)


def prepare(
    encoder: Encoder, data: TrainingData, recipe: Recipe, teachers: Teachers | None, device: torch.device | str
) -> TrainingData:
    """The data with what the text teachers make of its captions, each distinct caption once; the companions are moved
    to `device`. Does nothing for a recipe without any.

    Raises ModelError if a companion is missing (3), or does not fit the encoder (2), or gives NaN (3).
    """
    if not recipe.teachers and GENERATOR not in recipe.needs:
        return data
    check_teachers(encoder, data, recipe, teachers)
    teachers.to(device)
    if not recipe.teachers:
        return data
    vectors = {name: teachers.text[name].vectors(data.captions, recipe.max_length) for name in recipe.teachers}
    for name, found in vectors.items():
        if not np.isfinite(found).all():
            row = int(np.argmin(np.isfinite(found).all(axis=1)))
            raise ModelError(f"the teacher {name} makes NaN or infinity of caption {row}; its weights are damaged")
    return replace(data, teacher_text=vectors)


def check_teachers(encoder: Encoder, data: TrainingData, recipe: Recipe, teachers: Teachers | None) -> None:
    """Raises ModelError unless the companions that `recipe` needs are there and fit the student."""
    have = teachers or Teachers()
    wanted = [*recipe.teachers, *([GENERATOR] if GENERATOR in recipe.needs else [])]
    missing = [n for n in wanted if (have.generator is None if n == GENERATOR else n not in have.text)]
    if missing:
        raise ModelError(_missing(recipe, missing, "there are none"))
    if have.generator is not None and GENERATOR in recipe.needs:
        _check_generator(encoder, recipe, have.generator)
    widths = {name: have.text[name].encoder.hidden for name in recipe.teachers}
    mixes = any(t.options.get("form") == "vectors" for t in recipe.terms) or recipe.teacher_states
    if mixes and len(set(widths.values())) > 1:
        listed = ", ".join(f"{name} {width}" for name, width in widths.items())
        raise ModelError(
            f"recipe {recipe.name} adds the vectors of its teachers up, but they differ in width: {listed}; take "
            f"teachers of the same size, or the recipe dalr",
            PARAMETERS,
        )
    if recipe.teacher_states:
        _check_states(encoder, recipe, have.text)
    raw = any(t.name == "cross_kl" and t.options["space"] == "raw" for t in recipe.terms)
    if raw and data.image_dim != encoder.hidden:
        raise ModelError(
            f"recipe {recipe.name} compares the text encoder's vectors with image features as they are: the one has "
            f"{encoder.hidden} dimensions, the other {data.image_dim}; take an encoder that fits, or cma_space proj",
            PARAMETERS,
        )


def _check_states(encoder: Encoder, recipe: Recipe, text: dict[str, Teacher]) -> None:
    for name, teacher in text.items():
        if teacher.encoder.tokenizer.get_vocab() != encoder.tokenizer.get_vocab():
            raise ModelError(
                f"recipe {recipe.name} reads the teacher {name}'s token states, which need the student's own "
                f"tokenizer, and its vocabulary is another; take a teacher of the student's kind, or the recipe dalr",
                PARAMETERS,
            )
        if teacher.encoder.hidden != encoder.hidden:
            raise ModelError(
                f"recipe {recipe.name} compares token states of the teacher {name} ({teacher.encoder.hidden} "
                f"dimensions) with the student's vectors ({encoder.hidden}); take a teacher of the student's width, or "
                f"g2l_weight 0",
                PARAMETERS,
            )


def _check_generator(encoder: Encoder, recipe: Recipe, generator: Generator) -> None:
    if encoder.tokenizer.mask_token_id is None or encoder.tokenizer.cls_token_id is None:
        raise ModelError(
            f"recipe {recipe.name} masks tokens: the text encoder's tokenizer has no mask or no CLS token", PARAMETERS
        )
    embeddings = generator.model.get_input_embeddings().num_embeddings
    if generator.tokenizer.get_vocab() != encoder.tokenizer.get_vocab() or embeddings < len(encoder.tokenizer):
        raise ModelError(
            f"recipe {recipe.name} gives the text encoder's token ids to the generator, and its vocabulary is another: "
            f"take DistilBERT for BERT, DistilRoBERTa for RoBERTa",
            PARAMETERS,
        )


def _missing(recipe: Recipe, names: list[str], why: str) -> str:
    what = "a frozen generator" if names == [GENERATOR] else "frozen text teachers"
    return (
        f"recipe {recipe.name} needs {what} ({', '.join(names)}), and {why}: set train.teachers_path to a folder with "
        f"sub-folders of these names in Hugging Face layout"
    )


def _load_text(path: Path) -> Encoder:
    return load_encoder(path, pooling=stored_pooling(path) or "cls")


def _load_generator(path: Path) -> Generator:
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        with quiet_transformers():
            model, report = AutoModelForMaskedLM.from_pretrained(
                path,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, SafetensorError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{path}: no masked language model can be read ({reason})") from error
    tied = set(getattr(model, "_tied_weights_keys", None) or ())
    lacking = sorted(set(report["missing_keys"]) - tied)
    if lacking:
        raise ModelError(f"{path}: the weights lack the language model's head (first: {lacking[0]})")
    return Generator(model, tokenizer)


def _frozen(module: nn.Module) -> nn.Module:
    return module.requires_grad_(False).eval()
