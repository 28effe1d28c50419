"""Probes: what an embedding of one sentence of the world tells of it, as classes to be learnt from the embedding alone.

    count     how many things the first noun phrase that names things speaks of: 1, 2 or 3
    colour    the colour of the one thing, or group of things, whose colour is said
    relation  in which relation the sentence says the thing named first stands to the thing named second

A sentence may name the two sides of a relation in either order ("a cat left of a dog", "a dog with a cat to the left of
it"), so the class goes by the order of naming: the second sentence is `right of`. What is left of the dog is named
second there, and words alone do not tell. Two tellings have no class and are not drawn: a support named before what
stands on it, and a held thing named before its holder.

The layout is that of SentEval's probing tasks (Conneau et al. 2018): a file a task with a line a sentence,
`split<TAB>class<TAB>sentence`, where split is tr, va or te. Classes are of one size in each split, and no sentence
occurs twice in the world: not in another probe, nor in world STS, nor among captions and sentences.
"""

import re
from collections.abc import Callable, Iterator

from demo.captions import Caption, realise
from demo.plans import Knobs, Mention, plan_caption
from demo.scenes import COLOURS, CONVERSE, rng_for, sample_scene
from demo.sts import plain

SIZES = {"tr": 600, "va": 200, "te": 200}  # at most: every class has as many as fit
_KNOBS = Knobs(image_noise=0.0, caption_noise=0.0)
_COLOUR_WORD = re.compile(rf"\b(?:{'|'.join(COLOURS)})\b", re.IGNORECASE)


def first_named(caption: Caption) -> Mention:
    """The mention that a caption names first. Raises StopIteration for a caption that names nothing."""
    phrase = next(p for p in caption.phrases if p.kind is not None)
    return next(m for m in caption.plan.mentions if (m.kind, m.objects) == (phrase.kind, phrase.objects))


def count(caption: Caption) -> str | None:
    return str(first_named(caption).count)


def colour(caption: Caption) -> str | None:
    """None unless one mention has a colour and no other word is one ("in a green field")."""
    said = [m.colour for m in caption.plan.mentions if m.colour is not None]
    return said[0] if len(said) == len(_COLOUR_WORD.findall(caption.text)) == 1 else None


def relation(caption: Caption) -> str | None:
    """None unless two mentions stand in one relation."""
    mentions, bonds = caption.plan.mentions, caption.plan.bonds
    if len(mentions) != 2 or len(bonds) != 1:
        return None
    forward = first_named(caption) is mentions[bonds[0].a]
    return bonds[0].name if forward else CONVERSE[bonds[0].name]


RELATIONS = ("left of", "right of", "above", "below", "on", "next to", "behind", "in front of", "holding")
PROBES: dict[str, tuple[tuple[str, ...], Callable[[Caption], str | None]]] = {
    "count": (("1", "2", "3"), count),
    "colour": (COLOURS, colour),
    "relation": (RELATIONS, relation),
}


def probe_files(seed: int, used: set[str]) -> Iterator[tuple[str, str]]:
    """File and content of every task; its sentences are not in `used` (see `plain`) and are added to it."""
    for name, (classes, class_of) in PROBES.items():
        yield f"{name}.txt", _file(seed, name, classes, class_of, used)


def _file(
    seed: int, name: str, classes: tuple[str, ...], class_of: Callable[[Caption], str | None], used: set[str]
) -> str:
    """A task's lines: split by split, the classes in turn."""
    parts = {split: size // len(classes) for split, size in SIZES.items()}
    wanted = sum(parts.values())
    found: dict[str, list[str]] = {label: [] for label in classes}
    index = 0
    while any(len(texts) < wanted for texts in found.values()):
        scene, rng = sample_scene(seed, "probe", name, index), rng_for(seed, "probe", name, index, "words")
        for _ in range(3):
            caption = realise(plan_caption(scene, rng, _KNOBS), rng, _KNOBS)
            label = class_of(caption)
            if label in found and len(found[label]) < wanted and plain(caption.text) not in used:
                used.add(plain(caption.text))
                found[label].append(caption.text)
        index += 1
    lines, start = [], 0
    for split, number in parts.items():
        rows = zip(*(found[label][start : start + number] for label in classes), strict=True)
        lines += [f"{split}\t{label}\t{text}\n" for row in rows for label, text in zip(classes, row, strict=True)]
        start += number
    return "".join(lines)
