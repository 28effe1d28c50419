"""Training scenes rendered once and kept: every vision recipe draws its batches from the same folder.

A block holds `BLOCK` scenes: `images` uint8 [n, 128, 128, 3] (RGB) and `labels` uint8 [n, 128, 128], where a pixel is
0 (background) or 1 + the number of the object that is seen there (masks of a scene are disjoint, so one map holds all).
The scenes themselves (`demo.recipes.heldout.training_scene`) are drawn again from their number.

The folder is named for the seed and for the code that draws, so a changed world is rendered anew. A block is rendered
under its lock: recipes started side by side share the blocks out, and one that was killed leaves none half done.
"""

import ast
import hashlib
import io
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path

import numpy as np
import PIL
from PIL import Image
from tqdm import tqdm

from demo import backdrops, patterns, render, scenes, shapes
from demo.recipes import heldout
from demo.recipes.command import SCRATCH
from demo.recipes.heldout import training_scene
from demo.scenes import SIDE, Scene
from pipeline.errors import ResourceError
from pipeline.process import die_with_parent, lock

BLOCK = 500
_DRAWN_BY = (scenes, shapes, patterns, backdrops, render, heldout)


@cache
def world_hash() -> str:
    """Eight hexadecimal digits of the code that decides what a training scene looks like, comments left out."""
    digest = hashlib.sha256(PIL.__version__.encode())
    for module in _DRAWN_BY:
        digest.update(ast.dump(ast.parse(Path(module.__file__).read_text(encoding="utf-8"))).encode())
    return digest.hexdigest()[:8]


def picture_arrays(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 [128, 128, 3] and label map uint8 [128, 128] of a scene."""
    picture = render.render(scene)
    labels = np.zeros((SIDE, SIDE), np.uint8)
    for number, mask in enumerate(picture.masks, 1):
        labels[np.asarray(mask) > 0] = number
    return np.asarray(picture.image), labels


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 in pixels, x1 and y1 exclusive, of a mask bool [H, W] that is not empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def image_row(identifier: str, pixels: np.ndarray) -> dict[str, object]:
    """What the vision stages read of a row of `images`; pixels uint8 [H, W, 3], stored as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return {"id": identifier, "bytes": buffer.getvalue(), "height": pixels.shape[0], "width": pixels.shape[1]}


class Rendered:
    """`count` training scenes of a seed (rounded up to whole blocks of `block`); those that are not on disk are
    rendered first, with a progress bar, by `workers` processes (default: one for each core)."""

    def __init__(
        self, seed: int, count: int, scratch: Path = SCRATCH, workers: int | None = None, block: int = BLOCK
    ) -> None:
        self.seed, self.block, self.count = seed, block, -(-count // block) * block
        self._folder = scratch / f"scenes-{seed}-{world_hash()}" / f"blocks-{block}"
        self._folder.mkdir(parents=True, exist_ok=True)
        missing = [number for number in range(self.count // block) if not self._whole(number)]
        if missing:
            self._render(missing, workers or os.cpu_count() or 1)
        self._blocks: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __getstate__(self) -> dict:
        return {k: v for k, v in vars(self).items() if k != "_blocks"}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state, _blocks={})

    def scene(self, index: int) -> Scene:
        return training_scene(self.seed, index)

    def arrays(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8 [128, 128, 3] and label map uint8 [128, 128] of scene `index`, read-only.

        Raises:
            IndexError: there are only `count` scenes.
        """
        if not 0 <= index < self.count:
            raise IndexError(f"scene {index} of {self.count}")
        number, row = divmod(index, self.block)
        if number not in self._blocks:
            self._blocks[number] = tuple(np.load(self._path(number, p), mmap_mode="r") for p in ("images", "labels"))
        images, labels = self._blocks[number]
        return images[row], labels[row]

    def _path(self, number: int, part: str) -> Path:
        return self._folder / f"{number:05d}.{part}.npy"

    def _whole(self, number: int) -> bool:
        return self._path(number, "labels").exists()

    def _render(self, missing: list[int], workers: int) -> None:
        """Every missing block, whoever renders it: those that another recipe is at are waited for at the end."""
        left = []
        with tqdm(total=len(missing), desc=f"rendering blocks of {self.block} scenes", leave=False) as bar:
            for number, done in self._tried(missing, workers):
                if done:
                    bar.update()
                else:
                    left.append(number)
            for number in left:
                while not self._whole(number) and not _write_block(self, number):
                    time.sleep(0.2)
                bar.update()

    def _tried(self, missing: list[int], workers: int) -> Iterator[tuple[int, bool]]:
        """Blocks and whether they are there now, as they come."""
        if workers == 1:
            yield from ((number, _write_block(self, number)) for number in missing)
            return
        with ProcessPoolExecutor(workers, initializer=die_with_parent) as pool:
            tasks = {pool.submit(_write_block, self, number): number for number in missing}
            for task in as_completed(tasks):
                yield tasks[task], task.result()


def _write_block(store: Rendered, number: int) -> bool:
    """Renders a block; False, and nothing done, if another process is at it."""
    path = store._folder / f"{number:05d}.lock"
    path.touch()  # where nothing can be written it is told here; what `lock` then refuses is held by another
    try:
        with lock(path, f"rendering of block {number}"):
            if not store._whole(number):
                _render_block(store, number)
            return True
    except ResourceError:
        return False


def _render_block(store: Rendered, number: int) -> None:
    first = number * store.block
    pairs = [picture_arrays(store.scene(index)) for index in range(first, first + store.block)]
    for place, part in enumerate(("images", "labels")):  # labels last: their file says that the block is whole
        draft = store._path(number, f"{part}.draft")
        np.save(draft, np.stack([pair[place] for pair in pairs]))
        draft.replace(store._path(number, part))
