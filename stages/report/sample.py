"""What the gallery shows: a drawn sample of pairs, and one of what did not become a pair, even over the reasons."""

import heapq
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.rows import matching
from stages.common import rle
from stages.common.candidates import candidates
from stages.common.cases import Case
from stages.common.ids import draw_key, place_of
from stages.report.records import each_shard, pick

# Whose drops have a caption and a stored image to show, and in which units; without those there is only the ledger.
SHOWN = {
    "parse": ("caption", "phrase"),
    "detect": ("phrase",),
    "segment": ("box",),
    "align": ("candidate",),
}
PAIR_COLUMNS = [
    "id",
    "image_id",
    "caption_id",
    "start",
    "end",
    "x0",
    "y0",
    "x1",
    "y1",
    "height",
    "width",
    "counts",
    "area",
    "score",
    "mask_box_iou",
    "similarity",
    "objects",
]


@dataclass(frozen=True)
class Sample:
    """Drawn cases and how many there are in all; `totals` counts by (stage, reason) where there are reasons."""

    total: int
    cases: list[Case]
    totals: dict[tuple[str, str], int]


def kept(data: Path, most: int, seed: int) -> Sample:
    """Draws `most` pairs by a hash of seed and id, in that order.

    Raises:
        InputError: a shard is damaged.
    """
    count, drawn = 0, []
    for number, table in each_shard(data / "align" / "pairs", ["id"]):
        ids = table.column("id").to_pylist()
        count += len(ids)
        drawn = heapq.nsmallest(most, drawn + [(draw_key(seed, identifier), identifier, number) for identifier in ids])
    in_shard = defaultdict(list)
    for _, identifier, number in drawn:
        in_shard[number].append(identifier)
    cases = {}
    for number, ids in sorted(in_shard.items()):
        for identifier, row in pick(data / "align" / "pairs", number, ids, PAIR_COLUMNS).items():
            cases[identifier] = pair_case(row, number)
    return Sample(count, [cases[identifier] for _, identifier, _ in drawn], {})


def pair_case(row: dict, shard: int) -> Case:
    """A row of `pairs` as a case."""
    return Case(
        row["id"],
        row["image_id"],
        shard,
        row["caption_id"],
        (row["start"], row["end"]),
        (row["height"], row["width"]),
        mask=row["counts"],
        box=(row["x0"], row["y0"], row["x1"], row["y1"]),
        measures=_measures(row["score"], row["area"], row["mask_box_iou"], row["similarity"], row["objects"]),
    )


def _measures(score: float, area: float, iou: float, similarity: float | None, objects: int) -> dict[str, float]:
    found = {"score": score, "area": area, "iou": iou}
    if similarity is not None:
        found["similarity"] = similarity
    if objects > 1:
        found["objects"] = objects
    return found


def dropped(data: Path, most: int, seed: int) -> Sample:
    """Draws `most` captions, phrases, boxes and candidates that did not come through, reason by reason in turn, so
    that a rare reason is seen beside a common one.

    Raises:
        InputError: a shard is damaged.
    """
    totals: dict[tuple[str, str], int] = defaultdict(int)
    groups: dict[tuple[str, str], list[tuple]] = defaultdict(list)
    for stage, units in SHOWN.items():
        for number, table in each_shard(data / stage / "drops"):
            here = defaultdict(list)
            for row in table.filter(pc.is_in(table.column("unit"), pa.array(units))).to_pylist():
                totals[stage, row["reason"]] += 1
                if row["image_id"] is not None and (row["unit"] == "caption" or place_of(row["id"])):
                    fields = (row["id"], row["unit"], row["image_id"], row["outcome"], row["detail"])
                    here[stage, row["reason"]].append((draw_key(seed, row["id"]), number, *fields))
            for key, found in here.items():
                groups[key] = heapq.nsmallest(most, groups[key] + found)
    ranked = sorted((turn, *item[:1], key, item) for key, found in groups.items() for turn, item in enumerate(found))
    chosen = sorted((item, key) for _, _, key, item in ranked[:most])
    return Sample(sum(totals.values()), _cases(data, chosen), dict(totals))


def _cases(data: Path, chosen: list[tuple[tuple, tuple[str, str]]]) -> list[Case]:
    in_shard = defaultdict(set)
    for (_, number, identifier, unit, *_), _ in chosen:
        if unit in ("box", "candidate"):
            in_shard[number].add(identifier)
    found = {number: _found(data, number, ids) for number, ids in sorted(in_shard.items())}
    cases = []
    for (_, number, identifier, unit, image_id, outcome, detail), (stage, reason) in chosen:
        place = None if unit == "caption" else place_of(identifier)
        cases.append(
            Case(
                identifier,
                image_id,
                number,
                place[0] if place else identifier,
                place[1:] if place else None,
                outcome=outcome,
                stage=stage,
                reason=reason,
                detail=detail,
                **found.get(number, {}).get(identifier, {}),
            )
        )
    return cases


def _found(data: Path, number: int, ids: set[str]) -> dict[str, dict]:
    """Frame, mask, box and numbers of these candidates of a shard; box and score of a box that has no mask."""
    wanted = {identifier.rsplit("/", 1)[0] for identifier in ids}
    phrases = matching(data / "parse" / "phrases", number, "id", wanted)
    boxes = matching(data / "detect" / "boxes", number, "phrase_id", wanted)
    masks = matching(data / "segment" / "masks", number, "box_id", set(boxes.column("id").to_pylist()))
    shown: dict[str, dict] = {}
    for one in candidates(phrases, boxes, masks).to_pylist():
        if one["id"] in ids:
            size, box = (one["height"], one["width"]), (one["x0"], one["y0"], one["x1"], one["y1"])
            area = one["area"] / (one["height"] * one["width"])
            iou = rle.box_iou(rle.box(one["counts"], *size), box)
            measures = _measures(one["score"], area, iou, None, one["objects"])
            shown[one["id"]] = {"frame": size, "mask": one["counts"], "box": box, "measures": measures}
    for row in boxes.to_pylist():
        alone = {"box": tuple(row[side] for side in ("x0", "y0", "x1", "y1")), "measures": {"score": row["score"]}}
        shown.setdefault(row["id"], alone)
    return shown
