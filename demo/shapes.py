"""How each kind of thing looks: a few strokes in a unit square, x to the right, y down, (1, 1) the lower right corner.

A `Pen` draws every stroke twice, in colour and into the silhouette, so that the mask is exactly what was painted.
"""

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageDraw

RGB = tuple[int, int, int]
Point = tuple[float, float]

PAINT: dict[str, RGB] = {
    "red": (218, 54, 58), "orange": (242, 137, 38), "yellow": (250, 206, 52), "green": (56, 152, 72),
    "blue": (46, 110, 210), "purple": (138, 78, 190), "white": (246, 246, 243), "black": (50, 50, 58),
}
_WHITE, _INK, _GLASS, _BARK, _STEM = (255, 255, 255), (34, 34, 40), (196, 228, 244), (124, 84, 56), (64, 140, 66)
_METAL, _BEAK, _TYRE = (172, 176, 184), (246, 162, 44), (52, 52, 58)


def mix(a: RGB, b: RGB, share: float) -> RGB:
    """The colour `share` of the way from `a` to `b`."""
    return tuple(round(p + (q - p) * share) for p, q in zip(a, b, strict=True))


@dataclass(frozen=True)
class Palette:
    """The hues of one thing: its colour, a darker and a lighter one, the outline, and one for eyes and small marks."""

    base: RGB
    dark: RGB
    light: RGB
    line: RGB
    mark: RGB

    @classmethod
    def of(cls, colour: str) -> "Palette":
        base = PAINT[colour]
        if colour == "white":
            return cls(base, (208, 213, 222), _WHITE, (112, 118, 134), _INK)
        if colour == "black":
            return cls(base, (28, 28, 34), (96, 98, 110), (14, 14, 18), (226, 226, 220))
        return cls(base, mix(base, (20, 10, 40), 0.28), mix(base, _WHITE, 0.42), mix(base, (20, 10, 40), 0.6), _INK)


class Pen:
    """Draws unit-square strokes on a w x h picture and its silhouette, both shifted by `margin` pixels."""

    def __init__(self, w: int, h: int, margin: int, flip: bool) -> None:
        whole = (w + 2 * margin, h + 2 * margin)
        self.picture, self.shape = Image.new("RGB", whole), Image.new("L", whole)
        self._w, self._h, self._margin, self._flip = w, h, margin, flip
        self._colour, self._mask = ImageDraw.Draw(self.picture), ImageDraw.Draw(self.shape)

    def _at(self, x: float, y: float) -> tuple[int, int]:
        x = 1 - x if self._flip else x
        return round(x * (self._w - 1)) + self._margin, round(y * (self._h - 1)) + self._margin

    def _box(self, x0: float, y0: float, x1: float, y1: float) -> list[tuple[int, int]]:
        (a, b), (c, d) = self._at(x0, y0), self._at(x1, y1)
        return [(min(a, c), min(b, d)), (max(a, c), max(b, d))]

    def polygon(self, fill: RGB, *points: Point) -> None:
        spots = [self._at(*p) for p in points]
        self._colour.polygon(spots, fill=fill)
        self._mask.polygon(spots, fill=255)

    def ellipse(self, fill: RGB, cx: float, cy: float, rx: float, ry: float) -> None:
        box = self._box(cx - rx, cy - ry, cx + rx, cy + ry)
        self._colour.ellipse(box, fill=fill)
        self._mask.ellipse(box, fill=255)

    def slice(self, fill: RGB, cx: float, cy: float, rx: float, ry: float, start: int, end: int) -> None:
        """A piece of an ellipse cut off by a chord, from `start` to `end` degrees clockwise from three o'clock."""
        if self._flip:
            start, end = 180 - end, 180 - start
        box = self._box(cx - rx, cy - ry, cx + rx, cy + ry)
        self._colour.chord(box, start, end, fill=fill)
        self._mask.chord(box, start, end, fill=255)

    def rect(self, fill: RGB, x0: float, y0: float, x1: float, y1: float, radius: float = 0) -> None:
        box, round_by = self._box(x0, y0, x1, y1), round(radius * min(self._w, self._h))
        self._colour.rounded_rectangle(box, round_by, fill=fill)
        self._mask.rounded_rectangle(box, round_by, fill=255)

    def line(self, fill: RGB, width: float, *points: Point) -> None:
        """A bent stroke with round ends; `width` is a share of the shorter side."""
        spots, thick = [self._at(*p) for p in points], max(2, round(width * min(self._w, self._h)))
        for draw, ink in ((self._colour, fill), (self._mask, 255)):
            draw.line(spots, fill=ink, width=thick, joint="curve")
            for x, y in (spots[0], spots[-1]):
                draw.ellipse([x - thick // 2, y - thick // 2, x + thick // 2, y + thick // 2], fill=ink)


def _ball(p: Pen, c: Palette) -> None:
    p.ellipse(c.dark, .5, .5, .5, .5)
    p.ellipse(c.base, .46, .45, .455, .445)
    stripe = _WHITE if c.base != PAINT["white"] else c.dark
    p.polygon(stripe, (.02, .4), (.25, .49), (.5, .52), (.75, .49), (.975, .4), (.995, .56), (.76, .66), (.5, .69),
              (.24, .66), (.005, .56))
    p.ellipse(c.light, .3, .22, .12, .09)


def _balloon(p: Pen, c: Palette) -> None:
    p.line(_METAL, .05, (.5, .76), (.42, .84), (.56, .92), (.5, .985))
    p.polygon(c.dark, (.5, .7), (.36, .8), (.64, .8))
    p.ellipse(c.base, .5, .375, .5, .375)
    p.ellipse(c.light, .32, .24, .11, .09)


def _bird(p: Pen, c: Palette) -> None:
    p.polygon(c.dark, (.3, .52), (0, .4), (.03, .72), (.3, .72))
    p.line(_BEAK, .05, (.46, .8), (.46, .97))
    p.line(_BEAK, .05, (.6, .8), (.6, .97))
    p.polygon(_BEAK, (.88, .2), (1, .31), (.86, .38))
    p.ellipse(c.base, .5, .59, .36, .29)
    p.ellipse(c.base, .74, .29, .19, .24)
    p.slice(c.dark, .42, .5, .27, .3, 0, 180)
    p.ellipse(_WHITE, .8, .24, .06, .075)
    p.ellipse(_INK, .815, .245, .03, .04)


def _boat(p: Pen, c: Palette) -> None:
    p.rect(_BARK, .47, 0, .53, .8)
    p.polygon(c.light, (.56, .06), (.56, .66), (.98, .66))
    p.polygon(mix(c.light, c.base, .45), (.44, .16), (.44, .66), (.1, .66))
    p.polygon(c.base, (0, .71), (1, .71), (.84, .99), (.16, .99))
    p.polygon(c.dark, (.06, .81), (.94, .81), (.84, .99), (.16, .99))


def _car(p: Pen, c: Palette) -> None:
    p.polygon(c.base, (.2, .46), (.3, .05), (.36, 0), (.66, 0), (.72, .05), (.86, .46))
    p.rect(c.base, 0, .38, 1, .82, .14)
    p.rect(c.dark, 0, .64, 1, .82, .09)
    p.polygon(_GLASS, (.28, .4), (.35, .11), (.49, .11), (.49, .4))
    p.polygon(_GLASS, (.54, .4), (.54, .11), (.66, .11), (.77, .4))
    p.rect((255, 236, 150), .93, .47, .99, .6, .03)
    for x in (.23, .77):
        p.ellipse(_TYRE, x, .79, .113, .208)
        p.ellipse(_METAL, x, .79, .05, .09)


def _cat(p: Pen, c: Palette) -> None:
    p.line(c.dark, .12, (.74, .9), (.92, .84), (.93, .62))
    p.polygon(c.base, (.16, .3), (.12, 0), (.44, .15))
    p.polygon(c.base, (.84, .3), (.88, 0), (.56, .15))
    p.polygon(c.light, (.22, .22), (.19, .09), (.34, .16))
    p.polygon(c.light, (.78, .22), (.81, .09), (.66, .16))
    p.ellipse(c.base, .5, .75, .34, .25)
    p.ellipse(c.light, .5, .78, .16, .17)
    p.ellipse(c.base, .5, .32, .42, .24)
    p.ellipse(c.dark, .34, .96, .12, .04)
    p.ellipse(c.dark, .66, .96, .12, .04)
    for x in (.33, .67):
        p.ellipse(_WHITE, x, .3, .09, .07)
        p.ellipse(_INK, x, .305, .04, .058)
    p.polygon((240, 130, 140), (.44, .39), (.56, .39), (.5, .44))
    for x in (.2, .8):
        p.line(c.mark, .02, (x, .41), (x + (.14 if x < .5 else -.14), .42))


def _cup(p: Pen, c: Palette) -> None:
    p.ellipse(c.dark, .74, .5, .26, .31)
    # the hole of the handle is left out by painting only a ring around it
    p.polygon(c.base, (.04, .1), (.8, .1), (.7, .94), (.6, .99), (.24, .99), (.14, .94))
    p.ellipse(c.light, .42, .1, .38, .1)
    p.ellipse(c.dark, .42, .115, .3, .065)
    p.ellipse(c.light, .88, .5, .045, .13)
    p.polygon(c.light, (.13, .3), (.21, .32), (.26, .84), (.2, .8))


def _dog(p: Pen, c: Palette) -> None:
    p.line(c.base, .1, (.12, .5), (.04, .3), (.1, .16))
    for x in (.14, .54):
        p.rect(c.dark, x + .08, .66, x + .2, .95, .04)
        p.rect(c.base, x, .66, x + .12, 1, .04)
    p.rect(c.base, .09, .42, .74, .78, .16)
    p.ellipse(c.base, .72, .3, .19, .26)
    p.ellipse(c.light, .87, .37, .13, .13)
    p.ellipse(_INK, .955, .33, .045, .055)
    p.ellipse(c.dark, .6, .3, .08, .22)
    p.ellipse(_WHITE, .77, .22, .05, .06)
    p.ellipse(_INK, .78, .225, .025, .035)
    p.line((230, 70, 70) if c.base != PAINT["red"] else (250, 220, 90), .07, (.58, .55), (.74, .58))


def _fish(p: Pen, c: Palette) -> None:
    p.polygon(c.dark, (.26, .5), (0, .12), (.06, .5), (0, .88))
    p.polygon(c.dark, (.42, .14), (.56, 0), (.74, .2))
    p.polygon(c.dark, (.5, .82), (.52, 1), (.68, .8))
    p.ellipse(c.base, .6, .5, .4, .38)
    p.slice(c.light, .6, .5, .4, .38, 35, 145)
    p.line(c.dark, .06, (.7, .28), (.66, .5), (.7, .7))
    p.ellipse(_WHITE, .84, .4, .055, .09)
    p.ellipse(_INK, .85, .41, .028, .05)


def _flower(p: Pen, c: Palette) -> None:
    p.rect(_STEM, .45, .5, .55, 1)
    p.polygon(_STEM, (.5, .9), (.82, .68), (.9, .8), (.72, .9))
    p.polygon(_STEM, (.5, .96), (.16, .76), (.1, .88), (.3, .96))
    for x, y in ((.5, .12), (.8, .22), (.82, .43), (.62, .53), (.38, .53), (.18, .43), (.2, .22)):
        p.ellipse(c.base, x, y, .2, .13)
    p.ellipse(c.dark, .5, .33, .26, .17)
    p.ellipse((252, 214, 88) if c.base != PAINT["yellow"] else (150, 90, 40), .5, .33, .2, .13)


def _hat(p: Pen, c: Palette) -> None:
    p.ellipse(c.dark, .5, .84, .5, .155)
    p.ellipse(c.base, .5, .8, .5, .14)
    p.polygon(c.base, (.2, .08), (.26, .01), (.74, .01), (.8, .08), (.76, .84), (.24, .84))
    p.polygon(c.dark, (.222, .54), (.778, .54), (.76, .76), (.24, .76))
    p.polygon(c.light, (.27, .12), (.34, .12), (.355, .48), (.295, .48))


def _house(p: Pen, c: Palette) -> None:
    p.rect(c.base, .07, .36, .93, 1)
    p.polygon(c.dark, (0, .4), (.2, .03), (.8, .03), (1, .4))
    p.polygon(mix(c.dark, c.line, .4), (0, .4), (.03, .34), (.97, .34), (1, .4))
    p.rect(_BARK, .41, .62, .61, 1)
    p.ellipse((250, 214, 90), .57, .82, .018, .018)
    for x in (.15, .69):
        p.rect(_WHITE, x - .02, .5, x + .18, .72)
        p.rect(_GLASS, x, .52, x + .16, .7)
        p.line(_WHITE, .025, (x + .08, .52), (x + .08, .7))


def _kite(p: Pen, c: Palette) -> None:
    p.line(c.dark, .035, (.5, .58), (.42, .7), (.6, .82), (.48, .985))
    p.polygon(c.base, (.5, 0), (1, .26), (.5, .62), (0, .26))
    p.polygon(c.light, (.5, 0), (.5, .26), (0, .26))
    p.polygon(c.dark, (.5, .62), (.5, .26), (1, .26))
    for x, y in ((.47, .73), (.56, .86)):
        p.polygon(c.base, (x, y), (x - .19, y - .04), (x - .17, y + .05))
        p.polygon(c.base, (x, y), (x + .19, y - .05), (x + .17, y + .04))


def _star(p: Pen, c: Palette) -> None:
    outer = ((.5, 0), (.976, .382), (.794, 1), (.206, 1), (.024, .382))
    inner = ((.63, .31), (.71, .64), (.5, .8), (.29, .64), (.37, .31))
    p.polygon(c.base, *(q for pair in zip(outer, inner, strict=True) for q in pair))
    for i in range(5):
        p.polygon(c.light, outer[i], inner[i - 1], (.5, .53))


def _table(p: Pen, c: Palette) -> None:
    for x in (.08, .8):
        p.polygon(c.dark, (x, .2), (x + .12, .2), (x + .1, 1), (x + .02, 1))
    p.rect(c.dark, .06, .2, .94, .42)
    p.rect(c.base, 0, .02, 1, .24, .06)
    p.rect(c.light, .03, .05, .97, .1)
    p.ellipse(_METAL, .5, .33, .035, .045)


def _tree(p: Pen, c: Palette) -> None:
    p.polygon(_BARK, (.43, .6), (.57, .6), (.63, 1), (.37, 1))
    for x, y, r in ((.28, .46, .28), (.72, .46, .28), (.5, .24, .34)):
        p.ellipse(c.base, x, y, r, r * .72)
    p.ellipse(c.base, .5, .5, .34, .21)
    for x, y in ((.4, .17), (.24, .41), (.62, .44)):
        p.ellipse(c.light, x, y, .09, .05)
    p.ellipse(c.dark, .74, .56, .13, .06)
    p.ellipse(c.dark, .42, .62, .16, .06)


def _umbrella(p: Pen, c: Palette) -> None:
    p.line(_BARK, .055, (.5, .05), (.5, .9), (.53, .96), (.6, .965), (.65, .9))
    p.slice(c.base, .5, .52, .5, .46, 180, 360)
    p.slice(c.dark, .5, .52, .24, .46, 180, 360)
    p.slice(c.base, .5, .52, .13, .46, 180, 360)
    for i, hue in enumerate((c.base, c.dark, c.dark, c.base)):
        p.slice(hue, .125 + .25 * i, .52, .126, .07, 0, 180)
    p.polygon(c.light, (.14, .4), (.2, .28), (.3, .2), (.24, .34))


DRAW: dict[str, Callable[[Pen, Palette], None]] = {
    "ball": _ball, "balloon": _balloon, "bird": _bird, "boat": _boat, "car": _car, "cat": _cat, "cup": _cup,
    "dog": _dog, "fish": _fish, "flower": _flower, "hat": _hat, "house": _house, "kite": _kite, "star": _star,
    "table": _table, "tree": _tree, "umbrella": _umbrella,
}
