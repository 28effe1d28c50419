"""The places behind the things: sky, ground, water, rooms, with a few details drawn by lot that no caption mentions."""

import random
from collections.abc import Callable

from PIL import Image, ImageDraw

from demo.scenes import SIDE
from demo.shapes import RGB, mix

_CLOUD, _WHITE = (252, 252, 254), (255, 255, 255)


class Canvas:
    """Draws in final pixels on a supersampled picture."""

    def __init__(self, image: Image.Image, rng: random.Random) -> None:
        self.scale, self.rng, self._draw = image.size[0] // SIDE, rng, ImageDraw.Draw(image)

    def _box(self, x0: float, y0: float, x1: float, y1: float) -> list[int]:
        return [round(v * self.scale) for v in (x0, y0, x1, y1)]

    def rect(self, fill: RGB, x0: float, y0: float, x1: float, y1: float) -> None:
        x0, y0, x1, y1 = self._box(x0, y0, x1, y1)
        self._draw.rectangle([x0, y0, x1 - 1, y1 - 1], fill=fill)

    def ellipse(self, fill: RGB, cx: float, cy: float, rx: float, ry: float) -> None:
        self._draw.ellipse(self._box(cx - rx, cy - ry, cx + rx, cy + ry), fill=fill)

    def polygon(self, fill: RGB, *points: tuple[float, float]) -> None:
        self._draw.polygon([(round(x * self.scale), round(y * self.scale)) for x, y in points], fill=fill)

    def bands(self, top: RGB, low: RGB, y0: int, y1: int, steps: int = 8) -> None:
        """A sky or a sea in flat stripes from one hue to the other."""
        for i in range(steps):
            a, b = y0 + (y1 - y0) * i / steps, y0 + (y1 - y0) * (i + 1) / steps
            self.rect(mix(top, low, i / (steps - 1)), 0, a, SIDE, b)

    def cloud(self, hue: RGB, x: float, y: float, r: float) -> None:
        for dx, dy, s in ((-1.1, 0.2, 0.6), (0, 0, 0.85), (1.0, 0.15, 0.65)):
            self.ellipse(hue, x + dx * r, y + dy * r, s * r * 1.2, s * r * 0.75)

    def hill(self, hue: RGB, x: float, y: float, rx: float, ry: float) -> None:
        self.ellipse(hue, x, y, rx, ry)


_SKIES = (
    ((128, 196, 240), (206, 234, 250)),
    ((150, 206, 232), (238, 240, 226)),
    ((246, 196, 160), (252, 232, 206)),
    ((176, 190, 226), (228, 232, 246)),
    ((140, 214, 220), (220, 246, 240)),
)

_NIGHT_SKIES = (((40, 48, 102), (104, 108, 168)), ((34, 58, 96), (98, 130, 164)), ((60, 44, 100), (136, 104, 160)))
_WINTER_SKIES = (
    ((178, 206, 232), (226, 238, 248)),
    ((196, 200, 222), (236, 236, 244)),
    ((168, 190, 214), (220, 230, 240)),
)


def _sky(c: Canvas, low: int, clouds: int) -> None:
    top, bottom = c.rng.choice(_SKIES)
    c.bands(top, bottom, 0, low)
    if c.rng.random() < 0.5:
        hue = mix((255, 238, 170), bottom, 0.3)
        c.ellipse(hue, c.rng.randint(14, 114), c.rng.randint(12, 26), 9, 9)
    for _ in range(c.rng.randint(0, clouds)):
        x, y, r = c.rng.randint(8, 120), c.rng.randint(8, max(10, low - 24)), c.rng.randint(7, 12)
        c.cloud(mix(_CLOUD, bottom, 0.25), x, y, r)


def _meadow(c: Canvas) -> None:
    _sky(c, 78, 3)
    grass = c.rng.choice(((158, 208, 120), (176, 214, 122), (146, 202, 138), (202, 210, 128)))
    for hue in (mix(grass, (130, 180, 200), 0.45), mix(grass, (120, 170, 150), 0.2)):
        c.hill(hue, c.rng.randint(0, 128), c.rng.randint(84, 92), c.rng.randint(60, 90), c.rng.randint(18, 28))
    c.rect(grass, 0, 76, SIDE, SIDE)
    c.hill(mix(grass, _WHITE, 0.12), c.rng.randint(20, 108), 118, c.rng.randint(50, 80), 22)
    for _ in range(c.rng.randint(6, 14)):
        x, y = c.rng.randint(3, 124), c.rng.randint(84, 125)
        c.polygon(mix(grass, (60, 120, 60), 0.35), (x, y), (x + 1, y - 4), (x + 2, y), (x + 4, y - 3), (x + 4, y))


def _beach(c: Canvas) -> None:
    _sky(c, 50, 3)
    sea = c.rng.choice(((96, 178, 206), (110, 196, 196), (100, 164, 204)))
    c.bands(mix(sea, (40, 90, 140), 0.2), mix(sea, _WHITE, 0.25), 48, 106, 7)
    sand = c.rng.choice(((244, 222, 172), (238, 212, 160), (248, 230, 190)))
    c.hill(mix(sand, _WHITE, 0.55), 64, 110, 120, 29)
    c.hill(sand, 64, 112, 120, 28)
    c.rect(sand, 0, 106, SIDE, SIDE)
    for _ in range(c.rng.randint(5, 12)):
        c.ellipse(mix(sand, (150, 110, 70), 0.25), c.rng.randint(4, 124), c.rng.randint(96, 125), 1.2, 0.8)


def _night(c: Canvas) -> None:
    top, low = c.rng.choice(_NIGHT_SKIES)
    c.bands(top, low, 0, 80)
    c.ellipse((244, 240, 214), c.rng.randint(16, 112), c.rng.randint(14, 24), 8, 8)
    for _ in range(c.rng.randint(10, 22)):
        r = c.rng.choice((0.5, 0.7, 0.9))
        c.ellipse((226, 228, 246), c.rng.randint(2, 126), c.rng.randint(2, 70), r, r)
    ground = c.rng.choice(((86, 122, 112), (96, 112, 136), (112, 118, 108)))
    c.hill(mix(ground, low, 0.5), c.rng.randint(10, 118), 88, 70, 20)
    c.rect(ground, 0, 80, SIDE, SIDE)
    c.hill(mix(ground, _WHITE, 0.1), c.rng.randint(20, 108), 122, 80, 22)


def _room(c: Canvas) -> None:
    wall = c.rng.choice(((240, 226, 206), (214, 228, 232), (232, 216, 224), (222, 232, 212), (226, 222, 238)))
    floor = c.rng.choice(((198, 156, 116), (176, 146, 124), (186, 178, 168), (210, 178, 138)))
    c.rect(wall, 0, 0, SIDE, 88)
    if c.rng.random() < 0.5:
        for x in range(0, SIDE, 16):
            c.rect(mix(wall, _WHITE, 0.35), x, 0, x + 8, 88)
    x = c.rng.randint(10, 82)
    if c.rng.random() < 0.6:
        c.rect(_WHITE, x, 16, x + 36, 58)
        c.rect((186, 220, 240), x + 3, 19, x + 33, 55)
        c.rect(_WHITE, x + 16.5, 19, x + 19.5, 55)
        c.rect(_WHITE, x + 3, 35.5, x + 33, 38.5)
    c.rect(mix(wall, _WHITE, 0.7), 0, 84, SIDE, 88)
    c.rect(floor, 0, 88, SIDE, SIDE)
    for y in (96, 107, 119):
        c.rect(mix(floor, (60, 40, 30), 0.14), 0, y, SIDE, y + 1)
    if c.rng.random() < 0.6:
        rug = c.rng.choice(((222, 196, 190), (190, 206, 214), (208, 212, 186)))
        c.ellipse(rug, c.rng.randint(44, 84), 112, 42, 11)


def _sea(c: Canvas) -> None:
    _sky(c, 56, 4)
    sea = c.rng.choice(((110, 186, 214), (124, 204, 206), (120, 176, 214), (140, 200, 190)))
    c.bands(mix(sea, _WHITE, 0.3), mix(sea, (30, 80, 130), 0.22), 54, SIDE, 6)
    for _ in range(c.rng.randint(8, 16)):
        x, y, w = c.rng.randint(0, 120), c.rng.randint(60, 124), c.rng.randint(5, 11)
        c.rect(mix(sea, _WHITE, 0.5), x, y, x + w, y + 1)


def _snow(c: Canvas) -> None:
    top, low = c.rng.choice(_WINTER_SKIES)
    c.bands(top, low, 0, 78)
    x = c.rng.randint(10, 70)
    c.polygon(mix(low, (120, 140, 180), 0.5), (x - 50, 80), (x, 40), (x + 50, 80))
    c.polygon(mix(low, (120, 140, 180), 0.35), (x + 10, 80), (x + 52, 50), (x + 94, 80))
    c.polygon(_WHITE, (x - 15, 52), (x, 40), (x + 15, 52), (x + 6, 50), (x, 54), (x - 7, 50))
    c.rect((238, 243, 249), 0, 76, SIDE, SIDE)
    c.hill((228, 235, 245), c.rng.randint(10, 118), 122, 80, 26)
    for _ in range(c.rng.randint(12, 26)):
        c.ellipse(_WHITE, c.rng.randint(2, 126), c.rng.randint(2, 84), 1, 1)


def _street(c: Canvas) -> None:
    _sky(c, 78, 2)
    x = -c.rng.randint(0, 12)
    while x < SIDE:
        w, h = c.rng.randint(16, 28), c.rng.randint(18, 40)
        hue = mix(c.rng.choice(((196, 186, 190), (178, 190, 204), (204, 196, 180), (186, 200, 190))), _WHITE, 0.25)
        c.rect(hue, x, 78 - h, x + w, 80)
        for wx in range(x + 3, x + w - 4, 6):
            for wy in range(78 - h + 4, 74, 8):
                c.rect(mix(hue, (90, 110, 140), 0.3), wx, wy, wx + 3, wy + 4)
        x += w + c.rng.randint(0, 3)
    c.rect((206, 204, 202), 0, 78, SIDE, 94)
    c.rect((178, 176, 178), 0, 92, SIDE, 95)
    c.rect((142, 144, 150), 0, 95, SIDE, SIDE)
    for x in range(c.rng.randint(-16, 0), SIDE, 24):
        c.rect((228, 226, 214), x, 109, x + 13, 111)


_DRAW: dict[str, Callable[[Canvas], None]] = {
    "beach": _beach,
    "meadow": _meadow,
    "night": _night,
    "room": _room,
    "sea": _sea,
    "snow": _snow,
    "street": _street,
}


def draw_backdrop(image: Image.Image, name: str, rng: random.Random) -> None:
    """Paint the named backdrop over the whole (square, supersampled) image."""
    _DRAW[name](Canvas(image, rng))
