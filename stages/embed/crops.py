"""Cutting an object out of its image."""

from PIL import Image, ImageFilter

from stages.common import rle


def cut(image: Image.Image, mask: rle.Mask, mode: str, margin: float, fill: tuple[int, int, int]) -> Image.Image:
    """The RGB crop of an object.

    Args:
        image: the whole image, RGB.
        mask: its pixels; their bounding box, widened by `margin` of its sides and clipped to the image, is the crop.
        mode: what becomes of pixels outside the mask: `masked` fills them with `fill`, `blur` blurs them (radius 5 %
            of the crop's longer side), `box` keeps them.
        margin: share of the box's sides added on each side.
        fill: RGB, the encoder's mean colour.
    """
    x0, y0, x1, y1 = rle.box(*mask)
    dx, dy = margin * (x1 - x0), margin * (y1 - y0)
    left, top = max(0, int(x0 - dx)), max(0, int(y0 - dy))
    right, bottom = min(image.width, int(x1 + dx + 0.999)), min(image.height, int(y1 + dy + 0.999))
    crop = image.crop((left, top, right, bottom))
    if mode == "box":
        return crop
    inside = Image.fromarray(rle.decode(*mask)[top:bottom, left:right])
    if mode == "blur":
        around = crop.filter(ImageFilter.GaussianBlur(0.05 * max(crop.size)))
    else:
        around = Image.new("RGB", crop.size, fill)
    around.paste(crop, mask=inside)
    return around
