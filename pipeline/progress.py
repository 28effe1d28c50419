"""What a person sees of a running stage: a bar on a terminal, a line now and then in a log, and one clear last line."""

import sys
import time
from collections import Counter
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from pipeline.errors import tell
from pipeline.ledger import plural

_LINE_EVERY_S = 5.0
_SUMMED = ("images", "busy_s", "wall_s", "flop", "able_flop")


class Progress:
    """Progress over shards with the rate in units a second and the time left."""

    def __init__(self, name: str, shards: int, done: int):
        self.name, self.shards, self.done, self.units = name, shards, done, 0
        self.first = done
        self.started = self.told = time.monotonic()
        self.bar = None
        if sys.stderr.isatty():
            from rich.console import Console

            self.bar = Bar(
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self.task = self.bar.add_task(name, total=shards, completed=done, rate="")

    def __enter__(self) -> "Progress":
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def advance(self, units: int) -> None:
        """One shard more, with so many units in it."""
        self.done += 1
        self.units += units
        now = time.monotonic()
        rate = self.units / max(now - self.started, 1e-9)
        if self.bar:
            self.bar.update(self.task, completed=self.done, rate=f"{rate:,.0f}/s")
        elif now - self.told >= _LINE_EVERY_S:
            self.told = now
            left = (self.shards - self.done) * (now - self.started) / max(self.done - self.first, 1)
            tell(f"{self.name}: {self.done}/{self.shards} shards, {_rate(rate)} units/s, {left:,.0f} s left")

    def close(
        self, ledger: dict[str, dict], kept: int, computed: int, seconds: float, out: Path, speeds: list[dict]
    ) -> None:
        """The last lines: what came in, what came out, why the rest did not, how fast (`speeds`: of every shard that
        a model computed), and where it is.
        """
        for unit, counts in ledger.items():
            tell(f"{self.name}: {_flow(unit, counts)}")
        rate = f", {_rate(self.units / max(seconds, 1e-9))} units/s" if computed else ""
        model = f"; {speed_told(speeds)}" if speeds else ""
        tell(
            f"{self.name}: {computed} shards computed, {kept} from the scratch store, {seconds:.1f} s{rate}{model} "
            f"-> {out}"
        )


def speed_told(speeds: list[dict]) -> str:
    """The meters of all shards and workers together, as text.

    Workers run side by side: what they counted adds up, the time they took does not. MFU is the share of what the
    devices' own matrix products could have done in that time; warm-up is in no other figure.
    """
    sums = {name: sum(speed[name] for speed in speeds) for name in _SUMMED}
    warm_up: Counter = Counter()
    for speed in speeds:
        warm_up[speed["worker"]] += speed["warm_up_s"]
    wall = max(sums["wall_s"], 1e-9)
    parts = [f"{_rate(sums['images'] * len(warm_up) / wall)} {speeds[0]['what']}/s"]
    parts.append(f"device busy {100 * sums['busy_s'] / wall:.0f} %")
    if sums["able_flop"]:
        parts.append(f"MFU {100 * sums['flop'] / sums['able_flop']:.0f} %")
    parts.append(f"peak memory {max(speed['peak_bytes'] for speed in speeds) / (1 << 30):.1f} GiB")
    if len(warm_up) > 1:
        parts[-1] += f" on each of {len(warm_up)} devices"
    parts.append(f"warm-up {max(warm_up.values()):.1f} s")
    return ", ".join(parts)


def _rate(value: float) -> str:
    """Things a second; slow ones with the digits that tell them from none."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 or not value else f"{value:.2g}"


def _flow(unit: str, counts: dict) -> str:
    parts = [f"{counts['in']:,} {plural(unit)} in = {counts['out']:,} through"]
    for outcome in ("dropped", "rejected"):
        if reasons := counts[outcome]:
            listed = ", ".join(
                f"{reason} {number:,}" for reason, number in sorted(reasons.items(), key=lambda r: (-r[1], r[0]))
            )
            parts.append(f"{sum(reasons.values()):,} {outcome} ({listed})")
    return " + ".join(parts)
