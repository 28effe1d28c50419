"""The package groundingdino 0.4.0 made to build and to run right, from outside: nothing of it is edited.

Three things stand in the way of its own code. With transformers 5 its wrapper of BERT asks the model for methods that
are gone. It reads BERT and the tokenizer by name from a hub. And for a batch whose captions differ, the text layers
repeat each row's attention mask in the order of the heads where attention expects the order of the rows, so that rows
get each other's masks.
"""

import contextlib
import threading
import warnings
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

_one_at_a_time = threading.Lock()
_WARNINGS = (
    ("Importing from timm.models.layers is deprecated", FutureWarning),
    ("invalid escape sequence", DeprecationWarning),
    ("invalid escape sequence", SyntaxWarning),
    ("torch.meshgrid: in an upcoming release", UserWarning),
    (r"`torch.cuda.amp.autocast\(args...\)` is deprecated", FutureWarning),
)


class TextEncoder(nn.Module):
    """What the package puts around BERT, with its parameter names (`embeddings.*`, `encoder.*`).

    The pooler is left out: the detector never uses it, and weights in the transformers layout do not hold it.
    """

    def __init__(self, bert_model: BertModel):
        super().__init__()
        self.config = bert_model.config
        self.embeddings = bert_model.embeddings
        self.encoder = bert_model.encoder

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor, position_ids: Tensor
    ) -> dict[str, Tensor]:
        """States of the tokens.

        Args:
            input_ids, token_type_ids, position_ids: [B, T], whole numbers.
            attention_mask: [B, T, T], True where the token of the row may look at the token of the column.

        Returns:
            last_hidden_state: [B, T, dim].
        """
        states = self.embeddings(input_ids=input_ids, token_type_ids=token_type_ids, position_ids=position_ids)
        lowest = torch.finfo(states.dtype).min
        additive = torch.zeros_like(attention_mask, dtype=states.dtype).masked_fill(~attention_mask, lowest)
        return {"last_hidden_state": self.encoder(states, attention_mask=additive[:, None]).last_hidden_state}


def masks_by_row(layer: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """Before a text layer runs: repeats the mask [B, T, T] for the heads in the order of the rows.

    Multi-head attention takes a mask [B * heads, T, T] with the heads of a row side by side. The layer passes on a mask
    whose first side is no longer the batch as it is.
    """
    mask = kwargs["src_mask"]
    return args, kwargs | {"src_mask": mask.repeat_interleave(layer.nhead, dim=0)}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """While the body runs, the package's warnings of old names in timm and torch are not shown; all others are."""
    with warnings.catch_warnings():
        for message, category in _WARNINGS:
            warnings.filterwarnings("ignore", message, category)
        yield


def imported() -> ModuleType:
    """The package's module of the detector; slow the first time."""
    with quiet():
        from groundingdino.models.GroundingDINO import groundingdino

        return groundingdino


@contextlib.contextmanager
def building(tokenizer: Any, text: BertConfig) -> Iterator[ModuleType]:
    """The package's module of the detector, in a state in which its constructors work without a hub.

    While the body runs, one body at a time, a detector that is built takes `tokenizer` (a fast BERT tokenizer) for its
    own and gets a BERT of the shape `text` with random weights, whatever name it is given. Then the module is as
    before.
    """
    module = imported()
    source = SimpleNamespace(
        get_tokenlizer=lambda name: tokenizer, get_pretrained_language_model=lambda name: BertModel(text)
    )
    with _one_at_a_time, quiet():
        before = module.get_tokenlizer, module.BertModelWarper
        module.get_tokenlizer, module.BertModelWarper = source, TextEncoder
        try:
            yield module
        finally:
            module.get_tokenlizer, module.BertModelWarper = before


def put_right(model: nn.Module) -> nn.Module:
    """The model built by the package, its text layers given the masks of their own rows."""
    for layer in model.transformer.encoder.text_layers:
        layer.register_forward_pre_hook(masks_by_row, with_kwargs=True)
    return model
