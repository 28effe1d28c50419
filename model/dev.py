"""The dev score during training."""

from collections.abc import Sequence

import numpy as np
import torch

from model import sts
from model.encoder import Encoder, by_length
from model.packed import packed

# tokens a batch: what a processor's cache takes, and enough for a GPU
_TOKENS = {"cpu": 1024}
_TOKENS_OF_A_GPU = 8192


class Dev:
    """The Spearman correlation of an encoder on a task, again and again.

    Each distinct sentence is tokenised once for the whole run and encoded once an evaluation, in batches of like
    length that stay on the device; in bf16 where the encoder is trained so.
    """

    def __init__(self, task: sts.Task, encoder: Encoder, precision: str = "fp32"):
        self.task, self.encoder, self.precision = task, encoder, precision
        self.batches: list[tuple[list[int], torch.Tensor, torch.Tensor]] | None = None

    def score(self) -> float | None:
        """A fraction, or None where it is undefined. The mode found, train or eval, is left as it was."""
        was_training = self.encoder.training
        self.encoder.eval()
        try:
            return sts.score_task(self.task, sts.embed_once({self.task.name: self.task}, self._encode))["all"]
        finally:
            self.encoder.train(was_training)

    @torch.inference_mode()
    def _encode(self, sentences: Sequence[str]) -> np.ndarray:
        if self.batches is None:
            self.batches = self._tokenise(sentences)
        device = self.encoder.device
        with packed(self.encoder, device, torch.bfloat16 if self.precision == "bf16" else torch.float32):
            parts = [self.encoder.embedding(self.encoder(ids, mask)).float() for _, ids, mask in self.batches]
        vectors = torch.cat(parts).cpu().numpy()
        ordered = np.empty_like(vectors)
        ordered[[row for rows, _, _ in self.batches for row in rows]] = vectors
        return ordered

    def _tokenise(self, sentences: Sequence[str]) -> list:
        ids, device = self.encoder.token_ids(sentences), self.encoder.device
        groups = by_length([len(row) for row in ids], _TOKENS.get(device.type, _TOKENS_OF_A_GPU))
        return [(g, *(t.to(device) for t in self.encoder.pad([ids[i] for i in g]))) for g in groups]
