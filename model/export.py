"""Writes a trained encoder as a folder that SentenceTransformer(path) and AutoModel.from_pretrained(path) load.

- config.json, model.safetensors, tokenizer files: the encoder, as AutoModel reads it
- modules.json, 1_Pooling/, 2_Dense/: the pooling; the MLP of pooling `cls_mlp`; a Normalize module if asked for
- recipe.json: resolved recipe, seed, pooling, data hashes, metrics
- heads.safetensors: training heads, no part of the embedding
- README.md: the model card
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn

from model.encoder import POOLINGS, Encoder, quiet_transformers
from model.errors import PARAMETERS, ModelError
from model.recipes import Recipe

# an encoder as large as the one that is exported, of use in training alone
_NOT_KEPT = ("discriminator",)
_SAID_ELSEWHERE = ("name", "terms", "heads")
_RANDOM_VISION = (
    "**The image and object features came from a vision encoder with random weights**: the numbers below show that the "
    "pipeline runs, not what the method is worth."
)


def export(
    path: str | Path,
    encoder: Encoder,
    recipe: Recipe,
    seed: int,
    *,
    heads: nn.ModuleDict | None = None,
    data_hashes: Mapping[str, str] | None = None,
    metrics: Mapping[str, object] | None = None,
    random_vision: bool = False,
    normalize: bool = False,
) -> Path:
    """Writes the folder `path` and returns it; equal content gives equal bytes.

    `data_hashes`: name -> hash of what was trained on; `metrics`: plain JSON values; `random_vision`: the image and
    object features came from a vision encoder with random weights, and the card says so; `normalize`: the folder's
    vectors in sentence-transformers have length 1 (this project's `encode` has an argument for it).
    Written beside its target and renamed, so that a folder is there whole or not at all. An earlier export is
    replaced; anything else in the way raises ModelError.
    """
    path = Path(path)
    if encoder.pooling not in POOLINGS:
        raise ModelError(f"pooling {encoder.pooling} is for evaluation: a folder cannot name it", PARAMETERS)
    if path.exists() and not (path.is_dir() and (not any(path.iterdir()) or (path / "recipe.json").is_file())):
        raise ModelError(f"{path}: in the way, and not an exported model; move it or choose another folder")
    record = {
        "recipe": recipe.to_dict(),
        "seed": seed,
        "pooling": encoder.pooling,
        "normalize": normalize,
        "data": dict(data_hashes or {}),
        "metrics": dict(metrics or {}),
        "random_vision": random_vision,
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    aside = path.with_name(f".{path.name}.{os.getpid()}.old")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        _write_encoder(temporary, encoder)
        _write_pooling(temporary, encoder, normalize)
        _write_json(temporary / "recipe.json", record)
        kept = nn.ModuleDict({name: head for name, head in (heads or {}).items() if name not in _NOT_KEPT})
        if len(kept):
            save_file(_weights(kept), temporary / "heads.safetensors")
        (temporary / "README.md").write_text(_card(path.name, encoder, recipe, record), encoding="utf-8")
        if path.exists():
            path.replace(aside)
        temporary.replace(path)
    finally:
        if aside.exists() and not path.exists():
            aside.replace(path)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)
    return path


def _write_encoder(folder: Path, encoder: Encoder) -> None:
    with quiet_transformers():
        encoder.model.save_pretrained(folder)
    backend = getattr(encoder.tokenizer, "backend_tokenizer", None)
    if backend is not None:  # a fast tokenizer would save the truncation and padding of its last call
        backend.no_truncation()
        backend.no_padding()
    encoder.tokenizer.save_pretrained(folder)
    _write_json(folder / "sentence_bert_config.json", {"max_seq_length": encoder.max_positions, "do_lower_case": False})
    _write_json(folder / "config_sentence_transformers.json", {"prompts": {}, "similarity_fn_name": "cosine"})


def _write_pooling(folder: Path, encoder: Encoder, normalize: bool) -> None:
    # the class paths and keys of sentence-transformers 2: every release since reads them
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    (folder / "1_Pooling").mkdir()
    _write_json(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": encoder.hidden,
            "pooling_mode_cls_token": encoder.pooling != "mean",
            "pooling_mode_mean_tokens": encoder.pooling == "mean",
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
    )
    if encoder.mlp is not None:
        modules.append(("2_Dense", "Dense"))
        (folder / "2_Dense").mkdir()
        layer = encoder.mlp.dense
        config = {"in_features": layer.in_features, "out_features": layer.out_features, "bias": True}
        _write_json(
            folder / "2_Dense" / "config.json", config | {"activation_function": "torch.nn.modules.activation.Tanh"}
        )
        weights = {f"linear.{k}": v for k, v in _weights(layer).items()}
        save_file(weights, folder / "2_Dense" / "model.safetensors", metadata={"format": "pt"})
    if normalize:
        place = f"{len(modules)}_Normalize"
        modules.append((place, "Normalize"))
        (folder / place).mkdir()
        _write_json(folder / place / "config.json", {})
    entries = [
        {"idx": i, "name": str(i), "path": place, "type": f"sentence_transformers.models.{kind}"}
        for i, (place, kind) in enumerate(modules)
    ]
    _write_json(folder / "modules.json", entries)


def _weights(module: nn.Module) -> dict[str, Tensor]:
    return {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}


def _write_json(file: Path, value: object) -> None:
    file.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _card(name: str, encoder: Encoder, recipe: Recipe, record: Mapping) -> str:
    settings = {k: v for k, v in record["recipe"].items() if k not in _SAID_ELSEWHERE and v not in (None, ())}
    data = ["## Data", "", "Hashes of what it was trained on.", "", *_table(record["data"]), ""]
    lines = [
        "---",
        "language: en",
        "library_name: sentence-transformers",
        "pipeline_tag: sentence-similarity",
        "tags:",
        "- sentence-transformers",
        "- feature-extraction",
        "- sentence-similarity",
        "---",
        f"# {name}",
        "",
        *([_RANDOM_VISION, ""] if record["random_vision"] else []),
        f"A sentence encoder: {_shape(encoder)}, pooling `{encoder.pooling}`, "
        f"{'vectors of length 1' if record['normalize'] else 'vectors as they are'}, compared by cosine. "
        f"Recipe `{recipe.name}`, seed {record['seed']}.",
        "",
        "```python",
        "from sentence_transformers import SentenceTransformer",
        f'vectors = SentenceTransformer("{name}").encode(["A man rides a horse."])',
        "```",
        "",
        "## Objective",
        "",
        *_objective(recipe),
        "",
        *(["## Settings", "", *_table(settings), ""] if recipe.terms else []),
        *(["## Metrics", "", *_table(record["metrics"]), ""] if record["metrics"] else []),
        *(data if record["data"] else []),
    ]
    return "\n".join(lines)


def _shape(encoder: Encoder) -> str:
    config = encoder.model.config
    layers = getattr(config, "num_hidden_layers", None)
    return f"{config.model_type}{f', {layers} layers' if layers else ''}, {encoder.hidden} dimensions"


def _objective(recipe: Recipe) -> list[str]:
    if not recipe.terms:
        return ["None: the encoder as it started, not trained further."]
    rows = [
        f"| {t.name} | {t.weight:g} | {t.temperature:g} | {', '.join(t.kinds)} | "
        f"{', '.join(f'{k} {_plain(v)}' for k, v in t.options.items() if v is not None)} |"
        for t in recipe.terms
    ]
    return ["| term | weight | temperature | batches | |", "|---|---|---|---|---|", *rows]


def _table(values: Mapping[str, object]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {k} | {_plain(v)} |" for k, v in values.items())]


def _plain(value: object) -> str:
    """A value as a cell of a table."""
    if isinstance(value, list | tuple):
        return "; ".join(map(_plain, value)) or "none"
    text = f"{value:g}" if isinstance(value, float) and abs(value) < 1 else str(value)
    return text.replace("|", "\\|")
