"""train: a sentence encoder, one cell (recipe, seed) of the grid.

In: `captions`, `sentences`, `pairs`, `features`, the text encoder of `train.path`, the STS-B dev set of
`evaluate.path`. Out: a model folder that SentenceTransformer(path) and AutoModel load, the training log, and metrics.
"""

from pathlib import Path

import torch

from model import sts
from model.encoder import load_encoder
from model.export import export
from model.progress import ProgressLines
from model.recipes import NAMES, resolve
from model.trainer import train, write_log
from pipeline.entry import table_dir
from pipeline.errors import InputError, tell
from pipeline.files import hash_path, write_atomic, write_json
from pipeline.sections import Params
from stages.common import cells
from stages.common.device import devices_of
from stages.train.data import data_hashes, random_vision, training_data

READS = ("captions", "sentences", "pairs", "features")


def main() -> None:
    made = cells.parser("train", READS, "data/<dataset>/models/<recipe>-<seed>")
    made.add_argument("--log", type=Path, help="training log (default: plots/<dataset>/train/<recipe>-<seed>.csv)")
    made.add_argument("--sts", type=Path, help="folder with the STS-B dev set (default: evaluate.path)")
    args = made.parse_args()
    if args.recipe not in NAMES or args.seed is None:
        made.error(f"--recipe (one of {', '.join(NAMES)}) and --seed are needed")
    cell = f"{args.recipe}-{args.seed}"
    cells.run("train", cell, args, lambda params: run(params, args, cell))


def run(params: Params, args, cell: str) -> None:
    section, runtime = params.train, params.runtime
    torch.set_num_threads(runtime.threads)
    inputs = {table: getattr(args, table) or table_dir(params.dataset, table) for table in READS}
    recipe = resolve(args.recipe, overrides(params))
    if not Path(section.path).exists():
        raise InputError(f"{section.path}: no such folder; set train.path to a text encoder in Hugging Face layout")
    encoder = load_encoder(section.path, section.init, args.seed, section.pooling)
    dev = dev_set(args.sts or Path(params.evaluate.path))
    data = training_data(inputs, recipe.has("image") or recipe.has("object"))
    random = random_vision(inputs["features"])
    if random and recipe.has("image"):
        tell(f"train@{cell}: the vision encoder has RANDOM WEIGHTS; image and object terms know nothing of pictures")
    done = train(
        encoder,
        data,
        recipe,
        seed=args.seed,
        work_dir=Path(runtime.scratch) / params.dataset / "train" / cell,
        dev=dev,
        device=devices_of(runtime)[0],
        progress=ProgressLines(),
    )
    for note in done.notes:
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
        "random_vision": random and recipe.has("image"),
        "notes": done.notes,
    }
    out = args.out or Path("data") / params.dataset / "models" / cell
    hashes = {**data_hashes(inputs), "text_encoder": hash_path(Path(section.path))}
    export(
        out,
        done.encoder,
        recipe,
        args.seed,
        heads=done.heads,
        data_hashes=hashes,
        metrics=metrics,
        random_vision=metrics["random_vision"],
    )
    log = args.log or Path("plots") / params.dataset / "train" / f"{cell}.csv"
    write_atomic(log, lambda temporary: write_log(done.log, temporary))
    write_json(args.metrics or Path("metrics") / params.dataset / "train" / f"{cell}.json", metrics)
    best = "" if done.best_dev is None else f", STS-B dev {metrics['sts_b_dev']:.2f} at step {done.best_step}"
    tell(f"train@{cell}: {done.steps} steps{best} -> {out}")


def overrides(params: Params) -> dict:
    """The section `train` in the words of `model.recipes`; null leaves a setting to the recipe."""
    section = params.train
    return {
        "batch_size": section.batch_size,
        "learning_rate": section.learning_rate,
        "epochs": None if section.max_steps else section.epochs,
        "steps": section.max_steps,
        "max_length": section.max_length,
        "eval_every": section.eval_every,
        "precision": section.dtype,
        "pair_every": section.pair_every,
        "captions_per_image": section.captions_per_image,
        "objects_per_caption": section.objects_per_caption,
        "tau": section.temperature,
        "lambda": section.image_weight,
        "mu": section.object_weight,
    }


def dev_set(root: Path) -> sts.Task | None:
    """The STS-B dev set, or None where there is none: the last weights are kept then, and the log says so."""
    task = sts.load_tasks(root, ["STS-B-dev"])["STS-B-dev"]
    if task.missing:
        tell(f"train: no STS-B dev set ({task.missing}); the last checkpoint is kept instead of the best")
        return None
    return task
