"""Token ids of a list of texts, each text tokenised once, at its first use."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from model.encoder import Encoder


class TokenTable:
    """Rows of token ids, special tokens included, cut to `max_length`.

    Held as one int32 array [texts, longest possible] that the system fills with memory only where rows are written: a
    million texts of 32 tokens are 128 MB once all have been read.
    """

    def __init__(self, encoder: Encoder, texts: Sequence[str], max_length: int):
        self.encoder, self.texts = encoder, texts
        self.max_length = min(max_length, encoder.max_positions or max_length)
        self.ids = np.zeros((len(texts), self.max_length), dtype=np.int32)
        self.lengths = np.zeros(len(texts), dtype=np.int32)  # 0: not tokenised yet

    def batch(self, rows: Sequence[int] | np.ndarray) -> tuple[Tensor, Tensor]:
        """(input_ids, attention_mask) of the texts of these rows, padded to the longest: int64 [n, L]."""
        rows = np.asarray(rows, dtype=np.int64)
        self._tokenise(np.unique(rows[self.lengths[rows] == 0]))
        lengths = self.lengths[rows]
        longest = int(lengths.max(initial=1))
        mask = np.arange(longest) < lengths[:, None]
        ids = np.where(mask, self.ids[rows, :longest], self.encoder.tokenizer.pad_token_id)
        return torch.from_numpy(ids.astype(np.int64)), torch.from_numpy(mask.astype(np.int64))

    def _tokenise(self, rows: np.ndarray) -> None:
        if not len(rows):
            return
        for row, ids in zip(rows, self.encoder.token_ids([self.texts[r] for r in rows], self.max_length), strict=True):
            self.ids[row, : len(ids)] = ids
            self.lengths[row] = len(ids)
