"""The frozen text teachers of the recipe dalr, trained by the project's own trainer on text drawn from a seed.

Each starts from bert_tiny and sees no image. `demo/checkpoints/teachers` is laid out as `train.teachers_path` wants it:
`simcse`, `diffcse`, and `generator`, the masked language model that fills tokens for diffcse (bert_tiny itself).
Weights are stored as 16-bit floats; whoever loads them makes float32 of them.
"""

import argparse
import shutil
import time
from pathlib import Path

import numpy as np
import torch

from demo.recipes import world_text
from demo.recipes.bert_tiny import OUT as START
from demo.recipes.bert_tiny import training_texts
from demo.recipes.cards import finish_folder
from demo.recipes.command import SCRATCH, options
from demo.recipes.heldout import FIGURES_SEED
from demo.recipes.storage import halve
from demo.sts import Pair
from model.data import TrainingData
from model.encoder import Encoder, load_encoder
from model.export import export
from model.progress import Progress, ProgressLines
from model.recipes import resolve
from model.sts import Subset, Task, cosines, spearman
from model.teachers import Teachers, load_teachers
from model.trainer import train

FOLDER = Path(__file__).parents[1] / "checkpoints" / "teachers"
POOLING = "mean"
DEV_PAIRS, SCENES = 400, 1000
# what `export` writes beside the encoder and no teacher needs
_LEFT_OUT = ("README.md", "heads.safetensors")


class Clock:
    """Progress lines, and the wall time of all starts: written whenever the trainer writes its checkpoint."""

    def __init__(self, file: Path) -> None:
        self._file, self._lines, self._began = file, ProgressLines(), time.monotonic()
        self._before = float(file.read_text()) if file.exists() else 0.0

    @property
    def minutes(self) -> float:
        return (self._before + time.monotonic() - self._began) / 60

    def __call__(self, progress: Progress) -> None:
        self._lines(progress)
        if progress.dev is not None:
            self._file.write_text(str(60 * self.minutes))


def make(about: str | None, method: str, settings: dict[str, object], steps: int) -> argparse.Namespace:
    """The whole of `python -m demo.recipes.METHOD_teacher`; its options. `about` is the module's
    docstring, `settings` are the recipe's, `steps` the default number.
    """
    parser = options(about, FOLDER / method, steps, threads=1)
    parser.add_argument("--start", type=Path, default=START, help="folder of the masked language model")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    minutes = teach(method, settings, args)
    finish(method, args, minutes)
    return args


def teach(method: str, settings: dict[str, object], args: argparse.Namespace, scratch: Path = SCRATCH) -> float:
    """Trains, or goes on, and writes the folder `args.out`; the minutes it took."""
    recipe = resolve(method, {**settings, "steps": args.steps})
    work = scratch / f"{method}_teacher-{args.seed}"
    work.mkdir(parents=True, exist_ok=True)
    encoder = load_encoder(args.start, seed=args.seed, pooling=POOLING)
    clock = Clock(work / "seconds")
    done = train(
        encoder,
        TrainingData(sentences=training_texts(args.seed)),
        recipe,
        seed=args.seed,
        work_dir=work,
        dev=task(world_text.pairs(args.seed, "dev", DEV_PAIRS)),
        device=args.device,
        progress=clock,
        teachers=_generator(args.start, work, recipe),
    )
    made = export(work / "model", done.encoder.cpu(), recipe, args.seed)
    for name in _LEFT_OUT:
        (made / name).unlink(missing_ok=True)
    halve(made / "model.safetensors")
    shutil.rmtree(args.out, ignore_errors=True)
    shutil.copytree(made, args.out)
    return clock.minutes


def _generator(start: Path, work: Path, recipe) -> Teachers | None:
    """The masked language model as the frozen generator, if the recipe wants one."""
    folder = work / "companions"
    write_generator(start, folder / "generator")
    return load_teachers(folder, recipe)


def write_generator(start: Path, folder: Path) -> None:
    """A copy of the masked language model, weights as 16-bit floats."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(start, folder, ignore=shutil.ignore_patterns("figures.json", "card.md"))
    halve(folder / "model.safetensors")
    (folder / "card.md").write_text(_GENERATOR, encoding="utf-8")


def task(pairs: list[Pair]) -> Task:
    gold = np.array([p.grade for p in pairs])
    return Task("world pairs", {"pairs": Subset([p.first for p in pairs], [p.second for p in pairs], gold)})


def agreement(encoder: Encoder, pairs: list[Pair]) -> float:
    """Spearman's correlation of the vectors' cosine with the grades, of all pairs together."""
    first, second = (encoder.encode([getattr(p, side) for p in pairs]) for side in ("first", "second"))
    return spearman(cosines(first, second), np.array([p.grade for p in pairs])) or 0.0


def figures(folder: Path, seed: int, scenes: int) -> dict[str, float]:
    """`spearman`: agreement of a teacher with the grades of as many fresh pairs as `scenes`."""
    return {"spearman": agreement(load_encoder(folder), world_text.pairs(seed, "check", scenes))}


def finish(method: str, args: argparse.Namespace, minutes: float) -> None:
    """Measures the folder, beside the model it started from, and writes figures.json and card.md."""
    start = agreement(load_encoder(args.start, pooling=POOLING), world_text.pairs(FIGURES_SEED, "check", SCENES))
    measured = figures(args.out, FIGURES_SEED, SCENES)
    name = f"{method}_teacher"
    facts = {
        "Architecture": "BertModel, 2 layers, width 128; a sentence's vector is the mean of its tokens' (stored with "
        "it, as sentence-transformers reads it); vocabulary of bert_tiny",
        "Start": f"bert_tiny, whose mean of tokens agrees with the same pairs at {start:.3f}",
        "Recipe": f"`{method}` of `model/recipes.py`; `recipe.json` holds its settings; the best of its states on "
        f"{DEV_PAIRS} graded pairs of the recipe's own seed",
        "Weights": "stored as 16-bit floats",
    }
    about = (
        f"A frozen text teacher for the recipe `dalr`: a sentence encoder trained by {_FULL[method]} on captions "
        "drawn from the seed, without any image. Neither the demo world's own captions nor world STS were read."
    )
    title = f"{name}: a sentence encoder of the demo world"
    finish_folder(name, args, minutes, measured, title, about, facts, library="sentence-transformers")
    print(f"bert_tiny, where it started: {start:.3f}")


_GENERATOR = """# generator: bert_tiny with weights of 16 bits

The masked language model of `demo/checkpoints/bert_tiny` (its card says how it was made), where the recipe `diffcse`
looks for the model that fills masked tokens. Licence: CC0 1.0. Made by `python -m demo.recipes.diffcse_teacher`.
"""
_FULL = {
    "simcse": "SimCSE (Gao et al. 2021, arXiv 2104.08821)",
    "diffcse": "DiffCSE (Chuang et al. 2022, arXiv 2204.10298)",
}
