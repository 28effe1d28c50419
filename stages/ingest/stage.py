"""ingest: a collection becomes `images`, `captions` and `sentences`.

In: a source (ingest.source). Out: one row an image that decodes, one a caption of such an image, one a sentence of
the text-only stream. Done to a row: its path is checked to stay inside the collection, its file hashed and decoded,
its pixels rewritten as plain RGB where they are anything else, and hashed by their looks; byte-equal images become
one, and, if asked, images that look alike; splits and shards come from a hash of the id.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.ledger import Drop
from pipeline.runner import Context, Output, Stage, Task
from stages.common.images import BadImage, Limits, normalise
from stages.common.phash import perceptual_hash
from stages.common.text import clean
from stages.ingest.index import Index
from stages.ingest.near import drop_near
from stages.ingest.places import Places
from stages.ingest.sources import READERS
from stages.ingest.sources.files import read_lines


def tasks(context: Context) -> list[Task]:
    """Streams the source into an index on disk, hashes every image file, and cuts images and sentences into shards."""
    section = context.section
    scratch = Path(context.params.runtime.scratch) / context.params.dataset / "ingest"
    with Index(scratch / "index", Path(section.path), section.shards) as index:
        index.add(READERS[section.source](section))
        index.add_sentences(_sentences(section))
        index.settle(section.deduplicate)
        if section.near_duplicates is not None:
            drop_near(index, _limits(section), section.near_duplicates, scratch / "phash.sqlite")
        index.finish()
        shards = [index.shard(number) for number in range(section.shards)]
    return [Task(shard.number, {}, {"source": shard.digest()}, shard) for shard in shards]


def process(worker: Context, task: Task, _: dict) -> Output:
    section, limits = worker.section, _limits(worker.section)
    images, captions, drops = [], [], []
    seen = {"image": 0, "caption": 0, "sentence": 0}
    with task.payload.open() as rows, Places(Path(section.path), task.payload.spill) as places:
        for lost in rows.lost():
            seen[lost["unit"]] += 1
            drops.append(Drop(lost["unit"], lost["id"], None, "rejected", lost["reason"], lost["detail"]))
        for item in rows.images():
            seen["image"] += 1
            seen["caption"] += len(item["captions"])
            row, drop = _image(item, places, limits)
            if drop:
                drops.append(drop)
                drops += [
                    Drop("caption", c, item["id"], "dropped", f"image_{drop.outcome}", drop.reason)
                    for c, _ in item["captions"]
                ]
                continue
            row["split"] = split_of(item["id"], section.splits)
            images.append(row)
            for identifier, raw in item["captions"]:
                text = clean(raw)
                if drop := _bad_text("caption", identifier, item["id"], text, section.max_caption_words):
                    drops.append(drop)
                else:
                    captions.append({"id": identifier, "image_id": item["id"], "text": text, "split": row["split"]})
        lines = [(row["id"], row["text"]) for row in rows.sentences()]
    seen["sentence"] = len(lines)
    sentences = _sentence_rows(lines, section.max_caption_words, drops)
    return Output({"images": images, "captions": captions, "sentences": sentences}, seen, drops)


def split_of(identifier: str, splits: Any) -> str:
    """train, dev or test, by a hash of the id, so that a grown collection moves no image to another split."""
    point = int.from_bytes(hashlib.sha256(f"split:{identifier}".encode()).digest()[:8], "big") / 2**64
    return "train" if point < splits.train else "dev" if point < splits.train + splits.dev else "test"


def _image(item: dict, places: Places, limits: Limits) -> tuple[dict | None, Drop | None]:
    def lost(outcome: str, reason: str, detail: str) -> tuple[None, Drop]:
        return None, Drop("image", item["id"], item["id"], outcome, reason, detail)

    # A copy of a file that cannot be used cannot be used either: it is no duplicate, and counts as what it is.
    copy = item["reason"] == "duplicate"
    if item["outcome"] and not copy:
        return lost(item["outcome"], item["reason"], item["detail"])
    if item["sha256"] and not item["captions"] and not copy:
        return lost("dropped", "no_caption", item["uri"])
    data, fault = _read(item, places)
    digest = None if data is None else hashlib.sha256(data).hexdigest()
    if digest != item["sha256"]:
        # The shard is stored under the hash of what was there; it must not be made of anything else.
        now = f" (now: {fault[1]})" if fault else ""
        raise InputError(
            f"{item['uri']}: changed while the collection was read{now}; run again when nothing writes to it"
        )
    if fault:
        return lost("rejected", *fault)
    try:
        stored = normalise(data, limits)
    except BadImage as error:
        return lost("rejected", error.reason, f"{item['uri']}: {error.detail}")
    if copy:
        return lost(item["outcome"], item["reason"], item["detail"])
    return {
        "id": item["id"],
        "sha256": digest,
        "bytes": stored.bytes,
        "width": stored.width,
        "height": stored.height,
        "uri": item["uri"],
        "rewritten": stored.rewritten,
        "phash": perceptual_hash(stored.pixels),
    }, None


def _read(item: dict, places: Places) -> tuple[bytes | None, tuple[str, str] | None]:
    """The bytes of an image, or why there are none, as (reason, detail)."""
    if fault := places.fault(item["path"]):
        return None, fault
    try:
        return places.read(item["path"], item["offset"], item["length"]), None
    except OSError as error:
        return None, ("unreadable", f"{item['uri']}: {error.strerror}")


def _limits(section: Any) -> Limits:
    return Limits(section.max_pixels, section.min_side, section.max_aspect)


def _sentences(section: Any) -> Iterator[str | None]:
    files = [section.sentences_path] + ([section.path] if section.source == "sentences" else [])
    return (line for file in dict.fromkeys(files) for _, line in read_lines(Path(file)))


def _sentence_rows(lines: list, max_words: int, drops: list[Drop]) -> list[dict]:
    rows: dict[str, dict] = {}
    for identifier, raw in lines:
        if raw is None:
            drops.append(Drop("sentence", identifier, None, "rejected", "bad_encoding", "the line is not UTF-8"))
            continue
        text = clean(raw)
        if not text:
            drops.append(Drop("sentence", identifier, None, "dropped", "empty"))
        elif drop := _bad_text("sentence", identifier, None, text, max_words):
            drops.append(drop)
        elif identifier in rows:
            drops.append(Drop("sentence", identifier, None, "dropped", "duplicate"))
        else:
            rows[identifier] = {"id": identifier, "text": text}
    return list(rows.values())


def _bad_text(unit: str, identifier: str, image_id: str | None, text: str, max_words: int) -> Drop | None:
    if not text:
        return Drop(unit, identifier, image_id, "rejected", "empty")
    if (words := len(text.split())) > max_words:
        return Drop(unit, identifier, image_id, "dropped", "too_long", f"{words} words, limit {max_words}")
    return None


STAGE = Stage(
    name="ingest",
    version=2,
    reads=(),
    writes=("images", "captions", "sentences"),
    units={"image": ("images", "id"), "caption": ("captions", "id"), "sentence": ("sentences", "id")},
    open=lambda context: context,
    process=process,
    tasks=tasks,
    path_hash=lambda context: lambda task: None,
    libraries=("pillow", "imagehash", "scipy"),
    advice="check ingest.path, ingest.images and the rows in drops/",
)
