"""parse: captions become noun phrases.

In: `captions`. Out: `phrases`, spans that slice back from their caption. Done to a row: the backend finds the
phrases; equal captions are parsed once; a caption without a phrase is dropped, and so is a phrase that a rule takes
out (pronouns, abstract heads, length).
"""

from pathlib import Path
from typing import Protocol

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.ledger import Drop
from pipeline.runner import Context, Output, Stage, Task
from stages.parse.phrases import DroppedPhrase, Phrase


class Parser(Protocol):
    """Finds the phrases of captions: for each, in order, those kept and those a rule took out."""

    def parse(self, captions: list[str]) -> list[tuple[list[Phrase], list[DroppedPhrase]]]: ...


def open_worker(context: Context) -> Parser:
    section, runtime = context.section, context.params.runtime
    if section.backend == "markup":
        from stages.parse.markup import MarkupParser

        return MarkupParser(Path(section.path), section.drop_heads, section.max_words)
    from stages.common.device import devices_of
    from stages.parse.stanza_parser import StanzaParser

    return StanzaParser(section, devices_of(runtime)[0], runtime.threads, runtime.batch_rows)


def process(parser: Parser, task: Task, inputs: dict[str, pa.Table]) -> Output:
    captions = inputs["captions"].select(["id", "image_id", "text"]).to_pylist()
    texts = sorted({row["text"] for row in captions})
    parsed = dict(zip(texts, parser.parse(texts), strict=True))
    rows, drops, found = [], [], 0
    for caption in captions:
        kept, lost = parsed[caption["text"]]
        found += len(kept) + len(lost)
        rows += [_row(caption, phrase) for phrase in kept]
        drops += [
            Drop(
                "phrase",
                _phrase_id(caption, item.phrase),
                caption["image_id"],
                "dropped",
                item.reason,
                item.phrase.text,
            )
            for item in lost
        ]
        if not kept:
            drops.append(
                Drop("caption", caption["id"], caption["image_id"], "dropped", "no_phrase", caption["text"][:200])
            )
    return Output({"phrases": rows}, {"caption": len(captions), "phrase": found}, drops)


def _phrase_id(caption: dict, phrase: Phrase) -> str:
    return f"{caption['id']}@{phrase.start}-{phrase.end}"


def _row(caption: dict, phrase: Phrase) -> dict:
    if caption["text"][phrase.start : phrase.end] != phrase.text:
        raise InputError(f"caption {caption['id']}: the span of {phrase.text!r} does not slice back; this is a bug")
    return {
        "id": _phrase_id(caption, phrase),
        "image_id": caption["image_id"],
        "caption_id": caption["id"],
        "start": phrase.start,
        "end": phrase.end,
        "text": phrase.text,
        "head": phrase.head,
        "number": phrase.number,
        "count": phrase.count,
        "key": phrase.key,
        "kind": phrase.kind,
    }


STAGE = Stage(
    name="parse",
    version=2,
    reads=("captions",),
    writes=("phrases",),
    units={"caption": ("phrases", "caption_id"), "phrase": ("phrases", "id")},
    open=open_worker,
    process=process,
    libraries=("stanza", "torch"),
    advice="is parse.path a parser for the language of the captions? see the rows in drops/",
)
