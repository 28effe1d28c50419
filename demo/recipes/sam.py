"""A small Segment Anything of the demo world: `python -m demo.recipes.sam`.

segment-anything's own classes, trained with what the pipeline will ask: boxes, now and then as far off as a detector's,
and single points. An image is encoded once and answers for all its objects. Points on the background teach the
predicted IoU what no object is. A linear layer that finds objects in the image embedding helps on the way and is thrown
away.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from demo.recipes.command import options, run
from demo.recipes.course import Course, Schedule
from demo.recipes.heldout import RECIPE_SEED
from demo.recipes.rendered import Rendered, box_of
from demo.recipes.storage import halve
from demo.scenes import SIDE
from stages.common.checkpoints import WEIGHTS
from stages.segment.architecture import MEAN, STD, Architecture, build, to_config
from stages.segment.decoder import Decoder

OUT = Path(__file__).parents[1] / "checkpoints" / "sam"
SCENES, STEPS, IMAGES = 20_000, 6000, 8
POINTS, GROUND_POINTS = 1, 2  # points on each object; points of an image that are on none
SINGLE_EVERY = 4  # steps in which boxes train the mask of `multimask: false`
TINY = Architecture(
    image_side=SIDE,
    patch=8,
    prompt_dim=64,
    dim=96,
    depth=5,
    heads=3,
    global_attention=(1, 4),
    window=8,
    decoder_mlp=256,
    iou_hidden=64,
    mask_channels=4,
)


class Trained(nn.Module):
    """Segment Anything, the pipeline's decoder over its weights, and the layer that helps it learn."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.sam = random_weights(build(shape).to_empty(device="cpu"))
        self.decoder = Decoder(self.sam)
        self.ground = nn.Conv2d(shape.prompt_dim, shape.patch**2, 1)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    def encode(self, pixels: Tensor) -> Tensor:
        """uint8 [B, 3, side, side] -> image embeddings [B, C, grid, grid]."""
        return self.sam.image_encoder((pixels.float() - self.mean) / self.std)


def random_weights(sam: nn.Module) -> nn.Module:
    """As the classes draw them: here they come from memory that nothing was written to."""
    for module in sam.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
        elif type(module).__name__ == "LayerNorm2d":
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    nn.init.trunc_normal_(sam.image_encoder.pos_embed, std=0.02)
    for block in sam.image_encoder.blocks:
        nn.init.zeros_(block.attn.rel_pos_h)
        nn.init.zeros_(block.attn.rel_pos_w)
    nn.init.normal_(sam.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix)
    return sam


# --- data ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """Images, and prompts with what they ask for.

    Attributes:
        pixels: uint8 [B, 3, side, side].
        masks: of all objects, bool [O, side, side].
        shown: pixels that are of an object, bool [B, side, side].
        boxes: [O, 4], one for each object; box_image, int64 [O], its image.
        points: [P, 2], x, y; point_image, int64 [P]; point_object, int64 [P], -1 for the background.
    """

    pixels: Tensor
    masks: Tensor
    shown: Tensor
    boxes: Tensor
    box_image: Tensor
    points: Tensor
    point_image: Tensor
    point_object: Tensor


def jittered(box: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A box [4] as a detector might have found it: true, up to 8 % off, or (one in five) up to 20 %."""
    reach = rng.choice((0.0, 0.08, 0.2), p=(0.3, 0.5, 0.2))
    width, height = box[2] - box[0], box[3] - box[1]
    moved = box + reach * rng.uniform(-1, 1, 4) * (width, height, width, height)
    return np.clip(moved, 0, SIDE)


class Draw:
    """Batches by step number: images, half of them flipped, with prompts for all their objects."""

    def __init__(self, data: Rendered, seed: int, images: int) -> None:
        self.data, self.seed, self.images = data, seed, images

    def __call__(self, step: int) -> Batch:
        rng = np.random.default_rng((self.seed, step))
        pixels, masks, shown, boxes, box_image, points = [], [], [], [], [], []
        for image, index in enumerate(rng.integers(self.data.count, size=self.images)):
            way = rng.choice((1, -1))
            picture, labels = (array[:, ::way] for array in self.data.arrays(int(index)))
            pixels.append(picture.transpose(2, 0, 1))
            shown.append(labels > 0)
            for number in range(1, int(labels.max()) + 1):
                mask = labels == number
                boxes.append(jittered(np.array(box_of(mask), np.float64), rng))
                box_image.append(image)
                rows, columns = np.nonzero(mask)
                for pick in rng.integers(len(rows), size=POINTS):
                    points.append((columns[pick] + 0.5, rows[pick] + 0.5, image, len(masks)))
                masks.append(mask)
            rows, columns = np.nonzero(labels == 0)
            for pick in rng.integers(len(rows), size=GROUND_POINTS):
                points.append((columns[pick] + 0.5, rows[pick] + 0.5, image, -1))
        placed = torch.tensor(np.array(points), dtype=torch.float32)
        return Batch(
            *(torch.from_numpy(np.stack(arrays)) for arrays in (pixels, masks, shown)),
            torch.tensor(np.array(boxes), dtype=torch.float32),
            torch.tensor(box_image),
            placed[:, :2],
            placed[:, 2].long(),
            placed[:, 3].long(),
        )


# --- training --------------------------------------------------------------------------------------------------------


def mask_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy for the object's size, and dice. [n, m, h, w], [n, h, w] (shares of a pixel) -> [n, m]."""
    wanted = target[:, None].expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum((2, 3))
    area = target.sum((1, 2))[:, None]
    guess = logits.sigmoid()
    dice = 1 - (2 * (guess * wanted).sum((2, 3)) + 1) / (guess.sum((2, 3)) + area + 1)
    return entropy / (area + 32) + dice


@torch.no_grad()
def true_iou(logits: Tensor, target: Tensor) -> Tensor:
    """[n, m, h, w], [n, h, w] -> [n, m]."""
    found, wanted = logits > 0, (target > 0.5)[:, None]
    return (found & wanted).sum((2, 3)) / (found | wanted).sum((2, 3)).clamp(min=1)


def losses(network: Trained, batch: Batch, step: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """For boxes and points the masks and their predicted IoU. Of three masks all learn, the best one most.

    Args:
        dtype: of the image encoder's products.
    """
    device = network.mean.device
    here = Batch(*(value.to(device) for value in vars(batch).values()))
    with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        embeddings = network.encode(here.pixels)
    embeddings = embeddings.float()
    ground = F.pixel_shuffle(network.ground(embeddings), SIDE // embeddings.shape[2])[:, 0]
    side = 4 * embeddings.shape[2]
    targets = F.avg_pool2d(here.masks.float()[:, None], SIDE // side)[:, 0]

    boxes, points = network.decoder.embed_boxes(here.boxes), network.decoder.embed_points(here.points)
    of_box = torch.arange(len(boxes), device=device)
    if step % SINGLE_EVERY == SINGLE_EVERY - 1:
        asked = [(boxes, here.box_image, of_box, "single"), (points, here.point_image, here.point_object, "all")]
    else:
        both = ((boxes, points), (here.box_image, here.point_image), (of_box, here.point_object))
        asked = [(*(torch.cat(parts) for parts in both), "all")]
    masks, ious, count = [], [], 0
    for prompts, owner, wanted, kept in asked:
        logits, predicted = network.decoder(embeddings, owner, prompts, kept)
        on = torch.nonzero(wanted >= 0)[:, 0]
        target = targets[wanted[on]]
        each = mask_loss(logits[on], target)
        masks.append(0.5 * (each.mean(1) + each.amin(1)).sum())
        true = torch.zeros_like(predicted)
        true[on] = true_iou(logits[on], target)
        ious.append((predicted - true).square().mean(1).sum())
        count += len(on)
    return {
        "masks": sum(masks) / count,
        "iou": 2 * sum(ious) / sum(len(prompts) for prompts, *_ in asked),
        "ground": F.binary_cross_entropy_with_logits(ground, here.shown.float()),
    }


def save(network: Trained, shape: Architecture, out: Path, grid: dict[str, float] | None = None) -> None:
    """The folder that the segment stage reads; `grid`: the thresholds of the automatic masks that suit the weights."""
    out.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.sam.state_dict().items()}
    save_file(state, out / WEIGHTS, metadata={"format": "pt"})
    halve(out / WEIGHTS)
    config = {key: value for key, value in to_config(shape, "tiny", "").items() if key != "source_sha256"}
    (out / "config.json").write_text(json.dumps(config | ({"grid": grid} if grid else {}), indent=1) + "\n")


def main() -> None:
    from demo.recipes.figures_sam import finish, watch

    parser = options(__doc__, OUT, STEPS, scenes=SCENES)
    parser.add_argument(
        "--dtype", default="bf16", choices=["bf16", "fp32"], help="image encoder; bf16 wants a GPU or AVX-512 BF16"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    data = Rendered(RECIPE_SEED, args.scenes, args.scratch, args.threads)
    schedule = Schedule(args.steps, rate=1.5e-3, warmup=min(200, args.steps // 4 + 1), decay=0.05)
    course = Course(Trained(TINY), schedule, args.scratch / f"sam-{args.seed}.pt", torch.device(args.device))
    draw = Draw(data, args.seed, IMAGES)
    dtype = torch.bfloat16 if args.dtype == "bf16" else torch.float32
    network = course.run(draw, lambda net, batch: losses(net, batch, course.step, dtype), watch=watch)
    save(network, TINY, args.out)
    finish(args, network, course.minutes)


if __name__ == "__main__":
    run(main)
