"""Training scenes rendered once and kept: every vision recipe draws its batches from the same folder.

A block holds `BLOCK` scenes: `images` uint8 [n, 128, 128, 3] (RGB) and `labels` uint8 [n, 128, 128], where a pixel is
0 (background) or 1 + the number of the object that is seen there (masks of a scene are disjoint, so one map holds all).
The scenes themselves (`demo.recipes.heldout.training_scene`) are drawn again from their number.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from demo.recipes.heldout import training_scene
from demo.render import render
from demo.scenes import SIDE, Scene

BLOCK = 500
SCRATCH = Path(".scratch") / "recipes"


def picture_arrays(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 [128, 128, 3] and label map uint8 [128, 128] of a scene."""
    picture = render(scene)
    labels = np.zeros((SIDE, SIDE), np.uint8)
    for number, mask in enumerate(picture.masks, 1):
        labels[np.asarray(mask) > 0] = number
    return np.asarray(picture.image), labels


class Rendered:
    """`count` training scenes of a seed; those that are not on disk are rendered first, with a progress bar."""

    def __init__(self, seed: int, count: int, scratch: Path = SCRATCH, workers: int | None = None) -> None:
        self.seed, self.count = seed, -(-count // BLOCK) * BLOCK
        self._folder = scratch / f"scenes-{seed}"
        self._folder.mkdir(parents=True, exist_ok=True)
        missing = [b for b in range(self.count // BLOCK) if not self._path(b, "labels").exists()]
        if missing:
            with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
                done = pool.map(_write_block, [self] * len(missing), missing)
                list(tqdm(done, total=len(missing), desc=f"rendering blocks of {BLOCK} scenes", leave=False))
        self._blocks: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __getstate__(self) -> dict:
        return {k: v for k, v in vars(self).items() if k != "_blocks"}

    def _path(self, block: int, part: str) -> Path:
        return self._folder / f"{block:05d}.{part}.npy"

    def scene(self, index: int) -> Scene:
        return training_scene(self.seed, index)

    def arrays(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8 [128, 128, 3] and label map uint8 [128, 128] of scene `index`, read-only."""
        block, row = divmod(index, BLOCK)
        if block not in self._blocks:
            self._blocks[block] = tuple(np.load(self._path(block, p), mmap_mode="r") for p in ("images", "labels"))
        images, labels = self._blocks[block]
        return images[row], labels[row]


def _write_block(store: Rendered, block: int) -> None:
    pairs = [picture_arrays(store.scene(index)) for index in range(block * BLOCK, (block + 1) * BLOCK)]
    for number, part in enumerate(("images", "labels")):  # labels last: their file says that the block is whole
        draft = store._path(block, f"{part}.{os.getpid()}.draft")
        np.save(draft, np.stack([pair[number] for pair in pairs]))
        draft.replace(store._path(block, part))
