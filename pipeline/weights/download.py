"""One file over HTTP: goes on where an earlier try broke off, and never mixes two versions of a file."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

MIRROR = "MCSEO_WEIGHTS_MIRROR"
_CONNECT_S = 10.0
_READ_S = 60.0
_PAUSE_S = 1.0
_TRIES = 5
_PASSING = (408, 425, 429, 500, 502, 503, 504)

# Called with (bytes here, bytes in all or None) as they come.
Progress = Callable[[int, int | None], None]


class Failed(Exception):
    """A location does not give the file; the message says why."""


class _Again(Exception):
    """This try did not end well, the next may."""


@dataclass
class _Part:
    """The bytes that are here, with what is known of the version they belong to: {"url", "validator"}."""

    path: Path

    @property
    def note(self) -> Path:
        return self.path.with_name(f"{self.path.name}.from.json")

    def length(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def drop(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def begin(self, url: str, validator: str | None) -> None:
        self.drop()
        self.note.write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")

    def version(self, url: str) -> tuple[bool, str | None]:
        """(whether what is here came from this address, what tells its version)."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
            return note["url"] == url, note["validator"]
        except (OSError, ValueError, KeyError, TypeError):
            return False, None


def locations(name: str, file: str, urls: tuple[str, ...]) -> tuple[str, ...]:
    """Where to look: the mirror alone if MCSEO_WEIGHTS_MIRROR names one (MIRROR/NAME/FILE), else the public places."""
    mirror = os.environ.get(MIRROR, "").strip().rstrip("/")
    return (f"{mirror}/{name}/{file}",) if mirror else urls


def fetch(url: str, path: Path, size: int | None, hashed: bool, progress: Progress) -> bool:
    """Brings the file of `url` to `path`, going on with what is there of it.

    Returns whether it is pieced together (else one answer gave the whole file).

    `size` is how long it must be, if known. `hashed` says that the caller knows its sha256: only then, or where the
    server names the version (ETag, Last-Modified), is a part gone on with.

    Raises:
        Failed: this location does not give it. What came so far stays for the next time.
    """
    part = _Part(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    most, tries = part.length(), 0
    timeout = httpx.Timeout(_READ_S, connect=_CONNECT_S)
    headers = {"Accept-Encoding": "identity", "User-Agent": "mcseo"}
    with httpx.Client(follow_redirects=True, timeout=timeout, headers=headers) as client:
        while True:
            try:
                return _try(client, url, part, size, hashed, progress)
            except (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.TooManyRedirects) as error:
                raise Failed(str(error)) from None
            except (_Again, httpx.TransportError) as error:
                tries = 0 if part.length() > most else tries + 1
                most = max(most, part.length())
                unreachable = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError)
                if tries >= (2 if unreachable else _TRIES):
                    said = str(error) or type(error).__name__
                    raise Failed(said) from None
                time.sleep(_PAUSE_S * 2 ** max(tries - 1, 0))


def forget(path: Path) -> None:
    """Removes what came of a file, and the note of where from."""
    _Part(path).drop()


def _try(client: httpx.Client, url: str, part: _Part, size: int | None, hashed: bool, progress: Progress) -> bool:
    """One request. Returns whether it went on with a part."""
    ours, validator = part.version(url)
    begun = part.length() if ours and (validator or hashed) else 0
    if size is not None and begun == size:
        return True
    if size is not None and begun > size:
        begun = 0
    headers = {"Range": f"bytes={begun}-"} if begun else {}
    if begun and validator:
        headers["If-Range"] = validator
    with client.stream("GET", url, headers=headers) as answer:
        goes_on = _goes_on(answer, begun, part)
        total = _total(answer, begun if goes_on else 0, size)
        if not goes_on:
            part.begin(url, _validator(answer))
        _write(answer, part, begun if goes_on else 0, total, progress)
    if total is not None and part.length() < total:
        raise _Again(f"broke off at {part.length():,} of {total:,} bytes")
    return goes_on


def _goes_on(answer: httpx.Response, begun: int, part: _Part) -> bool:
    """Whether the answer is the rest of the part (else it is the whole file)."""
    status = answer.status_code
    if status == 206 and begun and answer.headers.get("Content-Range", "").startswith(f"bytes {begun}-"):
        return True
    if status == 200:
        return False
    if status in (206, 416):
        part.drop()
        raise _Again("the server does not give the rest of a file")
    if status in _PASSING:
        raise _Again(f"HTTP {status} {answer.reason_phrase}")
    raise Failed(f"HTTP {status} {answer.reason_phrase}")


def _total(answer: httpx.Response, begun: int, size: int | None) -> int | None:
    """The length of the whole file; refuses what cannot be it before it is fetched."""
    if answer.headers.get("Content-Type", "").startswith("text/html"):
        raise Failed("answers with a web page in place of the file")
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        raise Failed("sends the file compressed, though asked not to")
    stated = answer.headers.get("Content-Length", "")
    total = begun + int(stated) if stated.isdigit() else size
    if size is not None and total != size:
        raise Failed(f"offers {total:,} bytes, but the file has {size:,}")
    return total


def _validator(answer: httpx.Response) -> str | None:
    """What tells this version of the file from another: a strong ETag, else the date of its last change."""
    tag = answer.headers.get("ETag", "")
    return tag if tag.startswith('"') else answer.headers.get("Last-Modified")


def _write(answer: httpx.Response, part: _Part, begun: int, total: int | None, progress: Progress) -> None:
    done = begun
    with part.path.open("ab" if begun else "wb") as handle:
        try:
            # As the bytes come: pieces of a set size would be held back, and lost when the connection breaks.
            for chunk in answer.iter_raw():
                handle.write(chunk)
                done += len(chunk)
                if total is not None and done > total:
                    raise Failed(f"sends more than the {total:,} bytes of the file")
                progress(done, total)
        finally:
            handle.flush()
            os.fsync(handle.fileno())
