"""The ways of training that are compared, each timed step by step in a process of its own."""

import contextlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.published_loop import PublishedLoop
from benchmarks.trainer_data import SEED, Setting, encoder, recipe, sts_b, thinned, training_data
from benchmarks.vision_measure import Clock, peak, wait
from model.batches import Batches
from model.data import TrainingData
from model.dev import Dev
from model.progress import Progress
from model.speed import Flop
from model.speed import peak as stated
from model.trainer import train

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Pace:
    """What a step costs, the warm-up left out: seconds by the clock, and of processor time of all threads."""

    steps: int
    seconds: float
    processor: float
    peak: int = 0

    def cost(self, device: str) -> float:
        """Seconds a step: by the clock on an accelerator; on a CPU of processor time, so that other work on the
        machine shows little.
        """
        return (self.processor if device == "cpu" else self.seconds) / self.steps


class Marks:
    """The moments at which steps ended, and what they took between the end of the warm-up and the last."""

    def __init__(self, device: str):
        self.device, self.at = torch.device(device), []

    def note(self, step: int) -> None:
        wait(self.device)
        self.at.append((step, time.perf_counter(), time.process_time()))

    def pace(self, warm_up: int) -> Pace:
        """Of the steps after the first noted end of at least `warm_up` steps."""
        first, last = next(mark for mark in self.at if mark[0] >= warm_up), self.at[-1]
        if last[0] <= first[0]:
            raise ValueError(f"{last[0]} steps leave none to be timed after {warm_up} of warm-up")
        return Pace(last[0] - first[0], last[1] - first[1], last[2] - first[2], peak(self.device))


class Enough(Exception):
    """Ends a run of ours after its last timed step, before it writes a checkpoint."""


def ours(name: str, setting: Setting, steps: int, warm_up: int, settings: dict) -> Pace:
    """`model.trainer.train` as it is: batches made ahead, every value logged."""
    data, marks = training_data(setting, kind_of(name)), Marks(setting.device)

    def progress(now: Progress) -> None:
        marks.note(now.step)
        if now.step >= warm_up + steps:
            raise Enough

    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Enough):
        made = recipe(name, setting, 1_000_000, **settings)
        train(encoder(setting), data, made, seed=SEED, work_dir=folder, device=setting.device, progress=progress)
    return marks.pace(warm_up)


def published(name: str, setting: Setting, steps: int, warm_up: int, settings: dict) -> Pace:
    torch.manual_seed(SEED)
    loop = PublishedLoop(name, setting, training_data(setting, kind_of(name)), warm_up + steps)
    marks = Marks(setting.device)
    for number in range(warm_up + steps):
        loop.step()
        marks.note(number + 1)
    return marks.pace(warm_up)


def sentence_transformers(name: str, setting: Setting, steps: int, warm_up: int, settings: dict) -> Pace:
    """sentence-transformers' own trainer, fp32, with MultipleNegativesRankingLoss on each text and itself: simcse
    without its head. It trains on texts alone.
    """
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.losses import MultipleNegativesRankingLoss
    from sentence_transformers.models import Pooling, Transformer

    marks = Marks(setting.device)

    class Timed(MultipleNegativesRankingLoss):
        """Notes the beginning of each step after the first, which is the end of the one before."""

        begun = 0

        def forward(self, *arguments):
            if self.begun:
                marks.note(self.begun)
            self.begun += 1
            return super().forward(*arguments)

    data = training_data(setting, kind_of(name))
    texts = (data.sentences or data.captions)[: setting.batch * (warm_up + steps + 1)]
    with tempfile.TemporaryDirectory() as folder:
        made = encoder(setting)
        made.model.save_pretrained(folder)
        made.tokenizer.save_pretrained(folder)
        del made
        body = Transformer(folder, max_seq_length=setting.length)
        pooling = Pooling(body.get_word_embedding_dimension(), pooling_mode="cls")
        model = SentenceTransformer(modules=[body, pooling], device=setting.device)
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder,
            max_steps=warm_up + steps + 1,
            per_device_train_batch_size=setting.batch,
            learning_rate=3e-5,
            seed=SEED,
            use_cpu=setting.device == "cpu",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        SentenceTransformerTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_dict({"anchor": texts, "positive": texts}),
            loss=Timed(model, scale=20.0),
        ).train()
    return marks.pace(warm_up)


WAYS: dict[str, Callable[[str, Setting, int, int, dict], Pace]] = {
    "published_loop": published,
    "sentence-transformers": sentence_transformers,
    "ours": ours,
}


def kind_of(name: str) -> str:
    """Which batches a recipe is timed on: simcse on sentences, the others on captions with features."""
    return "text" if name == "simcse" else "pair"


# ------------------------------------------------------------ evaluation


def evaluation(way: str, setting: Setting, precision: str, share: float) -> Pace:
    """One evaluation: ours of STS-B dev, each distinct sentence once; the published loop's of train, dev and test. Done
    on that share of the pairs, evenly spaced, and told as if on all. Ours has its sentences tokenised before, as
    it does so once a run.
    """
    torch.manual_seed(SEED)
    clock = Clock(torch.device(setting.device))
    if way == "ours":
        dev = Dev(thinned(sts_b(setting, "dev"), share), encoder(setting), precision)
        dev.batches = dev._tokenise(list(dict.fromkeys(_sentences(dev.task))))
        work = dev.score
    else:
        loop = PublishedLoop("simcse", setting, TrainingData(sentences=["a", "b"]), 1)
        task = thinned(sts_b(setting, *SPLITS), share)
        work = lambda: loop.evaluate(task)  # noqa: E731
    with clock:
        work()
    return Pace(1, clock.seconds / share, clock.processor / share, peak(clock.device))


def _sentences(task) -> list[str]:
    return [s for subset in task.subsets.values() for s in (*subset.sentences1, *subset.sentences2)]


# ------------------------------------------------------------ arithmetic


@dataclass(frozen=True)
class Work:
    """What a step of a recipe has to do: FLOP without padding; padding's share of batches padded to their longest."""

    flop: float
    padding: float


def work(name: str, setting: Setting, batches: int = 20) -> Work:
    """The mean over some batches: the encoder's arithmetic, forward and backward, on the tokens that are there
    (heads are under a hundredth of it).
    """
    made, data = encoder(setting), training_data(setting, kind_of(name))
    steps = recipe(name, setting, batches)
    stream, flop = Batches(data, steps, made, SEED), Flop(made)
    total, real, held = 0.0, 0, 0
    for number in range(batches):
        batch = stream.next(number)
        tokens = [batch.tokens] + ([batch.objects.tokens] if batch.objects else [])
        for mask in (t.attention_mask for t in tokens):
            total += flop.of(mask.sum(-1))
            real, held = real + int(mask.sum()), held + mask.numel()
    return Work(total / batches, 1 - real / held)


def rate(device: str, precision: str) -> float:
    """FLOP/s (on a CPU, FLOP a second of processor time) that the device's large matrix products reach; for an
    accelerator that its maker states a figure for, that figure.
    """
    if device != "cpu":
        return stated(torch.device(device), precision)
    number, found = torch.bfloat16 if precision == "bf16" else torch.float32, []
    for side in (1024, 2048):
        a, b = (torch.randn(side, side).to(number) for _ in range(2))
        a @ b
        for _ in range(3):
            with Clock(torch.device("cpu")) as clock:
                a @ b
            found.append(2.0 * side**3 / clock.processor)
    return max(found)
