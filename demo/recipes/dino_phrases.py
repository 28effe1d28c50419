"""What the detector is asked in training: phrases of a scene and what each of them denotes.

A phrase denotes every object of the scene that its words fit ("a red ball": each red ball). Places, pictures, sides and
pronouns denote nothing, and so do phrases that are wrong about the scene, in everything or in one attribute. A phrase
that is wrong never names a combination that is held out: it would be taught as one that never exists.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from demo.captions import caption_for, noun_phrase
from demo.plans import Knobs, Mention, matching
from demo.recipes.heldout import HELD_OUT, training_scene
from demo.scenes import COLOURS, KINDS, PATTERNED, PATTERNS, Object, Scene

KNOBS = Knobs()
# Words that the world has no things for: what they name is never there.
STRANGE = (
    "man", "woman", "boy", "girl", "person", "people", "bicycle", "bench", "horse", "cow", "train", "plane", "truck",
    "chair", "bag", "book", "bottle", "clock", "banana", "elephant", "giraffe", "sign", "box", "lamp", "window", "door",
)  # fmt: skip


@dataclass(frozen=True)
class Said:
    """A phrase and the ids of the objects it denotes."""

    text: str
    objects: tuple[int, ...]


def about(thing: Object, rng: random.Random) -> Mention:
    """The thing, with attributes told by lot."""
    return Mention(
        thing.kind,
        1,
        thing.colour if rng.random() < 0.65 else None,
        thing.size if thing.size != "medium" and rng.random() < 0.5 else None,
        thing.pattern if rng.random() < 0.65 else None,
    )


def anything(rng: random.Random) -> Mention:
    """Any kind in any colours."""
    kind = rng.choice(sorted(KINDS))
    return Mention(
        kind,
        1,
        rng.choice(COLOURS) if rng.random() < 0.65 else None,
        rng.choice(("small", "large")) if rng.random() < 0.25 else None,
        rng.choice(PATTERNS) if kind in PATTERNED and rng.random() < 0.2 else None,
    )


def altered(mention: Mention, rng: random.Random) -> Mention:
    """The mention with one attribute other than it was, whether it was told or not."""
    attribute = rng.choices(("colour", "kind", "size", "pattern"), (4, 3, 2, 1 if mention.kind in PATTERNED else 0))[0]
    options: dict[str, Sequence[str]] = {
        "colour": COLOURS,
        "kind": sorted(KINDS if mention.pattern is None else PATTERNED),
        "size": ("small", "large"),
        "pattern": PATTERNS,
    }
    value = rng.choice([value for value in options[attribute] if value != getattr(mention, attribute)])
    return replace(mention, **{attribute: value})


def fitting(scene: Scene, mention: Mention) -> tuple[int, ...]:
    """Ids of the objects that the words fit."""
    return matching(scene, mention.kind, mention.colour, mention.size, mention.pattern)


def words(mention: Mention, rng: random.Random) -> str:
    """The mention as a caption says it, now and then without its first word, an article or a number."""
    text = noun_phrase(mention, rng, KNOBS, known=rng.random() < 0.3).text
    return text.partition(" ")[2] if rng.random() < 0.1 else text


def shown(scene: Scene, rng: random.Random) -> Mention:
    """Something the scene shows; several that the words fit are told as one, or counted."""
    mention = about(rng.choice(scene.objects), rng)
    number = len(fitting(scene, mention))
    return replace(mention, count=number) if number > 1 and rng.random() < 0.6 else mention


def untrue(scene: Scene, rng: random.Random) -> Mention:
    """Something the scene does not show: another thing altogether, or one that is shown but for one attribute."""
    while True:
        mention = anything(rng) if rng.random() < 0.4 else altered(about(rng.choice(scene.objects), rng), rng)
        if (mention.kind, mention.colour) not in HELD_OUT and not fitting(scene, mention):
            return replace(mention, count=rng.choice((1, 1, 1, 1, 2, 3)))


class Phrasebook:
    """Draws what an image is asked. `idle` are phrases of captions that denote no thing, as often as they come."""

    def __init__(self, seed: int, captions: int = 3000) -> None:
        self.idle: list[str] = []
        for index in range(captions):
            caption = caption_for(seed, training_scene(seed, index), "detector", index)
            self.idle += [p.text for p in caption.phrases if p.role not in ("object", "invention", "pronoun")]

    def nothing(self, rng: random.Random) -> str:
        """A phrase that denotes nothing in any scene."""
        if rng.random() < 0.85:
            return rng.choice(self.idle)
        return f"{rng.choice(('a', 'the', 'two'))} {rng.choice(STRANGE)}"

    def ask(self, scene: Scene, rng: random.Random) -> list[Said]:
        """Phrases of one prompt, one to ten."""
        mentions = [shown(scene, rng) for _ in range(rng.randint(1, 5))]
        mentions += [untrue(scene, rng) for _ in range(rng.randint(0, 4))]
        said = [Said(words(mention, rng), fitting(scene, mention)) for mention in mentions]
        return said + [Said(self.nothing(rng), ()) for _ in range(rng.randint(0, 1))]
