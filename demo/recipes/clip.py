"""A small CLIP of the demo world: `python -m demo.recipes.clip`.

Trained on what the pipeline will hand it: crops of objects as the embed stage cuts them, with the phrases that fit
them, and (every third step) whole images with their captions. Which phrase fits which crop is known for every pair of
a batch, so all phrases that fit are positives, and phrases that are wrong in one attribute are written on purpose.
Linear heads that read kinds, colours, sizes and patterns off a vector help on the way and are thrown away.
"""

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from demo.captions import caption_for, noun_phrase
from demo.plans import Knobs, Mention
from demo.recipes.clip_text import MAX_TOKENS, make_tokenizer, some_texts
from demo.recipes.command import options, run
from demo.recipes.course import Course, Schedule
from demo.recipes.heldout import HELD_OUT, RECIPE_SEED
from demo.recipes.rendered import Rendered, box_of, world_hash
from demo.recipes.storage import halve
from demo.scenes import COLOURS, KINDS, PATTERNED, PATTERNS, SIZES, Object, Scene, rng_for
from stages.embed.crops import cut, windows
from stages.embed.prepare import Preparation

OUT = Path(__file__).parents[1] / "checkpoints" / "clip"
SIDE = 48
SCENES, STEPS = 20_000, 3000
CROP_SCENES, PAIRS = 28, 96  # scenes of a batch of crops (some 3.6 objects each); images of a batch with captions
PAIRS_EVERY = 3
KNOBS = Knobs()

# Values of every attribute, as the heads count them. Ordinary phrases tell size only where it is not medium.
VALUES: dict[str, tuple[str | None, ...]] = {
    "kind": tuple(sorted(KINDS)),
    "colour": COLOURS,
    "size": tuple(SIZES),
    "pattern": (None, *PATTERNS),
}


# --- network ---------------------------------------------------------------------------------------------------------


def make_model(tokenizer: CLIPTokenizer, width: int = 96, layers: int = 4) -> CLIPModel:
    """Random weights."""
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    vision = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": width // 32}
    vision |= {"intermediate_size": 4 * width, "image_size": SIDE, "patch_size": 8, "hidden_act": "gelu"}
    text = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 256}
    text |= {"vocab_size": len(tokenizer), "max_position_embeddings": MAX_TOKENS, "hidden_act": "gelu", **ids}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=64))


def make_processor() -> CLIPImageProcessor:
    """Squeezes a crop into the square, so that nothing of it is lost."""
    side = {"height": SIDE, "width": SIDE}
    return CLIPImageProcessor(size=side, do_center_crop=False)


def make_preparation() -> Preparation:
    """What the embed stage makes of `make_processor`."""
    made = make_processor()
    scale = made.rescale_factor
    mean, std = (tuple(value / scale for value in values) for values in (made.image_mean, made.image_std))
    return Preparation((SIDE, SIDE), (SIDE, SIDE), "bicubic", mean, std)


class Trained(nn.Module):
    """CLIP and the heads that help it learn."""

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.clip = clip
        dim = clip.config.projection_dim
        self.image_heads, self.text_heads = (
            nn.ModuleDict({name: nn.Linear(dim, len(values)) for name, values in VALUES.items()}) for _ in range(2)
        )
        self.there = nn.Linear(dim, len(KINDS) * len(COLOURS))

    def images(self, values: Tensor) -> Tensor:
        return _pooled(self.clip.get_image_features(pixel_values=values))

    def texts(self, ids: Tensor, attention: Tensor) -> Tensor:
        return _pooled(self.clip.get_text_features(input_ids=ids, attention_mask=attention))


def _pooled(found: Any) -> Tensor:
    return found if isinstance(found, Tensor) else found.pooler_output


# --- data ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """`pixels` uint8 [n, 3, side, side]; `ids` and `attention` of the texts [m, tokens]; `fits` bool [n, m].

    For crops also `shown` [n, 4] and `told` [m, 4]: numbers of the attributes in VALUES, -1 for what is not told.
    For whole images `there` [n, kinds * colours]: 1 for what is in the picture.
    """

    pixels: Tensor
    ids: Tensor
    attention: Tensor
    fits: Tensor
    shown: Tensor | None = None
    told: Tensor | None = None
    there: Tensor | None = None


def shown_by(thing: Object) -> list[int]:
    return [values.index(getattr(thing, name)) for name, values in VALUES.items()]


def there_in(scene: Scene) -> Tensor:
    """float32 [kinds * colours]: 1 for combinations that a scene shows."""
    there = torch.zeros(len(KINDS), len(COLOURS))
    for thing in scene.objects:
        there[VALUES["kind"].index(thing.kind), VALUES["colour"].index(thing.colour)] = 1.0
    return there.flatten()


def told_by(mention: Mention) -> list[int]:
    """What a mention says; a phrase without a pattern says nothing of it."""
    told = {name: getattr(mention, name) for name in VALUES}
    return [-1 if told[name] is None else values.index(told[name]) for name, values in VALUES.items()]


def fitting(shown: Tensor, told: Tensor) -> Tensor:
    """bool [n, m]: whether text m is true of crop n."""
    return ((told[None] < 0) | (told[None] == shown[:, None])).all(2)


def mention_of(thing: Object, rng: random.Random) -> Mention:
    """The thing with attributes told by lot; now and then as if it were one of several."""
    count = 1 if rng.random() < 0.9 else rng.choice((2, 3))
    return Mention(
        thing.kind,
        count,
        thing.colour if rng.random() < 0.7 else None,
        thing.size if thing.size != "medium" and rng.random() < 0.4 else None,
        thing.pattern if rng.random() < 0.7 else None,
        objects=(thing.id,),
    )


def altered(mention: Mention, thing: Object, rng: random.Random) -> Mention:
    """The mention of a thing with one attribute that is wrong, said or not before; never in a combination that is held
    out, which would be taught as wrong."""
    while True:
        name = rng.choice(("kind", "kind", "colour", "colour", "size", "pattern"))
        if getattr(mention, name) is None and name != "colour" and rng.random() < 0.7:
            continue
        options: Sequence[str | None] = {"size": ("small", "large"), "pattern": PATTERNS}.get(name, VALUES[name])
        other = replace(mention, **{name: rng.choice([value for value in options if value != getattr(thing, name)])})
        if (other.kind, other.colour) not in HELD_OUT and (other.pattern is None or other.kind in PATTERNED):
            return other


def phrase_text(mention: Mention, rng: random.Random) -> str:
    """The mention as a caption says it, now and then without its article."""
    text = noun_phrase(mention, rng, KNOBS, known=rng.random() < 0.2).text
    first, _, rest = text.partition(" ")
    return rest if first in ("a", "an", "the") and rng.random() < 0.2 else text


def crop_of(pixels: np.ndarray, mask: np.ndarray, fill: Tensor, margin: float = 0.1) -> Tensor:
    """The crop of an object as the embed stage cuts it. uint8 [H, W, 3], bool [H, W] -> uint8 [3, h, w]."""
    box = np.array([box_of(mask)], np.float64)
    top, left, bottom, right = windows(box, margin, *mask.shape)[0].tolist()
    planes = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    return cut(planes, (top, left, bottom, right), torch.from_numpy(mask[:, left:right]), "masked", fill)


def _spread(mask: np.ndarray) -> np.ndarray:
    """The mask, a pixel wider on each side."""
    wide = mask.copy()
    wide[1:] |= mask[:-1]
    wide[:-1] |= mask[1:]
    wide[:, 1:] |= mask[:, :-1]
    wide[:, :-1] |= mask[:, 1:]
    return wide


def worn(mask: np.ndarray, rng: random.Random) -> np.ndarray:
    """The mask as a segmenter might have drawn it: every other one a pixel too wide, too narrow, or beside it."""
    chance = rng.random()
    if chance < 0.5:
        return mask
    if chance < 0.7:
        return _spread(mask)
    if chance < 0.85:
        narrow = ~_spread(~mask)
        return narrow if narrow.sum() > 20 else mask
    return np.roll(mask, (rng.randint(-1, 1), rng.randint(-1, 1)), (0, 1))


class Pictures:
    """Everything the vision tower sees in training, made once and kept: whole images and the crops of their objects,
    uint8 [3, side, side] each, and the scenes they are of."""

    def __init__(self, data: Rendered, preparation: Preparation, scratch: Path) -> None:
        self.scenes = [data.scene(i) for i in tqdm(range(data.count), desc="drawing scenes", leave=False)]
        self.first = np.cumsum([0, *(len(scene.objects) for scene in self.scenes)])
        path = scratch / f"clip-pictures-{world_hash()}-{data.seed}-{data.count}.npy"
        if not path.exists():
            shape = (data.count + int(self.first[-1]), 3, SIDE, SIDE)
            draft = path.with_suffix(f".{os.getpid()}.draft")
            made = np.lib.format.open_memmap(draft, "w+", np.uint8, shape)
            for index, scene in enumerate(tqdm(self.scenes, desc="cutting crops", leave=False)):
                image, *crops = preparation.pixels(_cut_out(data, index, scene, fill_of(preparation))).numpy()
                made[index] = image
                made[data.count + self.first[index] : data.count + self.first[index + 1]] = crops
            made.flush()
            draft.replace(path)
        kept = np.load(path, mmap_mode="r")
        self.images, self.crops = kept[: data.count], kept[data.count :]


def _cut_out(data: Rendered, index: int, scene: Scene, fill: Tensor) -> list[Tensor]:
    """The image of a scene, then its objects."""
    rng = rng_for(data.seed, "clip", "masks", index)
    pixels, labels = data.arrays(index)
    masks = [worn(labels == number, rng) for number in range(1, len(scene.objects) + 1)]
    whole = torch.from_numpy(np.array(pixels.transpose(2, 0, 1)))
    return [whole, *(crop_of(pixels, mask, fill) for mask in masks)]


def tokens_of(tokenizer: CLIPTokenizer, texts: list[str]) -> tuple[Tensor, Tensor]:
    """Ids and attention, int64 [n, tokens] each."""
    made = tokenizer(texts, truncation=True, max_length=MAX_TOKENS, padding=True, return_tensors="pt")
    return made["input_ids"], made["attention_mask"]


class Draw:
    """Batches by step number: crops with phrases, or images with captions."""

    def __init__(self, pictures: Pictures, tokenizer: CLIPTokenizer, seed: int, pairs: int = PAIRS) -> None:
        self.pictures, self.tokenizer, self.seed, self._pairs = pictures, tokenizer, seed, pairs

    def __call__(self, step: int) -> Batch:
        rng = rng_for(self.seed, "clip", step)
        return self.pairs(rng) if step % PAIRS_EVERY == PAIRS_EVERY - 1 else self.crops(rng)

    def crops(self, rng: random.Random) -> Batch:
        """All objects of some scenes, half of them flipped, a true phrase for each, and one that is wrong."""
        numbers, things = [], []
        for index in rng.sample(range(len(self.pictures.scenes)), CROP_SCENES):
            numbers += range(self.pictures.first[index], self.pictures.first[index + 1])
            things += self.pictures.scenes[index].objects
        pixels = np.stack([self.pictures.crops[n][..., :: rng.choice((1, -1))] for n in numbers])
        mentions = [mention_of(thing, rng) for thing in things]
        mentions += [altered(mention, thing, rng) for mention, thing in zip(mentions, things, strict=True)]
        shown = torch.tensor([shown_by(thing) for thing in things])
        told = torch.tensor([told_by(mention) for mention in mentions])
        ids, attention = tokens_of(self.tokenizer, [phrase_text(mention, rng) for mention in mentions])
        return Batch(torch.from_numpy(pixels), ids, attention, fitting(shown, told), shown, told)

    def pairs(self, rng: random.Random) -> Batch:
        """Images, never flipped (captions say left and right), a caption for each."""
        chosen = rng.sample(range(len(self.pictures.scenes)), self._pairs)
        texts = [caption_for(rng.getrandbits(32), self.pictures.scenes[i], "clip").text for i in chosen]
        pixels = torch.from_numpy(self.pictures.images[chosen])
        there = torch.stack([there_in(self.pictures.scenes[i]) for i in chosen])
        return Batch(pixels, *tokens_of(self.tokenizer, texts), torch.eye(self._pairs, dtype=torch.bool), there=there)


def fill_of(preparation: Preparation) -> Tensor:
    """The colour around an object: zero after normalisation, as `stages.embed.encoder` has it."""
    return torch.tensor([round(value) for value in preparation.mean], dtype=torch.uint8).view(3, 1, 1)


# --- training --------------------------------------------------------------------------------------------------------


def _towards(scores: Tensor, fits: Tensor) -> Tensor:
    """Softmax loss of every fitting pair against all that do not fit; each row that has one counts alike.

    Args:
        scores: [n, m]. fits: bool [n, m].
    """
    against = scores.masked_fill(fits, -torch.inf).logsumexp(1, keepdim=True)
    pair = F.softplus(against - scores) * fits
    number = fits.sum(1)
    return (pair.sum(1) / number.clamp(min=1))[number > 0].mean()


def losses(network: Trained, batch: Batch, preparation: Preparation) -> dict[str, Tensor]:
    """Contrastive in both directions; for crops also what the heads read off the vectors."""
    device = network.clip.logit_scale.device
    values = preparation.values(batch.pixels.to(device), torch.float32)
    images, texts = network.images(values), network.texts(batch.ids.to(device), batch.attention.to(device))
    scale = network.clip.logit_scale.clamp(max=4.6).exp()
    scores, fits = scale * F.normalize(images, dim=1) @ F.normalize(texts, dim=1).T, batch.fits.to(device)
    contrast = 0.5 * (_towards(scores, fits) + _towards(scores.T, fits.T))
    if batch.there is not None:
        there = F.binary_cross_entropy_with_logits(network.there(images), batch.there.to(device), reduction="none")
        return {"captions": contrast, "there": 0.1 * there.sum(1).mean()}
    shown, told = batch.shown.to(device), batch.told.to(device)
    seen = sum(F.cross_entropy(head(images), shown[:, i]) for i, head in enumerate(network.image_heads.values()))
    read = sum(
        F.cross_entropy(head(texts), told[:, i], ignore_index=-1, reduction="sum") / len(told)
        for i, head in enumerate(network.text_heads.values())
    )
    return {"phrases": contrast, "seen": 0.3 * seen, "read": 0.1 * read}


def save(network: Trained, tokenizer: CLIPTokenizer, out: Path) -> None:
    """The folder that AutoModel, AutoTokenizer and AutoImageProcessor read."""
    out.mkdir(parents=True, exist_ok=True)
    network.clip.cpu().save_pretrained(out)
    halve(out / "model.safetensors")
    tokenizer.save_pretrained(out)
    make_processor().save_pretrained(out)


def main() -> None:
    from demo.recipes.figures_clip import finish, watch

    args = options(__doc__, OUT, STEPS, scenes=SCENES).parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    tokenizer, preparation = make_tokenizer(some_texts(args.seed)), make_preparation()
    data = Rendered(RECIPE_SEED, args.scenes, args.scratch, args.threads)
    schedule = Schedule(args.steps, rate=2e-3, warmup=min(300, args.steps // 4 + 1), decay=0.05)
    state = args.scratch / f"clip-{args.seed}.pt"
    course = Course(Trained(make_model(tokenizer)), schedule, state, torch.device(args.device))
    draw = Draw(Pictures(data, preparation, args.scratch), tokenizer, args.seed)
    network = course.run(draw, lambda net, batch: losses(net, batch, preparation), watch=watch(tokenizer, preparation))
    save(network, tokenizer, args.out)
    finish(args, course.minutes)


if __name__ == "__main__":
    run(main)
