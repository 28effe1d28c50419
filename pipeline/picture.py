"""A picture of a record: the photo with masks and boxes of its pairs, the caption below with the phrases marked."""

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from pycocotools import mask as coco

from pipeline.errors import InputError
from pipeline.files import write_atomic
from pipeline.show import Found

_SIDE = 900
_MARGIN = 12
_COLOURS = [(230, 60, 40), (30, 110, 220), (20, 150, 80), (200, 120, 0), (150, 60, 190), (0, 150, 160)]


def draw(found: Found, data: bytes) -> Image.Image:
    """The photo, small ones enlarged, one colour an object; a caption a line below it.

    Raises:
        InputError: the stored image does not decode.
    """
    try:
        photo = Image.open(io.BytesIO(data)).convert("RGB")
    except Exception as error:  # noqa: BLE001 - Pillow raises nearly anything on damaged data
        raise InputError(f"image {found.image['id']}: does not decode ({error}); run `dvc repro ingest`") from None
    scale = _SIDE / max(photo.size)
    photo = photo.resize((max(1, round(photo.width * scale)), max(1, round(photo.height * scale))), Image.LANCZOS)
    shapes = found.pairs or _candidates(found)
    colours = _colours(shapes)
    for shape in {_pixels(shape): shape for shape in shapes}.values():
        colour = colours[shape["id"]]
        _mask(photo, shape, colour)
        corners = [shape[name] * scale for name in ("x0", "y0", "x1", "y1")]
        ImageDraw.Draw(photo).rectangle(corners, outline=colour, width=3)
    of_phrase = {shape["phrase_id"]: colours[shape["id"]] for shape in reversed(shapes)}
    return _with_captions(photo, found, of_phrase)


def _colours(shapes: list[dict]) -> dict[str, tuple[int, int, int]]:
    """A colour for each shape, the same for all that are the same pixels."""
    number = {pixels: n for n, pixels in enumerate(dict.fromkeys(map(_pixels, shapes)))}
    return {shape["id"]: _COLOURS[number[_pixels(shape)] % len(_COLOURS)] for shape in shapes}


def _pixels(shape: dict) -> tuple:
    return shape.get("counts"), shape["x0"], shape["y0"], shape["x1"], shape["y1"]


def _candidates(found: Found) -> list[dict]:
    """Boxes, with their masks, of a phrase that is no pair."""
    mask_of = {row["box_id"]: row for row in found.masks}
    return [{**mask_of.get(box["id"], {}), **box} for box in found.boxes]


def _mask(photo: Image.Image, shape: dict, colour: tuple[int, int, int]) -> None:
    if "counts" not in shape:
        return
    pixels = coco.decode({"counts": shape["counts"], "size": [shape["height"], shape["width"]]})
    veil = Image.fromarray(pixels * 110).resize(photo.size, Image.NEAREST)
    photo.paste(Image.new("RGB", photo.size, colour), (0, 0), veil)


def _with_captions(photo: Image.Image, found: Found, colour_of: dict[str, tuple]) -> Image.Image:
    font = ImageFont.load_default(20)
    width = max(photo.width, 480)
    line_height = 30
    lines = []
    for caption in found.captions:
        lines += _wrapped(_runs(caption, found.phrases, colour_of), font, width - 2 * _MARGIN)
    page = Image.new("RGB", (width, photo.height + line_height * len(lines) + 2 * _MARGIN), "white")
    page.paste(photo, ((width - photo.width) // 2, 0))
    pen = ImageDraw.Draw(page)
    for row, line in enumerate(lines):
        x, y = _MARGIN, photo.height + _MARGIN + row * line_height
        for word, colour in line:
            pen.text((x, y), word, fill=colour, font=font)
            x += font.getlength(word)
    return page


def _runs(caption: dict, phrases: list[dict], colour_of: dict) -> list[tuple[str, tuple]]:
    """The caption's words, each with its colour: that of the phrase it belongs to, else dark grey."""
    spans = [(row["start"], row["end"], colour_of[row["id"]]) for row in phrases
             if row["caption_id"] == caption["id"] and row["id"] in colour_of]  # fmt: skip
    words, at = [], 0
    for word in caption["text"].split(" "):
        colour = next((c for start, end, c in spans if start < at + len(word) and at < end), (60, 60, 60))
        words.append((word + " ", colour))
        at += len(word) + 1
    return words


def _wrapped(words: list[tuple[str, tuple]], font: ImageFont.FreeTypeFont, width: int) -> list[list]:
    lines, filled = [[]], 0.0
    for word, colour in words:
        needed = font.getlength(word)
        if lines[-1] and filled + needed > width:
            lines.append([])
            filled = 0.0
        lines[-1].append((word, colour))
        filled += needed
    return lines


def save(picture: Image.Image, target: Path) -> Path:
    """Writes a PNG atomically."""
    write_atomic(target, lambda temporary: picture.save(temporary, "PNG"))
    return target


def open_viewer(path: Path) -> bool:
    """Shows a file in the platform's viewer; False where there is none."""
    name = "open" if sys.platform == "darwin" else "xdg-open"
    if not shutil.which(name) or not (name == "open" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.Popen([name, str(path)], start_new_session=True, **quiet)
    return True
