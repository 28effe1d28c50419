"""ingest: a collection becomes `images`, `captions` and `sentences`.

In: a source (ingest.source). Out: one row an image that decodes, one a caption of such an image, one a sentence of
the text-only stream. Done to a row: its path is checked to stay inside the collection, its file hashed and decoded,
its pixels rewritten as plain RGB where they are anything else; byte-equal images become one; splits and shards come
from a hash of the id.
"""

import hashlib
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.files import sha256_file, sha256_json
from pipeline.ledger import Drop
from pipeline.runner import Context, Output, Stage, Task
from pipeline.shards import shard_of
from stages.common.images import BadImage, Limits, normalise
from stages.common.text import clean
from stages.ingest.sources import Collection, Entry, read_coco, read_folder, read_lines

READERS = {"folder": read_folder, "coco": read_coco}


def tasks(context: Context) -> list[Task]:
    """Reads the source, hashes every image file, and cuts entries and sentences into shards."""
    section = context.section
    root = Path(section.path)
    collection = READERS[section.source](section) if section.source in READERS else Collection()
    hashes = {key: _file_hash(root, entry.uri) for key, entry in collection.entries.items()}
    kept_of = _keepers(hashes) if section.deduplicate else {}
    _reject_repeated_ids(collection)

    shards: list[dict[str, list]] = [{"images": [], "lost": [], "sentences": []} for _ in range(section.shards)]
    captions: dict[str, list] = defaultdict(list)
    for key, entry in collection.entries.items():
        captions[kept_of.get(key, key)] += entry.captions
    for key, entry in sorted(collection.entries.items()):
        item = {"id": key, "uri": entry.uri, "sha256": hashes[key], "duplicate_of": kept_of.get(key)}
        shards[shard_of(key, section.shards)]["images"].append({**item, "captions": captions[key]})
    for drop in collection.lost:
        shards[shard_of(drop.id, section.shards)]["lost"].append(asdict(drop))
    for text in _sentences(section):
        identifier = hashlib.sha256((text or "").encode()).hexdigest()[:16]
        shards[shard_of(identifier, section.shards)]["sentences"].append((identifier, text))
    if not any(any(shard.values()) for shard in shards):
        raise InputError(
            f"{section.path}: the collection is empty: no image, no caption, no sentence; check ingest.path and "
            "ingest.source"
        )
    return [Task(number, {}, {"source": sha256_json(shard)}, shard) for number, shard in enumerate(shards)]


def process(worker: Context, task: Task, _: dict) -> Output:
    section = worker.section
    root = Path(section.path)
    limits = Limits(section.max_pixels, section.min_side, section.max_aspect)
    images, captions, drops = [], [], [Drop(**lost) for lost in task.payload["lost"]]
    seen = {"image": len(task.payload["images"]), "caption": 0, "sentence": len(task.payload["sentences"])}
    for drop in drops:
        seen[drop.unit] += 1
    for item in task.payload["images"]:
        seen["caption"] += len(item["captions"])
        row, drop = _image(item, root, limits)
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
    sentences = _sentence_rows(task.payload["sentences"], section.max_caption_words, drops)
    return Output({"images": images, "captions": captions, "sentences": sentences}, seen, drops)


def split_of(identifier: str, splits: Any) -> str:
    """train, dev or test, by a hash of the id, so that a grown collection moves no image to another split."""
    point = int.from_bytes(hashlib.sha256(f"split:{identifier}".encode()).digest()[:8], "big") / 2**64
    return "train" if point < splits.train else "dev" if point < splits.train + splits.dev else "test"


def _image(item: dict, root: Path, limits: Limits) -> tuple[dict | None, Drop | None]:
    def lost(outcome: str, reason: str, detail: str) -> tuple[None, Drop]:
        return None, Drop("image", item["id"], item["id"], outcome, reason, detail)

    if item["duplicate_of"]:
        return lost("dropped", "duplicate", f"byte-equal to {item['duplicate_of']}, which keeps its captions")
    if fault := path_fault(root, item["uri"]):
        return lost("rejected", *fault)
    if not item["captions"]:
        return lost("dropped", "no_caption", item["uri"])
    try:
        data = (root / item["uri"]).read_bytes()
        stored = normalise(data, limits)
    except OSError as error:
        return lost("rejected", "unreadable", f"{item['uri']}: {error.strerror}")
    except BadImage as error:
        return lost("rejected", error.reason, f"{item['uri']}: {error.detail}")
    return {
        "id": item["id"],
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": stored.bytes,
        "width": stored.width,
        "height": stored.height,
        "uri": item["uri"],
        "rewritten": stored.rewritten,
    }, None


def path_fault(root: Path, uri: str) -> tuple[str, str] | None:
    """Why a path from a manifest must not be opened, as (reason, detail), or None."""
    parts = uri.replace("\\", "/").split("/")
    if any(ord(c) < 32 for c in uri) or uri.startswith(("/", "\\")) or ".." in parts or uri[1:2] == ":":
        return "outside_root", f"{uri!r}: absolute, with '..', or with control characters"
    path = root / uri
    try:
        if not path.exists():
            return "missing_file", f"{uri}: no such file"
        if not path.resolve().is_relative_to(root.resolve()):
            return "outside_root", f"{uri}: a link that leaves the collection's folder"
    except OSError as error:
        return "unreadable", f"{uri}: {error.strerror}"
    return None


def _file_hash(root: Path, uri: str) -> str | None:
    if path_fault(root, uri):
        return None
    try:
        return sha256_file(root / uri)
    except OSError:
        return None


def _keepers(hashes: dict[str, str | None]) -> dict[str, str]:
    """For every image that is not the smallest id of its content: the id that stays."""
    first: dict[str, str] = {}
    for key in sorted(hashes):
        if hashes[key]:
            first.setdefault(hashes[key], key)
    return {key: first[digest] for key, digest in hashes.items() if digest and first[digest] != key}


def _reject_repeated_ids(collection: Collection) -> None:
    owner: dict[str, tuple[Entry, str]] = {}
    for entry in collection.entries.values():
        kept = []
        for identifier, text in entry.captions:
            if identifier in owner:
                other, words = owner[identifier]
                detail = f"{text[:60]!r} of {entry.id} has the id of {words[:60]!r} of {other.id}"
                collection.reject("caption", identifier, "duplicate_id", detail)
            else:
                owner[identifier] = (entry, text)
                kept.append((identifier, text))
        entry.captions = kept


def _sentences(section: Any) -> list[str | None]:
    files = [section.sentences_path] + ([section.path] if section.source == "sentences" else [])
    return [line for file in dict.fromkeys(files) for _, line in read_lines(Path(file))]


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
    version=1,
    reads=(),
    writes=("images", "captions", "sentences"),
    units={"image": ("images", "id"), "caption": ("captions", "id"), "sentence": ("sentences", "id")},
    open=lambda context: context,
    process=process,
    tasks=tasks,
    path_hash=lambda context: lambda task: None,
    libraries=("pillow",),
    advice="check ingest.path, ingest.images and the rows in drops/",
)
