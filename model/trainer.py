"""The training loop.

AdamW (PyTorch's, eps 1e-6), total gradient norm clipped, learning rate linear to 0; checked against STS-B dev while it
runs, best checkpoint kept. The same seed and thread count give the same bytes.
"""

import csv
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from model import sts
from model.batches import Batch, Batches, to_device
from model.data import TrainingData, check
from model.encoder import Encoder
from model.errors import PARAMETERS, ModelError
from model.network import Network, losses
from model.progress import Progress
from model.recipes import Recipe

CHECKPOINT = "checkpoint.safetensors"
LOG_COLUMNS = ("step", "kind", "loss", "text", "image", "object", "lr", "grad_norm", "dev")


@dataclass
class Trained:
    """The outcome. `best_step`, `best_dev` (STS-B dev Spearman, a fraction): of the weights returned; None without dev.

    `log`: one dict a step with LOG_COLUMNS, None where a value does not exist. `notes`: what the user should know.
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
) -> Trained:
    """Trains `encoder` in place by `recipe` and returns it with its heads and log.

    Every `eval_every` steps and at the end: with `dev`, its Spearman is taken, and the weights with the best one are
    what is returned; without, the last are. `work_dir` receives the checkpoint (best, or latest without dev), written
    atomically. `progress` is called after every step, for the caller to show.

    Raises ModelError before the first step for data that does not fit (3) or settings that do not (2), and during
    training when loss or gradient is not finite (2): no step is taken then and the checkpoint on disk is the last good.
    """
    check(data, recipe)
    if not recipe.terms:
        score = _dev_score(encoder.to(device), dev)
        row = dict.fromkeys(LOG_COLUMNS) | {"step": 0, "dev": score}
        return Trained(encoder, nn.ModuleDict(), [row], best_step=0 if dev else None, best_dev=score)
    with _deterministic(seed, device):
        network = Network(encoder, recipe, data, seed).to(device)
        batches = Batches(data, recipe, encoder, seed)
        work_dir = Path(work_dir)
        work_dir.mkdir(parents=True, exist_ok=True)
        (work_dir / CHECKPOINT).unlink(missing_ok=True)
        run = Trained(encoder, network.heads, notes=[batches.schedule.warning] if batches.schedule.warning else [])
        try:
            _loop(run, network, batches, recipe, work_dir / CHECKPOINT, dev, progress)
        finally:
            network.eval()
    return run


def _loop(
    run: Trained,
    network: Network,
    batches: Batches,
    recipe: Recipe,
    checkpoint: Path,
    dev: sts.Task | None,
    progress: Callable[[Progress], None] | None,
) -> None:
    total = recipe.steps or recipe.epochs * batches.schedule.steps_per_epoch
    optimizer = build_optimizer(network, recipe)
    device = network.encoder.device
    clock, sentences = _Clock(), 0
    network.train()
    for number in range(total):
        batch = to_device(batches.next(number), device)
        lr = learning_rate(number, total, recipe)
        try:
            values = step(network, batch, recipe, optimizer, lr)
        except NotFinite as error:
            kept = f"{checkpoint} holds the last good weights" if checkpoint.exists() else "there is no checkpoint yet"
            raise ModelError(
                f"step {number + 1} of {total}: {error}. Stopped before the optimizer step; {kept}. "
                f"Lower learning_rate (now {recipe.learning_rate:g})",
                PARAMETERS,
            ) from None
        sentences += len(batch)
        run.steps = number + 1
        row = dict.fromkeys(LOG_COLUMNS) | {"step": run.steps, "kind": batch.kind, "lr": lr} | values
        if run.steps % recipe.eval_every == 0 or run.steps == total:
            with clock.paused():
                row["dev"] = _dev_score(network.encoder, dev)
                _keep(run, network, checkpoint, row["dev"], dev is not None)
        run.log.append(row)
        if progress:
            progress(
                Progress(
                    step=run.steps,
                    steps=total,
                    kind=batch.kind,
                    loss=row["loss"],
                    dev=row["dev"],
                    best_dev=run.best_dev,
                    best_step=run.best_step,
                    sentences_per_s=sentences / max(clock.seconds, 1e-9),
                    eta_s=clock.total / run.steps * (total - run.steps),
                )
            )
    if dev is not None and run.best_step is None:
        run.notes.append("the dev correlation was undefined throughout: the last weights are kept, not the best")
    elif dev is not None and run.best_step != run.steps:
        load_checkpoint(network, checkpoint)


class NotFinite(ArithmeticError):
    """Loss or gradient is NaN or infinite."""


def step(network: Network, batch: Batch, recipe: Recipe, optimizer: torch.optim.Optimizer, lr: float) -> dict:
    """One optimizer step on one batch: forward, weighted sum of the terms, backward, clip, update.

    Returns floats: `loss`, each term by name (unweighted), `grad_norm` (before clipping). Raises NotFinite instead of
    stepping when the loss or the gradient norm is not finite.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)
    terms = losses(network, batch, recipe)
    weight = {t.name: t.weight for t in recipe.terms}
    loss = sum(weight[name] * value for name, value in terms.items())
    values = {"loss": loss.item()} | {name: value.item() for name, value in terms.items()}
    if not math.isfinite(values["loss"]):
        each = ", ".join(f"{name} {value:g}" for name, value in values.items())
        raise NotFinite(f"the loss is not finite on a {batch.kind} batch ({each})")
    loss.backward()
    norm = nn.utils.clip_grad_norm_(network.parameters(), recipe.grad_clip).item()
    if not math.isfinite(norm):
        raise NotFinite(f"the gradient is not finite on a {batch.kind} batch (loss {values['loss']:g})")
    optimizer.step()
    return values | {"grad_norm": norm}


def build_optimizer(network: Network, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW over all trainable parameters, betas 0.9 and 0.999; `step` sets the learning rate."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    return torch.optim.AdamW(parameters, lr=recipe.learning_rate, eps=recipe.adam_eps, weight_decay=recipe.weight_decay)


def learning_rate(step: int, total: int, recipe: Recipe) -> float:
    """Linear from 0 over the warm-up share, then linear to 0: lr * (1 - step / total) without warm-up."""
    rise = round(recipe.warmup * total)
    if step < rise:
        return recipe.learning_rate * (step + 1) / rise
    return recipe.learning_rate * (1 - (step - rise) / (total - rise))


def write_log(rows: list[dict], path: str | Path) -> None:
    """Log rows as CSV, LOG_COLUMNS, nine significant digits; empty where a value does not exist. No times in it."""
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, LOG_COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.9g}" if isinstance(v, float) else v for k, v in row.items()})


def load_checkpoint(network: Network, path: Path) -> None:
    """Loads encoder and heads from a checkpoint. Raises ModelError if it is damaged or another model's."""
    try:
        network.load_state_dict(load_file(path))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{path}: not a checkpoint of this model ({str(error).splitlines()[0]})") from error


def _keep(run: Trained, network: Network, checkpoint: Path, score: float | None, has_dev: bool) -> None:
    """Saves the weights if they are the best so far or, without dev, the latest."""
    if has_dev:
        if score is None or (run.best_dev is not None and score <= run.best_dev):
            return
        run.best_dev, run.best_step = score, run.steps
    weights = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    temporary = checkpoint.with_name(f".{checkpoint.name}.{os.getpid()}.tmp")
    save_file(weights, temporary, metadata={"step": str(run.steps)})
    temporary.replace(checkpoint)


def _dev_score(encoder: Encoder, dev: sts.Task | None) -> float | None:
    if dev is None:
        return None
    return sts.score_task(dev, sts.embed_once({dev.name: dev}, encoder.encode))["all"]


class _Clock:
    """Seconds since the start, `total`, and without the parts paused, `seconds`."""

    def __init__(self) -> None:
        self.start, self.out = time.perf_counter(), 0.0

    @property
    def total(self) -> float:
        return time.perf_counter() - self.start

    @property
    def seconds(self) -> float:
        return self.total - self.out

    @contextmanager
    def paused(self) -> Iterator[None]:
        since = time.perf_counter()
        yield
        self.out += time.perf_counter() - since


@contextmanager
def _deterministic(seed: int, device: str) -> Iterator[None]:
    """Own random state and deterministic algorithms inside; the caller's afterwards."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    devices = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True, warn_only=bool(devices))
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
