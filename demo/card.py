"""The dataset card of the demo world, with its counts."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields

from demo.plans import Knobs

_CARD = """# The demo world

Rendered scenes with captions, exact masks, gold phrases and trees, and graded sentence pairs: a small place where the
truth is known. It is a demonstration and a test bed. Nothing measured here says how a method does on photographs.

Everything in this folder was made by `demo/` in this repository from seed {seed}; `hashes.json` holds the SHA-256 of
every text file and of every image's decoded RGB pixels. With `--check` the command says whether the folder is still
what it writes.

    python -m demo.build --scenes {scenes} --seed {seed}{options} --out FOLDER

Licence: CC0 1.0 (public domain dedication). No photograph, no font and no text by others went into it.

## What is here

| file | holds |
|---|---|
| `images/` | {scenes} PNG images, 128 x 128, RGB |
| `annotations/captions_world.json` | {captions} captions, three an image (COCO captions layout) |
| `annotations/instances_world.json` | {objects} objects of {categories} kinds (COCO instances layout; compressed RLE) |
| `annotations/phrases_world.json` | {phrases} gold phrases: caption id -> list |
| `annotations/trees_world.conllu` | {trees} dependency trees (CoNLL-U), one a caption; `sent_id` is the caption's id |
| `sentences.txt` | {sentences} sentences about other scenes, which were never rendered; one a line |
{graded}
**Scenes.** Two to five objects in one of seven places, {colours} colours, three sizes; some striped, spotted or
checked, some on others, behind others, or held by a bear or a robot. An object is at least 70 % visible; its mask holds
exactly the pixels where it is what one sees. Annotations carry `colour`, `size_word` (small, large, or null for medium)
and `pattern` (or null) besides the COCO keys, categories the `synonyms` that captions use.
Objects by kind: {kinds}. By pattern: {patterns}.

**Captions** come from a grammar: synonyms, relations, counting, relative clauses, passives. They leave things out: a
caption does not mention {left_out} % of the objects of its image, and {unsaid} % of all objects are in no caption at
all. {invented} % of captions also name something the image does not show. Knobs of this world: {knobs}.
Relations told: {relations}.

**Trees** follow Universal Dependencies as UD English EWT does. They come from the grammar that wrote the caption, not
from a parser.

**Phrases.** `caption[start:end] == text` (Python string offsets); base noun phrases, so "a pair of red balls" is
"a pair" and "red balls". `head` is the head noun's lemma, `number` sing or plur, `count` the number it states or null,
`kind` the category it speaks of or null, `objects` the ids of the annotated objects it denotes, `ambiguous` true where
its words fit other objects of the image as well ({ambiguous} phrases). `role` is one of

{roles}
"""


_GRADED_FILES = """| `sts/` | world STS: {pairs} graded sentence pairs about scenes used nowhere else |
| `sts/probing/` | {probes} sentences, each with what an embedding of it should tell |
"""

_GRADED = """
## World STS is not STS

`sts/` has the folders and file formats of the seven published tasks (SentEval layout) so that the same evaluator runs
over both. **These are not the published tasks**: the pairs are sentences of this world, graded by a rule, and no score
on them compares with a published number. Subsets are named for what was varied between the two sentences; column two
of STSBenchmark's files says the same.

The grade is 5 times the overlap (F1) of what the two sentences assert: kind 2, number 1, colour 2, size 1, pattern 1
for each thing, 3 for each relation (1 for another relation between the right two things), 1 for the place. Different
words for the same thing cost nothing; nothing shared is 0. SICK's relatedness is the same overlap from 1 to 5; its
judgment follows from the assertions. See `demo/sts.py`.

{sts}

## Probes

`sts/probing/` holds a file a task in the layout of SentEval's probing tasks (`split<TAB>class<TAB>sentence`; tr, va,
te), with classes of one size: `count`, how many things the first noun phrase that names things speaks of; `colour`, the
colour of the one thing whose colour is said; `relation`, in which relation the sentence says the thing named first
stands to the other. See `demo/probes.py`.

{tasks}
"""


def card(texts: Mapping[str, str]) -> str:
    """The README of a world from its own text files."""
    told = json.loads(texts["annotations/captions_world.json"])
    info, captions = told["info"], told["annotations"]
    instances = json.loads(texts["annotations/instances_world.json"])
    names = {row["id"]: row["name"] for row in instances["categories"]}
    phrases = json.loads(texts["annotations/phrases_world.json"])
    flat = [phrase for rows in phrases.values() for phrase in rows]
    roles = Counter(phrase["role"] for phrase in flat)
    of_image = Counter(row["image_id"] for row in instances["annotations"])
    said = {c["id"]: {i for p in phrases[str(c["id"])] for i in p["objects"]} for c in captions}
    left_out = 1 - sum(map(len, said.values())) / sum(of_image[c["image_id"]] for c in captions)
    unsaid = 1 - len(set().union(*said.values())) / len(instances["annotations"])
    invented = sum(any(p["role"] == "invention" for p in rows) for rows in phrases.values()) / len(phrases)
    files, graded = _graded(texts) if info["sts"] else ("", "")
    return (
        _CARD.format(
            seed=info["seed"],
            scenes=info["scenes"],
            options=_options(info),
            captions=len(captions),
            objects=len(instances["annotations"]),
            categories=len(instances["categories"]),
            phrases=len(flat),
            trees=texts["annotations/trees_world.conllu"].count("# sent_id = "),
            sentences=texts["sentences.txt"].count("\n"),
            graded=files,
            colours=len({row["colour"] for row in instances["annotations"]}),
            kinds=_counts(Counter(names[row["category_id"]] for row in instances["annotations"])),
            patterns=_counts(Counter(row["pattern"] or "plain" for row in instances["annotations"])),
            left_out=round(100 * left_out),
            unsaid=round(100 * unsaid),
            invented=round(100 * invented),
            knobs=", ".join(f"{name} {value:g}" for name, value in info["knobs"].items()),
            relations=_counts(info["relations"]),
            ambiguous=sum(p["ambiguous"] for p in flat),
            roles="\n".join(f"- {role} ({roles[role]}): {meaning}" for role, meaning in _ROLES.items()),
        )
        + graded
    )


def _graded(texts: Mapping[str, str]) -> tuple[str, str]:
    """What the card says of world STS and the probes: rows of its table, and the sections."""
    pairs = _task_sizes(texts)
    probes = {
        path.removeprefix("sts/probing/").removesuffix(".txt"): Counter(
            line.partition("\t")[0] for line in text.splitlines()
        )
        for path, text in texts.items()
        if path.startswith("sts/probing/")
    }
    sts = "\n".join(f"- {name}: {number} pairs" for name, number in pairs.items())
    tasks = "\n".join(f"- {name}: {_counts(splits)}" for name, splits in probes.items())
    number = sum(splits.total() for splits in probes.values())
    return _GRADED_FILES.format(pairs=sum(pairs.values()), probes=number), _GRADED.format(sts=sts, tasks=tasks)


def _options(info: Mapping) -> str:
    """What the command line needs beside seed and scenes, where a world strays from the defaults."""
    said = {f"--{knob.name.replace('_', '-')}": (info["knobs"][knob.name], knob.default) for knob in fields(Knobs)}
    options = [f" {name} {value:g}" for name, (value, default) in said.items() if value != default]
    options += [] if info["sts"] else [" --no-sts"]
    options += [" --avoid demo/world"] if info["avoided"] else []
    return f" --sentences {info['sentences']}" + "".join(options)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {counts[name]}" for name in sorted(counts))


_ROLES = {
    "object": "denotes objects of the image",
    "invention": "speaks of a thing the image does not show; `objects` is empty",
    "pronoun": "it, them: stands for what was named before, an invention included; only then is `objects` empty",
    "place": "the scene around the objects; `objects` is empty",
    "abstract": "the left, a pair, a picture: nothing one could cut out; `objects` is empty",
}


def _task_sizes(texts: Mapping[str, str]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for path, text in texts.items():
        folder, _, name = path.removeprefix("sts/").partition("/")
        if path.startswith("sts/") and folder != "probing" and ".gs." not in name:
            label = f"{folder}, {name}"
            sizes[label] = text.count("\n") - (1 if folder == "SICK" else 0)
    return sizes
