"""Text of the demo world for the text recipes, drawn from a recipe's own seed: nothing is read from demo/world.

A stream is named ("train", "check" ...), and what one stream draws no other does, so figures are measured on text that
was not drawn for training. World STS is the text of other seeds and is never read; short sentences ("a red ball") may
well be said in both.
"""

from collections.abc import Iterator

from demo.captions import Caption, caption_for
from demo.scenes import sample_scene
from demo.sts import EDITS, Pair, plain, sample_pair

CAPTIONS_A_SCENE = 4
GENRES = (*sorted(EDITS), "mixed", "paraphrase")


def captions(seed: int, stream: str, number: int) -> list[Caption]:
    """The first `number` different captions of a stream, of scenes that are never rendered."""
    found: dict[str, Caption] = {}
    for caption in _captions(seed, stream):
        found.setdefault(plain(caption.text), caption)
        if len(found) == number:
            break
    return list(found.values())


def _captions(seed: int, stream: str) -> Iterator[Caption]:
    index = 0
    while True:
        scene = sample_scene(seed, stream, index)
        for turn in range(CAPTIONS_A_SCENE):
            yield caption_for(seed, scene, stream, index, "caption", turn)
        index += 1


def pairs(seed: int, stream: str, number: int) -> list[Pair]:
    """Graded pairs as world STS has them, every genre in turn; no sentence comes twice."""
    used: set[str] = set()
    return [sample_pair(seed, GENRES[i % len(GENRES)], (stream, i), used) for i in range(number)]
