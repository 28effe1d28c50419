"""How alike a crop and its phrase are, where the encoder has a text tower."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ParamsError

_PAIRS_AT_ONCE = 4096


class Similarity:
    """Cosines of crops and phrases from their features.

    Args:
        features: a shard's features, `id` and `kind`.
        min_similarity: the filter, or None.
        vectors: reads `id` and `vector` of the same rows; called only if there are phrase features.

    Raises:
        ParamsError: `align.min_similarity` is set but there are no text features.
    """

    def __init__(self, features: pa.Table, min_similarity: float | None, vectors: Callable[[], pa.Table]):
        kinds = features.column("kind")
        self.known = pc.any(pc.equal(kinds, "phrase")).as_py() or False
        if min_similarity is not None and not self.known and pc.any(pc.equal(kinds, "object")).as_py():
            raise ParamsError(
                "align.min_similarity needs phrase features: set embed.text to true and embed.path to an encoder "
                "with a text tower (CLIP), or align.min_similarity to null"
            )
        if self.known:
            table = vectors()
            self.ids = table.column("id")
            self.vectors = _matrix(table.column("vector"))

    def __call__(self, feature_ids: list[str], texts: pa.ChunkedArray) -> np.ndarray:
        """Cosine of each crop with the text beside it, float64 [N]; NaN where one of the two has no feature."""
        values = np.full(len(texts), np.nan)
        if not self.known:
            return values
        crop = self._rows(pa.array(feature_ids, pa.string()))
        text = self._rows(pc.binary_join_element_wise("phrase:", texts, ""))
        both = np.flatnonzero((crop >= 0) & (text >= 0))
        for start in range(0, len(both), _PAIRS_AT_ONCE):
            some = both[start : start + _PAIRS_AT_ONCE]
            values[some] = np.vecdot(self._unit(crop[some]), self._unit(text[some]))
        return values

    def _unit(self, rows: np.ndarray) -> np.ndarray:
        """Vectors at length 1, float32 [N, D]; a zero vector stays zero."""
        rows, place = np.unique(rows, return_inverse=True)
        vectors = self.vectors[rows].astype(np.float32)
        return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))[place]

    def _rows(self, ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
        return pc.fill_null(pc.index_in(ids, value_set=self.ids), -1).to_numpy(zero_copy_only=False)


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    """Vectors as float16 [N, D], without a copy of one chunk."""
    dim = column.type.byte_width // 2
    chunks = [np.frombuffer(c.buffers()[1], "<f2").reshape(-1, dim)[c.offset :][: len(c)] for c in column.chunks]
    return chunks[0] if len(chunks) == 1 else np.concatenate([np.zeros((0, dim), "<f2"), *chunks])
