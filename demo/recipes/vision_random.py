"""A small vision encoder with random weights, in Hugging Face layout: `python -m demo.recipes.vision_random`.

It stands where a trained encoder will stand and says so: `random_weights: true` in its config. Random features of small
crops still tell colours and shapes apart; the recipe measures how well, on scenes of a seed the world does not use.
"""

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, ViTConfig, ViTImageProcessor, ViTModel

from demo.render import render
from demo.scenes import sample_scene

OUT = Path(__file__).parents[1] / "checkpoints" / "vision_random"
SEED, CHECK_SEED, CHECK_SCENES = 0, 1234, 300
GREY = (128, 128, 128)  # zero after normalisation


def config() -> ViTConfig:
    """Three layers of width 96 over sixteen patches; shallow, so that what a patch shows survives."""
    return ViTConfig(
        hidden_size=96,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=384,
        image_size=64,
        patch_size=16,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        random_weights=True,
        architectures=["ViTModel"],
    )


def model(seed: int) -> ViTModel:
    """Normal weights of standard deviation 0.02, each drawn for its own name.

    The class token and its position are zero, so that its state is all image and vectors of different images share no
    common part (mean cosine 0.1 instead of 0.6). The pooler only scales that state down, so that tanh keeps it.
    """
    vit = ViTModel(config()).eval()
    with torch.no_grad():
        for name, weight in vit.named_parameters():
            if "layernorm" in name:
                weight.fill_(1.0 if name.endswith("weight") else 0.0)
            elif name.endswith("bias"):
                weight.zero_()
            else:
                weight.copy_(0.02 * _normal(weight.shape, f"{seed}:{name}"))
        vit.embeddings.cls_token.zero_()
        vit.embeddings.position_embeddings[:, 0] = 0.0
        vit.pooler.dense.weight.copy_(0.5 * torch.eye(vit.config.hidden_size))
    return vit


def _normal(shape: Sequence[int], stream: str) -> torch.Tensor:
    source = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(stream.encode()).digest()[:7], "big"))
    return torch.randn(*shape, generator=source)


def write(out: Path, seed: int) -> dict[str, float]:
    """The folder that AutoModel and AutoImageProcessor read; its figures on fresh scenes."""
    out.mkdir(parents=True, exist_ok=True)
    model(seed).save_pretrained(out)
    side = config().image_size
    ViTImageProcessor(size={"height": side, "width": side}, image_mean=[0.5] * 3, image_std=[0.5] * 3).save_pretrained(
        out
    )
    figures = check(out)
    weights = hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
    size = (out / "model.safetensors").stat().st_size / 1e6
    (out / "card.md").write_text(_CARD.format(seed=seed, weights=weights, size=size, scenes=CHECK_SCENES, **figures))
    return figures


def check(folder: Path) -> dict[str, float]:
    """Nearest-neighbour accuracy (cosine, other images only) of masked gold crops in the encoder's pooled space."""
    crops, colours, kinds, image_ids = gold_crops(CHECK_SEED, CHECK_SCENES)
    processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    encoder = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    with torch.inference_mode():
        vectors = encoder(**processor(images=crops, return_tensors="pt")).pooler_output
    unit = torch.nn.functional.normalize(vectors, dim=1)
    cosine = (unit @ unit.T).numpy()
    mean_cosine = float(unit.mean(0).square().sum())
    cosine[image_ids[:, None] == image_ids[None, :]] = -2.0
    nearest = cosine.argmax(1)
    return {
        "crops": len(crops),
        "colour": float((colours[nearest] == colours).mean()),
        "kind": float((kinds[nearest] == kinds).mean()),
        "cosine": mean_cosine,
        "colour_chance": _chance(colours),
        "kind_chance": _chance(kinds),
    }


def _chance(labels: np.ndarray) -> float:
    """Accuracy of another crop picked at random."""
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    return float((shares**2).sum())


def gold_crops(seed: int, scenes: int) -> tuple[list[Image.Image], np.ndarray, np.ndarray, np.ndarray]:
    """Crops of rendered objects on grey, with a tenth of the box around them; colour, kind and scene of each."""
    crops, colours, kinds, image_ids = [], [], [], []
    for index in range(scenes):
        scene = sample_scene(seed, index)
        picture = render(scene)
        for thing, mask in zip(scene.objects, picture.masks, strict=True):
            x0, y0, x1, y1 = mask.getbbox()
            dx, dy = (x1 - x0) // 10, (y1 - y0) // 10
            box = (max(0, x0 - dx), max(0, y0 - dy), min(mask.width, x1 + dx), min(mask.height, y1 + dy))
            crop = Image.new("RGB", (box[2] - box[0], box[3] - box[1]), GREY)
            crop.paste(picture.image.crop(box), mask=mask.crop(box))
            crops.append(crop)
            colours.append(thing.colour)
            kinds.append(thing.kind)
            image_ids.append(index)
    return crops, np.array(colours), np.array(kinds), np.array(image_ids)


_CARD = """# vision_random: a vision encoder with RANDOM WEIGHTS

**These weights are random. The encoder was never trained on anything.** `config.json` says `"random_weights": true`,
and whatever uses its features has to say so too. It lets the pipeline run from end to end without a pretrained model;
figures made with it say nothing about the methods on real photographs.

- Architecture: ViTModel, 64 x 64 pixels, patches of 16, 3 layers, width 96, 3 heads ({size:.2f} MB).
- Weights: normal, standard deviation 0.02, drawn from seed {seed} for each parameter's name; class token and its
  position zero; pooler 0.5 times the identity. SHA-256 of model.safetensors: `{weights}`.
- Recipe: `python -m demo.recipes.vision_random` (seconds). Licence: CC0 1.0.

What random features can do in the demo world, because its colours and shapes are few and clean: the nearest neighbour
(cosine, pooled output) of {crops} gold crops on grey, among the crops of other images, {scenes} fresh scenes:

| same | accuracy | by chance |
|---|---|---|
| colour | {colour:.3f} | {colour_chance:.3f} |
| kind | {kind:.3f} | {kind_chance:.3f} |

Mean cosine of two crops: {cosine:.2f}.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--seed", type=int, default=SEED)
    args = parser.parse_args()
    print(json.dumps(write(args.out, args.seed), indent=1))


if __name__ == "__main__":
    main()
