"""Collections of images and captions, read into one shape: entries with captions, and the records that could not be
read.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.ledger import Drop

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}


@dataclass
class Entry:
    """An image file (`uri`, relative to the collection's folder) with its captions as (id, text)."""

    id: str
    uri: str
    captions: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Collection:
    """What a source holds. `lost` are records that belong to no image: each counts as seen and rejected."""

    entries: dict[str, Entry] = field(default_factory=dict)
    lost: list[Drop] = field(default_factory=list)

    def reject(self, unit: str, identifier: str, reason: str, detail: str) -> None:
        self.lost.append(Drop(unit, identifier, None, "rejected", reason, detail))


def read_folder(section: Any) -> Collection:
    """Source `folder`: images anywhere under `path`, and a captions file with the columns (or keys) image and caption.

    CSV needs a header line; JSONL holds one object a line with `image` and `caption` or a list `captions`. An
    optional `id` names a caption. Image names are looked up in `path` itself and then in the folders of `images`.

    Raises:
        InputError: the captions file is missing, or has not these columns.
    """
    root = Path(section.path)
    collection = Collection()
    for file in _matching(root, section.captions, "captions"):
        read = _csv_rows if file.suffix.lower() in (".csv", ".tsv") else _jsonl_rows
        for line, row in read(file, collection):
            _take_row(collection, root, section.images, file, line, row)
    for folder in section.images:
        for image in sorted((root / folder).rglob("*")):
            uri = image.relative_to(root).as_posix()
            if image.suffix.lower() in IMAGE_SUFFIXES and uri not in collection.entries:
                collection.entries[uri] = Entry(uri, uri)
    return collection


def read_coco(section: Any) -> Collection:
    """Source `coco`: COCO captions JSON files (`captions`, a name or glob under `path`) and folders of images.

    The image id is COCO's, as a string; a caption's id is `<image id>#<annotation id>`, since subsets are often
    renumbered a file.

    Raises:
        InputError: a file is missing or is not COCO captions JSON.
    """
    root = Path(section.path)
    collection = Collection()
    for file in _matching(root, section.captions, "captions"):
        document = read_json(file)
        try:
            images = [(str(image["id"]), str(image["file_name"])) for image in document["images"]]
            captions = [
                (str(a["image_id"]), f"{a['image_id']}#{a['id']}", a["caption"]) for a in document["annotations"]
            ]
        except (KeyError, TypeError) as error:
            raise InputError(
                f"{file}: not COCO captions JSON (missing {error}); `images` need id and file_name, "
                "`annotations` image_id, id and caption"
            ) from None
        for identifier, name in images:
            uri = locate(root, section.images, name)
            if identifier in collection.entries:
                collection.reject(
                    "image", identifier, "duplicate_id", f"{uri} and {collection.entries[identifier].uri}"
                )
            else:
                collection.entries[identifier] = Entry(identifier, uri)
        for image_id, identifier, text in captions:
            _add_caption(collection, image_id, identifier, text)
    return collection


def read_json(file: Path) -> Any:
    """A JSON document; raises InputError with the line where it breaks."""
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise InputError(f"{file}: line {error.lineno}: not valid JSON ({error.msg})") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read ({error})") from None


def read_lines(file: Path) -> Iterator[tuple[int, str | None]]:
    """Lines of a text file with their numbers; a line that is not UTF-8 comes as None. CRLF and a BOM are taken off."""
    try:
        with file.open("rb") as handle:
            for number, raw in enumerate(handle, 1):
                try:
                    yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                except UnicodeDecodeError:
                    yield number, None
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None


def locate(root: Path, folders: list[str], name: str) -> str:
    """The uri of an image file: its name under the first folder that has it, else as given (to be reported missing)."""
    if name.startswith(("/", "\\")):
        return name
    for folder in ("", *folders):
        uri = f"{folder}/{name}" if folder else name
        if (root / uri).is_file():
            return uri
    return f"{folders[0]}/{name}" if folders else name


def _matching(root: Path, pattern: str, what: str) -> list[Path]:
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; set ingest.path to the collection's folder")
    found = sorted(root.glob(pattern)) if not Path(pattern).is_absolute() else []
    if not found:
        raise InputError(
            f"{root}: no {what} file matches {pattern!r}; set ingest.{what} to its name or glob inside this folder"
        )
    return found


def _csv_rows(file: Path, collection: Collection) -> Iterator[tuple[int, dict]]:
    def text() -> Iterator[str]:
        for number, line in read_lines(file):
            if line is None:
                collection.reject("caption", f"{file.name}:{number}", "bad_encoding", "the line is not UTF-8")
            else:
                yield line.replace("\0", " ") + "\n"

    rows = csv.DictReader(text(), delimiter="\t" if file.suffix.lower() == ".tsv" else ",")
    if not {"image", "caption"} <= set(rows.fieldnames or ()):
        raise InputError(f"{file}: line 1: the header must name the columns image and caption, not {rows.fieldnames}")
    while True:
        try:
            yield rows.line_num + 1, next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            collection.reject("caption", f"{file.name}:{rows.line_num}", "bad_record", str(error))


def _jsonl_rows(file: Path, collection: Collection) -> Iterator[tuple[int, dict]]:
    for number, line in read_lines(file):
        name = f"{file.name}:{number}"
        if line is None:
            collection.reject("caption", name, "bad_encoding", "the line is not UTF-8")
        elif line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                collection.reject("caption", name, "bad_record", f"not JSON: {error}")
                continue
            if isinstance(row, dict) and "image" in row and ("caption" in row or "captions" in row):
                yield number, row
            else:
                collection.reject("caption", name, "bad_record", "needs the keys image and caption (or captions)")


def _take_row(collection: Collection, root: Path, folders: list[str], file: Path, line: int, row: dict) -> None:
    name, several = row.get("image"), row.get("captions")
    texts = several if isinstance(several, list) else [row.get("caption")]
    if not isinstance(name, str) or not name.strip():
        for text in texts:
            collection.reject(
                "caption", f"{file.name}:{line}", "bad_record", f"no image name beside {str(text)[:60]!r}"
            )
        return
    uri = locate(root, folders, name.strip())
    entry = collection.entries.setdefault(uri, Entry(uri, uri))
    for text in texts:
        given = row.get("id")
        identifier = str(given) if given not in (None, "") else f"{uri}#{len(entry.captions)}"
        _add_caption(collection, uri, identifier, text)


def _add_caption(collection: Collection, image_id: str, identifier: str, text: Any) -> None:
    entry = collection.entries.get(image_id)
    if entry is None:
        collection.reject(
            "caption", identifier, "unknown_image", f"names image {image_id}, which the collection does not list"
        )
    elif not isinstance(text, str):
        collection.reject("caption", identifier, "bad_record", f"the caption is {type(text).__name__}, not text")
    else:
        entry.captions.append((identifier, text))
