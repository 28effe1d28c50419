"""What a detector is asked: the phrases of an image as prompts, and which tokens of a prompt are which phrase's.

A prompt is "a dog. two men.": lower case, every phrase closed by a full stop, the last one too. Grounding DINO lets
tokens look at each other only between two of the marks [CLS], [SEP], "." and "?"; what is inside a phrase must not
look like one of these, and the stop at the end makes the prompt mean the same however far it is padded.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from stages.detect.backends import Miss

_SEPARATOR = ". "
_FRAME = 2  # [CLS] and [SEP]
# Full stops and question marks would cut a phrase in two; the rest are words that tokenizers take for marks of theirs.
_UNSAFE = re.compile(r"[.?]|\[(?:cls|sep|pad|mask|unk|unused\d+)\]|##+")


class Tokenizer(Protocol):
    """A BERT tokenizer without case: its marks, and texts to token ids."""

    cls_token_id: int
    sep_token_id: int

    def __call__(self, texts: list[str], add_special_tokens: bool) -> dict[str, list[list[int]]]: ...

    def convert_tokens_to_ids(self, token: str) -> int: ...


@dataclass(frozen=True)
class Asked:
    """A phrase in a prompt: its words, its tokens start <= t < end, the ids of the phrases it answers, and how many
    boxes one of them wants at most.
    """

    text: str
    start: int
    end: int
    ids: tuple[str, ...]
    most: int


@dataclass(frozen=True)
class Prompt:
    """A text for the detector, its token ids ([CLS] and [SEP] included), and the phrases in it, ascending."""

    text: str
    tokens: tuple[int, ...]
    asked: tuple[Asked, ...]


def safe(text: str) -> str:
    """A phrase as it stands in a prompt: lower case, one line, nothing in it that ends a phrase."""
    return " ".join(_UNSAFE.sub(" ", text.lower()).split())


def questions(
    images: pa.Table, phrases: pa.Table, prompting: str, tokenizer: Tokenizer, limit: int, top_k: int
) -> tuple[dict[int, list[Prompt]], list[tuple[str, Miss]]]:
    """What to ask of the images of a shard: row of the images table -> its prompts (`write_prompts`), for the images
    of which anything is asked; and the phrases that cannot be asked for.
    """
    row_of = {identifier: row for row, identifier in enumerate(images.column("id").to_pylist())}
    of_image: dict[str, list[dict]] = defaultdict(list)
    for phrase in phrases.select(["id", "image_id", "caption_id", "text", "count"]).to_pylist():
        of_image[phrase["image_id"]].append(phrase)
    asked, misses = {}, []
    for identifier in sorted(of_image):
        prompts, missed = write_prompts(of_image[identifier], prompting, tokenizer, limit, top_k)
        misses += missed
        if prompts:
            asked[row_of[identifier]] = prompts
    return asked, misses


def write_prompts(
    phrases: Iterable[dict[str, Any]], prompting: str, tokenizer: Tokenizer, limit: int, top_k: int
) -> tuple[list[Prompt], list[tuple[str, Miss]]]:
    """The prompts that ask for all phrases of one image, in an order that does not depend on that of the phrases.

    Args:
        phrases: rows with id, caption_id, text, count, of one image.
        prompting: what shares a prompt: all phrases `per_image`, those of a caption `per_caption`, none `per_phrase`.
            Phrases of equal words are asked once a prompt, and equal prompts once.
        limit: most tokens of a prompt, [CLS] and [SEP] included; a prompt that is longer becomes several, each of
            whole phrases.
        top_k: boxes a phrase wants; one that states a count wants at least one more than it.

    Returns:
        The prompts, and the phrases that are in none, with the reason.
    """
    rows = sorted(phrases, key=lambda row: row["id"])
    words = {row["id"]: safe(row["text"]) for row in rows}
    distinct = sorted(set(words.values()))
    tokens = dict(zip(distinct, tokenizer(distinct, add_special_tokens=False)["input_ids"], strict=True))
    room = limit - _FRAME - 1
    kept, misses = [], []
    for row in rows:
        length = len(tokens[words[row["id"]]])
        if not length:
            misses.append((row["id"], Miss("phrase_empty", f"nothing of {row['text']!r} can be asked for")))
        elif length > room:
            misses.append((row["id"], Miss("phrase_too_long", f"{length} tokens, a prompt has room for {room}")))
        else:
            kept.append(row)
    stop = tokenizer.convert_tokens_to_ids(".")
    frame = tokenizer.cls_token_id, tokenizer.sep_token_id
    prompts = []
    for together, members in sorted(_groups(kept, words, prompting).items()):
        of_text: dict[str, list[dict]] = defaultdict(list)
        for row in members:
            of_text[words[row["id"]]].append(row)
        for texts in _fitting(together, tokens, limit - _FRAME):
            prompts.append(_prompt(texts, of_text, tokens, frame, stop, top_k))
    return prompts, misses


def _groups(rows: list[dict], words: dict[str, str], prompting: str) -> dict[tuple[str, ...], list[dict]]:
    """Words that share a prompt, ascending -> the phrases that are asked for in it."""
    sharing: dict[Any, list[dict]] = defaultdict(list)
    for row in rows:
        key = {"per_image": "", "per_caption": row["caption_id"], "per_phrase": words[row["id"]]}[prompting]
        sharing[key].append(row)
    groups: dict[tuple[str, ...], list[dict]] = defaultdict(list)
    for members in sharing.values():
        groups[tuple(sorted({words[row["id"]] for row in members}))] += members
    return groups


def _fitting(texts: tuple[str, ...], tokens: dict[str, list[int]], room: int) -> Iterator[list[str]]:
    """Cuts texts into runs whose tokens, with a stop after each text, fit into `room`."""
    run: list[str] = []
    used = 0
    for text in texts:
        need = len(tokens[text]) + 1
        if run and used + need > room:
            yield run
            run, used = [], 0
        run.append(text)
        used += need
    yield run


def _prompt(
    texts: list[str],
    of_text: dict[str, list[dict]],
    tokens: dict[str, list[int]],
    frame: tuple[int, int],
    stop: int,
    top_k: int,
) -> Prompt:
    ids, asked = [frame[0]], []
    for text in texts:
        start = len(ids)
        ids += tokens[text]
        rows = of_text[text]
        most = max(top_k, *((row["count"] or 0) + 1 for row in rows))
        asked.append(Asked(text, start, len(ids), tuple(row["id"] for row in rows), most))
        ids.append(stop)
    return Prompt(_SEPARATOR.join(texts) + ".", (*ids, frame[1]), tuple(asked))
