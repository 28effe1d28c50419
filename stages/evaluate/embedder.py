"""Text to vectors for all suites of a run: the model is loaded when first needed, each distinct text encoded once."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from model.encoder import Encoder, load_encoder
from pipeline.files import hash_path


class Embedder:
    """Called with texts it gives their embeddings, float32 [n, D]; row i belongs to texts[i].

    `folder`: a Hugging Face or sentence-transformers folder. `pooling`: for a folder that stores none. `max_length`:
    tokens a text keeps; None cuts only where the model's positions end. `dtype`: of the matrix products. The model is
    loaded with the first text, so that a run whose scores are all known already loads none.
    """

    def __init__(
        self,
        folder: Path,
        pooling: str | None = None,
        device: str = "cpu",
        batch_rows: int = 64,
        max_length: int | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        self.folder, self.pooling, self.device = Path(folder), pooling, device
        self.batch_rows, self.max_length, self.dtype = batch_rows, max_length, dtype
        self._row_of: dict[str, int] = {}
        self._vectors: np.ndarray | None = None

    @cached_property
    def encoder(self) -> Encoder:
        return load_encoder(self.folder, "pretrained", pooling=self.pooling).to(self.device)

    @cached_property
    def digest(self) -> str:
        """The content hash of the model folder."""
        return hash_path(self.folder)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        new = [text for text in dict.fromkeys(texts) if text not in self._row_of]
        if new or self._vectors is None:
            made = self.encoder.encode(new, self.batch_rows, self.max_length, dtype=self.dtype)
            self._vectors = made if self._vectors is None else np.concatenate([self._vectors, made])
            self._row_of.update((text, row) for row, text in enumerate(new, len(self._row_of)))
        return self._vectors[[self._row_of[text] for text in texts]]

    def unusable(self) -> list[str]:
        """Texts encoded so far whose embedding is zero or not finite: they have no cosine."""
        if self._vectors is None:
            return []
        norms = np.linalg.norm(self._vectors, axis=1)
        return [text for text, row in self._row_of.items() if not (np.isfinite(norms[row]) and norms[row] > 0)]
