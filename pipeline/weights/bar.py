"""What a person sees of a download: a bar on a terminal, a line now and then in a log."""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from pipeline.errors import tell

_LINE_EVERY_S = 10.0
_MB = 1e6


class Bar:
    """Called with (bytes here, bytes in all or None) as they come."""

    def __init__(self, what: str, total: int | None):
        self.what, self.told, self.first = what, time.monotonic(), None
        self.bar = None
        if sys.stderr.isatty():
            columns = (TextColumn("[bold]{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
                       TimeRemainingColumn())  # fmt: skip
            self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self.task = self.bar.add_task(what, total=total)

    def __enter__(self) -> "Bar":
        if self.bar:
            self.bar.start()
        else:
            tell(f"{self.what}: downloading")
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def __call__(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if self.first is None:
            self.first = (now, done)
        if self.bar:
            self.bar.update(self.task, completed=done, total=total)
        elif now - self.told >= _LINE_EVERY_S:
            self.told = now
            rate = (done - self.first[1]) / max(now - self.first[0], 1e-9)
            of = f" of {total / _MB:,.0f}" if total else ""
            left = f", {(total - done) / rate:,.0f} s left" if total and rate else ""
            tell(f"{self.what}: {done / _MB:,.0f}{of} MB, {rate / _MB:,.1f} MB/s{left}")
