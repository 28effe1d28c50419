"""The kinds of gold that a path holds.

A caption takes the first that knows it: phrases with their objects (`phrases_*.json`), Flickr30k Entities
(`Sentences/`, `Annotations/`), referring expressions (`referring*.json`, `refs*.json`), COCO instances
(`instances_*.json`), in which the category that a phrase names tells what it denotes; where there is none of these,
marked captions (`*.txt`).
"""

from pathlib import Path

from pipeline.errors import InputError
from pipeline.files import hash_path
from stages.common.annotations import Annotations
from stages.quality.entities import Entities, MarkedCaptions
from stages.quality.gold import Gold, Source
from stages.quality.instances import Instances
from stages.quality.phrases import AnnotatedPhrases
from stages.quality.referring import Referring

PHRASES, INSTANCES, REFERRING, MARKED = (
    ("phrases_*.json",),
    ("instances*.json",),
    ("referring*.json", "refs*.json"),
    ("*.txt",),
)
HOLDS = (
    "quality.gold_path is a folder with phrases_*.json and instances_*.json, with Flickr30k Entities (Sentences, "
    "Annotations), with referring*.json or with instances_*.json; or one such file, a file of marked captions (.txt), "
    "or an empty file "
    "(presets/no_gold.json) where there is none"
)


def open_gold(path: Path, synonyms: dict[str, list[str]]) -> Gold | None:
    """The gold at a path; None if it is an empty file. `synonyms`: category -> other words for it.

    Raises:
        InputError: there is nothing at `path`, it is not gold, or it is damaged.
    """
    if path.is_file() and not path.stat().st_size:
        return None
    objects = Annotations(path, INSTANCES[0]) if _files(path, INSTANCES) else None
    sources: list[Source] = []
    if files := _files(path, PHRASES):
        if objects is None:
            raise InputError(f"{path}: phrases without the objects they denote; put {INSTANCES[0]} beside {files[0]}")
        sources.append(AnnotatedPhrases(files, objects))
    if (path / "Sentences").is_dir():
        sources.append(Entities(path))
    if files := _files(path, REFERRING):
        sources.append(Referring(files, objects))
    if objects is not None and not _files(path, PHRASES):
        sources.append(Instances(objects, synonyms))
    if not sources and (files := _files(path, MARKED)):
        sources.append(MarkedCaptions(files))
    if not sources:
        raise InputError(f"{path}: no gold here; {HOLDS}")
    return Gold(tuple(sources), hash_path(path))


def _files(path: Path, patterns: tuple[str, ...]) -> list[Path]:
    if path.is_file():
        return [path] if any(path.match(pattern) for pattern in patterns) else []
    return sorted({file for pattern in patterns for file in path.glob(pattern) if file.is_file()})
