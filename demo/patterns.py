"""Stripes, spots and checks: painted over what a thing shows in its own colour, and over nothing else of it."""

from PIL import Image, ImageChops, ImageDraw

from demo.shapes import PAINT, RGB, mix

_LIGHT, _DARK = (250, 248, 240), (46, 40, 56)


def ink(colour: str) -> RGB:
    """The hue of a pattern on a thing of a colour: far from it, and not another of the world's colours."""
    base = PAINT[colour]
    return mix(base, _DARK, 0.62) if colour in ("white", "yellow") else mix(base, _LIGHT, 0.74)


def paint(picture: Image.Image, colour: str, pattern: str, scale: int) -> None:
    """Draw a pattern on a supersampled picture of a thing, in place; `scale` samples make a pixel."""
    side = min(picture.size) / scale
    step = scale * min(9, max(5, round(0.21 * side)))  # pixels from one stripe to the next
    marks = Image.new("L", picture.size)
    _MARKS[pattern](ImageDraw.Draw(marks), *picture.size, step)
    picture.paste(Image.new("RGB", picture.size, ink(colour)), mask=ImageChops.multiply(marks, _own(picture, colour)))


def _own(picture: Image.Image, colour: str) -> Image.Image:
    """Mask (0 or 255) of the samples that have exactly the thing's own colour."""
    bands = [
        band.point([255 * (v == hue) for v in range(256)])
        for band, hue in zip(picture.split(), PAINT[colour], strict=True)
    ]
    return ImageChops.multiply(ImageChops.multiply(*bands[:2]), bands[2])


def _stripes(draw: ImageDraw.ImageDraw, w: int, h: int, step: int) -> None:
    for x in range(step // 3, w, step):
        draw.rectangle([x, 0, x + step * 2 // 5, h], fill=255)


def _spots(draw: ImageDraw.ImageDraw, w: int, h: int, step: int) -> None:
    radius = step * 29 // 100
    for row, y in enumerate(range(step // 2, h, step * 4 // 5)):
        for x in range(step // 2 if row % 2 else 0, w + step, step):
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=255)


def _checks(draw: ImageDraw.ImageDraw, w: int, h: int, step: int) -> None:
    cell = step * 11 // 20
    for row, y in enumerate(range(0, h, cell)):
        for x in range(cell * (row % 2), w, 2 * cell):
            draw.rectangle([x, y, x + cell - 1, y + cell - 1], fill=255)


_MARKS = {"striped": _stripes, "spotted": _spots, "checked": _checks}
