"""Source `coco`: COCO captions JSON files and folders of images."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from stages.ingest.records import Image, Record, caption
from stages.ingest.sources.files import folders, locate, matching
from stages.ingest.sources.json_stream import NotSuchJson, items


def read(section: Any) -> Iterator[Record]:
    """Images and captions of the JSON files that match `captions`; image names are looked up in the folders of
    `images`.

    The image id is COCO's, as a string; a caption's id is `<image id>#<annotation id>`, since subsets are often
    renumbered a file.

    Raises:
        InputError: a file is missing or is not COCO captions JSON.
    """
    root, among = Path(section.path), folders(section)
    for file in matching(root, section.captions, "captions"):
        try:
            for key, item in items(file, ("images", "annotations")):
                if key == "images":
                    yield Image(str(item["id"]), locate(root, among, str(item["file_name"])))
                else:
                    identifier = f"{item['image_id']}#{item['id']}"
                    yield caption(str(item["image_id"]), identifier, item["caption"], identifier)
        except (KeyError, TypeError, NotSuchJson) as error:
            why = f"missing {error}" if isinstance(error, KeyError) else error
            raise InputError(
                f"{file}: not COCO captions JSON ({why}); `images` need id and file_name, `annotations` image_id, id "
                "and caption"
            ) from None
