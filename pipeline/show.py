"""Everything known of one image, caption, phrase, box, candidate or pair: its rows in every table, and who made them.

An image and all that belongs to it lie in one shard, which a hash of the image's id names; ids of captions and below
usually begin with the image's, and where they do not, the shards are searched.
"""

import difflib
import importlib
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipeline.errors import InputError
from pipeline.rows import matching, shard_file, stored_images, verified
from pipeline.shards import SHARDED, SIDECARS, read_sidecar, read_table, shard_name, shard_numbers, shard_of
from pipeline.tables import TABLES, WRITER

# Where ids are looked up, and what a row with that id is. A pair has the id of its phrase, a mask that of its box.
_KINDS = {
    "images": "image",
    "captions": "caption",
    "phrases": "phrase",
    "boxes": "box",
    "features": "feature",
    "sentences": "sentence",
}
_PART = re.compile(r"/\w+$")
_SUFFIX = re.compile(r"@\d+-\d+(/\w+)?$")
_NEAR = 5
_MOST_COMPARED = 50_000


@dataclass(frozen=True)
class Loss:
    """A row of `drops`, with the stage it comes from and what its reason means."""

    stage: str
    unit: str
    id: str
    outcome: str
    reason: str
    detail: str
    meaning: str


@dataclass(frozen=True)
class Made:
    """What a stage's sidecar says of the shard: hashes of its path (weights or annotations) and of what it wrote."""

    stage: str
    version: int
    path_hash: str | None
    params: dict
    facts: dict
    tables: dict[str, dict]


@dataclass(frozen=True)
class Found:
    """One record and what belongs to it, rows as in the tables (pipeline/tables.py), images without their bytes."""

    kind: str
    id: str
    dataset: str
    shard: int
    image: dict | None = None
    captions: list[dict] = field(default_factory=list)
    phrases: list[dict] = field(default_factory=list)
    boxes: list[dict] = field(default_factory=list)
    masks: list[dict] = field(default_factory=list)
    pairs: list[dict] = field(default_factory=list)
    sentence: dict | None = None
    losses: list[Loss] = field(default_factory=list)
    made: list[Made] = field(default_factory=list)

    def as_json(self) -> dict:
        """Plain values; the counts of masks as text."""
        values = asdict(self)
        for row in (*values["masks"], *values["pairs"]):
            row["counts"] = row["counts"].decode("ascii")
        return values


def find(data: Path, identifier: str) -> Found:
    """Looks an id up in a dataset's folder (data/<dataset>).

    Raises:
        InputError: nothing has run, a shard is damaged, or there is no such id (near ones are named).
    """
    numbers = shard_numbers(data / "ingest" / "images")
    likely = [shard_of(owner, len(numbers)) for owner in owners(identifier)]
    for number in dict.fromkeys([n for n in likely if n in numbers] + numbers):
        shard = Shard(data, number)
        if kind := shard.kind(identifier):
            return _gather(shard, kind, identifier)
    shards = [Shard(data, number) for number in numbers]
    near = _near(shards, identifier)
    hint = f"; near it: {', '.join(near)}" if near else f"; ids look like {', '.join(shards[0].first_ids())}"
    raise InputError(f"{identifier!r}: no image, caption, phrase, box or pair of {data} has this id{hint}")


def owners(identifier: str) -> Iterator[str]:
    """Ids of images that an id may belong to, likeliest first: itself, and what stands before its suffixes."""
    yield identifier
    caption = _SUFFIX.sub("", identifier)
    yield caption
    if "#" in caption:
        yield caption.rsplit("#", 1)[0]
    if identifier.startswith("image:"):
        yield identifier.removeprefix("image:")


@dataclass(frozen=True)
class Shard:
    """One shard of a dataset, over all its tables."""

    data: Path
    number: int

    def folder(self, table: str) -> Path | None:
        """Where a table lies, or None where its stage has not run."""
        folder = self.data / WRITER[table] / table
        return folder if shard_file(folder, self.number).is_file() else None

    def rows(self, table: str, column: str, values: list[str], leave: tuple[str, ...] = ()) -> list[dict]:
        """The rows whose `column` is one of `values`, without the columns `leave`."""
        folder = self.folder(table)
        columns = [name for name in TABLES[table].names if name not in leave]
        return matching(folder, self.number, column, values, columns).to_pylist() if folder and values else []

    def ids(self, folder: Path | None) -> list[str]:
        """The ids of a table; a quick look that hashes nothing."""
        file = shard_file(folder, self.number) if folder else None
        return read_table(file, folder.name, ["id"]).column(0).to_pylist() if file and file.is_file() else []

    def kind(self, identifier: str) -> str | None:
        """What has this id in this shard: image, caption, phrase, ...; None if nothing has."""
        for table, kind in _KINDS.items():
            if identifier in self.ids(self.folder(table)):
                return kind
        whole = identifier.removesuffix("/all")
        if whole != identifier and whole in self.ids(self.folder("phrases")):
            return "candidate"
        for stage in SHARDED:
            folder = self.data / stage / "drops"
            if identifier in self.ids(folder):
                return matching(folder, self.number, "id", [identifier]).column("unit")[0].as_py()
        return None

    def losses(self, names: set[str], below: tuple[str, ...], image_id: str | None) -> list[Loss]:
        """The rows of every stage's `drops` that concern these ids, ids that begin so, or anything of an image."""
        meaning = importlib.import_module("stages.report.reasons").meaning
        found = []
        for stage in SHARDED:
            folder = self.data / stage / "drops"
            for row in verified(folder, self.number).to_pylist() if self.ids(folder) else ():
                of_image = row.pop("image_id")
                if row["id"] in names or row["id"].startswith(below) or (image_id and of_image == image_id):
                    found.append(Loss(stage, meaning=meaning(stage, row["reason"]), **row))
        return found

    def made(self) -> Iterator[Made]:
        """What the stages that ran say of this shard."""
        for stage in SHARDED:
            path = self.data / stage / SIDECARS / f"{shard_name(self.number)}.json"
            if path.is_file():
                s = read_sidecar(path)
                yield Made(s.stage, s.version, s.path_hash, s.params, s.facts, s.tables)

    def first_ids(self) -> list[str]:
        return [ids[0] for table in ("images", "captions", "pairs") if (ids := self.ids(self.folder(table)))]


def _gather(shard: Shard, kind: str, identifier: str) -> Found:
    """The record and, up and down the graph, what belongs to it."""
    image_id, caption_ids, phrase_ids = _scope(shard, kind, identifier)
    phrases = shard.rows("phrases", "id", phrase_ids)
    captions = shard.rows("captions", "id", caption_ids or [_SUFFIX.sub("", name) for name in phrase_ids])
    image_id = image_id or next((row["image_id"] for row in captions), None)
    images = shard.rows("images", "id", [image_id] if image_id else [], ("bytes",))
    boxes = shard.rows("boxes", "phrase_id", phrase_ids)
    pairs = shard.rows("pairs", "phrase_id", phrase_ids)
    sentences = shard.rows("sentences", "id", [identifier]) if kind == "sentence" else []
    names = {identifier, f"image:{image_id}", *phrase_ids, *(row["feature_id"] for row in pairs)}
    names |= {row["id"] for row in (*captions, *images, *boxes)}
    below = [f"{name}/" for name in phrase_ids]
    below += [f"{row['id']}@" for row in captions] if kind in ("image", "caption") else []
    return Found(
        kind="pair" if kind == "phrase" and pairs else kind,
        id=identifier,
        dataset=shard.data.name,
        shard=shard.number,
        image=images[0] if images else None,
        captions=captions,
        phrases=phrases,
        boxes=boxes,
        masks=shard.rows("masks", "box_id", [row["id"] for row in boxes]),
        pairs=pairs,
        sentence=sentences[0] if sentences else None,
        losses=shard.losses(names, tuple(below), image_id if kind == "image" else None),
        made=list(shard.made()),
    )


def _scope(shard: Shard, kind: str, identifier: str) -> tuple[str | None, list[str], list[str]]:
    """Image id, caption ids and phrase ids that a record of this kind is about; captions: none if the phrases' own."""

    def ids(table: str, column: str, values: list[str], wanted: str = "id") -> list[str]:
        return [row[wanted] for row in shard.rows(table, column, values, ("bytes", "vector"))]

    match kind:
        case "image":
            captions = ids("captions", "image_id", [identifier])
            return identifier, captions, ids("phrases", "caption_id", captions)
        case "caption":
            return None, [identifier], ids("phrases", "caption_id", [identifier])
        case "feature":
            owner = next(iter(ids("features", "id", [identifier], "image_id")), None)
            return owner, [], ids("pairs", "feature_id", [identifier], "phrase_id")
        case "sentence":
            return None, [], []
        case _:
            phrase = _PART.sub("", identifier)
            return None, ids("phrases", "id", [phrase], "caption_id"), [phrase]


def image_bytes(data: Path, found: Found) -> bytes:
    """The stored image file.

    Raises:
        InputError: there is no image: it did not come through.
    """
    if found.image is None:
        raise InputError(f"{found.id!r}: there is no picture to draw, its image did not come through")
    for _, stored in stored_images(data / "ingest" / "images", found.shard, [found.image["id"]]):
        return stored
    raise InputError(f"{found.image['id']}: not in shard {found.shard} any more; run this again")


def _near(shards: list[Shard], identifier: str) -> list[str]:
    """Ids that look like one that is not there."""
    alike: list[str] = []
    for shard in shards:
        ids = [i for table in ("images", "captions", "phrases") for i in shard.ids(shard.folder(table))]
        alike += [i for i in ids if abs(len(i) - len(identifier)) <= 3 and _shares_an_end(i, identifier)]
        if len(alike) > _MOST_COMPARED:
            break
    return difflib.get_close_matches(identifier, dict.fromkeys(alike[:_MOST_COMPARED]), _NEAR, 0.7)


def _shares_an_end(one: str, other: str) -> bool:
    return one[:3] == other[:3] or one[-3:] == other[-3:]
