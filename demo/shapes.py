"""How each kind of thing looks: a few strokes in a unit square, x to the right, y down, (1, 1) the lower right corner.

A `Pen` draws every stroke twice, in colour and into the silhouette, so that the mask is exactly what was painted.
"""

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageDraw

RGB = tuple[int, int, int]
Point = tuple[float, float]

PAINT: dict[str, RGB] = {
    "red": (218, 54, 58),
    "orange": (242, 137, 38),
    "yellow": (250, 206, 52),
    "green": (56, 152, 72),
    "blue": (46, 110, 210),
    "purple": (138, 78, 190),
    "white": (246, 246, 243),
    "black": (50, 50, 58),
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
    p.ellipse(c.dark, 0.5, 0.5, 0.5, 0.5)
    p.ellipse(c.base, 0.46, 0.45, 0.455, 0.445)
    p.ellipse(c.light, 0.3, 0.22, 0.13, 0.1)
    p.line(c.line, 0.03, (0.13, 0.42), (0.3, 0.56), (0.5, 0.62), (0.72, 0.58), (0.93, 0.42))
    p.line(c.line, 0.03, (0.5, 0.62), (0.46, 0.8), (0.5, 0.96))


def _balloon(p: Pen, c: Palette) -> None:
    p.line(_METAL, 0.05, (0.5, 0.76), (0.42, 0.84), (0.56, 0.92), (0.5, 0.985))
    p.polygon(c.dark, (0.5, 0.7), (0.36, 0.8), (0.64, 0.8))
    p.ellipse(c.base, 0.5, 0.375, 0.5, 0.375)
    p.ellipse(c.light, 0.32, 0.24, 0.11, 0.09)


def _bear(p: Pen, c: Palette) -> None:
    p.line(c.base, 0.17, (0.66, 0.62), (0.82, 0.56), (0.9, 0.46))
    p.line(c.base, 0.17, (0.34, 0.62), (0.18, 0.7), (0.1, 0.76))
    for x in (0.33, 0.67):
        p.ellipse(c.base, x, 0.9, 0.17, 0.1)
        p.ellipse(c.light, x, 0.92, 0.1, 0.05)
        p.ellipse(c.dark, 0.5 + 1.55 * (x - 0.5), 0.09, 0.125, 0.09)
        p.ellipse(c.light, 0.5 + 1.55 * (x - 0.5), 0.1, 0.065, 0.048)
    p.ellipse(c.base, 0.5, 0.69, 0.27, 0.24)
    p.ellipse(c.base, 0.5, 0.27, 0.34, 0.24)
    p.ellipse(c.light, 0.5, 0.36, 0.15, 0.1)
    p.ellipse(_INK, 0.5, 0.32, 0.055, 0.03)
    p.line(_INK, 0.02, (0.44, 0.4), (0.5, 0.42), (0.56, 0.4))
    for x in (0.36, 0.64):
        p.ellipse(c.mark, x, 0.22, 0.04, 0.035)


def _bird(p: Pen, c: Palette) -> None:
    p.polygon(c.dark, (0.3, 0.52), (0, 0.4), (0.03, 0.72), (0.3, 0.72))
    p.line(_BEAK, 0.05, (0.46, 0.8), (0.46, 0.97))
    p.line(_BEAK, 0.05, (0.6, 0.8), (0.6, 0.97))
    p.polygon(_BEAK, (0.88, 0.2), (1, 0.31), (0.86, 0.38))
    p.ellipse(c.base, 0.5, 0.59, 0.36, 0.29)
    p.ellipse(c.base, 0.74, 0.29, 0.19, 0.24)
    p.slice(c.dark, 0.42, 0.5, 0.27, 0.3, 0, 180)
    p.ellipse(_WHITE, 0.8, 0.24, 0.06, 0.075)
    p.ellipse(_INK, 0.815, 0.245, 0.03, 0.04)


def _boat(p: Pen, c: Palette) -> None:
    p.rect(_BARK, 0.47, 0, 0.53, 0.8)
    p.polygon(c.light, (0.56, 0.06), (0.56, 0.66), (0.98, 0.66))
    p.polygon(mix(c.light, c.base, 0.45), (0.44, 0.16), (0.44, 0.66), (0.1, 0.66))
    p.polygon(c.base, (0, 0.71), (1, 0.71), (0.84, 0.99), (0.16, 0.99))
    p.polygon(c.dark, (0.06, 0.81), (0.94, 0.81), (0.84, 0.99), (0.16, 0.99))


def _car(p: Pen, c: Palette) -> None:
    p.polygon(c.base, (0.2, 0.46), (0.3, 0.05), (0.36, 0), (0.66, 0), (0.72, 0.05), (0.86, 0.46))
    p.rect(c.base, 0, 0.38, 1, 0.82, 0.14)
    p.rect(c.dark, 0, 0.64, 1, 0.82, 0.09)
    p.polygon(_GLASS, (0.28, 0.4), (0.35, 0.11), (0.49, 0.11), (0.49, 0.4))
    p.polygon(_GLASS, (0.54, 0.4), (0.54, 0.11), (0.66, 0.11), (0.77, 0.4))
    p.rect((255, 236, 150), 0.93, 0.47, 0.99, 0.6, 0.03)
    for x in (0.23, 0.77):
        p.ellipse(_TYRE, x, 0.79, 0.113, 0.208)
        p.ellipse(_METAL, x, 0.79, 0.05, 0.09)


def _cat(p: Pen, c: Palette) -> None:
    p.line(c.dark, 0.12, (0.74, 0.9), (0.92, 0.84), (0.93, 0.62))
    p.polygon(c.base, (0.16, 0.3), (0.12, 0), (0.44, 0.15))
    p.polygon(c.base, (0.84, 0.3), (0.88, 0), (0.56, 0.15))
    p.polygon(c.light, (0.22, 0.22), (0.19, 0.09), (0.34, 0.16))
    p.polygon(c.light, (0.78, 0.22), (0.81, 0.09), (0.66, 0.16))
    p.ellipse(c.base, 0.5, 0.75, 0.34, 0.25)
    p.ellipse(c.light, 0.5, 0.78, 0.16, 0.17)
    p.ellipse(c.base, 0.5, 0.32, 0.42, 0.24)
    p.ellipse(c.dark, 0.34, 0.96, 0.12, 0.04)
    p.ellipse(c.dark, 0.66, 0.96, 0.12, 0.04)
    for x in (0.33, 0.67):
        p.ellipse(_WHITE, x, 0.3, 0.09, 0.07)
        p.ellipse(_INK, x, 0.305, 0.04, 0.058)
    p.polygon((240, 130, 140), (0.44, 0.39), (0.56, 0.39), (0.5, 0.44))
    for x in (0.2, 0.8):
        p.line(c.mark, 0.02, (x, 0.41), (x + (0.14 if x < 0.5 else -0.14), 0.42))


def _cup(p: Pen, c: Palette) -> None:
    p.ellipse(c.dark, 0.74, 0.5, 0.26, 0.31)
    # the hole of the handle is left out by painting only a ring around it
    p.polygon(c.base, (0.04, 0.1), (0.8, 0.1), (0.7, 0.94), (0.6, 0.99), (0.24, 0.99), (0.14, 0.94))
    p.ellipse(c.light, 0.42, 0.1, 0.38, 0.1)
    p.ellipse(c.dark, 0.42, 0.115, 0.3, 0.065)
    p.ellipse(c.light, 0.88, 0.5, 0.045, 0.13)
    p.polygon(c.light, (0.13, 0.3), (0.21, 0.32), (0.26, 0.84), (0.2, 0.8))


def _dog(p: Pen, c: Palette) -> None:
    p.line(c.base, 0.1, (0.12, 0.5), (0.04, 0.3), (0.1, 0.16))
    for x in (0.14, 0.54):
        p.rect(c.dark, x + 0.08, 0.66, x + 0.2, 0.95, 0.04)
        p.rect(c.base, x, 0.66, x + 0.12, 1, 0.04)
    p.rect(c.base, 0.09, 0.42, 0.74, 0.78, 0.16)
    p.ellipse(c.base, 0.72, 0.3, 0.19, 0.26)
    p.ellipse(c.light, 0.87, 0.37, 0.13, 0.13)
    p.ellipse(_INK, 0.955, 0.33, 0.045, 0.055)
    p.ellipse(c.dark, 0.6, 0.3, 0.08, 0.22)
    p.ellipse(_WHITE, 0.77, 0.22, 0.05, 0.06)
    p.ellipse(_INK, 0.78, 0.225, 0.025, 0.035)
    p.line((230, 70, 70) if c.base != PAINT["red"] else (250, 220, 90), 0.07, (0.58, 0.55), (0.74, 0.58))


def _fish(p: Pen, c: Palette) -> None:
    p.polygon(c.dark, (0.26, 0.5), (0, 0.12), (0.06, 0.5), (0, 0.88))
    p.polygon(c.dark, (0.42, 0.14), (0.56, 0), (0.74, 0.2))
    p.polygon(c.dark, (0.5, 0.82), (0.52, 1), (0.68, 0.8))
    p.ellipse(c.base, 0.6, 0.5, 0.4, 0.38)
    p.slice(c.light, 0.6, 0.5, 0.4, 0.38, 35, 145)
    p.line(c.dark, 0.06, (0.7, 0.28), (0.66, 0.5), (0.7, 0.7))
    p.ellipse(_WHITE, 0.84, 0.4, 0.055, 0.09)
    p.ellipse(_INK, 0.85, 0.41, 0.028, 0.05)


def _flower(p: Pen, c: Palette) -> None:
    p.rect(_STEM, 0.45, 0.5, 0.55, 1)
    p.polygon(_STEM, (0.5, 0.9), (0.82, 0.68), (0.9, 0.8), (0.72, 0.9))
    p.polygon(_STEM, (0.5, 0.96), (0.16, 0.76), (0.1, 0.88), (0.3, 0.96))
    for x, y in ((0.5, 0.12), (0.8, 0.22), (0.82, 0.43), (0.62, 0.53), (0.38, 0.53), (0.18, 0.43), (0.2, 0.22)):
        p.ellipse(c.base, x, y, 0.2, 0.13)
    p.ellipse(c.dark, 0.5, 0.33, 0.26, 0.17)
    p.ellipse((252, 214, 88) if c.base != PAINT["yellow"] else (150, 90, 40), 0.5, 0.33, 0.2, 0.13)


def _hat(p: Pen, c: Palette) -> None:
    p.ellipse(c.dark, 0.5, 0.84, 0.5, 0.155)
    p.ellipse(c.base, 0.5, 0.8, 0.5, 0.14)
    p.polygon(c.base, (0.2, 0.08), (0.26, 0.01), (0.74, 0.01), (0.8, 0.08), (0.76, 0.84), (0.24, 0.84))
    p.polygon(c.dark, (0.222, 0.54), (0.778, 0.54), (0.76, 0.76), (0.24, 0.76))
    p.polygon(c.light, (0.27, 0.12), (0.34, 0.12), (0.355, 0.48), (0.295, 0.48))


def _house(p: Pen, c: Palette) -> None:
    p.rect(c.base, 0.07, 0.36, 0.93, 1)
    p.polygon(c.dark, (0, 0.4), (0.2, 0.03), (0.8, 0.03), (1, 0.4))
    p.polygon(mix(c.dark, c.line, 0.4), (0, 0.4), (0.03, 0.34), (0.97, 0.34), (1, 0.4))
    p.rect(_BARK, 0.41, 0.62, 0.61, 1)
    p.ellipse((250, 214, 90), 0.57, 0.82, 0.018, 0.018)
    for x in (0.15, 0.69):
        p.rect(_WHITE, x - 0.02, 0.5, x + 0.18, 0.72)
        p.rect(_GLASS, x, 0.52, x + 0.16, 0.7)
        p.line(_WHITE, 0.025, (x + 0.08, 0.52), (x + 0.08, 0.7))


def _kite(p: Pen, c: Palette) -> None:
    p.line(c.dark, 0.035, (0.5, 0.58), (0.42, 0.7), (0.6, 0.82), (0.48, 0.985))
    p.polygon(c.base, (0.5, 0), (1, 0.26), (0.5, 0.62), (0, 0.26))
    p.polygon(c.light, (0.5, 0), (0.5, 0.26), (0, 0.26))
    p.polygon(c.dark, (0.5, 0.62), (0.5, 0.26), (1, 0.26))
    for x, y in ((0.47, 0.73), (0.56, 0.86)):
        p.polygon(c.base, (x, y), (x - 0.19, y - 0.04), (x - 0.17, y + 0.05))
        p.polygon(c.base, (x, y), (x + 0.19, y - 0.05), (x + 0.17, y + 0.04))


def _robot(p: Pen, c: Palette) -> None:
    p.line(_METAL, 0.045, (0.5, 0.14), (0.5, 0.04))
    p.ellipse(_BEAK, 0.5, 0.035, 0.05, 0.035)
    p.line(_METAL, 0.09, (0.74, 0.52), (0.86, 0.6), (0.94, 0.5))
    p.line(_METAL, 0.09, (0.26, 0.52), (0.12, 0.6), (0.08, 0.74))
    for x in (0.33, 0.67):
        p.rect(_METAL, x - 0.07, 0.8, x + 0.07, 0.92)
        p.rect(c.dark, x - 0.13, 0.9, x + 0.13, 1, 0.03)
    p.rect(c.base, 0.24, 0.43, 0.76, 0.84, 0.06)
    p.rect(c.base, 0.2, 0.12, 0.8, 0.41, 0.08)
    p.rect(_GLASS, 0.27, 0.18, 0.73, 0.35, 0.05)
    for x in (0.39, 0.61):
        p.ellipse(_INK, x, 0.26, 0.055, 0.05)
    p.rect(c.dark, 0.34, 0.52, 0.66, 0.66, 0.03)
    for x, hue in ((0.42, (250, 90, 90)), (0.5, (250, 214, 90)), (0.58, (120, 210, 120))):
        p.ellipse(hue, x, 0.59, 0.03, 0.027)


def _star(p: Pen, c: Palette) -> None:
    outer = ((0.5, 0), (0.976, 0.382), (0.794, 1), (0.206, 1), (0.024, 0.382))
    inner = ((0.63, 0.31), (0.71, 0.64), (0.5, 0.8), (0.29, 0.64), (0.37, 0.31))
    p.polygon(c.base, *(q for pair in zip(outer, inner, strict=True) for q in pair))
    for i in range(5):
        p.polygon(c.light, outer[i], inner[i - 1], (0.5, 0.53))


def _table(p: Pen, c: Palette) -> None:
    for x in (0.08, 0.8):
        p.polygon(c.dark, (x, 0.2), (x + 0.12, 0.2), (x + 0.1, 1), (x + 0.02, 1))
    p.rect(c.dark, 0.06, 0.2, 0.94, 0.42)
    p.rect(c.base, 0, 0.02, 1, 0.24, 0.06)
    p.rect(c.light, 0.03, 0.05, 0.97, 0.1)
    p.ellipse(_METAL, 0.5, 0.33, 0.035, 0.045)


def _tree(p: Pen, c: Palette) -> None:
    p.polygon(_BARK, (0.43, 0.6), (0.57, 0.6), (0.63, 1), (0.37, 1))
    for x, y, r in ((0.28, 0.46, 0.28), (0.72, 0.46, 0.28), (0.5, 0.24, 0.34)):
        p.ellipse(c.base, x, y, r, r * 0.72)
    p.ellipse(c.base, 0.5, 0.5, 0.34, 0.21)
    for x, y in ((0.4, 0.17), (0.24, 0.41), (0.62, 0.44)):
        p.ellipse(c.light, x, y, 0.09, 0.05)
    p.ellipse(c.dark, 0.74, 0.56, 0.13, 0.06)
    p.ellipse(c.dark, 0.42, 0.62, 0.16, 0.06)


def _umbrella(p: Pen, c: Palette) -> None:
    p.line(_BARK, 0.055, (0.5, 0.05), (0.5, 0.9), (0.53, 0.96), (0.6, 0.965), (0.65, 0.9))
    p.slice(c.base, 0.5, 0.52, 0.5, 0.46, 180, 360)
    p.slice(c.dark, 0.5, 0.52, 0.24, 0.46, 180, 360)
    p.slice(c.base, 0.5, 0.52, 0.13, 0.46, 180, 360)
    for i, hue in enumerate((c.base, c.dark, c.dark, c.base)):
        p.slice(hue, 0.125 + 0.25 * i, 0.52, 0.126, 0.07, 0, 180)
    p.polygon(c.light, (0.14, 0.4), (0.2, 0.28), (0.3, 0.2), (0.24, 0.34))


DRAW: dict[str, Callable[[Pen, Palette], None]] = {
    "ball": _ball,
    "balloon": _balloon,
    "bear": _bear,
    "bird": _bird,
    "boat": _boat,
    "car": _car,
    "cat": _cat,
    "cup": _cup,
    "dog": _dog,
    "fish": _fish,
    "flower": _flower,
    "hat": _hat,
    "house": _house,
    "kite": _kite,
    "robot": _robot,
    "star": _star,
    "table": _table,
    "tree": _tree,
    "umbrella": _umbrella,
}
