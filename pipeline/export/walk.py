"""A dataset's pairs, image after image, as the exports read them: verified shards only, one in memory at a time."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline import rows
from pipeline.errors import InputError
from pipeline.files import sha256_json
from pipeline.shards import SHARDED, read_sidecars, scan, shard_numbers

_IMAGE = ["id", "sha256", "bytes", "width", "height", "uri", "split"]


@dataclass(frozen=True)
class Picture:
    """An image that has pairs: its row of `images`, all its captions (rows), its pairs (rows) in order."""

    shard: int
    image: dict
    captions: list[dict]
    pairs: list[dict]

    def words_of(self, pair: dict) -> dict:
        """What a pair says: its caption and phrase, as both exports name them."""
        caption = next(row["text"] for row in self.captions if row["id"] == pair["caption_id"])
        return {"caption": caption, "phrase": pair["text"]} | {
            name: pair[name] for name in ("start", "end", "head", "key", "objects")
        }


@dataclass(frozen=True)
class Outline:
    """What a first, cheap pass tells: head lemmas, whether every image id is a plain number, pairs in all."""

    heads: list[str]
    numeric: bool
    pairs: int


def outline(data: Path) -> Outline:
    """Looks over all pairs without their masks.

    Raises:
        InputError: align has not run, or there is no pair.
    """
    heads, numeric, count = set(), True, 0
    for table in scan(data / "align" / "pairs", ["image_id", "head"]):
        count += table.num_rows
        heads.update(table.column("head").to_pylist())
        numeric = numeric and all(str(i).isascii() and i.isdigit() and str(int(i)) == i
                                  for i in set(table.column("image_id").to_pylist()))  # fmt: skip
    if not count:
        raise InputError(f"{data / 'align' / 'pairs'}: there is no pair to export; see what align dropped and why")
    return Outline(sorted(heads), numeric, count)


def pictures(data: Path) -> Iterator[Picture]:
    """Every image that has pairs, in the order of shards and ids.

    Raises:
        InputError: a shard is damaged, or the stages come from different runs.
    """
    for number in shard_numbers(data / "align" / "pairs"):
        of_image: dict[str, list[dict]] = defaultdict(list)
        for pair in rows.verified(data / "align" / "pairs", number).to_pylist():
            of_image[pair["image_id"]].append(pair)
        captions = defaultdict(list)
        for row in rows.matching(data / "ingest" / "captions", number, "image_id", of_image).to_pylist():
            captions[row["image_id"]].append(row)
        for image in rows.stream(data / "ingest" / "images", number, _IMAGE):
            if pairs := of_image.pop(image["id"], None):
                picture = Picture(number, image, captions[image["id"]], pairs)
                _check(data, picture)
                yield picture
        if of_image:
            raise _torn(data, next(iter(of_image.values()))[0], "image")


def _check(data: Path, picture: Picture) -> None:
    texts = {row["id"]: row["text"] for row in picture.captions}
    frame = (picture.image["height"], picture.image["width"])
    for pair in picture.pairs:
        if texts.get(pair["caption_id"], "")[pair["start"] : pair["end"]] != pair["text"]:
            raise _torn(data, pair, "caption")
        if (pair["height"], pair["width"]) != frame:
            raise _torn(data, pair, "image of its mask's size")


def _torn(data: Path, pair: dict, what: str) -> InputError:
    return InputError(
        f"{data}: pair {pair['id']} has no {what} in its shard; the stages come from different runs: `dvc repro` makes "
        "them agree"
    )


def provenance(data: Path) -> dict:
    """Who made the pairs: for every stage its version, parameters, and hashes over all shards of its path and tables.

    Raises:
        InputError: a stage has not run, or its shards come from different runs.
    """
    stages = {}
    for name in SHARDED:
        sidecars = read_sidecars(data / name)
        first = sidecars[0]
        paths = sorted({s.path_hash for s in sidecars} - {None})
        stages[name] = {
            "version": first.version,
            "params": first.params,
            "facts": first.facts,
            "path_sha256": paths[0] if len(paths) == 1 else sha256_json(paths) if paths else None,
            "tables": {
                table: sha256_json([s.tables[table]["sha256"] for s in sidecars]) for table in sorted(first.tables)
            },
        }
    return {"dataset": data.name, "stages": stages}
