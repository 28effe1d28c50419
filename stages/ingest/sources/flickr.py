"""Source `flickr`: the text files that Flickr8k, Flickr30k and Multi30k come as, beside a folder of images."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from stages.ingest.records import Caption, Image, Lost, Record
from stages.ingest.sources.files import folders, locate, matching, read_lines

_HEADER = "image_name"
# One caption of Flickr8k is given to `x.jpg.1#0`, the other four to `x.jpg#1` ... `#4`: the same image.
_ODD_NAME = re.compile(r"(\.jpe?g)\.\d+$", re.IGNORECASE)


def read(section: Any) -> Iterator[Record]:
    """Images and captions of the text files that match `captions` (plain or .gz), in one of three forms:

    - token file: `name.jpg#0<TAB>caption` a line (Flickr8k.token.txt, results_20130124.token);
    - bar file: the header `image_name| comment_number| comment`, then such lines (results.csv of Flickr30k);
    - parallel lines, if `lists` is set: a caption a line, line i for the image that line i of a list names. A list
      belongs to the captions files whose names begin alike: `train_images.txt` (or `train.txt`) to `train.1.en.gz` ...
      `train.5.en.gz`.

    The image id is the image's name as it is written there, a caption's `<name>#<number>`; images are looked up in
    the folders of `images`. Official splits are not read: splits come from a hash of the id.

    Raises:
        InputError: a file is missing or of no such form, or a list and a captions file differ in length.
    """
    root, among = Path(section.path), folders(section)
    if section.lists is not None:
        lists = {_stem(file).removesuffix("_images"): file for file in matching(root, section.lists, "lists")}
    for file in matching(root, section.captions, "captions"):
        if section.lists is None:
            found = _numbered(file)
        elif (names := lists.get(_stem(file))) is not None:
            found = _parallel(names, file)
        else:
            raise InputError(
                f"{file}: no list of image names belongs to it; of ingest.lists ({section.lists}) one must be named "
                f"{_stem(file)}_images.txt or {_stem(file)}.txt"
            )
        last = None
        for record in found:
            if isinstance(record, Caption) and record.image_id != last:
                last = record.image_id
                yield Image(last, locate(root, among, last), mention=True)
            yield record


def _numbered(file: Path) -> Iterator[Caption | Lost]:
    """The captions of a token or bar file."""
    lines = read_lines(file)
    head = []
    for number, line in lines:
        head.append((number, line))
        if line is not None and line.strip():
            break
    number, first = head[-1] if head else (1, None)
    bars = (first or "").startswith(_HEADER)
    if first is not None and not bars and _split(first, bars) is None:
        raise InputError(
            f"{file}: line {number}: neither `name#number<TAB>caption` nor the header `image_name| comment_number| "
            "comment`; for bare lines of captions set ingest.lists, for other CSV files ingest.source: folder"
        )
    form = "name| number| caption" if bars else "name#number<TAB>caption"
    for number, line in itertools.chain(head[:-1] if bars else head, lines):
        if line is None:
            yield Lost("caption", f"{file.name}:{number}", "bad_encoding", "the line is not UTF-8")
        elif parts := _split(line, bars):
            name = _ODD_NAME.sub(r"\1", parts[0])
            yield Caption(name, f"{name}#{parts[1]}", parts[2])
        elif line.strip():
            yield Lost("caption", f"{file.name}:{number}", "bad_record", f"not `{form}`: {line[:60]!r}")


def _split(line: str | None, bars: bool) -> tuple[str, str, str] | None:
    """(image name, caption number, caption) of a line, or None if it is of another form."""
    if bars:
        parts = [part.strip() for part in (line or "").split("|", 2)]
    else:
        head, tab, text = (line or "").partition("\t")
        parts = [*(part.strip() for part in head.rsplit("#", 1)), text] if tab else []
    return tuple(parts) if len(parts) == 3 and parts[0] and parts[1].isdecimal() else None


def _parallel(names: Path, file: Path) -> Iterator[Caption | Lost]:
    """The captions of a file whose line i belongs to line i of a list of image names; blank lines at an end are cut."""
    for named, captioned in itertools.zip_longest(read_lines(names), read_lines(file)):
        if named is None or captioned is None:
            number, line = named or captioned
            if line is not None and not line.strip():
                continue
            longer, shorter = (file, names) if named is None else (names, file)
            raise InputError(
                f"{longer}: line {number} has no counterpart in {shorter}, which ends before it; line i of one belongs "
                "to line i of the other, so both must be equally long"
            )
        (number, name), (_, text) = named, captioned
        place = f"{file.name}:{number}"
        if name is None or text is None:
            what = names if name is None else file
            yield Lost("caption", place, "bad_encoding", f"line {number} of {what.name} is not UTF-8")
        elif name.strip():
            yield Caption(name.strip(), None, text)
        elif text.strip():
            yield Lost("caption", place, "bad_record", f"line {number} of {names.name} names no image")


def _stem(file: Path) -> str:
    return file.name.split(".")[0]
