"""What params.yaml says, the parameter file of a dataset, and how a stage is started on it.

A dataset is a world with gold pairs, or a source of other pairs for the base world. It lies in
data/ablation/datasets/<name>, in folders named as the stages that write them; how good its pairs are, in
data/ablation/quality/<name>; what was trained on it, in data/ablation/runs/<name>/<recipe>/<seed>.
"""

import io
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline import params as parameters
from pipeline.errors import InputError, ParamsError
from pipeline.files import write_text
from pipeline.tables import WRITER

PARAMS, PRESET = Path("ablation/params.yaml"), Path("presets/demo.yaml")
DATASETS, QUALITY, RUNS = (Path("data/ablation") / name for name in ("datasets", "quality", "runs"))
SCRATCH = Path(".scratch/ablation")
MODELS = "models"  # the source whose pairs the models of settings.parse, .detect and .segment find
WORLD = "world"  # folder of a world in its dataset: images, captions, annotations


@dataclass(frozen=True)
class Matrix:
    """The experiment as params.yaml has it; see the comments there."""

    scenes: int
    world_seed: int
    avoid: str
    worlds: dict[str, dict[str, float]]
    base: str
    sources: dict[str, dict[str, Any]]
    grid: dict[str, list]
    settings: dict[str, dict[str, Any]]

    def world_of(self, dataset: str) -> str:
        """The world whose images and captions a dataset has.

        Raises:
            ParamsError: there is no such dataset.
        """
        if dataset in self.worlds:
            return dataset
        if dataset in self.sources or dataset == MODELS:
            return self.base
        known = ", ".join([*self.worlds, *self.sources, MODELS])
        raise ParamsError(f"{dataset!r}: no such dataset in {PARAMS}; there are {known}")

    def gold(self, dataset: str) -> Path:
        """The annotations of the dataset's world."""
        return DATASETS / self.world_of(dataset) / WORLD / "annotations"


def load(path: Path = PARAMS) -> Matrix:
    """Reads the matrix.

    Raises:
        InputError: there is no such file.
        ParamsError: a key is missing or unknown, or a name is not that of a world.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; run this in the root of the checkout")
    values = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    fields = Matrix.__dataclass_fields__
    if odd := sorted(set(fields) ^ set(values)):
        raise ParamsError(f"{path}: {odd[0]!r} is {'missing' if odd[0] in fields else 'unknown'}")
    made = Matrix(**values)
    for name in (made.base, *made.grid["noise"]):
        if name not in made.worlds:
            raise ParamsError(f"{path}: {name!r} is not among `worlds`")
    return made


def sections(matrix: Matrix, dataset: str) -> dict[str, Any]:
    """The values of a complete parameter file for `dataset`: the preset with `settings` and the dataset's places."""
    values = YAML(typ="safe").load(PRESET.read_text(encoding="utf-8"))
    places = {
        "dataset": f"ablation-{dataset}",
        "ingest": {"source": "coco", "path": str(DATASETS / matrix.world_of(dataset) / WORLD)},
        "quality": {"gold_path": str(matrix.gold(dataset))},
    }
    return _merged(_merged(values, matrix.settings), places)


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with `changes` put over them, section by section; a section's own value is replaced whole."""
    merged = dict(values)
    for key, value in changes.items():
        merged[key] = {**values.get(key, {}), **value} if isinstance(value, Mapping) else value
    return merged


def write_params(matrix: Matrix, dataset: str, **changes: Mapping[str, Any]) -> Path:
    """Writes the parameter file of a dataset, checked, and returns where; `changes`: sections, over all else.

    Raises:
        ParamsError: it is not valid; every mistake is listed.
    """
    path = SCRATCH / dataset / "params.yaml"
    values = _merged(sections(matrix, dataset), changes)
    parameters.check(values, PARAMS)
    text = io.StringIO()
    YAML(typ="safe").dump(values, text)
    write_text(path, text.getvalue())
    return path


def start(module: str, *arguments: object) -> None:
    """Runs `python -m MODULE ...` to its end; a failure ends this process with the same exit code.

    The module itself has said in one line what was wrong.
    """
    done = subprocess.run([sys.executable, "-m", module, *map(str, arguments)], check=False)
    if done.returncode:
        sys.exit(done.returncode if done.returncode > 0 else 128 - done.returncode)


def stage(name: str, params: Path, dataset: str, reads: Sequence[str] = ()) -> None:
    """Runs a sharded stage on a dataset's tables, into the dataset's own folder."""
    folder = DATASETS / dataset
    inputs = [part for table in reads for part in (f"--{table}", folder / WRITER[table] / table)]
    out = folder / name
    start(f"stages.{name}", "--params", params, *inputs, "--out", out, "--metrics", folder / "metrics" / f"{name}.json")
