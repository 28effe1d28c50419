"""Text encoder: any Hugging Face text model and its tokenizer, with the pooling that belongs to it.

The pooling is a property of the encoder, read from and written to its folder, because a model scored with another
pooling than it was trained with is the commonest mistake with SimCSE-like checkpoints.
"""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.utils import logging as hf_logging

from model.errors import PARAMETERS, ModelError
from model.heads import Head
from model.packed import packed

POOLINGS = ("cls", "cls_mlp", "mean")
FIRST_LAST = "first_last"  # for evaluation only: no folder of sentence-transformers can say it
INITS = ("pretrained", "scratch")
_ROW_TOKENS = 32  # what a row of `batch_rows` counts for
_ST_POOLINGS = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}

# Keys of a checkpoint that the embedding never uses, so neither their absence nor their presence is an error:
# the pooler, position_ids buffers of old releases, and the heads that pretraining leaves behind.
_HARMLESS = ("pooler.", "cls.", "lm_head.", "vocab_", "predictions.", "discriminator_predictions.", "mlm.", "nsp.")
_BAD_FILE = (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, SafetensorError)


# a tokenizer keeps the truncation of its current call: batches are made in one thread while another one evaluates
_TOKENIZING = threading.Lock()


class Encoder(nn.Module):
    """Sentences to vectors.

    `model`: any module called as `model(input_ids=[B, L] int64, attention_mask=[B, L])` that returns
    `last_hidden_state` [B, L, H]; `tokenizer`: a Hugging Face tokenizer with a padding token.
    `pooling`: `cls` = vector of position 0 before any pooler; `mean` = mean over the tokens that are not padding;
    `cls_mlp` = `cls` through tanh(Wx + b), the supervised SimCSE embedding (`mlp` is that layer);
    `first_last` = mean over the tokens of the mean of the first and the last layer's states (layer 1, not the
    embeddings: SimCSE's code as it is now), to score an encoder that was not trained; it is neither trained nor
    exported.
    """

    def __init__(self, model: nn.Module, tokenizer, pooling: str, mlp: Head | None = None):
        super().__init__()
        if pooling not in (*POOLINGS, FIRST_LAST):
            raise ModelError(f"pooling {pooling!r} is unknown; choose one of {', '.join(POOLINGS)}", PARAMETERS)
        self.model = model
        self.tokenizer = tokenizer
        self.pooling = pooling
        self.mlp = mlp
        if pooling == "cls_mlp" and mlp is None:
            self.mlp = Head(self.hidden, self.hidden, std=0.02)
        pooler = getattr(model, "pooler", None)
        if pooler is not None:  # takes no part in any embedding: it must not reach the optimizer
            pooler.requires_grad_(False)

    @property
    def hidden(self) -> int:
        """Width of `forward`'s vectors."""
        return self.model.config.hidden_size

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def max_positions(self) -> int | None:
        """Longest sequence, in tokens with the special ones, that the model has positions for; None = no limit."""
        limit = getattr(self.model.config, "max_position_embeddings", None)
        if (positions := _position_embeddings(self.model)) is not None:
            limit = positions.num_embeddings - self.first_position
        known = [n for n in (limit, getattr(self.tokenizer, "model_max_length", None)) if n and 0 < n < 10**9]
        return min(known) if known else None

    @property
    def first_position(self) -> int:
        """The position of a row's first token: RoBERTa-like models count from padding_idx + 1."""
        positions = _position_embeddings(self.model)
        return 0 if positions is None or positions.padding_idx is None else positions.padding_idx + 1

    def token_ids(self, texts: Sequence[str], max_length: int | None = None) -> list[list[int]]:
        """Token ids of each text, special tokens included, not padded, cut to `max_length` (None = max_positions)."""
        limits = [n for n in (max_length, self.max_positions) if n is not None]
        cut = {"truncation": True, "max_length": min(limits)} if limits else {}
        with _TOKENIZING:
            return self.tokenizer(list(texts), add_special_tokens=True, return_attention_mask=False, **cut)["input_ids"]

    def token_offsets(self, texts: Sequence[str], max_length: int | None = None) -> list[list[tuple[int, int]]]:
        """For each token of `token_ids` the characters [start, end) of the text it stands for; special tokens: (0, 0).

        Raises ModelError (2) for a tokenizer that does not know (one that is not a fast one).
        """
        if not getattr(self.tokenizer, "is_fast", False):
            raise ModelError(
                f"{type(self.tokenizer).__name__} does not tell which characters a token stands for; where phrases are "
                f"read out of their captions the text encoder needs a fast tokenizer (tokenizer.json)",
                PARAMETERS,
            )
        limits = [n for n in (max_length, self.max_positions) if n is not None]
        cut = {"truncation": True, "max_length": min(limits)} if limits else {}
        with _TOKENIZING:
            found = self.tokenizer(list(texts), add_special_tokens=True, return_offsets_mapping=True, **cut)
        return [[tuple(pair) for pair in row] for row in found["offset_mapping"]]

    def pad(self, ids: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
        """Pads on the right to the longest: (input_ids, attention_mask), both int64 [B, L]."""
        longest = max(len(row) for row in ids)
        padded = torch.full((len(ids), longest), self.tokenizer.pad_token_id, dtype=torch.int64)
        mask = torch.zeros_like(padded)
        for i, row in enumerate(ids):
            padded[i, : len(row)] = torch.tensor(row, dtype=torch.int64)
            mask[i, : len(row)] = 1
        return padded, mask

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """h, the pooled vector before any head: [B, H]."""
        every = {"output_hidden_states": True} if self.pooling == FIRST_LAST else {}
        made = self.model(input_ids=input_ids, attention_mask=attention_mask, **every)
        states = (made.hidden_states[1] + made.hidden_states[-1]) / 2 if every else made.last_hidden_state
        return self.pool(states, attention_mask)

    def pool(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        """h of token states [B, L, H]: [B, H]. Half-precision states are pooled in float32."""
        half = states.dtype in (torch.float16, torch.bfloat16)
        if self.pooling in ("cls", "cls_mlp"):
            return states[:, 0].float() if half else states[:, 0]
        states = states.float() if half else states
        weight = attention_mask.unsqueeze(-1).to(states.dtype)
        return (states * weight).sum(1) / weight.sum(1).clamp(min=1e-9)

    def embedding(self, h: Tensor) -> Tensor:
        """The sentence embedding of pooled vectors h [B, H]: h itself, or its MLP for `cls_mlp`."""
        return h if self.mlp is None else self.mlp(h)

    @torch.inference_mode()
    def encode(
        self,
        texts: Sequence[str],
        batch_rows: int = 64,
        max_length: int | None = None,
        normalize: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> np.ndarray:
        """Embeddings of `texts`, float32 [N, D]; row i belongs to texts[i].

        Each distinct text is encoded once, in batches of similar length, without dropout, so that the result does
        not depend on `batch_rows` (1e-5): a batch has as many tokens as so many rows of 32, padding included.
        `max_length` counts tokens; None cuts only where the model's positions end. `normalize` divides by the L2
        norm. `dtype` bfloat16: matrix products in it, sums and norms in float32. The train/eval mode found is left
        as it was.
        """
        if batch_rows < 1:
            raise ModelError(f"batch_rows is {batch_rows}; it must be at least 1", PARAMETERS)
        row_of = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        width = self.hidden if self.mlp is None else self.mlp.dense.out_features
        if not row_of:
            return np.zeros((0, width), dtype=np.float32)
        was_training = self.training
        self.eval()
        try:
            with packed(self, self.device, dtype):
                unique = self._encode_unique(list(row_of), batch_rows, max_length)
        finally:
            self.train(was_training)
        if normalize:
            unique = nn.functional.normalize(unique, dim=-1)
        return unique.numpy()[[row_of[text] for text in texts]]

    def _encode_unique(self, texts: list[str], batch_rows: int, max_length: int | None) -> Tensor:
        ids = self.token_ids(texts, max_length)
        groups = by_length([len(row) for row in ids], batch_rows * _ROW_TOKENS)
        parts = []
        for group in groups:
            tokens, mask = self.pad([ids[i] for i in group])
            # left on the device: a copy at every batch would wait for it
            parts.append(self.embedding(self(tokens.to(self.device), mask.to(self.device))).float())
        sorted_rows = torch.cat(parts).cpu()
        order = [i for group in groups for i in group]
        result = torch.empty_like(sorted_rows)
        result[torch.tensor(order)] = sorted_rows
        return result


def _position_embeddings(model: nn.Module) -> nn.Embedding | None:
    """The table of absolute positions, or None where there is none."""
    named = model.named_modules()
    found = [m for name, m in named if name.endswith("position_embeddings") and isinstance(m, nn.Embedding)]
    return found[-1] if found else None


def by_length(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Rows in groups of like length, longest first (memory runs short at once or never), each with at most `tokens`
    tokens when padded to its longest; a row that is longer by itself is a group.
    """
    groups: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= tokens:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def load_encoder(
    path: str | Path, init: str = "pretrained", seed: int = 0, pooling: str | None = None, repool: bool = False
) -> Encoder:
    """An encoder from a local folder; no network, no remote code, no pickles (safetensors only).

    `init='pretrained'` reads the folder's weights in float32. A weight that is missing, unexpected or of another
    shape is an error, but for parts no embedding uses: the pooler, position_ids buffers, heads left by pretraining.
    `init='scratch'` needs only config and tokenizer and draws the weights from `seed`.
    `pooling=None` takes the one stored in the folder (modules.json of sentence-transformers). Naming another than
    the stored one is an error unless `repool` says that it is meant; weights from scratch have none stored.
    For `cls_mlp` without a stored MLP, the MLP is drawn from `seed`.

    Raises ModelError: 3 for the folder's content, 2 for the arguments.
    """
    path = Path(path)
    if init not in INITS:
        raise ModelError(f"init {init!r} is unknown; choose one of {', '.join(INITS)}", PARAMETERS)
    if not (path / "config.json").is_file():
        raise ModelError(f"{path}: no config.json; give the folder of a Hugging Face text model")
    stored = stored_pooling(path) if init == "pretrained" else None
    chosen = pooling or stored
    if chosen is None:
        raise ModelError(f"{path} stores no pooling: name one of {', '.join(POOLINGS)}", PARAMETERS)
    if stored is not None and chosen != stored and not repool:
        raise ModelError(
            f"{path} was made with pooling {stored!r} but {chosen!r} is asked for: take its own, or say that another "
            f"is meant (train.pooling, or repool=True)",
            PARAMETERS,
        )
    tokenizer = _load_tokenizer(path)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the CPU's alone: an accelerator's dropout goes on as it would
        model = _load_weights(path) if init == "pretrained" else _from_config(path)
        encoder = Encoder(model, tokenizer, chosen)
    if chosen == "cls_mlp" and stored == "cls_mlp":
        _load_mlp(path, encoder)
    _check_vocabulary(path, encoder)
    return encoder.eval()


def stored_pooling(path: str | Path) -> str | None:
    """The pooling that a sentence-transformers folder names in modules.json; None if there is no such file.

    A Normalize module is passed over: the cosine does not see it. Raises ModelError for a pooling this project cannot
    reproduce (max, several at once, an extra projection).
    """
    path = Path(path)
    if not (path / "modules.json").is_file():
        return None
    try:
        modules = [(m["type"].rsplit(".", 1)[-1], m["path"]) for m in _read_json(path / "modules.json")]
        kinds = [kind for kind, _ in modules]
        folder = dict(modules)["Pooling"]
        config = _read_json(path / folder / "config.json")
        modes = config.get("pooling_mode") or [
            _ST_POOLINGS.get(k, k) for k, on in config.items() if k.startswith("pooling_mode_") and on
        ]
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ModelError(f"{path}/modules.json does not name a pooling ({error!r})") from error
    modes = [modes] if isinstance(modes, str) else list(modes)
    mode = modes[0] if len(modes) == 1 else None
    if mode not in ("cls", "mean") or kinds.count("Dense") > 1 or (mode == "mean" and "Dense" in kinds):
        raise ModelError(f"{path}: pooling {'+'.join(modes)} with modules {', '.join(kinds)} is not supported")
    return "cls_mlp" if "Dense" in kinds else mode


def stored_length(path: str | Path) -> int | None:
    """The tokens a text keeps by sentence_bert_config.json of a sentence-transformers folder; None: it says nothing."""
    file = Path(path) / "sentence_bert_config.json"
    length = _read_json(file).get("max_seq_length") if file.is_file() else None
    if length is not None and (not isinstance(length, int) or length < 3):
        raise ModelError(f"{file}: max_seq_length is {length!r}; it must be a number of tokens")
    return length


def _read_json(file: Path):
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: not readable as JSON ({error})") from error


def _load_tokenizer(path: Path):
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except _BAD_FILE as error:
        raise ModelError(f"{path}: the tokenizer cannot be read ({_first_line(error)})") from error
    if tokenizer.pad_token_id is None:
        raise ModelError(f"{path}: the tokenizer has no padding token; a text encoder needs one")
    return tokenizer


def _from_config(path: Path) -> nn.Module:
    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        return AutoModel.from_config(config, trust_remote_code=False, dtype=torch.float32)
    except _BAD_FILE as error:
        raise ModelError(f"{path}: no text model can be built from config.json ({_first_line(error)})") from error


def _load_weights(path: Path) -> nn.Module:
    if not any((path / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json")):
        raise ModelError(
            f"{path}: no model.safetensors; put the weights there (safetensors, not .bin), or set init to 'scratch'"
        )
    try:
        with quiet_transformers():
            model, report = AutoModel.from_pretrained(
                path,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # so that they are reported below, in one line, with the rest
            )
    except _BAD_FILE as error:
        raise ModelError(f"{path}: the weights cannot be loaded ({_first_line(error)})") from error
    problems = []
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        keys = sorted(str(k[0] if isinstance(k, tuple) else k) for k in report.get(kind, ()))
        keys = [k for k in keys if not (k.startswith(_HARMLESS) or k.endswith("position_ids"))]
        if keys:
            problems.append(f"{len(keys)} {kind.replace('_', ' ')} (first: {keys[0]})")
    if problems:
        raise ModelError(f"{path}: weights and config.json do not belong together: {'; '.join(problems)}")
    if any(k.startswith("pooler.") for k in report["missing_keys"]) and getattr(model, "pooler", None) is not None:
        model.pooler = None  # a random one would only look like a part of the model
    return model


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No bars and no key table while weights are loaded or saved; what matters of it is said in one line elsewhere."""
    level, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()


def _load_mlp(path: Path, encoder: Encoder) -> None:
    modules = _read_json(path / "modules.json")
    folder = next(m["path"] for m in modules if m["type"].endswith("Dense"))
    file = path / folder / "model.safetensors"
    activation = _read_json(path / folder / "config.json").get("activation_function", "")
    if not activation.endswith("Tanh"):
        raise ModelError(f"{path / folder}: activation {activation!r} is not tanh, which pooling cls_mlp means")
    try:
        weights = load_file(file)
        encoder.mlp.dense.load_state_dict({k.removeprefix("linear."): v for k, v in weights.items()})
    except _BAD_FILE as error:
        raise ModelError(f"{file}: the MLP of pooling cls_mlp cannot be loaded ({_first_line(error)})") from error


def _check_vocabulary(path: Path, encoder: Encoder) -> None:
    rows = encoder.model.get_input_embeddings().num_embeddings
    if len(encoder.tokenizer) > rows:
        raise ModelError(
            f"{path}: the tokenizer knows {len(encoder.tokenizer)} tokens but the model has {rows} embeddings; "
            f"they do not belong together"
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
