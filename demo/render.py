"""Scenes to pixels: Pillow's own drawing at four times the size, then averaged down; masks of what stays visible.

No fonts, no files, no random numbers but the scene's own, so decoded pixels are equal on every machine with the pinned
Pillow. The picture is drawn and its masks are read off from the same strokes.
"""

import random
from dataclasses import dataclass
from functools import cache

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from demo.backdrops import draw_backdrop
from demo.patterns import paint
from demo.scenes import SIDE, Object, Scene, bearer_of
from demo.shapes import DRAW, Palette, Pen

SCALE = 4  # supersampling per side
_OUTLINE = 2  # width of the dark contour, in supersampled pixels
_HALF = 136  # a pixel belongs to an object when more than half of its 4 x 4 samples show it: 9/16 of 255 is 143


@dataclass(frozen=True)
class Picture:
    """`image` is RGB, 128 x 128. `masks[i]` is mode "1"-like L (0 or 255): the pixels where object i is what one sees;
    masks are disjoint. `whole[i]` counts the pixels object i would show if nothing stood before it."""

    image: Image.Image
    masks: tuple[Image.Image, ...]
    whole: tuple[int, ...]


@cache
def _thing(kind: str, colour: str, pattern: str | None, w: int, h: int, flip: bool) -> tuple[Image.Image, Image.Image]:
    """A thing with its contour: picture and silhouette, supersampled, `w` x `h` final pixels in all."""
    pen = Pen(w * SCALE - 2 * _OUTLINE, h * SCALE - 2 * _OUTLINE, _OUTLINE, flip)
    palette = Palette.of(colour)
    DRAW[kind](pen, palette)
    if pattern is not None:
        paint(pen.picture, colour, pattern, SCALE)
    shape = pen.shape.filter(ImageFilter.MaxFilter(2 * _OUTLINE + 1))
    picture = Image.new("RGB", shape.size, palette.line)
    picture.paste(pen.picture, mask=pen.shape)
    return picture, shape


def render(scene: Scene) -> Picture:
    """The picture of a scene."""
    rng = random.Random(scene.clutter)
    canvas = Image.new("RGB", (SIDE * SCALE, SIDE * SCALE))
    draw_backdrop(canvas, scene.backdrop, rng)
    for thing in scene.objects:
        _shadow(canvas, thing, scene.backdrop)
    shapes: list[Image.Image] = []
    for thing in scene.objects:
        picture, shape = _thing(thing.kind, thing.colour, thing.pattern, thing.w, thing.h, thing.flip)
        corner = (thing.x * SCALE, thing.y * SCALE)
        canvas.paste(picture, corner, shape)
        placed = Image.new("L", canvas.size)
        placed.paste(shape, corner)
        shapes.append(placed)
    masks, covered = [], Image.new("L", canvas.size)
    for shape in reversed(shapes):
        masks.append(_pixels(ImageChops.subtract(shape, covered)))
        covered = ImageChops.lighter(covered, shape)
    whole = tuple(_pixels(shape).histogram()[255] for shape in shapes)
    return Picture(canvas.reduce(SCALE), tuple(reversed(masks)), whole)


def _pixels(samples: Image.Image) -> Image.Image:
    return samples.reduce(SCALE).point(lambda v: 255 if v >= _HALF else 0)


def _shadow(canvas: Image.Image, thing: Object, backdrop: str) -> None:
    """A soft dark ellipse under what stands on the ground."""
    if thing.zone != "ground" or bearer_of(thing) is not None:
        return
    x0, x1, y, high = thing.x + 0.06 * thing.w, thing.right - 0.06 * thing.w, thing.bottom - 1, max(2.0, 0.05 * thing.w)
    box = [round(v * SCALE) for v in (x0, y - high, x1, y + high)]
    shade = Image.new("L", canvas.size)
    ImageDraw.Draw(shade).ellipse(box, fill=60 if backdrop != "night" else 90)
    canvas.paste(Image.new("RGB", canvas.size, (30, 30, 50)), mask=shade)
