"""Bad and unusual images, each a real file, through the real stages: a counted row with its reason, or plain upright
RGB.
"""

import hashlib
import io
import json
import struct
import zlib

import pytest
from faults.inject import bound_by_permissions
from PIL import Image
from small import COLOURS, ROOT, in_process, make_collection, write_params

from pipeline.shards import read_all
from stages.common.images import Limits, decode, normalise

RED, GREEN = (200, 40, 40), (40, 160, 60)


def png_of(width: int, height: int, rows: int | None = None) -> bytes:
    """A 1-bit grey PNG built by hand, so that its pixels never lie in memory."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packer = zlib.compressobj(9)
    line = bytes(1 + (width + 7) // 8)
    body = b"".join(packer.compress(line) for _ in range(height if rows is None else rows)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def picture(size=(60, 40), colour=RED) -> Image.Image:
    """A plain picture with a mark in its upper left corner, so that turning it shows."""
    made = Image.new("RGB", size, colour)
    made.paste((255, 255, 255), (0, 0, 20, 10))
    return made


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def frames(kind: str, **options) -> bytes:
    second, third = Image.new("RGB", (60, 40), GREEN), Image.new("RGB", (60, 40), (0, 0, 0))
    return encoded(picture(), kind, save_all=True, append_images=[second, third], **options)


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture((500, 375)), "JPEG", exif=exif, quality=95)


def sixteen_bits() -> bytes:
    wide = Image.new("I;16", (40, 30))
    wide.putdata([i * 50 for i in range(1200)])
    return encoded(wide, "PNG")


def hidden_colours() -> bytes:
    image = Image.new("RGBA", (40, 30), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 10, 30))
    return encoded(image, "PNG")


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


FILES = {
    "good.png": lambda: encoded(picture(colour=GREEN), "PNG"),
    "empty.jpg": lambda: b"",
    "page.jpg": lambda: b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n" * 50,
    "half.jpg": lambda: half(encoded(Image.effect_noise((200, 200), 80).convert("RGB"), "JPEG")),
    "half.png": lambda: half(encoded(Image.effect_noise((200, 200), 80).convert("RGB"), "PNG")),
    "bomb.png": lambda: png_of(20_000, 10_000),
    "liar.png": lambda: png_of(20_000, 10_000, rows=1),
    "warned.png": lambda: png_of(10_000, 10_000),
    "dot.png": lambda: encoded(Image.new("RGB", (1, 1)), "PNG"),
    "thread.png": lambda: encoded(Image.new("RGB", (1, 20_000)), "PNG"),
    "ribbon.png": lambda: encoded(Image.new("RGB", (900, 20)), "PNG"),
    "cmyk.jpg": lambda: encoded(Image.new("CMYK", (40, 30), (0, 255, 255, 0)), "JPEG"),
    "deep.png": sixteen_bits,
    "hidden.png": hidden_colours,
    "moving.gif": lambda: frames("GIF"),
    "moving.png": lambda: frames("PNG"),
    "pages.tiff": lambda: frames("TIFF"),
    "palette.png": lambda: encoded(picture().convert("P", palette=Image.Palette.ADAPTIVE), "PNG"),
    "turned.jpg": lambda: turned(6),
    "grey.jpg": lambda: encoded(Image.new("L", (40, 30), 77), "JPEG"),
    "grey_alpha.png": lambda: encoded(Image.new("LA", (40, 30), (77, 0)), "PNG"),
    "bit.png": lambda: encoded(Image.new("1", (40, 30), 1), "PNG"),
    "first.png": lambda: encoded(picture((61, 41)), "PNG"),
    "second.png": lambda: encoded(picture((61, 41)), "PNG"),
}


class Ingested:
    """A collection after ingest: rows of images by file name, drops by file name, captions, and the ledger."""

    def __init__(self, folder):
        out = folder / "data/small/ingest"
        self.folder = folder
        self.rows = {row["uri"].split("/")[-1]: row for row in read_all(out / "images").to_pylist()}
        drops = read_all(out / "drops").to_pylist()
        self.lost = {d["id"].split("/")[-1]: d for d in drops if d["unit"] == "image"}
        self.captions = read_all(out / "captions").to_pylist()
        self.ledger = json.loads((folder / "metrics/small/ingest.json").read_text())["ledger"]

    def reason(self, name: str) -> tuple[str, str]:
        return self.lost[name]["outcome"], self.lost[name]["reason"]

    def pixels(self, name: str) -> Image.Image:
        made = decode(self.rows[name]["bytes"])
        assert made.mode == "RGB" and made.size == (self.rows[name]["width"], self.rows[name]["height"])
        return made


def ingest(folder, names, **changes) -> Ingested:
    text = "image,caption\n" + "".join(f"{name},a thing in {name.split('.')[0]}\n" for name in names)
    (folder / "collection/captions.csv").write_text(text)
    write_params(
        folder / "params.yaml",
        folder / "collection",
        ingest__source="folder",
        ingest__captions="captions.csv",
        ingest__max_reject_rate=1.0,
        **changes,
    )
    in_process("ingest", folder)
    return Ingested(folder)


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Ingested:
    folder = tmp_path_factory.mktemp("images")
    images = folder / "collection/images"
    images.mkdir(parents=True)
    for name, make in FILES.items():
        (images / name).write_bytes(make())
    outside = folder / "outside.png"
    outside.write_bytes(FILES["good.png"]())
    (images / "link.png").symlink_to(outside)
    return ingest(folder, [*FILES, "link.png", "missing.png", "../outside.png"])


def test_nothing_is_lost_and_the_good_image_is_kept_as_it_is(done):
    counts = done.ledger["image"]
    assert counts["in"] == len(FILES) + 3 == counts["out"] + len(done.lost)
    assert done.rows["good.png"]["bytes"] == FILES["good.png"]() and done.rows["good.png"]["rewritten"] == ""
    captions = done.ledger["caption"]
    assert captions["in"] == counts["in"] == captions["out"] + sum(captions["dropped"].values())


@pytest.mark.fault("F16")
def test_no_bytes(done):
    assert done.reason("empty.jpg") == ("rejected", "empty_file")


@pytest.mark.fault("F17")
def test_a_page_named_jpg(done):
    assert done.reason("page.jpg") == ("rejected", "unreadable")


@pytest.mark.fault("F18")
@pytest.mark.parametrize("name", ["half.jpg", "half.png"])
def test_half_a_file(done, name):
    assert done.reason(name) == ("rejected", "truncated")


@pytest.mark.fault("F20")
@pytest.mark.parametrize("name", ["bomb.png", "liar.png"])
def test_a_bomb_is_not_even_decoded(done, name):
    """`liar.png` holds one row of its ten thousand: were it decoded, it would be called truncated."""
    assert (done.folder / "collection/images" / name).stat().st_size < 40_000
    assert done.reason(name) == ("rejected", "too_many_pixels")


@pytest.mark.fault("F21")
def test_what_pillow_only_warns_of(done):
    assert done.reason("warned.png") == ("rejected", "too_many_pixels")


@pytest.mark.fault("F22")
def test_shapes(done):
    assert done.reason("dot.png") == ("rejected", "too_small")
    assert done.reason("thread.png") == ("rejected", "aspect")
    assert done.reason("ribbon.png") == ("rejected", "aspect")


@pytest.mark.fault("F23")
def test_cmyk_keeps_its_colour(done):
    red, green, blue = done.pixels("cmyk.jpg").getpixel((20, 15))
    assert red > 200 and green < 60 and blue < 60
    assert done.rows["cmyk.jpg"]["rewritten"] == "jpeg_cmyk"


@pytest.mark.fault("F24")
def test_sixteen_bits_are_scaled(done):
    deep = done.pixels("deep.png")
    assert [deep.getpixel((x, 29))[0] for x in (0, 39)] == [round(1160 * 50 / 257), round(1199 * 50 / 257)]
    assert done.rows["deep.png"]["rewritten"].startswith("png_i")


@pytest.mark.fault("F25")
def test_colours_under_alpha_stay_hidden(done):
    made = done.pixels("hidden.png")
    assert made.getpixel((30, 15)) == (255, 255, 255) and made.getpixel((5, 15)) == (0, 0, 255)


@pytest.mark.fault("F26")
@pytest.mark.parametrize("name", ["moving.gif", "moving.png", "pages.tiff"])
def test_of_several_frames_the_first(done, name):
    made = done.pixels(name)
    assert all(abs(a - b) < 8 for a, b in zip(made.getpixel((40, 30)), RED, strict=True))
    assert "first_frame" in done.rows[name]["rewritten"]


@pytest.mark.fault("F26")
def test_a_palette_becomes_its_colours(done):
    assert done.pixels("palette.png").getpixel((40, 30)) == RED
    assert done.rows["palette.png"]["rewritten"] == "png_p"


@pytest.mark.fault("F27")
def test_a_turned_photo_is_stored_upright(done):
    row = done.rows["turned.jpg"]
    assert (row["width"], row["height"], row["rewritten"]) == (375, 500, "exif_rotation")
    made = done.pixels("turned.jpg")
    assert min(made.getpixel((370, 5))) > 230, "the upper left corner is now the upper right"
    assert max(made.getpixel((5, 5))[1:]) < 80
    assert made.getexif().get(0x0112, 1) == 1, "and nobody turns it once more"


@pytest.mark.fault("F28")
def test_grey_and_one_bit(done):
    assert all(abs(value - 77) < 3 for value in done.pixels("grey.jpg").getpixel((9, 9)))
    assert done.pixels("grey_alpha.png").getpixel((9, 9)) == (255, 255, 255)
    assert done.pixels("bit.png").getpixel((9, 9)) == (255, 255, 255)


@pytest.mark.fault("F29")
def test_a_missing_file(done):
    assert done.reason("missing.png") == ("rejected", "missing_file")
    assert done.ledger["caption"]["dropped"]["image_rejected"] == sum(done.ledger["image"]["rejected"].values())


@pytest.mark.fault("F30")
def test_one_image_under_two_ids(done):
    assert done.reason("second.png") == ("dropped", "duplicate")
    kept = [row["text"] for row in done.captions if row["image_id"] == done.rows["first.png"]["id"]]
    assert sorted(kept) == ["a thing in first", "a thing in second"]


@pytest.mark.fault("F31")
def test_links_and_paths_that_leave_the_folder(done):
    assert done.reason("link.png") == ("rejected", "outside_root")
    assert done.reason("outside.png") == ("rejected", "outside_root")


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_damaged_exif_costs_its_orientation_and_no_traceback(tmp_path, kind, recwarn):
    """Pillow raises SyntaxError on some of it, and warns on standard error of more."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "x" * 40
    whole = encoded(picture(), kind, exif=exif)
    at = whole.index(b"MM\0*")
    for size, mark in ((4, b"MI\0*"), (4, b"\xff\xd8\0\0"), (10, b"MM\0*\xff\xff\xff\xff\xff\xff")):
        data = bytearray(whole)
        data[at : at + size] = mark
        if kind == "PNG":
            data = with_checksums(bytes(data))
        stored = normalise(bytes(data), Limits(10**6, 8, 10.0))
        assert decode(stored.bytes).size == (stored.width, stored.height) == (60, 40)
        assert "bad_metadata" in stored.rewritten or not stored.rewritten
    assert not recwarn.list


def with_checksums(png: bytes) -> bytes:
    """The same PNG with right checksums of its chunks, whatever was done to them."""
    made, at = png[:8], 8
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        body = png[at + 4 : at + 8 + size]
        made += png[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + size
    return made


@pytest.mark.fault("F19")
def test_a_flipped_byte_that_still_decodes(tmp_path):
    """Where the collection states what a file should be, a changed one is refused; else its own hash is on record."""
    images = tmp_path / "collection/images"
    images.mkdir(parents=True)
    whole = encoded(Image.effect_noise((120, 90), 60).convert("RGB"), "JPEG", quality=90)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0x10
    assert decode(bytes(flipped)).tobytes() != decode(whole).tobytes(), "it decodes, to other pixels"
    (images / "stated.jpg").write_bytes(flipped)
    (images / "unstated.jpg").write_bytes(whole[:-2] + bytes(flipped[-2:]))
    rows = [
        {"image": "stated.jpg", "caption": "grey noise", "sha256": hashlib.sha256(whole).hexdigest()},
        {"image": "unstated.jpg", "caption": "grey noise"},
    ]
    (tmp_path / "collection/captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_params(
        tmp_path / "params.yaml",
        tmp_path / "collection",
        ingest__source="folder",
        ingest__captions="captions.jsonl",
        ingest__max_reject_rate=1.0,
    )
    in_process("ingest", tmp_path)
    found = Ingested(tmp_path)
    assert found.reason("stated.jpg") == ("rejected", "sha256_differs")
    assert found.rows["unstated.jpg"]["sha256"] == hashlib.sha256((images / "unstated.jpg").read_bytes()).hexdigest()


@pytest.mark.fault("F32")
def test_a_file_that_may_not_be_read(tmp_path):
    images = tmp_path / "collection/images"
    images.mkdir(parents=True)
    (images / "good.png").write_bytes(FILES["good.png"]())
    (images / "closed.png").write_bytes(FILES["first.png"]())
    (images / "closed.png").chmod(0)
    bound_by_permissions(tmp_path, lambda: ingest(tmp_path, ["good.png", "closed.png"]))
    found = Ingested(tmp_path)
    assert found.reason("closed.png") == ("rejected", "unreadable")
    assert set(found.rows) == {"good.png"}


@pytest.mark.fault("F27")
def test_boxes_masks_and_pairs_refer_to_the_upright_frame(tmp_path):
    """A collection whose photos are stored turned by EXIF gives the same pairs as one whose photos are upright."""
    frames_of = {}
    for name, orientation in (("upright", 1), ("turned", 6)):
        folder = tmp_path / name
        make_collection(folder / "collection", 6)
        for file in (folder / "collection/images").glob("*.png"):
            upright = Image.open(file).convert("RGB")
            exif = Image.Exif()
            exif[0x0112] = orientation
            # Orientation 6 is shown turned clockwise by 90 degrees, so what is stored is turned back.
            stored = upright.transpose(Image.Transpose.ROTATE_90) if orientation == 6 else upright
            stored.save(file, exif=exif)
        write_params(
            folder / "params.yaml", folder / "collection", embed__path=str(ROOT / "demo/checkpoints/vision_random")
        )
        for stage in ("ingest", "parse", "detect", "segment", "embed", "align"):
            in_process(stage, folder)
        images = {row["id"]: row for row in read_all(folder / "data/small/ingest/images").to_pylist()}
        pairs = read_all(folder / "data/small/align/pairs").to_pylist()
        frames_of[name] = pairs
        assert {(row["width"], row["height"]) for row in images.values()} == {(64, 48)}
        assert len(pairs) > 10
        for pair in pairs:
            x, y = int((pair["x0"] + pair["x1"]) / 2), int((pair["y0"] + pair["y1"]) / 2)
            colour = COLOURS[pair["text"].split()[1]]
            assert decode(images[pair["image_id"]]["bytes"]).getpixel((x, y)) == colour, pair["text"]
    same = [{k: v for k, v in pair.items() if k != "similarity"} for pair in frames_of["upright"]]
    assert same == [{k: v for k, v in pair.items() if k != "similarity"} for pair in frames_of["turned"]]
