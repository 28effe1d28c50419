"""What `show` prints: a record and all that belongs to it, in lines that read well on a terminal and in a file."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.text import Text

from pipeline.show import Found, Loss, Made

_WIDTH = 12


def render(found: Found, console: Console) -> None:
    for label, text in _Lines(found).all():
        line = Text(f"{label:<{_WIDTH}}", style="dim")
        line.append(text if isinstance(text, Text) else Text(_plain(str(text)), style="default"))
        console.print(line, soft_wrap=True)


class _Lines:
    """The lines, from the record down; each loss is told once, beside what was lost where that has a line."""

    def __init__(self, found: Found):
        self.found = found
        self.of_id: dict[str, list[Loss]] = defaultdict(list)
        for loss in found.losses:
            self.of_id[loss.id].append(loss)

    def all(self) -> Iterator[tuple[str, Any]]:
        found = self.found
        yield (
            found.kind,
            Text(_plain(found.id), "bold") + Text(f"   dataset {found.dataset}, shard {found.shard}", "dim"),
        )
        if found.sentence:
            yield "text", found.sentence["text"]
        if image := found.image:
            name = "   ".join(dict.fromkeys((image["id"], image["uri"])))
            yield "image", f"{name}   {image['width']} x {image['height']}   {image['split']}"
            yield "", f"sha256 {image['sha256']}"
            if image["rewritten"]:
                yield "", f"stored as plain RGB ({image['rewritten']})"
        for caption in found.captions:
            yield from self._caption(caption)
        rest = [loss for losses in self.of_id.values() for loss in losses]
        for number, loss in enumerate(rest):
            line = Text(f"{loss.unit} {_plain(loss.id)}   ") + Text(_fate(loss), "yellow")
            yield "" if number else "lost", line
        for made in found.made:
            yield from _made(made)

    def _caption(self, caption: dict) -> Iterator[tuple[str, Any]]:
        phrases = [row for row in self.found.phrases if row["caption_id"] == caption["id"]]
        text = caption["text"]
        marked = Text(_plain(text))
        if len(phrases) == 1:
            start, end = phrases[0]["start"], phrases[0]["end"]
            phrase = Text(f"[{_plain(text[start:end])}]", "bold")
            marked = Text(_plain(text[:start])) + phrase + Text(_plain(text[end:]))
        yield "caption", Text(f"{_plain(caption['id'])}   ", "default") + marked + self._fates(caption["id"])
        for phrase in phrases:
            yield from self._phrase(phrase)

    def _phrase(self, phrase: dict) -> Iterator[tuple[str, Any]]:
        pair = next((row for row in self.found.pairs if row["phrase_id"] == phrase["id"]), None)
        about = f"characters {phrase['start']} to {phrase['end']}, head {phrase['head']}, {phrase['number']}"
        about += f", counts {phrase['count']}" if phrase["count"] is not None else ""
        line = Text(_plain(repr(phrase["text"])), "bold") + Text(_plain(f"   {about}, key {phrase['key']}"))
        yield "phrase", line + self._fates(phrase["id"])
        if pair:
            yield from _pair(pair)
        if pair and self.found.kind in ("image", "caption"):
            return
        for box in self.found.boxes:
            if box["phrase_id"] == phrase["id"]:
                yield "box", self._box(box, pair)

    def _box(self, box: dict, pair: dict | None) -> Text:
        mask = next((row for row in self.found.masks if row["box_id"] == box["id"]), None)
        named = f"   {box['label']}" + (f" {box['object_id']}" if box["object_id"] else "")
        pixels = f", mask of {mask['area']:,} pixels" if mask else ", no mask"
        line = Text(_plain(f"{box['id']}   {_corners(box)}, score {box['score']:.3f}{pixels}{named}"))
        if pair and pair["objects"] == 1 and box["id"] not in self.of_id:
            return line + Text("   kept: this is the pair's", "bold")
        return line + self._fates(box["id"])

    def _fates(self, identifier: str) -> Text:
        """What became of something, as the end of its line."""
        told = "; ".join(map(_fate, self.of_id.pop(identifier, ())))
        return Text(f"   {told}", "yellow") if told else Text("")


def _pair(pair: dict) -> Iterator[tuple[str, Any]]:
    pixels = round(pair["area"] * pair["height"] * pair["width"])
    several = f", {pair['objects']} objects together" if pair["objects"] > 1 else ""
    yield "pair", f"{pair['id']}   box {_corners(pair)}, mask of {pixels:,} pixels ({pair['area']:.2%}){several}"
    similarity = "" if pair["similarity"] is None else f", crop and phrase {pair['similarity']:.3f}"
    yield (
        "",
        f"box score {pair['score']:.3f}, predicted IoU {pair['predicted_iou']:.3f}, stability "
        f"{pair['stability']:.3f}, mask and box IoU {pair['mask_box_iou']:.3f}{similarity}",
    )
    yield "", f"features {pair['feature_id']} and {pair['image_feature_id']}"


def _fate(loss: Loss) -> str:
    detail = f", {_plain(loss.detail)}" if loss.detail else ""
    return f"{loss.outcome} by {loss.stage}: {loss.reason}{detail}" + (f" ({loss.meaning})" if loss.meaning else "")


def _made(made: Made) -> Iterator[tuple[str, Any]]:
    shown = "  ".join(f"{key}={_short(value)}" for key, value in {**made.params, **made.facts}.items())
    yield made.stage, Text(f"version {made.version}   {_plain(shown)}")
    hashes = [f"{name} {table['sha256'][:16]}" for name, table in made.tables.items()]
    listed = "  ".join([f"path {made.path_hash}"] * bool(made.path_hash) + hashes)
    yield "", Text(f"sha256 of {listed}", "dim")


def _short(value: object) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:36]} ..."


def _corners(row: dict) -> str:
    return f"{row['x0']:.1f}, {row['y0']:.1f} to {row['x1']:.1f}, {row['y1']:.1f}"


def _plain(text: str) -> str:
    """Captions and names are data: nothing in them may steer the terminal or break a line."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
