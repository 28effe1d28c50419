"""1,000 damaged image files of every format: each is stored as plain RGB of its stated size, or a row says why not."""

import contextlib
import io
import random

from faults.fuzz import context, ingest
from faults.mutate import mutated
from PIL import Image

from stages.common.images import decode

FILES = 1000
REASONS = {
    "truncated",
    "unreadable",
    "empty_file",
    "too_many_pixels",
    "too_small",
    "aspect",
    "unsupported_mode",
}


def seeds() -> list[tuple[str, bytes]]:
    noise = Image.effect_noise((48, 40), 90)
    kinds = (
        ("jpg", "JPEG", noise.convert("RGB"), {"quality": 80}),
        ("jpg", "JPEG", noise.convert("RGB"), {"progressive": True}),
        ("jpg", "JPEG", noise.convert("CMYK"), {}),
        ("png", "PNG", noise.convert("RGBA"), {}),
        ("png", "PNG", noise.convert("P"), {}),
        ("png", "PNG", noise.convert("I;16"), {}),
        ("webp", "WEBP", noise.convert("RGB"), {}),
        ("gif", "GIF", noise, {"save_all": True, "append_images": [noise.rotate(90)]}),
        ("tif", "TIFF", noise.convert("RGB"), {"compression": "tiff_lzw"}),
        ("bmp", "BMP", noise.convert("RGB"), {}),
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    made = []
    for suffix, kind, image, options in kinds:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options, **({"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {}))
        made.append((suffix, buffer.getvalue()))
    return made


def test_images(tmp_path):
    draw = random.Random(0)
    given = context(tmp_path, "folder", "captions.csv", ingest__deduplicate=False)
    images = tmp_path / "collection/images"
    for file in images.iterdir():
        file.unlink()
    lines, whole = ["image,caption"], seeds()
    for number in range(FILES):
        suffix, data = draw.choice(whole)
        (images / f"{number}.{suffix}").write_bytes(mutated(draw, data))
        lines.append(f"{number}.{suffix},a thing")
    for number, (suffix, data) in enumerate(whole):
        (images / f"whole{number}.{suffix}").write_bytes(data)
        lines.append(f"whole{number}.{suffix},a whole thing")
    (tmp_path / "collection/captions.csv").write_text("\n".join(lines))
    with contextlib.chdir(tmp_path):
        refused, counts, rows = ingest(given)
    assert refused is None
    image, caption = counts["image"], counts["caption"]
    assert image["in"] == FILES + len(whole) == image["out"] + sum(image["rejected"].values())
    assert caption["in"] == caption["out"] + caption["dropped"]["image_rejected"] and caption["out"] == image["out"]
    assert sum("whole" in row["id"] for row in rows["images"]) == len(whole)
    assert image["rejected"].keys() <= REASONS
    assert sum(image["rejected"].values()) > 200
    for row in rows["images"]:
        pixels = decode(row["bytes"])
        assert pixels.mode == "RGB" and pixels.size == (row["width"], row["height"])
