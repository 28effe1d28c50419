"""parse: the stage's batched Stanza against a loop that parses caption by caption, on the demo world's captions.

Floor: the same parser over all captions as one document, nothing kept apart and no phrases made.
"""

import json
import time
from pathlib import Path

from benchmarks.machine import machine
from pipeline import params
from stages.parse.phrases import noun_phrases
from stages.parse.stanza_parser import StanzaParser

CAPTIONS, LOOP = 600, 60


def main() -> None:
    world = json.loads(Path("demo/world/annotations/captions_world.json").read_text(encoding="utf-8"))
    captions = list(dict.fromkeys(a["caption"] for a in world["annotations"]))[:CAPTIONS]
    settings = params.load(Path("params.yaml"))
    parser = StanzaParser(settings.parse, "cpu", settings.runtime.threads, settings.runtime.batch_rows)
    parser.parse(captions[:20])

    started = time.perf_counter()
    for caption in captions[:LOOP]:
        sentences = [s.words for s in parser.pipeline(caption).sentences]
        noun_phrases(caption, sentences, parser.options)
    loop = LOOP / (time.perf_counter() - started)

    started = time.perf_counter()
    parser.parse(captions)
    ours = len(captions) / (time.perf_counter() - started)

    started = time.perf_counter()
    parser.pipeline("\n\n".join(captions))
    floor = len(captions) / (time.perf_counter() - started)

    print(machine())
    print(f"caption by caption {loop:8.1f} captions/s")
    print(f"ours, batched      {ours:8.1f} captions/s   {ours / loop:.1f}x")
    print(f"floor, parser only {floor:8.1f} captions/s   ours is at {ours / floor:.0%} of it")


if __name__ == "__main__":
    main()
