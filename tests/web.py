"""A server on loopback that gives files, rightly or in the ways that servers go wrong."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = b"<!DOCTYPE html>\n<html><body>Please sign in to the network</body></html>\n"


@dataclass
class Served:
    """A file at an address: its bytes and ETag; `script` is what the next requests meet, one each, then all is well."""

    data: bytes
    tag: str | None = '"1"'
    script: list[Callable[["_Handler", "Served"], None]] = field(default_factory=list)


class Site(ThreadingHTTPServer):
    """`files` by path; `asked` holds (path, Range, If-Range) of every request, `sent` the bytes of all bodies."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, Served] = {}
        self.asked: list[tuple[str, str | None, str | None]] = []
        self.sent = 0
        self.stopped = threading.Event()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def put(self, path: str, data: bytes, *script: Callable, tag: str | None = '"1"') -> str:
        self.files[path] = Served(data, tag, list(script))
        return self.url + path

    def close(self) -> None:
        self.stopped.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: object) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Site

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
        served = self.server.files.get(self.path)
        if served is None:
            answer(404, PAGE, "text/html")(self, None)
        else:
            (served.script.pop(0) if served.script else whole())(self, served)

    def log_message(self, *_: object) -> None:
        pass


def whole(
    cut: int | None = None, ranges: bool = True, pause: float = 0.0, piece: int = 1 << 16, stall: bool = False
) -> Callable[[_Handler, Served], None]:
    """The file, or the rest that was asked for; `cut`: breaks off after so many bytes (`stall`: falls silent);
    `ranges` off: always all of it; `pause`: seconds between pieces.
    """

    def send(handler: _Handler, served: Served) -> None:
        begun = 0
        wanted, version = handler.headers.get("Range"), handler.headers.get("If-Range")
        if ranges and wanted and version in (None, served.tag):
            begun = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if begun and begun >= len(served.data):
            return answer(416, b"")(handler, served)
        handler.send_response(206 if begun else 200)
        if begun:
            handler.send_header("Content-Range", f"bytes {begun}-{len(served.data) - 1}/{len(served.data)}")
        if served.tag:
            handler.send_header("ETag", served.tag)
        handler.send_header("Content-Type", "application/octet-stream")
        handler.send_header("Content-Length", str(len(served.data) - begun))
        handler.end_headers()
        body = served.data[begun:][:cut]
        for at in range(0, len(body), piece):
            handler.wfile.write(body[at : at + piece])
            handler.server.sent += len(body[at : at + piece])
            handler.wfile.flush()
            if pause:
                time.sleep(pause)
        if stall:
            handler.server.stopped.wait(10)
        handler.close_connection = cut is not None

    return send


def answer(status: int, body: bytes, kind: str = "application/octet-stream") -> Callable[[_Handler, Served], None]:
    """A fixed answer."""

    def send(handler: _Handler, _: Served | None) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return send


def unsized(body: bytes) -> Callable[[_Handler, Served], None]:
    """A body of no stated length, ended by closing the connection."""

    def send(handler: _Handler, _: Served) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(body)
        handler.close_connection = True

    return send
