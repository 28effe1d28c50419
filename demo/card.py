"""The dataset card of the demo world, with its counts."""

import json
from collections import Counter
from collections.abc import Mapping

_CARD = """# The demo world

Rendered scenes with captions, exact masks, gold phrases and graded sentence pairs: a small place where the truth is
known. It is a demonstration and a test bed. Nothing measured here says how a method does on photographs.

Everything in this folder was made by `demo/` in this repository from seed {seed}; `hashes.json` holds the SHA-256 of
every text file and of every image's decoded RGB pixels.

    python -m demo.build --scenes {scenes} --seed {seed} --out demo/world

Licence: CC0 1.0 (public domain dedication). No photograph, no font and no text by others went into it.

## What is here

| file | holds |
|---|---|
| `images/` | {scenes} PNG images, 128 x 128, RGB |
| `annotations/captions_world.json` | {captions} captions, three an image (COCO captions layout) |
| `annotations/instances_world.json` | {objects} objects of {categories} kinds (COCO instances layout; compressed RLE) |
| `annotations/phrases_world.json` | {phrases} gold phrases: caption id -> list |
| `sentences.txt` | {sentences} sentences about other scenes, which were never rendered; one a line |
| `sts/` | world STS: {pairs} graded sentence pairs about scenes used nowhere else |

**Scenes.** Two to five objects in one of seven places, {colours} colours, three sizes. An object is at least 70 %
visible; its mask holds exactly the pixels where it is what one sees. Annotations carry `colour` and `size_word`
(small, large, or null for medium) besides the COCO keys, categories the `synonyms` that captions use.
Objects by kind: {kinds}.

**Captions** come from a grammar: synonyms, relations, counting, relative clauses. They leave things out: a caption
does not mention {left_out} % of the objects of its image, and {unsaid} % of all objects are in no caption at all.
{invented} % of captions also name something the image does not show.

**Phrases.** `caption[start:end] == text` (Python string offsets); base noun phrases, so "a pair of red balls" is
"a pair" and "red balls". `head` is the head noun's lemma, `number` sing or plur, `count` the number it states or null,
`kind` the category it speaks of or null, `objects` the ids of the annotated objects it denotes, `ambiguous` true where
its words fit other objects of the image as well ({ambiguous} phrases). `role` is one of

{roles}

## World STS is not STS

`sts/` has the folders and file formats of the seven published tasks (SentEval layout) so that the same evaluator runs
over both. **These are not the published tasks**: the pairs are sentences of this world, graded by a rule, and no score
on them compares with a published number. Subsets are named for what was varied between the two sentences; column two
of STSBenchmark's files says the same.

The grade is 5 times the overlap (F1) of what the two sentences assert: kind 2, number 1, colour 2, size 1 for each
thing, 3 for each relation (1 for another relation between the right two things), 1 for the place. Different words for
the same thing cost nothing; nothing shared is 0. SICK's relatedness is the same overlap from 1 to 5; its judgment
follows from the assertions. See `demo/sts.py`.

{sts}
"""


def card(seed: int, scenes: int, texts: Mapping[str, str], kinds: Mapping[str, int]) -> str:
    """The README of a world from its own text files."""
    captions = json.loads(texts["annotations/captions_world.json"])["annotations"]
    instances = json.loads(texts["annotations/instances_world.json"])
    phrases = json.loads(texts["annotations/phrases_world.json"])
    flat = [phrase for rows in phrases.values() for phrase in rows]
    roles = Counter(phrase["role"] for phrase in flat)
    of_image = Counter(row["image_id"] for row in instances["annotations"])
    said = {c["id"]: {i for p in phrases[str(c["id"])] for i in p["objects"]} for c in captions}
    left_out = 1 - sum(map(len, said.values())) / sum(of_image[c["image_id"]] for c in captions)
    unsaid = 1 - len(set().union(*said.values())) / len(instances["annotations"])
    invented = sum(any(p["role"] == "invention" for p in rows) for rows in phrases.values()) / len(phrases)
    tasks = _task_sizes(texts)
    return _CARD.format(
        seed=seed,
        scenes=scenes,
        captions=len(captions),
        objects=len(instances["annotations"]),
        categories=len(instances["categories"]),
        phrases=len(flat),
        sentences=texts["sentences.txt"].count("\n"),
        pairs=sum(tasks.values()),
        colours=len({row["colour"] for row in instances["annotations"]}),
        kinds=", ".join(f"{kind} {kinds[kind]}" for kind in sorted(kinds)),
        left_out=round(100 * left_out),
        unsaid=round(100 * unsaid),
        invented=round(100 * invented),
        ambiguous=sum(p["ambiguous"] for p in flat),
        roles="\n".join(f"- {role} ({roles[role]}): {meaning}" for role, meaning in _ROLES.items()),
        sts="\n".join(f"- {name}: {number} pairs" for name, number in tasks.items()),
    )


_ROLES = {
    "object": "denotes objects of the image",
    "invention": "speaks of a thing the image does not show; `objects` is empty",
    "pronoun": "it, them: stands for objects named before",
    "place": "the scene around the objects; `objects` is empty",
    "abstract": "the left, a pair, a picture: nothing one could cut out; `objects` is empty",
}


def _task_sizes(texts: Mapping[str, str]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for path, text in texts.items():
        folder, _, name = path.removeprefix("sts/").partition("/")
        if path.startswith("sts/") and ".gs." not in name:
            label = f"{folder}, {name}"
            sizes[label] = text.count("\n") - (1 if folder == "SICK" else 0)
    return sizes
