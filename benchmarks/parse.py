"""parse: the stage's batched Stanza against a loop that parses caption by caption, on the demo world's captions.

Floor: Stanza as it comes over all captions as one document, nothing kept apart and no phrases made; ours may be above
it, for it spares most sentences the search for the best tree (`stages.parse.heads`). One thread, whatever
OMP_NUM_THREADS says; rates are of processor time, the best of a few rounds, so that other work on the machine shows
little.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.machine import machine
from pipeline import params
from stages.parse.phrases import noun_phrases
from stages.parse.stanza_parser import StanzaParser

CAPTIONS, LOOP, ROUNDS = 600, 60, 3


def main() -> None:
    world = json.loads(Path("demo/world/annotations/captions_world.json").read_text(encoding="utf-8"))
    captions = list(dict.fromkeys(a["caption"] for a in world["annotations"]))[:CAPTIONS]
    settings = params.load(Path("params.yaml"))
    parser = StanzaParser(settings.parse, "cpu", 1, settings.runtime.batch_rows)
    parser.parse(captions[:20])

    def one_by_one() -> None:
        for caption in captions[:LOOP]:
            noun_phrases(caption, [s.words for s in parser.pipeline(caption).sentences], parser.options)

    # In turns, so that a machine that is busy for a while is so for all of them.
    works = (one_by_one, lambda: parser.parse(captions), lambda: parser.pipeline("\n\n".join(captions)))
    taken = [[_seconds(work) for work in works] for _ in range(ROUNDS)]
    seconds = [min(each) for each in zip(*taken, strict=True)]
    loop, ours, floor = LOOP / seconds[0], CAPTIONS / seconds[1], CAPTIONS / seconds[2]
    print(machine())
    print(f"caption by caption {loop:8.1f} captions/s")
    print(f"ours, batched      {ours:8.1f} captions/s   {ours / loop:.1f}x")
    print(f"floor, Stanza only {floor:8.1f} captions/s   ours is at {ours / floor:.0%} of it")


def _seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    main()
