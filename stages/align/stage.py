"""align: candidates become pairs.

In: `phrases`, `boxes`, `masks`, `features`. Out: `pairs`. Done to a row: every candidate is filtered (scores, area,
agreement of mask and box, crop-phrase similarity); of what is left a phrase keeps one, and a caption at most
`max_per_caption`. Cheap, no model: thresholds are tuned here. The work is done on whole columns of a shard.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import tables
from pipeline.runner import Context, Output, Stage, Task
from pipeline.shards import read_table
from stages.align.choose import beyond_cap, choose
from stages.align.filters import Verdicts, filtered
from stages.align.similarity import Similarity
from stages.common.candidates import candidates, feature_ids

COLUMNS = {
    "phrases": ["id", "image_id", "caption_id", "start", "end", "text", "head", "number", "count", "key"],
    "boxes": ["id", "phrase_id", "rank", "x0", "y0", "x1", "y1", "score", "label", "object_id"],
    "masks": ["box_id", "height", "width", "counts", "area", "predicted_iou", "stability"],
    "features": ["id", "kind"],
}
_OF_PHRASE = ("caption_id", "start", "end", "text", "head", "key")
_OF_CANDIDATE = ("image_id", "objects", "x0", "y0", "x1", "y1", "height", "width", "counts")
_SCORES = ("score", "predicted_iou", "stability")


def process(section: Any, task: Task, inputs: dict[str, pa.Table]) -> Output:
    def vectors() -> pa.Table:
        return read_table(Path(task.inputs["features"]), "features", ["id", "vector"])

    similarity = Similarity(inputs["features"], section.min_similarity, vectors)
    return align(section, inputs["phrases"], inputs["boxes"], inputs["masks"], similarity)


def align(section: Any, phrases: pa.Table, boxes: pa.Table, masks: pa.Table, similarity: Similarity) -> Output:
    """The pairs and the drops of a shard."""
    made = candidates(phrases, boxes, masks)
    texts = phrases.column("text").take(made.column("phrase"))
    measures, verdicts = filtered(made, texts, similarity, section)

    rows = verdicts.left
    verdicts.reason[rows] = choose(made.take(rows), phrases, section.tie)
    rows = verdicts.left
    pairs = _pairs(made.take(rows), phrases, measures.area[rows], measures.mask_box_iou[rows], similarity)
    beyond = beyond_cap(pairs, section.max_per_caption)
    verdicts.reason[rows[beyond]] = "caption_cap"
    return Output(
        {"pairs": tables.ordered("pairs", pairs.filter(pa.array(~beyond)))},
        {"candidate": made.num_rows},
        tables.ordered("drops", _drops(made, verdicts)),
    )


def _pairs(
    made: pa.Table, phrases: pa.Table, area: np.ndarray, mask_box_iou: np.ndarray, similarity: Similarity
) -> pa.Table:
    """Rows of `pairs`, one for each of these candidates."""
    phrase, crops = phrases.take(made.column("phrase")), feature_ids(made)
    alike = similarity(crops, phrase.column("text"))
    columns = {
        "id": phrase.column("id"),
        "phrase_id": phrase.column("id"),
        **{name: phrase.column(name) for name in _OF_PHRASE},
        **{name: made.column(name) for name in (*_OF_CANDIDATE, *_SCORES)},
        "area": pa.array(area, pa.float32()),
        "mask_box_iou": pa.array(mask_box_iou, pa.float32()),
        "similarity": pa.array(alike, pa.float32(), mask=np.isnan(alike)),
        "feature_id": pa.array(crops, pa.string()),
        "image_feature_id": pc.binary_join_element_wise("image:", made.column("image_id"), ""),
    }
    return pa.table(columns, tables.TABLES["pairs"])


def _drops(made: pa.Table, verdicts: Verdicts) -> pa.Table:
    """Rows of `drops`, one for each candidate that has a reason."""
    lost = np.flatnonzero(verdicts.reason != "")
    columns = {
        "unit": pa.repeat("candidate", len(lost)),
        "id": made.column("id").take(lost),
        "image_id": made.column("image_id").take(lost),
        "outcome": pa.repeat("dropped", len(lost)),
        "reason": pa.array(verdicts.reason[lost], pa.string()),
        "detail": pa.array(verdicts.detail[lost], pa.string()),
    }
    return pa.table(columns, tables.TABLES["drops"])


def open_worker(context: Context) -> Any:
    return context.section


STAGE = Stage(
    name="align",
    version=2,
    reads=("phrases", "boxes", "masks", "features"),
    writes=("pairs",),
    units={"candidate": ("pairs", "id")},
    open=open_worker,
    process=process,
    columns=lambda section: COLUMNS,
    path_hash=lambda context: lambda task: None,
    libraries=("pycocotools",),
    advice="loosen the thresholds of the section align, or see the rows in drops/",
)
