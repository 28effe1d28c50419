"""A small Grounding DINO of the demo world: `python -m demo.recipes.grounding_dino`.

In two parts. First image and text learn what things look like and are called: every place of many images is held
against all phrases of the batch, which costs little and shows each object hundreds of phrases that it is not. Then the
whole detector learns to answer prompts as the detect stage writes them.
"""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import BertTokenizerFast

from demo.captions import caption_for
from demo.recipes.command import options, run
from demo.recipes.course import Course, Schedule
from demo.recipes.dino_loss import Truth, layer_loss, owners, place_loss
from demo.recipes.dino_network import Shape, Trainee, configure
from demo.recipes.dino_phrases import STRANGE, Phrasebook, Said, fitting, shown, untrue
from demo.recipes.dino_phrases import words as words_of
from demo.recipes.dino_vocabulary import pieces, tokenizer_of
from demo.recipes.heldout import FIGURES_SEED, RECIPE_SEED, training_scene
from demo.recipes.rendered import Rendered, box_of
from demo.recipes.storage import halve
from demo.scenes import rng_for
from stages.common.checkpoints import write_folder
from stages.detect.convert import PREPROCESSOR
from stages.detect.network import Texts
from stages.detect.prompts import Prompt, safe, write_prompts
from stages.detect.sides import FILE as PREPROCESSOR_FILE

OUT = Path(__file__).parents[1] / "checkpoints" / "grounding_dino"
SCENES, STEPS, BATCH = 20_000, 11_000, 16
FIRST, SHARE = 4000, 0.4  # steps of the first part, but at most this share of all
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
COPIES = 2  # queries that each object is matched to; the detect stage merges boxes of one phrase


@dataclass(frozen=True)
class Batch:
    """pixels uint8 [B, 3, h, w]; boxes [B, O, 4]; `prompts` and `denoted` bool [B, O, T] as in `Truth`.

    Of the first part: `prompts` are N phrases of one prompt each, `denoted` [B, O, N].
    """

    pixels: Tensor
    boxes: Tensor
    prompts: list[Prompt]
    denoted: Tensor


class Words:
    """The tokenizer as write_prompts wants it, which remembers what it was asked."""

    def __init__(self, tokenizer: BertTokenizerFast) -> None:
        self.cls_token_id, self.sep_token_id = tokenizer.cls_token_id, tokenizer.sep_token_id
        self._ids = lru_cache(100_000)(lambda text: tokenizer.encode(text, add_special_tokens=False))
        self.convert_tokens_to_ids = tokenizer.convert_tokens_to_ids

    def __call__(self, texts: list[str], add_special_tokens: bool) -> dict[str, list[list[int]]]:
        return {"input_ids": [self._ids(text) for text in texts]}


def vocabulary(seed: int, captions: int) -> list[str]:
    """Word pieces of the captions of training scenes and of what is strange to the world."""
    texts = [caption_for(seed, training_scene(seed, n), "words", n).text for n in range(captions)]
    return pieces([*texts, *STRANGE, "pair couple one two three four five of some the a an"])


class Draw:
    """Batches by step number, of rendered scenes; every other one mirrored."""

    def __init__(self, data: Rendered, book: Phrasebook, words: Words, size: int, limit: int) -> None:
        self.data, self.book, self.words, self.size, self.limit = data, book, words, size, limit
        self._scene = lru_cache(None)(data.scene)
        self._boxes = lru_cache(None)(self._boxes_of)

    def _boxes_of(self, index: int) -> np.ndarray:
        labels = self.data.arrays(index)[1]
        side = labels.shape[0]
        made = []
        for number in range(len(self._scene(index).objects)):
            x0, y0, x1, y1 = box_of(labels == number + 1)
            made.append(((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0))
        return np.array(made, np.float32) / side

    def _images(self, rng: random.Random) -> tuple[list[int], Tensor, Tensor]:
        chosen = [rng.randrange(self.data.count) for _ in range(self.size)]
        pixels, boxes = [], torch.zeros(self.size, max(len(self._scene(i).objects) for i in chosen), 4)
        for row, index in enumerate(chosen):
            image, own = self.data.arrays(index)[0], torch.from_numpy(self._boxes(index).copy())
            if rng.random() < 0.5:
                image = image[:, ::-1]
                own[:, 0] = 1 - own[:, 0]
            pixels.append(torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))))
            boxes[row, : len(own)] = own
        return chosen, torch.stack(pixels), boxes

    def prompt(self, said: list[Said]) -> tuple[Prompt, list[tuple[slice, tuple[int, ...]]]]:
        """One prompt of these phrases; and the tokens of each with what it denotes."""
        objects = {safe(one.text): one.objects for one in said}
        rows = [{"id": text, "caption_id": "", "text": text, "count": None} for text in objects]
        prompts, _ = write_prompts(rows, "per_image", self.words, self.limit, 1)
        asked = [(slice(one.start, one.end), objects[one.text]) for one in prompts[0].asked]
        return prompts[0], asked

    def whole(self, step: int) -> Batch:
        """Images with a prompt each."""
        rng = rng_for(self.data.seed, "detector", step)
        chosen, pixels, boxes = self._images(rng)
        made = [self.prompt(self.book.ask(self._scene(index), rng)) for index in chosen]
        denoted = torch.zeros(*boxes.shape[:2], max(len(prompt.tokens) for prompt, _ in made), dtype=torch.bool)
        for row, (_, asked) in enumerate(made):
            for tokens, objects in asked:
                denoted[row, list(objects), tokens] = True
        return Batch(pixels, boxes, [prompt for prompt, _ in made], denoted)

    def places(self, step: int) -> Batch:
        """Images, and phrases that are held against all of them."""
        rng = rng_for(self.data.seed, "places", step)
        chosen, pixels, boxes = self._images(rng)
        scenes = [self._scene(index) for index in chosen]
        mentions = [shown(scene, rng) for scene in scenes for _ in range(3)]
        mentions += [untrue(scene, rng) for scene in scenes]
        texts = [words_of(mention, rng) for mention in mentions]
        texts += [self.book.nothing(rng) for _ in range(self.size // 4)]
        denoted = torch.zeros(*boxes.shape[:2], len(texts), dtype=torch.bool)
        for row, scene in enumerate(scenes):
            for column, mention in enumerate(mentions):
                denoted[row, list(fitting(scene, mention)), column] = True
        return Batch(pixels, boxes, [self.prompt([Said(text, ())])[0] for text in texts], denoted)


def normalised(pixels: Tensor) -> Tensor:
    mean, std = (torch.tensor(v, device=pixels.device)[:, None, None] * 255 for v in (MEAN, STD))
    return (pixels.float() - mean) / std


class Lesson:
    """Losses of a batch on a device; matrix products of image and text in bfloat16 where that is faster."""

    def __init__(self, device: torch.device, half: bool = True) -> None:
        self.device, self.half = device, half

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)

    def _texts(self, prompts: list[Prompt]) -> tuple[Texts, Tensor]:
        """Prompts as tensors, and which tokens are of a phrase, bool [N, T]."""
        length = max(len(prompt.tokens) for prompt in prompts)
        asked = torch.zeros(len(prompts), length, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            for one in prompt.asked:
                asked[row, one.start : one.end] = True
        return Texts(prompts, length, self.device), asked.to(self.device)

    def whole(self, network: Trainee, batch: Batch) -> dict[str, Tensor]:
        """The detector's losses on prompts."""
        texts, asked = self._texts(batch.prompts)
        truth = Truth(batch.boxes.to(self.device), batch.denoted.to(self.device), asked)
        with self._autocast():
            states, shapes = network.look(normalised(batch.pixels.to(self.device)))
            states, text = network.fuse(states, shapes, network.read_text(texts), texts)
        seen = network.decode(states.float(), shapes, text.float(), texts.padding)
        losses = place_loss(*seen.places, truth, *owners(truth.boxes, shapes))
        for number, layer in enumerate(seen.layers, 1):
            losses[f"class{number}"], losses[f"box{number}"] = layer_loss(*layer, truth, COPIES)
        return losses

    def places(self, network: Trainee, batch: Batch) -> dict[str, Tensor]:
        """The losses of every place against every phrase."""
        texts, asked = self._texts(batch.prompts)
        column = torch.arange(len(asked), device=self.device)[:, None].expand_as(asked)[asked]  # token -> phrase
        boxes, denoted = batch.boxes.to(self.device), batch.denoted.to(self.device)[..., column]
        truth = Truth(boxes, denoted, torch.ones_like(denoted[:, 0]))
        with self._autocast():
            states, shapes = network.look(normalised(batch.pixels.to(self.device)))
            states, text = network.alone(states, shapes, network.read_text(texts), texts)
        tokens = text.float()[asked].expand(len(boxes), -1, -1)
        return place_loss(*network.propose(states.float(), shapes, tokens), truth, *owners(boxes, shapes))


def write(folder: Path, network: Trainee, table: list[str], side: int) -> None:
    """The folder that the detect stage reads; what lies there already is replaced."""
    config = network.config.to_dict() | {"dtype": "float32"}
    size = {"shortest_edge": side, "longest_edge": 2 * side}
    preprocessor = PREPROCESSOR | {"image_mean": list(MEAN), "image_std": list(STD), "size": size}
    extra = {
        PREPROCESSOR_FILE: (json.dumps(preprocessor, indent=2) + "\n").encode(),
        "vocab.txt": "".join(f"{token}\n" for token in table).encode(),
    }
    if folder.exists():
        shutil.rmtree(folder)
    state = {name: value.detach().cpu() for name, value in network.detector.state_dict().items()}
    write_folder(folder, state, config, extra)
    halve(folder / "model.safetensors")


@dataclass(frozen=True)
class Plan:
    """A training: `first` steps of the first part, `second` of the second, `size` images a batch."""

    seed: int
    first: int
    second: int
    size: int = BATCH
    captions: int = 6000  # that the vocabulary is taken from
    rate: float = 1e-3
    shape: Shape = Shape()


def train(
    plan: Plan, data: Rendered, scratch: Path, device: torch.device, half: bool = False, watched: bool = True
) -> tuple[Trainee, list[str], float]:
    """The averaged network, its vocabulary, and the minutes it took. Goes on from `scratch` where it was stopped."""
    table = vocabulary(plan.seed, plan.captions)
    network = Trainee(configure(plan.shape, len(table)), plan.seed)
    words = Words(tokenizer_of(table))
    draw = Draw(data, Phrasebook(plan.seed, plan.captions // 2), words, plan.size, plan.shape.longest)
    lesson = Lesson(device, half)
    first, second = (Schedule(steps, plan.rate, warmup=min(300, steps // 4 + 1)) for steps in (plan.first, plan.second))
    course = Course(network, first, scratch / f"grounding_dino-{plan.seed}-places.pt", device)
    learnt = course.run(draw.places, lesson.places)
    minutes = course.minutes
    network.load_state_dict(learnt.state_dict())
    course = Course(network, second, scratch / f"grounding_dino-{plan.seed}.pt", device)
    watch = watcher(scratch / "grounding_dino-watch", table, plan.shape.side) if watched else None
    trained = course.run(draw.whole, lesson.whole, watch=watch)
    return trained, table, minutes + course.minutes


def watcher(folder: Path, table: list[str], side: int) -> Callable[[Trainee], dict[str, float]]:
    """The figures of a network in training, on few scenes of another seed."""
    from demo.recipes.figures_grounding_dino import figures

    def look(network: Trainee) -> dict[str, float]:
        write(folder, network, table, side)
        return figures(folder, FIGURES_SEED + 1, 100)

    return look


def main() -> None:
    from demo.recipes.figures_grounding_dino import finish

    parser = options(__doc__, OUT, STEPS, scenes=SCENES)
    parser.add_argument("--half", action="store_true", help="bfloat16 products, for processors that have them")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    first = min(FIRST, round(SHARE * args.steps))
    plan = Plan(args.seed, first, args.steps - first)
    data = Rendered(RECIPE_SEED, args.scenes, args.scratch, args.threads)
    network, table, minutes = train(plan, data, args.scratch, torch.device(args.device), args.half)
    write(args.out, network, table, plan.shape.side)
    finish(args, network.config, minutes)


if __name__ == "__main__":
    run(main)
