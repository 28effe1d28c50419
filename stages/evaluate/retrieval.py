"""Retrieval in the grounding space: images by their captions and captions by their images; objects by their phrases
and phrases by their objects.

In: `captions`, `features`, `pairs` of a collection, of its test split, or of all where the test split has no image.
Similarity is the cosine of heads' outputs (model/grounding.py); how ranks and ties are counted: ranks.py.

- `image-text`: five captions an image, the first five in the order of their ids; an image with fewer keeps those it
  has. What is right for a caption is its own image alone; for an image the best-ranked of its captions counts.
- `object-phrase`: a query a pair, its phrase against all different objects of the split. A phrase is encoded as in
  training: alone, or (recipes with the term `span`) out of its caption. Right are its own object and, as the recipe's
  `phrase_dup` says, those of phrases with the same key (`multi_positive`, the default), which it may also leave out
  (`mask`) or count as wrong (`negative`); `same_image` says which objects of the same image are left out.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from model.grounding import Grounding, load_grounding, pooled, span_vectors
from stages.evaluate import collection
from stages.evaluate.embedder import Embedder
from stages.evaluate.place import Place
from stages.evaluate.ranks import Sets, ranks, summary

CAPTIONS = 5
READS = {"image-text": ("captions", "features"), "object-phrase": ("captions", "features", "pairs")}
_BOX = ("x0", "y0", "x1", "y1")
_PAIR = ["caption_id", "image_id", "start", "end", "text", "key", *_BOX, "feature_id"]


def tasks(place: Place) -> dict[str, str]:
    """Task -> content hash of the tables it reads, for those that are there."""
    return {
        name: collection.digest(place.collection, tables)
        for name, tables in READS.items()
        if not collection.lacking(place.collection, tables)
    }


def run(embed: Embedder, place: Place, known: dict[str, dict] | None = None) -> dict:
    """{'tasks': {'image-text', 'object-phrase'}, 'average': None, 'withheld': None}.

    Each task: {'split', counts, and for each direction 'R@1', 'R@5', 'R@10' (shares in [0, 1]), 'median_rank',
    'queries', 'candidates'}, or {'missing': why}.
    """
    scores, known, space = {}, known or {}, None
    for name, tables in READS.items():
        if name in known:
            scores[name] = known[name]
        elif why := collection.lacking(place.collection, tables):
            scores[name] = {"missing": why}
        else:
            space = space or load_grounding(embed.folder)
            if space.lacks:
                scores[name] = {"missing": space.lacks}
            else:
                scores[name] = _TASKS[name](embed, space, place)
    return {"tasks": scores, "average": None, "withheld": None}


def text_rows(embed: Embedder, space: Grounding, texts: list[str]) -> np.ndarray:
    """Texts in the grounding space. The heads read h: with pooling `cls_mlp` the embedding is not h."""
    return space.texts(_h(embed, texts))


def _h(embed: Embedder, texts: list[str]) -> np.ndarray:
    if embed.encoder.mlp is None:
        return embed(texts)
    different = list(dict.fromkeys(texts))
    row_of = {text: row for row, text in enumerate(different)}
    h = pooled(embed.encoder, different, embed.batch_rows, embed.max_length, embed.dtype)
    return h[[row_of[text] for text in texts]]


def _captions(place: Place) -> tuple[list[dict], str]:
    """The captions that are tested on, and of which split they are."""
    found = collection.rows(place.collection, "captions", ["id", "image_id", "text", "split"])
    held_out = [row for row in found if row["split"] == "test"]
    return (held_out, "test") if held_out else (found, "all")


# ---------------------------------------------------------------- images and captions


def _image_text(embed: Embedder, space: Grounding, place: Place) -> dict:
    captions, split = _captions(place)
    of_image: dict[str, list[dict]] = defaultdict(list)
    for row in sorted(captions, key=lambda row: row["id"]):
        of_image[row["image_id"]].append(row)
    ids, vectors = collection.features(place.collection, "image", (f"image:{image}" for image in of_image))
    images = [identifier.removeprefix("image:") for identifier in ids]
    kept = [of_image[image][:CAPTIONS] for image in images]
    result = {
        "split": split,
        "images": len(images),
        "captions": sum(map(len, kept)),
        "fewer_captions": sum(len(own) < CAPTIONS for own in kept),
        "captions_left_out": sum(len(of_image[image]) for image in images) - sum(map(len, kept)),
        "images_without_feature": len(of_image) - len(images),
    }
    if not images:
        return {"missing": f"no image of the split {split} has a feature; run the stage embed"}
    seen = space.images(vectors)
    texts = text_rows(embed, space, [row["text"] for own in kept for row in own])
    owner = np.repeat(np.arange(len(images)), [len(own) for own in kept])
    ends = np.cumsum([len(own) for own in kept])
    own = Sets.of([range(end - len(rows), end) for end, rows in zip(ends, kept, strict=True)])
    return {
        **result,
        "unusable": _unusable(texts) + _unusable(seen),
        "text_to_image": summary(ranks(texts, seen, Sets(np.arange(len(owner) + 1), owner)), len(seen)),
        "image_to_text": summary(ranks(seen, texts, own), len(texts)),
    }


def _unusable(rows: np.ndarray) -> int:
    return int((~np.isfinite(rows).all(axis=1)).sum())


# ---------------------------------------------------------------- objects and phrases


@dataclass(frozen=True)
class Pool:
    """The pairs tested on and the different objects of them, and which objects are right or left out for which pair.

    `object_of`: the object of each pair; `keys`, `images`, `boxes`: of each object, those of all its pairs, its image,
    its box in the first of them.
    """

    pairs: list[dict]
    object_of: np.ndarray
    objects: list[str]
    keys: list[set[str]]
    images: list[str]
    boxes: np.ndarray


def pool(pairs: list[dict], objects: list[str]) -> Pool:
    """`objects`: feature ids in the order of their vectors; pairs of other objects are left out."""
    row_of = {identifier: row for row, identifier in enumerate(objects)}
    kept = [pair for pair in pairs if pair["feature_id"] in row_of]
    keys: list[set[str]] = [set() for _ in objects]
    images, boxes = [""] * len(objects), np.zeros((len(objects), 4))
    for pair in reversed(kept):
        row = row_of[pair["feature_id"]]
        keys[row].add(pair["key"])
        images[row], boxes[row] = pair["image_id"], [pair[side] for side in _BOX]
    object_of = np.array([row_of[pair["feature_id"]] for pair in kept], np.int64)
    return Pool(kept, object_of, objects, keys, images, boxes)


def judged(found: Pool, phrase_dup: str, same_image: str, iou_threshold: float) -> tuple[Sets, Sets]:
    """(right, left out) objects of every pair, as training's sets P and X have them (model/losses/object_phrase.py)."""
    of_key, of_image = defaultdict(list), defaultdict(list)
    for row, (keys, image) in enumerate(zip(found.keys, found.images, strict=True)):
        of_image[image].append(row)
        for key in keys:
            of_key[key].append(row)
    right, ignored = [], []
    for pair, own in zip(found.pairs, found.object_of.tolist(), strict=True):
        same = of_key[pair["key"]]
        mine = set(same) if phrase_dup == "multi_positive" else {own}
        out = set(same) if phrase_dup == "mask" else set()
        if same_image != "negative":
            others = np.array(of_image[found.images[own]])
            if same_image == "iou_ignore":
                others = others[_iou(found.boxes[own], found.boxes[others]) >= iou_threshold]
            out |= set(others.tolist())
        right.append(sorted(mine))
        ignored.append(sorted(out - mine))
    return Sets.of(right), Sets.of(ignored)


def _iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of an xyxy box [4] with others [n, 4]."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    inter = sides.clip(min=0).prod(1)
    union = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1) - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def _object_phrase(embed: Embedder, space: Grounding, place: Place) -> dict:
    captions, split = _captions(place)
    text_of = {row["id"]: row["text"] for row in captions}
    every = [row for row in collection.rows(place.collection, "pairs", _PAIR) if row["caption_id"] in text_of]
    if not every:
        return {"missing": f"the split {split} has no pairs"}
    objects, vectors = collection.features(place.collection, "object", (row["feature_id"] for row in every))
    found = pool(every, objects)
    if not found.pairs:
        return {"missing": f"no object of the split {split} has a feature; run the stage embed"}
    options = {"phrase_dup": "multi_positive", "same_image": "iou_ignore", "iou_threshold": 0.5}
    options |= {name: value for name, value in space.options.items() if name in options}
    right, ignored = judged(found, **options)
    seen = space.objects(vectors)
    if space.spans:
        spans = [(row["start"], row["end"]) for row in found.pairs]
        whole = [text_of[row["caption_id"]] for row in found.pairs]
        h = span_vectors(embed.encoder, whole, spans, embed.batch_rows, embed.max_length, embed.dtype)
    else:
        h = _h(embed, [row["text"] for row in found.pairs])
    phrases = space.phrases(h)
    return {
        "split": split,
        "pairs": len(found.pairs),
        "objects": len(objects),
        "phrases": len({row["text"] for row in found.pairs}),
        "keys": len({row["key"] for row in found.pairs}),
        "pairs_without_feature": len(every) - len(found.pairs),
        "phrases_are": "spans of their captions" if space.spans else "encoded alone",
        "trained_on_phrases": bool(space.options),
        **options,
        "unusable": _unusable(phrases) + _unusable(seen),
        "phrase_to_object": summary(ranks(phrases, seen, right, ignored), len(seen)),
        "object_to_phrase": _objects_to_phrases(found, phrases, seen, right, ignored),
    }


def _objects_to_phrases(found: Pool, phrases: np.ndarray, seen: np.ndarray, right: Sets, ignored: Sets) -> dict:
    """The other way: each object against the phrases of all pairs, equal vectors once, by the same sets."""
    first: dict[tuple, int] = {}
    for row in range(len(found.pairs)):
        own = right.part(row, row + 1)[1].tobytes(), ignored.part(row, row + 1)[1].tobytes()
        first.setdefault((phrases[row].tobytes(), *own), row)
    rows = list(first.values())
    turned = []
    for sets in (right, ignored):
        of_object: list[list[int]] = [[] for _ in found.objects]
        for place, row in enumerate(rows):
            for member in sets.part(row, row + 1)[1].tolist():
                of_object[member].append(place)
        turned.append(Sets.of(of_object))
    return summary(ranks(seen, phrases[rows], *turned), len(rows))


_TASKS = {"image-text": _image_text, "object-phrase": _object_phrase}
