"""Training: a recipe's loop from start, or from its last checkpoint, to the weights that are kept.

AdamW (PyTorch's, eps 1e-6), total gradient norm clipped, learning rate to 0; checked against STS-B dev while it runs,
best checkpoint kept. The same seed and thread count give the same bytes, killed and resumed or not.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from model import checkpoint, sts
from model.batches import Batches
from model.data import TrainingData, check
from model.dev import Dev
from model.distributed import Processes, join, own_device
from model.encoder import POOLINGS, Encoder
from model.errors import PARAMETERS, ModelError
from model.features import at_hand
from model.fingerprint import fingerprint, of_weights
from model.log import columns, write_log
from model.loop import Loop
from model.network import Network
from model.optimizer import build_optimizer, learning_rate
from model.progress import Progress
from model.recipes import Recipe
from model.teachers import Teachers, prepare
from model.update import NotFinite, step

__all__ = ["NotFinite", "Trained", "build_optimizer", "columns", "learning_rate", "step", "train", "write_log"]

_RANK_SEED = 1_000_003  # between the random states of two processes


@dataclass
class Trained:
    """The outcome. `best_step`, `best_dev` (STS-B dev Spearman, a fraction): of the weights returned; None without dev.

    `log`: one dict a step (columns: model.log). `notes`: what the user should know; they depend on recipe, seed and
    data alone, not on whether the run was interrupted.
    """

    encoder: Encoder
    heads: nn.ModuleDict
    log: list[dict] = field(default_factory=list)
    steps: int = 0
    best_step: int | None = None
    best_dev: float | None = None
    notes: list[str] = field(default_factory=list)


def train(
    encoder: Encoder,
    data: TrainingData,
    recipe: Recipe,
    *,
    seed: int,
    work_dir: str | Path,
    dev: sts.Task | None = None,
    device: str = "cpu",
    progress: Callable[[Progress], None] | None = None,
    teachers: Teachers | None = None,
    resume: bool = True,
    tell: Callable[[str], None] | None = None,
) -> Trained:
    """Trains `encoder` in place by `recipe` and returns it with its heads and log.

    Every `eval_every` steps and at the end: with `dev`, its Spearman is taken, and the weights with the best one are
    what is returned; without, the last are. `work_dir` receives the last checkpoint then, and the best, both written
    atomically. A last checkpoint found there is gone on from if recipe, seed, data, encoder, device and thread count
    are those of this run (`resume=False`: never): on the CPU the result is that of the undisturbed run bit for bit. If
    they are not, the run starts anew. Either is told, in one line, by `tell` (default: on standard error).
    `teachers`: frozen encoders, for recipes that learn from them.
    `progress` is called after every step (on an accelerator: every few), for the caller to show.

    Started by torchrun, every process calls this with the same arguments; the first one evaluates, writes and tells.

    Raises ModelError before the first step for data that does not fit or a damaged checkpoint (3) or settings that do
    not fit (2), and during training when loss or gradient is not finite (2): no step is taken then and the checkpoint
    on disk is the last good.
    """
    check(data, recipe)
    if torch.device(device).type not in ("cpu", "cuda"):
        raise ModelError(f"device {device}: training runs on cpu or cuda", PARAMETERS)
    if recipe.terms and encoder.pooling not in POOLINGS:
        raise ModelError(f"pooling {encoder.pooling} is for evaluation: train with {', '.join(POOLINGS)}", PARAMETERS)
    if not recipe.terms:
        score = Dev(dev, encoder.to(device), recipe.precision).score() if dev is not None else None
        row = dict.fromkeys(columns([])) | {"step": 0, "dev": score}
        return Trained(encoder, nn.ModuleDict(), [row], best_step=0 if dev else None, best_dev=score)
    device = own_device(device)
    processes = join(device)
    fit = _fit(encoder, data, recipe, seed, dev, device, processes, teachers)
    data = at_hand(prepare(encoder, data, recipe, teachers, device), torch.device(device))
    with _deterministic(seed + _RANK_SEED * processes.rank, device):
        network = Network(encoder, recipe, data, seed, teachers).to(device)
        processes.same_weights(network)
        if recipe.compile:
            network.compile()
        batches = Batches(data, recipe, encoder, seed)
        Path(work_dir).mkdir(parents=True, exist_ok=True)
        run = Trained(encoder, network.heads, notes=[*batches.notes, *_without_effect(recipe, network, dev)])
        loop = Loop(run, network, batches, recipe, Path(work_dir), fit, processes, progress, tell or _to_stderr)
        if dev is not None:
            loop.dev = Dev(dev, encoder, recipe.precision)
        try:
            loop.run_from(loop.restore() if resume else loop.start_anew())
        finally:
            network.eval()
    return run


def _fit(
    encoder: Encoder,
    data: TrainingData,
    recipe: Recipe,
    seed: int,
    dev: sts.Task | None,
    device: str,
    processes: Processes,
    teachers: Teachers | None,
) -> dict[str, object]:
    """What must be equal for a checkpoint to be this run's, by the names a user knows; JSON-able."""
    return {
        "recipe": json.loads(json.dumps(recipe.to_dict())),
        "seed": seed,
        "data": fingerprint(data),
        "text encoder": [of_weights(encoder), encoder.pooling],
        "teachers": _teachers_fit(teachers),
        "dev set": fingerprint(dev),
        "device": torch.device(device).type,
        "thread count": torch.get_num_threads() if torch.device(device).type == "cpu" else None,
        "number of processes": processes.world,
        "PyTorch": torch.__version__,
    }


def _teachers_fit(teachers: Teachers | None) -> dict[str, str]:
    if teachers is None:
        return {}
    found = {name: of_weights(teacher.encoder) for name, teacher in teachers.text.items()}
    return found | ({} if teachers.generator is None else {"generator": of_weights(teachers.generator.model)})


def _without_effect(recipe: Recipe, network: Network, dev: sts.Task | None) -> list[str]:
    notes = []
    if recipe.length_chunks > 1 and not network.end_to_end:
        why = "the encoder is compiled" if recipe.compile else "this encoder's attention cannot be taken by groups"
        notes.append(f"length_chunks {recipe.length_chunks} has no effect: {why}; batches are padded to their longest")
    if recipe.patience and dev is None:
        notes.append(f"patience {recipe.patience} has no effect: there is no dev set")
    return notes


def load_checkpoint(network: Network, path: Path) -> None:
    """Loads encoder and heads from a checkpoint. Raises ModelError if it is damaged or another model's."""
    checkpoint.load_weights(network, path)


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")


@contextmanager
def _deterministic(seed: int, device: str) -> Iterator[None]:
    """Own random state and deterministic algorithms inside; the caller's afterwards."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    devices = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True, warn_only=bool(devices))
        torch.utils.deterministic.fill_uninitialized_memory = False  # every new tensor would be written twice
        try:
            yield
        finally:
            torch.utils.deterministic.fill_uninitialized_memory = filled
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
