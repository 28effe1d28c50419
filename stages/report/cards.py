"""Cards: a pair, or something that did not become one, with its photo, outlines, box, caption and numbers."""

import base64
import io
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from pipeline.errors import InputError
from pipeline.rows import stored_images
from stages.common import rle
from stages.common.cases import Box, Case
from stages.common.images import BadImage, decode
from stages.report.outline import outline
from stages.report.records import Passage, passage, pick

# Longest side of a thumbnail in pixels, and of how many photos on it is the smaller one: 4,000 photographs are then
# about 28 MB of page.
SIDE, SMALL_SIDE, MANY = 320, 240, 600
QUALITY = 70


@dataclass(frozen=True)
class Photo:
    """A thumbnail, embedded once however many cards show it; `url` is a WebP file as a data: URL, `width` and `height`
    are in its pixels, `stored` is width and height of the image it shows.
    """

    name: str
    url: str
    width: int
    height: int
    stored: tuple[int, int]


@dataclass(frozen=True)
class Card:
    """A case as it is drawn: outlines (SVG path data, '' for none) and boxes (x, y, width, height) in pixels of the
    photo's thumbnail. `anchor` is unique on the page.
    """

    anchor: str
    case: Case
    photo: Photo
    mask: str
    gold: str
    box: tuple[float, ...] | None
    gold_box: tuple[float, ...] | None
    caption: Passage


def draw(data: Path, cases: list[Case]) -> tuple[list[Photo], list[Card]]:
    """The photos and the cards of these cases, in their order; every stored image is decoded once, one at a time.

    Raises:
        InputError: a shard is damaged, or the image or caption of a case is not in its shard.
    """
    side = SIDE if len({case.image_id for case in cases}) <= MANY else SMALL_SIDE
    in_shard: dict[int, list[int]] = defaultdict(list)
    for place, case in enumerate(cases):
        in_shard[case.shard].append(place)
    thumbnails: dict[str, Photo] = {}
    cards: dict[int, Card] = {}
    for shard, places in sorted(in_shard.items()):
        here = [cases[place] for place in places]
        captions = pick(data / "ingest" / "captions", shard, {case.caption_id for case in here}, ["id", "text"])
        for image_id, stored in stored_images(data / "ingest" / "images", shard, {case.image_id for case in here}):
            thumbnails[image_id] = thumbnail(stored, image_id, side)
        for place, case in zip(places, here, strict=True):
            if case.image_id not in thumbnails or case.caption_id not in captions:
                raise InputError(
                    f"{data}: {case.id} has no image or caption in shard {shard}; the stages come from different "
                    "runs: `dvc repro` makes them agree"
                )
            cards[place] = _card(case, thumbnails[case.image_id], captions[case.caption_id]["text"])
    return _named([cards[place] for place in range(len(cases))])


def _named(cards: list[Card]) -> tuple[list[Photo], list[Card]]:
    """Photos named in order of use, whatever the shards; anchors that would repeat get a number."""
    photos: dict[str, Photo] = {}
    uses: dict[str, int] = defaultdict(int)
    named = []
    for card in cards:
        photo = photos.setdefault(card.case.image_id, replace(card.photo, name=f"photo-{len(photos)}"))
        uses[card.anchor] += 1
        anchor = card.anchor if uses[card.anchor] == 1 else f"{card.anchor}~{uses[card.anchor]}"
        named.append(replace(card, photo=photo, anchor=anchor))
    return list(photos.values()), named


def thumbnail(stored: bytes, image_id: str, side: int) -> Photo:
    """A stored image as a WebP file of at most `side` pixels a side; never enlarged.

    Raises:
        InputError: the stored bytes do not decode.
    """
    try:
        image = decode(stored)
    except BadImage as error:
        raise InputError(
            f"image {image_id}: stored pixels do not decode ({error}); run `dvc checkout` or `dvc repro ingest`"
        ) from None
    stored_size = image.size
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=QUALITY, method=2)
    url = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Photo("", url, image.width, image.height, stored_size)


def _card(case: Case, photo: Photo, text: str) -> Card:
    def traced(counts: bytes | None) -> str:
        return "" if counts is None else outline(rle.decode(counts, *case.frame), photo.width, photo.height)

    def scaled(box: Box | None) -> tuple[float, ...] | None:
        if box is None:
            return None
        across, down = photo.width / photo.stored[0], photo.height / photo.stored[1]
        x0, y0, x1, y1 = box
        return tuple(round(v, 1) + 0.0 for v in (x0 * across, y0 * down, (x1 - x0) * across, (y1 - y0) * down))

    # Ids made from a span hold an "@"; any other gets one, so that none can be an id of the page's own.
    anchor = case.id if "@" in case.id else f"@{case.id}"
    start, end = case.span or (0, 0)
    words = passage(text, start, end) if case.span else Passage(text, "", "")
    boxes = scaled(case.box), scaled(case.gold_box)
    return Card(anchor, case, photo, traced(case.mask), traced(case.gold), *boxes, words)
