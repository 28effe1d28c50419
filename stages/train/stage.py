"""train: a sentence encoder, one cell (recipe, seed) of the grid.

In: `captions`, `sentences`, `pairs`, `features`, the text encoder of `train.path`, teachers and triplets for recipes
that want them, the STS-B dev set of `evaluate.path`. Out: a model folder that SentenceTransformer(path) and AutoModel
load, the training log, and metrics.

Killed, it goes on from its last checkpoint, which lies in the scratch store until the cell is done. On several
devices: `torchrun --nproc-per-node 2 -m stages.train --recipe mcse --seed 0`.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from model import sts
from model.distributed import join
from model.encoder import Encoder, load_encoder, stored_pooling
from model.export import export
from model.progress import ProgressLines
from model.recipes import NAMES, Recipe
from model.teachers import load_teachers
from model.trainer import train, write_log
from pipeline.entry import table_dir
from pipeline.errors import InputError, ResourceError, tell
from pipeline.files import hash_path, write_atomic, write_json
from pipeline.sections import Params, Runtime, Train
from stages.common import cells
from stages.common.device import devices_of
from stages.train.data import KINDS, data_hashes, random_vision, training_data
from stages.train.settings import recipe_of
from stages.train.triplets import read_triplets

READS = ("captions", "sentences", "pairs", "features")


def main() -> None:
    made = cells.parser("train", READS, "data/<dataset>/models/<recipe>-<seed>")
    made.add_argument("--log", type=Path, help="training log (default: plots/<dataset>/train/<recipe>-<seed>.csv)")
    made.add_argument("--sts", type=Path, help="folder with the STS-B dev set (default: evaluate.path)")
    args = made.parse_args()
    if args.recipe not in NAMES or args.seed is None:
        made.error(f"--recipe (one of {', '.join(NAMES)}) and --seed are needed")
    cell = f"{args.recipe}-{args.seed}"
    cells.run("train", cell, args, lambda params: run(params, args, cell), rank=_rank())


def run(params: Params, args, cell: str) -> None:
    section, runtime = params.train, params.runtime
    torch.set_num_threads(runtime.threads)
    inputs = {table: getattr(args, table) or table_dir(params.dataset, table) for table in READS}
    recipe = recipe_of(args.recipe, section)
    device = _device(runtime)
    first = join(device).first
    teachers = load_teachers(Path(section.teachers_path), recipe)
    encoder = _encoder(section, recipe, args.seed)
    dev = dev_set(args.sts or Path(params.evaluate.path))
    triplets, left_out = read_triplets(Path(section.triplets_path)) if "triplets" in recipe.needs else ([], 0)
    work_dir = Path(runtime.scratch) / params.dataset / "train" / cell
    data = training_data(inputs, recipe, work_dir, triplets)
    random = not set(KINDS).isdisjoint(recipe.needs) and random_vision(inputs["features"])
    if random and first:
        tell(f"train@{cell}: the vision encoder has RANDOM WEIGHTS; image and object terms know nothing of pictures")
    with _short_of_memory():
        done = train(
            encoder,
            data,
            recipe,
            seed=args.seed,
            work_dir=work_dir,
            dev=dev,
            device=device,
            progress=ProgressLines(),
            tell=lambda line: tell(f"train@{cell}: {line}"),
            teachers=teachers,
        )
    if not first:
        return
    notes = [*done.notes, *([f"{left_out} rows of the triplets are not three texts: left out"] if left_out else [])]
    for note in notes:
        tell(f"train@{cell}: {note}")
    metrics = {
        "recipe": args.recipe,
        "seed": args.seed,
        "steps": done.steps,
        "best_step": done.best_step,
        "sts_b_dev": sts.percent(done.best_dev),
        "sentences": len(data.sentences),
        "captions": len(data.captions),
        "pairs": sum(map(len, data.pairs)),
        "triplets": len(data.triplets),
        "random_vision": random,
        "notes": notes,
    }
    out = args.out or Path("data") / params.dataset / "models" / cell
    export(
        out,
        done.encoder,
        recipe,
        args.seed,
        heads=done.heads,
        data_hashes=data_hashes(inputs) | _path_hashes(section, recipe),
        metrics=metrics,
        random_vision=random,
        normalize=section.normalize,
    )
    log = args.log or Path("plots") / params.dataset / "train" / f"{cell}.csv"
    write_atomic(log, lambda temporary: write_log(done.log, temporary))
    write_json(args.metrics or Path("metrics") / params.dataset / "train" / f"{cell}.json", metrics)
    shutil.rmtree(work_dir, ignore_errors=True)  # a checkpoint is four times the model
    best = "" if done.best_dev is None else f", STS-B dev {metrics['sts_b_dev']:.2f} at step {done.best_step}"
    tell(f"train@{cell}: {done.steps} steps{best} -> {out}")


def dev_set(root: Path) -> sts.Task | None:
    """The STS-B dev set, or None where there is none: the last weights are kept then, and the log says so."""
    task = sts.load_tasks(root, ["STS-B-dev"])["STS-B-dev"]
    if task.missing:
        tell(f"train: no STS-B dev set ({task.missing}); the last checkpoint is kept instead of the best")
        return None
    return task


def _encoder(section: Train, recipe: Recipe, seed: int) -> Encoder:
    path = Path(section.path)
    if not path.exists():
        raise InputError(f"{path}: no such folder; set train.path to a text encoder in Hugging Face layout")
    stored = stored_pooling(path) if section.init == "pretrained" else None
    pooling = section.pooling or recipe.pooling or stored or "cls"
    return load_encoder(path, section.init, seed, pooling, repool=section.pooling is not None)


def _world() -> int:
    """How many processes torchrun started for this cell."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _rank() -> int:
    return int(os.environ.get("RANK", "0")) if _world() > 1 else 0


def _device(runtime: Runtime) -> str:
    """The first device; among torchrun's processes the one of this process's number (`cuda`). Apple's GPU counts in
    neither float64 nor reproducibly, so there the CPU trains.
    """
    device = devices_of(runtime)[0]
    if device.startswith("mps"):
        return "cpu"
    return "cuda" if device.startswith("cuda") and _world() > 1 else device


def _path_hashes(section: Train, recipe: Recipe) -> dict[str, str]:
    """The hashes of what `train` reads by a path of its own."""
    paths = {"text_encoder": section.path}
    if {"teachers", "generator"} & set(recipe.needs):
        paths["teachers"] = section.teachers_path
    if "triplets" in recipe.needs:
        paths["triplets"] = section.triplets_path
    return {name: hash_path(Path(path)) for name, path in paths.items()}


@contextmanager
def _short_of_memory() -> Iterator[None]:
    """Running out of memory ends in a line that says which parameters help."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        raise ResourceError(
            "out of memory; set train.cache_chunk (rows encoded at once), or train.dtype to bf16, or lower "
            "train.batch_size, and run again; it then starts anew, because these are part of what is trained"
        ) from error
