"""Pixels: decoding any image file once into plain upright RGB, and reading stored images afterwards."""

import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# Named so that no other of Pillow's many parsers ever sees an untrusted file.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_KEPT = {("JPEG", "RGB"), ("JPEG", "L"), ("PNG", "RGB"), ("PNG", "L"), ("WEBP", "RGB")}
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Limits:
    """What an image may be: `max_pixels` in all, `min_side` pixels a side, long side at most `max_aspect` times the
    short.
    """

    max_pixels: int
    min_side: int
    max_aspect: float


@dataclass(frozen=True)
class Stored:
    """An image as it is stored: the bytes of a plain file, its size in pixels, why it was rewritten ('' if it was not),
    and the pixels (RGB or grey) that those bytes decode to.
    """

    bytes: bytes
    width: int
    height: int
    rewritten: str
    pixels: Image.Image


class BadImage(Exception):
    """An image that cannot be used; `reason` is the code that goes into the ledger."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def normalise(data: bytes, limits: Limits) -> Stored:
    """Checks that a file decodes to its end and rewrites it as plain upright RGB where it is anything else.

    JPEG, PNG and WEBP in 8-bit RGB or grey without EXIF rotation are kept byte for byte. All others are rewritten
    once: turned upright, alpha composited on white, 16 bits scaled to 8, CMYK and palette converted, of several
    frames the first kept.

    Raises:
        BadImage: empty, unreadable, truncated, too_many_pixels, too_small, aspect, unsupported_mode.
    """
    if not data:
        raise BadImage("empty_file", "0 bytes")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")  # what Pillow finds wrong with metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            _check_size(image, limits)
            frames = getattr(image, "n_frames", 1) if image.format != "MPO" else 1
            image.load()
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        guard = f"more than {Image.MAX_IMAGE_PIXELS:,} pixels, which Pillow takes for an attack"
        raise BadImage("too_many_pixels", guard) from None
    except UnidentifiedImageError:
        raise BadImage("unreadable", "not an image of a known format") from None
    except BadImage:
        raise
    except Exception as error:  # noqa: BLE001 - Pillow's decoders raise nearly anything on damaged data
        reason = "truncated" if "truncated" in str(error) or isinstance(error, EOFError) else "unreadable"
        raise BadImage(reason, f"{type(error).__name__}: {error}"[:200]) from None

    why = []
    orientation, whole = _orientation(image)
    turned = orientation in range(2, 9)
    kind = "JPEG" if image.format == "MPO" else image.format
    if turned:
        why.append("exif_rotation")
    if told or not whole:
        why.append("bad_metadata")
    if frames > 1:
        why.append("first_frame")
    if (kind, image.mode) not in _KEPT or "transparency" in image.info:
        why.append(f"{kind}_{image.mode}".lower().replace(";", "_"))
    if not why:
        return Stored(data, image.width, image.height, "", image)
    plain = _plain(image)
    if turned:
        plain = ImageOps.exif_transpose(_with_exif(plain, orientation))
    buffer = io.BytesIO()
    if kind == "JPEG":
        plain.save(buffer, "JPEG", quality=95, subsampling=0)
    else:
        plain.save(buffer, "PNG")
    stored = buffer.getvalue()
    pixels = decode(stored) if kind == "JPEG" else plain
    return Stored(stored, plain.width, plain.height, "+".join(why), pixels)


def decode(data: bytes) -> Image.Image:
    """A stored image as RGB pixels.

    Raises:
        BadImage: `unreadable`; stored images were decoded once, so this means damage.
    """
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS).convert("RGB")
    except MemoryError:
        raise  # is no fault of the image
    except Exception as error:  # noqa: BLE001 - as above
        raise BadImage("unreadable", f"{type(error).__name__}: {error}"[:200]) from None


def _check_size(image: Image.Image, limits: Limits) -> None:
    short, long = sorted(image.size)
    if image.width * image.height > limits.max_pixels:
        raise BadImage("too_many_pixels", f"{image.width}x{image.height} pixels, limit {limits.max_pixels}")
    if long > limits.max_aspect * short:
        raise BadImage("aspect", f"{image.width}x{image.height} pixels, longest aspect allowed {limits.max_aspect}")
    if short < limits.min_side:
        raise BadImage("too_small", f"{image.width}x{image.height} pixels, shortest side allowed {limits.min_side}")


def _plain(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow's own conversion clips at 255 instead of scaling.
        wide = np.asarray(image).astype(np.float64)
        return Image.fromarray(np.clip(np.round(wide / 257.0), 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("F", "LAB", "HSV", "YCbCr") and image.mode != "YCbCr":
        raise BadImage("unsupported_mode", f"mode {image.mode}")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        # Colours under alpha 0 are arbitrary; plain conversion would bring them to light.
        layered = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), layered).convert("RGB")
    return image.convert("RGB")


def _orientation(image: Image.Image) -> tuple[object, bool]:
    """What EXIF says of the photo's orientation (1: upright), and whether its EXIF is undamaged."""
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            return image.getexif().get(_ORIENTATION, 1), not told
    except Exception:  # noqa: BLE001 - as above
        return 1, False


def _with_exif(plain: Image.Image, orientation: object) -> Image.Image:
    plain.info.pop("exif", None)
    exif = plain.getexif()
    exif[_ORIENTATION] = orientation
    return plain
