"""How large an image is shown to Grounding DINO, and in which colours."""

import json
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InputError

FILE = "preprocessor_config.json"


@dataclass(frozen=True)
class Sides:
    """The length in pixels that an image's short side is scaled to, the most its long side may then have, and the mean
    and standard deviation of the channels, 0 to 1.
    """

    short: int
    long: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def scaled(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of an image as the model sees it.

        This is the original code's arithmetic, with which checkpoints were trained. transformers' image processor
        gives a long side that meets its limit up to `long / short / 2` pixels more or fewer, because it does not round
        the short side first.
        """
        low, high = min(height, width), max(height, width)
        short = self.short
        if high / low * short > self.long:
            short = round(self.long * low / high)
        if low == short:
            return height, width
        return (int(short * height / width), short) if width < height else (short, int(short * width / height))


def read_sides(folder: Path) -> Sides:
    """The folder's preprocessor_config.json.

    Raises:
        InputError: it is not there, or says what this backend cannot do.
    """
    file = folder / FILE
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        sides = Sides(
            int(said["size"]["shortest_edge"]),
            int(said["size"]["longest_edge"]),
            tuple(float(v) for v in said["image_mean"]),
            tuple(float(v) for v in said["image_std"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: cannot be read ({type(error).__name__}: {error}); get the weights again") from None
    if min(sides.short, *sides.std) <= 0 or len(sides.mean) != 3 or len(sides.std) != 3 or sides.long < sides.short:
        raise InputError(f"{file}: no sizes and colours of an image model; get the weights again")
    return sides
