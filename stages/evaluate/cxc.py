"""Crisscrossed Captions: does the model's similarity of captions and images order pairs as people do?

`sts` captions against captions, by the embedding that is evaluated; `sits` captions against images and `sis` images
against images, in the grounding space (model/grounding.py) and so for models trained on images only. Images are looked
up in the features of the collection, by the names COCO gives its files; pairs with an image that has none are counted
and not scored.

Protocol (Parekh et al. 2021; worded in full by Jiang et al. 2022): the pairs of a caption or image are not independent
of each other, so Spearman's correlation is bootstrapped: half of the queries are drawn, for each of them one of the
items it is rated with, 1,000 times; the mean and the standard deviation of the correlations. A query is what stands
first in a pair; queries are drawn without replacement, items evenly, from one fixed seed.
"""

import re
from pathlib import Path

import numpy as np
from scipy import stats

from model.grounding import Grounding, load_grounding
from model.sts import cosines, spearman
from pipeline.files import sha256_file, sha256_json
from stages.evaluate import collection
from stages.evaluate.cxc_files import KINDS, Ratings, captions_file, files, read_captions, read_ratings
from stages.evaluate.embedder import Embedder
from stages.evaluate.place import Place
from stages.evaluate.retrieval import text_rows

SAMPLES = 1000
SEED = 1111
_AT_ONCE = 50  # bootstrap samples ranked together
_READS = ("images", "features")
_Rows = dict[int, np.ndarray]
_COCO_NAME = re.compile(r"(?:^|[/_:])(\d{12})\.jpe?g$", re.IGNORECASE)


def tasks(place: Place) -> dict[str, str]:
    """Task -> content hash of what it reads."""
    if place.data is None:
        return {}
    captions = captions_file(place.data)
    beside = [sha256_file(captions)] if captions else []
    features = "" if collection.lacking(place.collection, _READS) else collection.digest(place.collection, _READS)
    return {
        _name(kind, split): sha256_json([sha256_file(file), *beside, *([] if kind == "sts" else [features])])
        for (kind, split), file in files(place.data).items()
        if kind == "sts" or features
    }


def run(embed: Embedder, place: Place, known: dict[str, dict] | None = None) -> dict:
    """{'tasks': {'cxc-sts-val', 'cxc-sits-val', 'cxc-sis-val' ...}, 'average': None, 'withheld': None}.

    Each task: {'bootstrap': {'mean', 'std', 'samples', 'queries', 'drawn'}, 'spearman' (of all pairs at once),
    'pairs', 'missing_pairs', 'captions_missing', 'images_missing' (ids without a text, without a feature),
    'nan_pairs' (similarity 0)}, or {'missing': why}.
    """
    found = files(place.data) if place.data is not None else {}
    scores, lookup = {}, _Lookup(embed, place)
    for kind, what in KINDS.items():
        splits = [split for own, split in found if own == kind]
        if not splits:
            scores[f"cxc-{kind}"] = {"missing": f"{place.data} has no {what} ratings (cxc/{kind}_val.csv)"}
        for split in splits:
            name = _name(kind, split)
            ratings = None if known and name in known else lookup.read(found[kind, split], kind, split)
            scores[name] = known[name] if ratings is None else lookup.score(ratings)
    return {"tasks": scores, "average": None, "withheld": None}


def _name(kind: str, split: str) -> str:
    return f"cxc-{kind}-{split}"


class _Lookup:
    """Vectors of captions and images by COCO's ids; what it reads, it reads when first asked for and once."""

    def __init__(self, embed: Embedder, place: Place):
        self.embed, self.place = embed, place
        self._space: Grounding | None = None
        self._captions: dict[int, str] | None = None
        self._images: dict[int, str] | None = None

    def read(self, file: Path, kind: str, split: str) -> Ratings:
        return read_ratings(file, kind, split, self._texts)

    def score(self, ratings: Ratings) -> dict:
        kind = ratings.kind
        if kind != "sts":
            if why := collection.lacking(self.place.collection, _READS):
                return {"missing": why}
            self._space = self._space or load_grounding(self.embed.folder)
            if self._space.lacks:
                return {"missing": self._space.lacks}
        first, lost_first = (self._image_rows if kind == "sis" else self._text_rows)(ratings, ratings.first)
        second, lost_second = (self._text_rows if kind == "sts" else self._image_rows)(ratings, ratings.second)
        there = np.array([a in first and b in second for a, b in zip(ratings.first, ratings.second, strict=True)])
        lost: dict[str, set[int]] = {}
        for what, ids in (lost_first, lost_second):
            lost[what] = lost.get(what, set()) | ids
        result = {"pairs": int(there.sum()), "missing_pairs": int((~there).sum())}
        result |= {f"{what}_missing": len(ids) for what, ids in lost.items()}
        if there.sum() < 2:
            return {"missing": f"{result['pairs']} of {len(there)} pairs have {' and '.join(lost)} at hand"}
        rows = np.flatnonzero(there).tolist()
        similarity = cosines(
            np.stack([first[ratings.first[row]] for row in rows]),
            np.stack([second[ratings.second[row]] for row in rows]),
        )
        nan_pairs = int(np.isnan(similarity).sum())
        similarity, gold = np.nan_to_num(similarity, nan=0.0), ratings.gold[rows]
        queries = np.array([ratings.first[row] for row in rows])
        return {
            "bootstrap": bootstrap(similarity, gold, queries),
            "spearman": spearman(similarity, gold),
            **result,
            "nan_pairs": nan_pairs,
        }

    def _texts(self) -> dict[int, str]:
        if self._captions is None:
            file = captions_file(self.place.data)
            self._captions = read_captions(file) if file else {}
        return self._captions

    def _text_rows(self, ratings: Ratings, wanted: list[int]) -> tuple[_Rows, tuple[str, set[int]]]:
        ids = [i for i in dict.fromkeys(wanted) if i in ratings.texts]
        texts = [ratings.texts[i] for i in ids]
        rows = self.embed(texts) if ratings.kind == "sts" else text_rows(self.embed, self._space, texts)
        return dict(zip(ids, rows, strict=True)), ("captions", set(wanted) - set(ids))

    def _image_rows(self, ratings: Ratings, wanted: list[int]) -> tuple[_Rows, tuple[str, set[int]]]:
        if self._images is None:
            self._images = coco_images(collection.image_names(self.place.collection))
        feature = {f"image:{self._images[i]}": i for i in wanted if i in self._images}
        ids, vectors = collection.features(self.place.collection, "image", feature)
        rows = self._space.images(vectors) if ids else ()
        found = {feature[name]: row for name, row in zip(ids, rows, strict=True)}
        return found, ("images", set(wanted) - set(found))


def coco_images(names: list[tuple[str, str]]) -> dict[int, str]:
    """COCO's image id -> the collection's, of (id, uri): where the name of the file (or the id, if it is one) is of
    the form COCO gives its files, `000000000139.jpg` or `COCO_val2014_000000000139.jpg`.

    A bare number is not taken for COCO's: other collections count their images too.
    """
    found = {}
    for identifier, uri in names:
        if match := _COCO_NAME.search(uri) or _COCO_NAME.search(identifier):
            found.setdefault(int(match[1]), identifier)
    return found


def bootstrap(similarity: np.ndarray, gold: np.ndarray, queries: np.ndarray, samples: int = SAMPLES) -> dict:
    """Mean and standard deviation of Spearman's correlation over samples of half of the queries, one item each.

    similarity, gold, queries: [n], row for row. Both are None where a correlation is undefined: fewer than four
    queries, or values that do not vary in one of the samples.
    """
    order = np.argsort(queries, kind="stable")
    names, starts, counts = np.unique(queries[order], return_index=True, return_counts=True)
    half, rng = len(names) // 2, np.random.default_rng(SEED)
    found: list[float | None] = []
    for first in range(0, samples if half >= 2 else 0, _AT_ONCE):
        rows = np.empty((min(_AT_ONCE, samples - first), half), np.int64)
        for sample in rows:
            drawn = rng.permutation(len(names))[:half]
            sample[:] = order[starts[drawn] + rng.integers(counts[drawn])]
        found += _spearmans(similarity[rows], gold[rows])
    known = bool(found) and None not in found
    return {
        "mean": float(np.mean(found)) if known else None,
        "std": float(np.std(found, ddof=1)) if known else None,
        "samples": samples,
        "queries": len(names),
        "drawn": half,
    }


def _spearmans(x: np.ndarray, y: np.ndarray) -> list[float | None]:
    """Row-wise Spearman of [s, n]; None where a row does not vary, by the same measure as `model.sts.spearman`."""
    flat = [np.ptp(v, axis=1) <= 1e-6 * np.abs(v).max(axis=1) for v in (x, y)]
    a, b = (stats.rankdata(v, axis=1) for v in (x, y))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))
    return [None if one or two else float(v) for one, two, v in zip(*flat, value, strict=True)]
