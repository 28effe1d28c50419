"""Annotated objects from COCO instances files: the backend `annotations` of detect and segment."""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.files import hash_path, sha256_json
from pipeline.runner import Context, Task


@dataclass(frozen=True)
class Thing:
    """An annotated object: category name, box x0, y0, x1, y1 in pixels, COCO `segmentation` as given."""

    id: str
    image_id: str
    category: str
    box: tuple[float, float, float, float]
    segmentation: Any
    crowd: bool


class Annotations:
    """Every annotated object of one instances file, or of all files of a folder that match a glob.

    An image goes by its id, and by its file name if the file says it (`of_image` has both): in a collection without
    ids of its own, an image's id is its path.

    Raises:
        InputError: no such file, or not COCO instances JSON.
    """

    def __init__(self, path: Path, pattern: str):
        files = [path] if path.is_file() else sorted(path.glob(pattern)) if path.is_dir() else []
        if not files:
            raise InputError(
                f"{path}: no annotation file here that matches {pattern!r}; put a COCO instances file there, name "
                "another by `path` and `annotations` of detect and segment, or let a model find the boxes (`backend`)"
            )
        self.of_image: dict[str, list[Thing]] = defaultdict(list)
        self.of_id: dict[str, Thing] = {}
        self.categories: dict[str, None] = {}
        for file in files:
            self._read(file)

    def _read(self, file: Path) -> None:
        try:
            document = json.loads(file.read_text(encoding="utf-8-sig"))
            names = {category["id"]: str(category["name"]) for category in document["categories"]}
            self.categories |= dict.fromkeys(names.values())
            files = {str(image["id"]): str(image.get("file_name", "")) for image in document.get("images", ())}
            for item in document["annotations"]:
                x, y, w, h = (float(v) for v in item["bbox"])
                thing = Thing(
                    f"{item['image_id']}/{item['id']}",
                    str(item["image_id"]),
                    names[item["category_id"]],
                    (x, y, x + w, y + h),
                    item.get("segmentation"),
                    bool(item.get("iscrowd", 0)),
                )
                if thing.id not in self.of_id:
                    self.of_image[thing.image_id].append(thing)
                    if (name := files.get(thing.image_id)) and name != thing.image_id:
                        self.of_image[name].append(thing)
                    self.of_id[thing.id] = thing
        except json.JSONDecodeError as error:
            raise InputError(f"{file}: line {error.lineno}: not valid JSON ({error.msg})") from None
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file}: cannot be read ({error})") from None
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{file}: not COCO instances JSON ({type(error).__name__}: {error})") from None

    def digest(self, image_ids: list[str]) -> str:
        """A content hash of what is annotated in these images, and of the list of categories."""
        things = [
            [t.id, t.category, t.box, t.crowd, t.segmentation] for key in image_ids for t in self.of_image.get(key, ())
        ]
        return sha256_json([sorted(self.categories), things])


def path_hash(table: str) -> Any:
    """A stage's `path_hash` where the path is an instances file: it covers only the annotations of a shard's own
    images.

    Hashing the file whole would recompute every shard when annotations for new images are added to it. Weights are
    hashed whole.
    """

    def open_path(context: Context) -> Any:
        if context.section.backend != "annotations":
            digest = hash_path(Path(context.section.path))
            return lambda task: digest
        index = Annotations(Path(context.section.path), context.section.annotations)

        def of_task(task: Task) -> str:
            column = pq.read_table(task.inputs[table], columns=["image_id"]).column(0)
            return index.digest(sorted(set(column.to_pylist())))

        return of_task

    return open_path
