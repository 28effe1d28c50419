"""The picture that opens the README: scenes, what their captions mean of them, and what they leave out.

    python -m demo.poster --scenes 5 7 26 --out docs/scene.png

Beside each scene stands the same scene with only what the caption denotes in colour, each phrase with the outline of
its pixels in the phrase's own hue; what nobody mentions is grey.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageOps

from demo.build import Settings, captions_for, scene_for
from demo.captions import Caption
from demo.render import Picture, render
from demo.scenes import SIDE

ZOOM, GAP, LINE = 3, 16, 34
HUES = ((214, 39, 110), (0, 120, 200), (20, 150, 90), (230, 120, 0))
INK, PAPER = (40, 40, 48), (255, 255, 255)


def denoted(caption: Caption) -> Iterator[tuple[int, int, tuple[int, ...], tuple[int, int, int]]]:
    """Start, end, objects and hue of every phrase that denotes something."""
    found = (p for p in caption.phrases if p.role == "object")
    for number, phrase in enumerate(found):
        yield phrase.start, phrase.end, phrase.objects, HUES[number % len(HUES)]


def told(picture: Picture, caption: Caption) -> Image.Image:
    """The scene, zoomed, in grey but for what the caption denotes."""
    large = picture.image.resize((SIDE * ZOOM, SIDE * ZOOM), Image.Resampling.LANCZOS)
    shown = Image.blend(ImageOps.grayscale(large).convert("RGB"), Image.new("RGB", large.size, PAPER), 0.45)
    for _, _, objects, hue in denoted(caption):
        for number in objects:
            mask = picture.masks[number].resize(large.size, Image.Resampling.BICUBIC).point(lambda v: 255 * (v > 127))
            edge = ImageChops.subtract(mask.filter(ImageFilter.MaxFilter(7)), mask)
            shown.paste(large, mask=mask)
            shown.paste(Image.new("RGB", large.size, hue), mask=edge)
    return shown


def write_caption(draw: ImageDraw.ImageDraw, caption: Caption, x: int, y: int, width: int) -> None:
    """The caption in lines of at most `width` pixels, each denoting phrase underlined in its hue."""
    font, marks = ImageFont.load_default(19), list(denoted(caption))
    left, place = x, 0
    for word in caption.text.split(" "):
        wide = draw.textlength(word, font)
        if left + wide > x + width:
            left, y = x, y + LINE
        hue = next((hue for start, end, _, hue in marks if start <= place < end), None)
        draw.text((left, y), word, font=font, fill=hue or INK)
        if hue:
            draw.rectangle([left, y + 24, left + wide, y + 26], fill=hue)
        left, place = left + wide + draw.textlength(" ", font), place + len(word) + 1


def poster(seed: int, numbers: Sequence[int]) -> Image.Image:
    """One column a scene: the scene, what its first caption denotes, the caption."""
    side = SIDE * ZOOM
    size = (len(numbers) * (side + GAP) + GAP, 2 * (side + GAP) + GAP + 3 * LINE)
    page = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(page)
    for column, number in enumerate(numbers):
        scene = scene_for(seed, number)
        picture, caption = render(scene), captions_for(Settings(seed, number + 1), scene, number)[0]
        x = GAP + column * (side + GAP)
        page.paste(picture.image.resize((side, side), Image.Resampling.LANCZOS), (x, GAP))
        page.paste(told(picture, caption), (x, 2 * GAP + side))
        write_caption(draw, caption, x, 3 * GAP + 2 * side, side)
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, nargs="+", default=[5, 7, 26], help="numbers of scenes")
    parser.add_argument("--out", type=Path, default=Path("docs/scene.png"))
    args = parser.parse_args()
    poster(args.seed, args.scenes).save(args.out, optimize=True)
    print(args.out)


if __name__ == "__main__":
    main()
