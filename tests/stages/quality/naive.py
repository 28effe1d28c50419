"""The measures of quality once more, slowly: over lists, sets of characters and arrays of pixels."""

import numpy as np
from made import HEIGHT, WIDTH, Box, Caption, Dataset, Phrase, box_of


def span_iou(a: tuple[int, int], b: tuple[int, int]) -> float:
    one, two = set(range(*a)), set(range(*b))
    return len(one & two) / len(one | two)


def mask_iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def box_iou(a: Box, b: Box) -> float:
    across = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    down = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - across * down
    return across * down / both


def nearest(span: tuple[int, int], spans: list[tuple[int, int]]) -> int | None:
    ious = [span_iou(span, other) for other in spans]
    return ious.index(max(ious)) if ious and max(ious) > 0 else None


def kind(item: tuple) -> str:
    if item[3] == "pronoun":
        return "pronoun"
    return ("nothing shown", "one object", "several objects")[min(len(item[2]), 2)]


def length(text: str) -> str:
    words = len(text.split())
    return "6 words or more" if words > 5 else "4 or 5 words" if words > 3 else f"{words} word{'s' * (words > 1)}"


def area(union: np.ndarray) -> str:
    share = union.sum() / (WIDTH * HEIGHT)
    if share <= 0.01:
        return "smaller than 1 % of the image"
    return "1 to 10 % of the image" if share <= 0.1 else "larger than 10 %"


def groups(data: Dataset, caption: Caption, item: tuple) -> dict[str, str]:
    told = {"kind": kind(item), "length": length(caption.text[item[0] : item[1]])}
    if item[2]:
        told["area"] = area(union(data, caption, item))
    return told


def union(data: Dataset, caption: Caption, item: tuple) -> np.ndarray:
    return np.logical_or.reduce([data.objects[caption.image][number] for number in item[2]])


def mean(values: list) -> float | None:
    return sum(values) / len(values) if values else None


class Naive:
    """Every unit that is measured as a record with its groups; `numbers(stage, ...)` counts those of a group."""

    def __init__(self, data: Dataset):
        self.cut, self.gold, self.asked, self.boxes, self.pairs, self.verdicts = [], [], [], [], [], []
        self.sought = []
        for caption in data.captions:
            if caption.gold is not None:
                self._caption(data, caption)

    def _caption(self, data: Dataset, caption: Caption) -> None:
        spans = [(start, end) for start, end, *_ in caption.gold]
        denoting = [item for item in caption.gold if item[2]]
        for phrase in caption.phrases:
            span = phrase.start, phrase.end
            place = nearest(span, spans)
            own = {"length": length(caption.text[slice(*span)])}
            own = own if place is None else groups(data, caption, caption.gold[place])
            iou = 0.0 if place is None else span_iou(span, spans[place])
            self.cut.append((own, iou))
        for item in caption.gold:
            ious = [span_iou(item[:2], (phrase.start, phrase.end)) for phrase in caption.phrases]
            self.gold.append((groups(data, caption, item), max(ious, default=0.0)))
        of: dict[int, list[Phrase]] = {}
        for phrase in caption.phrases:
            place = nearest((phrase.start, phrase.end), [item[:2] for item in denoting])
            if place is not None:
                of.setdefault(place, []).append(phrase)
            if phrase.pair is not None:
                self._pair(data, caption, phrase, None if place is None else denoting[place])
        for place, item in enumerate(denoting):
            if item[3] == "pronoun":
                continue
            own = groups(data, caption, item)
            right = any(
                phrase.pair is not None and mask_iou(phrase.found[phrase.pair].mask, union(data, caption, item)) >= 0.5
                for phrase in of.get(place, [])
            )
            self.sought.append((own, right))
            if place in of:
                best = max(of[place], key=lambda phrase: span_iou((phrase.start, phrase.end), item[:2]))
                self._asked(data, caption, item, best, own)

    def _pair(self, data: Dataset, caption: Caption, phrase: Phrase, item: tuple | None) -> None:
        mask = phrase.found[phrase.pair].mask
        if item is None:
            self.verdicts.append("denotes_nothing")
            return
        iou = mask_iou(mask, union(data, caption, item))
        others = [mask_iou(mask, other) for other in data.objects[caption.image].values()]
        self.verdicts.append("right" if iou >= 0.5 else "other_object" if max(others) >= 0.5 else "off_mask")
        if item[3] != "pronoun":
            self.pairs.append((groups(data, caption, item), iou))

    def _asked(self, data: Dataset, caption: Caption, item: tuple, phrase: Phrase, own: dict) -> None:
        masks = [data.objects[caption.image][number] for number in item[2]]
        boxes = [box_of(mask) for mask in masks]
        merged = box_of(union(data, caption, item))
        found = [one.box for one in phrase.found]
        image = [f.box for c in data.captions if c.image == caption.image for p in c.phrases for f in p.found]
        met = [any(box_iou(box, one) >= 0.5 for one in found) for box in boxes]
        met_image = [any(box_iou(box, one) >= 0.5 for one in image) for box in boxes]
        right = bool(found) and box_iou(found[0], merged) >= 0.5
        right_any = bool(found) and any(box_iou(found[0], box) >= 0.5 for box in boxes)
        self.asked.append((own, right, right_any, met, met_image))
        for one in phrase.found:
            ious = [box_iou(one.box, box) for box in boxes]
            if max(ious) >= 0.5:
                gold = masks[ious.index(max(ious))]
                self.boxes.append((own, 0.0 if one.mask is None else mask_iou(one.mask, gold), one.mask is None))

    def numbers(self, stage: str, family: str | None = None, name: str | None = None) -> dict:
        """What the metrics file says of a group, or over all."""

        def chosen(units: list[tuple]) -> list[tuple]:
            return [unit for unit in units if family is None or unit[0].get(family) == name]

        return getattr(self, f"_{stage}")(chosen, family)

    def _parse(self, chosen, family) -> dict:
        def counted(units):
            aside = ("pronoun", "nothing shown")
            return [unit for unit in units if family == "kind" or unit[0].get("kind") not in aside]

        cut, gold = [unit[1] for unit in counted(chosen(self.cut))], [unit[1] for unit in counted(chosen(self.gold))]
        told = {"phrases": len(cut), "gold": len(gold)}
        for prefix, least in (("", 1.0), ("overlap_", 0.5)):
            precision, recall = mean([iou >= least for iou in cut]), mean([iou >= least for iou in gold])
            known = precision is not None and recall is not None
            f1 = (2 * precision * recall / (precision + recall) if precision + recall else 0.0) if known else None
            told |= {f"{prefix}precision": precision, f"{prefix}recall": recall, f"{prefix}f1": f1}
        return told

    def _detect(self, chosen, family) -> dict:
        asked = chosen(self.asked)
        met, met_image = ([one for unit in asked for one in unit[place]] for place in (3, 4))
        return {
            "gold": len(chosen(self.sought)),
            "asked": len(asked),
            "objects": len(met),
            "accuracy": mean([unit[1] for unit in asked]),
            "accuracy_any": mean([unit[2] for unit in asked]),
            "box_recall": mean(met),
            "box_recall_image": mean(met_image),
        }

    def _segment(self, chosen, family) -> dict:
        boxes = chosen(self.boxes)
        return {
            "boxes": len(boxes),
            "without_mask": sum(unit[2] for unit in boxes),
            "mean_iou": mean([unit[1] for unit in boxes]),
            "at_50": mean([unit[1] >= 0.5 for unit in boxes]),
            "at_75": mean([unit[1] >= 0.75 for unit in boxes]),
        }

    def _align(self, chosen, family) -> dict:
        pairs, sought = chosen(self.pairs), chosen(self.sought)
        right = [unit[1] >= 0.5 for unit in pairs] if family else [verdict == "right" for verdict in self.verdicts]
        return {
            "gold": len(sought),
            "found": sum(unit[1] for unit in sought),
            "pairs": len(pairs),
            "precision": mean(right),
            "recall": mean([unit[1] for unit in sought]),
            "mean_iou": mean([unit[1] for unit in pairs]),
        }
