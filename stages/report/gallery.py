"""The gallery: a drawn sample of pairs, each with its photo, mask, box, caption and scores."""

import base64
import heapq
import io
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup, escape
from PIL import Image

from pipeline.errors import InputError
from stages.common import rle
from stages.common.images import BadImage, decode
from stages.report.outline import outline
from stages.report.records import Passage, draw_key, each_shard, passage, pick

THUMBNAIL = 320
QUALITY = 80


@dataclass(frozen=True)
class Photo:
    """A thumbnail, embedded once however many cards show it; `url` is a JPEG as a data: URL, sizes in its pixels."""

    name: str
    url: str
    width: int
    height: int


@dataclass(frozen=True)
class Card:
    """A pair as it is shown: `anchor` is its id as an HTML attribute, `path` the outline of its mask.

    Outline and `box` (x, y, width, height) are in pixels of the thumbnail.
    """

    anchor: Markup
    pair: dict
    photo: Photo
    path: str
    box: tuple[str, str, str, str]
    caption: Passage


@dataclass(frozen=True)
class Gallery:
    total: int
    photos: list[Photo]
    cards: list[Card]


def draw(data: Path, most: int, seed: int) -> Gallery:
    """Draws `most` pairs by a hash of seed and id, in that order; reads only the shards in which they lie.

    Raises:
        InputError: a shard is damaged, or a pair's image or caption is not in the same shard.
    """
    count, drawn = 0, []
    for number, table in each_shard(data / "align" / "pairs", ["id"]):
        ids = table.column("id").to_pylist()
        count += len(ids)
        drawn = heapq.nsmallest(most, drawn + [(draw_key(seed, identifier), identifier, number) for identifier in ids])
    in_shard = defaultdict(list)
    for _, identifier, number in drawn:
        in_shard[number].append(identifier)
    cards: dict[str, Card] = {}
    photos: dict[str, Photo] = {}
    for number, ids in sorted(in_shard.items()):
        pairs = pick(data / "align" / "pairs", number, ids)
        captions = pick(data / "ingest" / "captions", number, [p["caption_id"] for p in pairs.values()], ["id", "text"])
        images = pick(data / "ingest" / "images", number, [p["image_id"] for p in pairs.values()], ["id", "bytes"])
        for identifier, pair in sorted(pairs.items()):
            if pair["image_id"] not in images or pair["caption_id"] not in captions:
                raise InputError(
                    f"{data}: pair {identifier} has no image or caption in shard {number}; the stages come from "
                    "different runs: `dvc repro` makes them agree"
                )
            if pair["image_id"] not in photos:
                photos[pair["image_id"]] = thumbnail(
                    images[pair["image_id"]]["bytes"], f"photo-{len(photos)}", pair["image_id"]
                )
            cards[identifier] = _card(pair, photos[pair["image_id"]], captions[pair["caption_id"]]["text"])
    return Gallery(count, list(photos.values()), [cards[identifier] for _, identifier, _ in drawn])


def thumbnail(data: bytes, name: str, image_id: str) -> Photo:
    """A stored image as a JPEG of at most 320 pixels a side; never enlarged.

    Raises:
        InputError: the stored bytes do not decode.
    """
    try:
        image = decode(data)
    except BadImage as error:
        raise InputError(
            f"image {image_id}: stored pixels do not decode ({error}); run `dvc checkout` or `dvc repro ingest`"
        ) from None
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    url = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Photo(name, url, image.width, image.height)


def _card(pair: dict, photo: Photo, text: str) -> Card:
    mask = rle.decode(pair["counts"], pair["height"], pair["width"])
    across, down = photo.width / pair["width"], photo.height / pair["height"]
    box = (pair["x0"] * across, pair["y0"] * down, (pair["x1"] - pair["x0"]) * across, (pair["y1"] - pair["y0"]) * down)
    return Card(
        Markup(escape(pair["id"])),
        pair,
        photo,
        outline(mask, photo.width, photo.height),
        tuple(f"{v:.1f}" for v in box),
        passage(text, pair["start"], pair["end"]),
    )
