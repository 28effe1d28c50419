"""Near-duplicates: copies are found, different pictures are not, whatever the order."""

import io
import itertools
import json

import numpy as np
import pytest
from ingested import ingest, rows, texts
from PIL import Image
from small import digests

from stages.ingest.near import look_alikes


def scene(seed: int) -> Image.Image:
    """A smooth picture of its own for every seed."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((160, 120), Image.Resampling.BICUBIC)


def collection(folder, pictures: dict[str, Image.Image], **saving):
    (folder / "collection/images").mkdir(parents=True, exist_ok=True)
    for name, made in pictures.items():
        options = {"quality": 95} if name.endswith(".jpg") else {}
        made.save(folder / "collection/images" / name, **(options | saving.get(name.split(".")[0], {})))
    names = sorted(path.name for path in (folder / "collection/images").iterdir())
    lines = "".join(f"{name},a picture called {name}\n" for name in names)
    (folder / "collection/captions.csv").write_text(f"image,caption\n{lines}")


def run(folder, **changes):
    return ingest(folder, "folder", "captions.csv", **changes)


def test_rescaled_and_recompressed_copies_are_found_and_others_are_not(tmp_path):
    pictures = {f"{seed}.png": scene(seed) for seed in range(12)}
    pictures |= {"z_half.png": scene(3).resize((80, 60)), "z_coarse.jpg": scene(5), "z_grey.png": scene(7).convert("L")}
    collection(tmp_path, pictures, z_coarse={"quality": 30})
    ledger, _ = run(tmp_path)
    assert ledger["image"]["out"] == 15, "off unless asked for"
    ledger, drops = run(tmp_path, near_duplicates=4)
    assert ledger["image"] == {"in": 15, "out": 12, "dropped": {"near_duplicate": 3}, "rejected": {}}
    assert ledger["caption"]["dropped"] == {"image_dropped": 3}, "boxes of a copy of another size would be off"
    found = {d["id"]: d["detail"] for d in drops if d["reason"] == "near_duplicate"}
    for copy, of in (("z_half.png", "3.png"), ("z_coarse.jpg", "5.png"), ("z_grey.png", "7.png")):
        assert found[f"images/{copy}"].startswith(f"looks like images/{of}, ")
    assert set(texts(tmp_path)) == {f"images/{seed}.png" for seed in range(12)}


def test_a_turned_copy_is_compared_as_it_is_stored(tmp_path):
    turned = scene(1).transpose(Image.Transpose.ROTATE_90)
    exif = turned.getexif()
    exif[0x0112] = 6
    collection(tmp_path, {"a.png": scene(1), "b.jpg": turned}, b={"exif": exif})
    assert run(tmp_path, near_duplicates=4)[0]["image"]["dropped"] == {"near_duplicate": 1}


def test_images_that_cannot_stay_take_no_one_with_them(tmp_path):
    collection(tmp_path, {"b.png": scene(1), "c.png": scene(1).resize((80, 60))})
    scene(1).save(tmp_path / "collection/images/a.jpg")
    data = io.BytesIO()
    scene(1).save(data, "JPEG")
    (tmp_path / "collection/images/aa.jpg").write_bytes(data.getvalue()[:900])
    with (tmp_path / "collection/captions.csv").open("a") as handle:
        handle.write("aa.jpg,half a file\n")
    ledger, _ = run(tmp_path, near_duplicates=4)
    assert ledger["image"]["dropped"] == {"near_duplicate": 1, "no_caption": 1}
    assert set(texts(tmp_path)) == {"images/b.png"}, "a has no caption and aa does not decode"


def test_plain_pictures_are_not_alike_for_having_nothing_on_them(tmp_path):
    collection(tmp_path, {name: Image.new("RGB", (50, 40), name.split(".")[0]) for name in ("red.png", "blue.png")})
    assert run(tmp_path, near_duplicates=12)[0]["image"]["out"] == 2


def test_the_cache_is_used_and_a_damaged_one_is_made_anew(tmp_path, monkeypatch):
    from stages.ingest import near

    collection(tmp_path, {f"{seed}.png": scene(seed) for seed in range(4)} | {"z.png": scene(2).resize((80, 60))})
    first = run(tmp_path, near_duplicates=4)
    made = digests(tmp_path / "data")
    hashed = []
    real = near.perceptual_hash
    monkeypatch.setattr(near, "perceptual_hash", lambda image: hashed.append(1) or real(image))
    collection(tmp_path, {"y.png": scene(9)})
    run(tmp_path, near_duplicates=4)
    assert len(hashed) == 1, "only the new picture"
    (tmp_path / "collection/images/y.png").unlink()
    collection(tmp_path, {})
    cache = tmp_path / ".scratch/small/ingest/phash.sqlite"
    cache.write_bytes(b"no database at all, but long enough to be taken for one" * 50)
    assert run(tmp_path, near_duplicates=4) == first and len(hashed) == 6
    assert digests(tmp_path / "data") == made


def test_a_grown_collection_changes_only_the_shards_it_touches(tmp_path):
    collection(tmp_path, {f"{seed}.png": scene(seed) for seed in range(40)})
    run(tmp_path, near_duplicates=4, shards=16)
    before = digests(tmp_path / "data/small/ingest/images")
    collection(tmp_path, {"new.png": scene(100), "z_copy.png": scene(7).resize((80, 60))})
    ledger, _ = run(tmp_path, near_duplicates=4, shards=16)
    assert ledger["image"]["dropped"] == {"near_duplicate": 1}
    after = digests(tmp_path / "data/small/ingest/images")
    assert sum(before[name] != after[name] for name in before) == 1, "new.png's; the copy is in no table of images"


def test_stored_hashes_are_those_of_the_stored_pixels(tmp_path):
    from stages.common.images import decode
    from stages.common.phash import perceptual_hash

    collection(tmp_path, {"a.png": scene(1), "b.png": scene(2).convert("RGBA"), "c.jpg": scene(3).convert("CMYK")})
    run(tmp_path)
    for row in rows(tmp_path, "images"):
        assert row["phash"] == perceptual_hash(decode(row["bytes"])), row["uri"]
    assert len({row["phash"] for row in rows(tmp_path, "images")}) == 3


@pytest.mark.parametrize("distance", [0, 3, 8])
def test_look_alikes_are_those_of_the_plain_rule(distance):
    draw = np.random.default_rng(distance)
    hashes = draw.integers(1, 2**63, 60, dtype=np.uint64)
    for place in range(20, 60):
        bits = draw.choice(64, draw.integers(0, distance + 2), replace=False)
        hashes[place] = hashes[draw.integers(0, place)] ^ np.uint64(sum(1 << int(bit) for bit in bits))
    hashes[[5, 25, 55]] = 0
    kept, dropped = [], set()
    for place, value in enumerate(hashes.tolist()):
        near = [other for other in kept if value and (value ^ int(hashes[other])).bit_count() <= distance]
        kept += [] if near else [place]
        dropped |= {place} if near else set()
    found = list(look_alikes(hashes, distance))
    assert {row[0] for row in found} == dropped
    for place, other, bits in found:
        assert other in kept and other < place
        assert bits == (int(hashes[place]) ^ int(hashes[other])).bit_count() <= distance


def test_the_order_of_the_captions_file_is_of_no_consequence(tmp_path):
    made = []
    names = [f"{seed}.png" for seed in range(6)] + ["z.png"]
    for order in itertools.islice(itertools.permutations(names), 0, 5040, 2000):
        folder = tmp_path / str(len(made))
        pictures = {f"{seed}.png": scene(seed) for seed in range(6)} | {"z.png": scene(4).resize((80, 60))}
        (folder / "collection").mkdir(parents=True)
        collection(folder, pictures)
        lines = "".join(f"{name},a picture called {name}\n" for name in order)
        (folder / "collection/captions.csv").write_text(f"image,caption\n{lines}")
        run(folder, near_duplicates=4)
        made.append(json.dumps([rows(folder, table) for table in ("captions", "drops")]))
    assert len(set(made)) == 1
