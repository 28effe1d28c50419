"""The backend `transformers`: Grounding DINO over batches of images of one size, each looked at once."""

from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
import torch
from torch import Tensor

from pipeline.sections import Detect, Runtime
from stages.common.device import dtype_of
from stages.common.feeder import Feeder, Halving, Meter, Picture, normalise, plan_by_shape, resize
from stages.detect.backends import Found, Miss
from stages.detect.flop import look_flop, read_flop
from stages.detect.grounding import Rules, ground, phrase_scores
from stages.detect.loading import load
from stages.detect.network import Network, Texts
from stages.detect.prompts import Prompt, questions
from stages.detect.sides import read_sides
from stages.detect.vocabulary import read_tokenizer

_LENGTHS = 128  # a compiled network sees texts of so many tokens, or a multiple
_SHAPES = 256  # most shapes a layer is compiled for; further ones run as they are

T = TypeVar("T")


class Question(NamedTuple):
    """A prompt and the picture it is about, by its number in the batch."""

    number: int
    prompt: Prompt


class Answer(NamedTuple):
    """What the network says to a prompt, in host memory or on its way: scores [P, Q], boxes [Q, 4]."""

    scores: Tensor
    boxes: Tensor


class TransformersDetector:
    """Grounds phrases by a Grounding DINO in Hugging Face layout, on one device.

    Args:
        section: detect's parameters; `path` is the weights folder.

    Raises:
        InputError: weights, config, vocabulary or image sizes of the folder are missing or do not fit.
    """

    def __init__(self, section: Detect, runtime: Runtime, device: torch.device):
        torch.set_num_threads(runtime.threads)
        folder = Path(section.path)
        model = load(folder)
        self.section, self.runtime, self.device = section, runtime, device
        self.tokenizer, self.sides = read_tokenizer(folder), read_sides(folder)
        self.rules = Rules(section.box_threshold, section.nms_iou)
        dtype = dtype_of(section.dtype)
        torch.backends.cudnn.allow_tf32 = dtype != torch.float32
        self.network = Network(model, dtype).to(device)
        self.meter = Meter(device, dtype)
        self.feeder = Feeder(device, runtime.threads, self.meter)
        self.looking, self.reading = Halving("images"), Halving("prompts")
        self._warm: set[Hashable] = set()
        if runtime.compile:
            torch._dynamo.config.recompile_limit = _SHAPES
            for block in self.network.blocks():
                block.compile(dynamic=False)

    @property
    def limit(self) -> int:
        """Most tokens of a prompt."""
        config = self.network.config
        return min(config.max_text_len, config.text_config.max_position_embeddings)

    def detect(self, images: pa.Table, phrases: pa.Table) -> Iterator[tuple[str, list[Found] | Miss]]:
        asked, misses = questions(
            images, phrases, self.section.prompting, self.tokenizer, self.limit, self.section.top_k
        )
        yield from misses
        plan = plan_by_shape(images, list(asked), self.runtime.batch_images, self.sides.scaled)
        # While a GPU computes a batch, the boxes of the one before are picked here.
        before: Iterator = iter(())
        for pictures, bad in self.feeder.batches(images, plan):
            for row, error in bad:
                miss = Miss(error.reason, error.detail, "rejected")
                yield from ((name, miss) for prompt in asked[row] for part in prompt.asked for name in part.ids)
            if pictures:
                now = self._launch(pictures, [asked[picture.row] for picture in pictures])
                del pictures
                yield from before
                before = now
        yield from before

    def _launch(self, pictures: list[Picture], prompts: list[list[Prompt]]) -> Iterator[tuple[str, list[Found] | Miss]]:
        """Starts a batch on the device; what is returned waits for it."""
        height, width = self.sides.scaled(pictures[0].height, pictures[0].width)
        places = [(picture.id, picture.height, picture.width) for picture in pictures]
        count, config = self.runtime.batch_images, self.network.config

        def look(some: list[Picture]) -> list[tuple[Tensor, Any]]:
            shown = [resize(picture.pixels, height, width) for picture in _filled(some, self._static(self.looking))]
            mean, std = ([255 * v for v in values] for values in (self.sides.mean, self.sides.std))
            states, shapes = self.network.look(normalise(torch.stack(shown), mean, std, torch.float32))
            return [(state, shapes) for state in states[: len(some)]]

        seen = self._timed(
            ("look", height, width),
            lambda: self.looking.run(look, pictures),
            len(pictures),
            len(pictures) * look_flop(config, height, width),
        )
        shapes = seen[0][1]
        questions = [Question(number, prompt) for number, own in enumerate(prompts) for prompt in own]
        answers: list[Answer] = []
        for start in range(0, len(questions), count):
            some = questions[start : start + count]
            length = self._length([question.prompt for question in some])

            def read(some: list[Question], length: int = length) -> list[Answer]:
                filled = _filled(some, self._static(self.reading))
                states = torch.stack([seen[question.number][0] for question in filled])
                texts = Texts([question.prompt for question in filled], length, self.device)
                logits, boxes = self.network.read(states, shapes, texts)
                scores = phrase_scores(logits[: len(some)], [question.prompt for question in some])
                return [Answer(*pair) for pair in zip(*map(self._to_host, (scores, boxes[: len(some)])), strict=True)]

            answers += self._timed(
                ("read", shapes, length),
                lambda some=some, read=read: self.reading.run(read, some),
                0,
                len(some) * read_flop(config, shapes, length),
            )
        return self._picked(places, questions, answers, self._mark())

    def _picked(
        self, places: list[tuple[str, int, int]], questions: list[Question], answers: list[Answer], done: Any
    ) -> Iterator[tuple[str, list[Found] | Miss]]:
        if done is not None:
            done.synchronize()
        for question, answer in zip(questions, answers, strict=True):
            yield from ground(answer.scores, answer.boxes, question.prompt, places[question.number], self.rules)

    def _length(self, prompts: list[Prompt]) -> int:
        """Tokens that prompts are padded to: the longest one's, or few different numbers for a compiled network."""
        longest = max(len(prompt.tokens) for prompt in prompts)
        return min(-(-longest // _LENGTHS) * _LENGTHS, self.limit) if self.runtime.compile else longest

    def _static(self, memory: Halving) -> int | None:
        """The batch a compiled network is always given; None: any."""
        count = self.runtime.batch_images
        return min(count, memory.limit or count) if self.runtime.compile else None

    def _timed(self, key: Hashable, work: Callable[[], T], images: int, flop: float) -> T:
        """Work on the device, counted; the first of its kind once more before, where that is not like the others."""
        first = key if self.runtime.compile else key[0]
        if first not in self._warm and (self.runtime.compile or self.device.type == "cuda"):
            with self.meter.warm_up():
                work()
        self._warm.add(first)
        with self.meter.busy(images, flop):
            return work()

    def _to_host(self, made: Tensor) -> Tensor:
        """To host memory; from a GPU without waiting (`_mark`)."""
        if self.device.type != "cuda":
            return made.cpu()
        host = torch.empty(made.shape, dtype=made.dtype, pin_memory=True)
        return host.copy_(made, non_blocking=True)

    def _mark(self) -> Any:
        """An event after all that the device was given so far; None where nothing runs behind our back."""
        if self.device.type != "cuda":
            return None
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self.device))
        return event


def _filled(some: list[T], count: int | None) -> list[T]:
    """Made up to `count` with copies of the last."""
    return some + some[-1:] * (count - len(some)) if count else some
