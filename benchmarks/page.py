"""The page: size, time to build and time to open with 10,000 pairs of 4,000 photos, in headless Chromium.

Aim: at most 3 s from the start of navigation until the gallery stands and can be filtered. Floor: an empty page, which
is what the browser itself takes.

    python -m benchmarks.page [--pairs 10000] [--images 4000]
"""

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from benchmarks.browser import BROWSERS, PROGRAM, QUIET
from benchmarks.machine import machine
from benchmarks.made_collection import make
from stages.report.stage import build

AIM, RUNS = 3.0, 3
# When the gallery's form is there, its first cards have been laid out and painted.
WATCH = """
const look = () => {
  const form = document.querySelector("form.filter");
  const stands = form ? !form.hidden : document.readyState === "complete";
  requestAnimationFrame(stands ? () => { window.stoodAt = performance.now(); } : look);
};
look();
"""
CHANGE = """
async ([name, value]) => {
  const field = document.querySelector("form.filter").elements.namedItem(name);
  const start = performance.now();
  field.value = value;
  field.dispatchEvent(new Event("input", { bubbles: true }));
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  return [performance.now() - start, document.querySelector(".shown").textContent];
}
"""
CHANGES = (("words", "kite"), ("score", "0.8"), ("rows", "both"), ("order", "phrase"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page")
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--images", type=int, default=4_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # In a process of its own, so that its memory is not counted.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            params, places = pool.submit(make, Path(folder) / "made", args.images, args.pairs).result()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started, busy = time.perf_counter(), time.process_time()
        page = build(params, places)
        built, busy = time.perf_counter() - started, time.process_time() - busy
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        places.out.write_text(page, encoding="utf-8")
        empty = Path(folder) / "empty.html"
        empty.write_text("<!doctype html><title>empty</title><p>nothing")
        print(machine())
        print(f"{args.pairs:,} pairs of {args.images:,} photos: page of {len(page.encode()) / 1e6:.1f} MB")
        memory = f"peak memory {after / 1024:.0f} MB ({before / 1024:.0f} MB before)"
        print(f"built in {built:.1f} s, {busy:.1f} s of them computing; {memory}")
        del page
        _browse(places.out, empty)


def _browse(full: Path, empty: Path) -> None:
    if not PROGRAM:
        raise SystemExit(f"no browser: none of {', '.join(BROWSERS)} is on the path")
    with sync_playwright() as playwright:
        times: dict[Path, list[float]] = {empty: [], full: []}
        for _ in range(RUNS):
            for path, found in times.items():
                browser = playwright.chromium.launch(executable_path=PROGRAM, args=QUIET)
                found.append(_stood(browser.new_page(), path))
                browser.close()
        floor, load = (statistics.median(times[path]) for path in (empty, full))
        told = "within" if load <= AIM else "MISSES"
        each = ", ".join(f"{value:.2f}" for value in times[full])
        print(f"load {load:.2f} s (median of {each}); {told} the aim of {AIM:g} s; floor, an empty page {floor:.2f} s")
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=QUIET)
        page = browser.new_page()
        _stood(page, full)
        for name, value in CHANGES:
            spent, shown = page.evaluate(CHANGE, [name, value])
            print(f"filter {name} = {value}: {spent:.0f} ms, two frames included ({shown})")
        browser.close()


def _stood(page: Page, path: Path) -> float:
    """Seconds from the start of navigation until the page stands."""
    page.add_init_script(WATCH)
    page.goto(path.as_uri())
    while not (stood := page.evaluate("window.stoodAt")):
        page.wait_for_timeout(20)
    return stood / 1000


if __name__ == "__main__":
    main()
