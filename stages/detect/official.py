"""The backend `groundingdino`: the original package as the reference, slow, faithful and simple.

It reads the same weights folder as the backend `transformers` and gives the same prompts to the package's own model;
images are prepared as the package prepares them, through Pillow.
"""

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import GroundingDinoConfig

from pipeline.errors import InputError
from pipeline.sections import Detect, Runtime
from stages.common.checkpoints import WEIGHTS, load_strict, read_config, read_state
from stages.common.device import dtype_of
from stages.common.feeder import Feeder, Halving, Meter, Picture
from stages.detect import official_fixes
from stages.detect.backends import Found, Miss
from stages.detect.grounding import Rules, ground, phrase_scores
from stages.detect.loading import WHAT, parse_config
from stages.detect.names import to_official
from stages.detect.prompts import Prompt, questions
from stages.detect.sides import read_sides
from stages.detect.vocabulary import read_tokenizer

# What the package fixes in its code; only weights of these can be put into it.
_FIXED = {"d_model": 256, "max_text_len": 256, "layer_norm_eps": 1e-5}
_FIXED_BACKBONE = {"model_type": "swin", "hidden_act": "gelu", "num_channels": 3, "layer_norm_eps": 1e-5}


def build(config: GroundingDinoConfig, tokenizer: Any, where: Path) -> nn.Module:
    """The package's detector of the shape `config`, random weights, ready to be loaded.

    Args:
        tokenizer: a fast BERT tokenizer.
        where: the file the config was read from, for the message.

    Raises:
        InputError: the package has no model of this shape.
    """
    wanted = {
        **{f"{name} {value!r}": getattr(config, name) == value for name, value in _FIXED.items()},
        **{f"backbone {n} {v!r}": getattr(config.backbone_config, n, None) == v for n, v in _FIXED_BACKBONE.items()},
        "a BERT text encoder": config.text_config.model_type == "bert",
        "as many heads in the encoder as in the decoder": config.encoder_attention_heads
        == config.decoder_attention_heads,
        "as wide an encoder as decoder": config.encoder_ffn_dim == config.decoder_ffn_dim,
    }
    if wrong := [name for name, met in wanted.items() if not met]:
        raise InputError(
            f"{where}: the package groundingdino has no such model, it wants {', '.join(wrong)}; "
            "use `detect.backend: transformers`"
        )
    with official_fixes.building(tokenizer, config.text_config) as package:
        options = _options(config)
        model = package.GroundingDINO(
            _backbone(config, options),
            package.build_transformer(options),
            num_queries=config.num_queries,
            iter_update=True,
            query_dim=config.query_dim,
            num_feature_levels=config.num_feature_levels,
            nheads=config.encoder_attention_heads,
            two_stage_type=options.two_stage_type,
            dec_pred_bbox_embed_share=config.decoder_bbox_embed_share,
            two_stage_bbox_embed_share=config.two_stage_bbox_embed_share,
            two_stage_class_embed_share=False,
        )
    return official_fixes.put_right(model).eval()


def _options(config: GroundingDinoConfig) -> SimpleNamespace:
    """`config` in the words of the package's config files, as far as its builders read them."""
    return SimpleNamespace(
        hidden_dim=config.d_model,
        nheads=config.encoder_attention_heads,
        num_queries=config.num_queries,
        query_dim=config.query_dim,
        dim_feedforward=config.encoder_ffn_dim,
        enc_layers=config.encoder_layers,
        dec_layers=config.decoder_layers,
        num_feature_levels=config.num_feature_levels,
        enc_n_points=config.encoder_n_points,
        dec_n_points=config.decoder_n_points,
        transformer_activation=config.activation_function,
        position_embedding="sine",
        pe_temperatureH=config.positional_embedding_temperature,
        pe_temperatureW=config.positional_embedding_temperature,
        two_stage_type="standard",
        embed_init_tgt=True,
        use_text_enhancer=True,
        use_fusion_layer=True,
        use_text_cross_attention=True,
        use_checkpoint=False,
        use_transformer_ckpt=False,
        pre_norm=False,
        num_patterns=0,
        dropout=0.0,
        text_dropout=0.0,
        fusion_dropout=0.0,
        fusion_droppath=0.0,
    )


def _backbone(config: GroundingDinoConfig, options: SimpleNamespace) -> nn.Module:
    """The package's Swin with its position embedding, of any shape (its own builder knows five by name)."""
    from groundingdino.models.GroundingDINO.backbone.backbone import Joiner
    from groundingdino.models.GroundingDINO.backbone.position_encoding import build_position_encoding
    from groundingdino.models.GroundingDINO.backbone.swin_transformer import SwinTransformer

    shape = config.backbone_config
    outputs = [index - 1 for index in shape.out_indices]  # transformers counts the stem
    swin = SwinTransformer(
        pretrain_img_size=shape.image_size,
        patch_size=shape.patch_size,
        embed_dim=shape.embed_dim,
        depths=shape.depths,
        num_heads=shape.num_heads,
        window_size=shape.window_size,
        mlp_ratio=shape.mlp_ratio,
        qkv_bias=shape.qkv_bias,
        ape=shape.use_absolute_embeddings,
        drop_path_rate=0.0,
        out_indices=outputs,
    )
    joined = Joiner(swin, build_position_encoding(options))
    joined.num_channels = [swin.num_features[index] for index in outputs]
    return joined


def load(config: GroundingDinoConfig, tokenizer: Any, folder: Path) -> nn.Module:
    """The package's detector with the weights of a folder in Hugging Face layout, every one of them.

    Raises:
        InputError: the weights cannot be read, or are not those of the folder's config.
    """
    model = build(config, tokenizer, folder / "config.json")
    file = folder / WEIGHTS
    load_strict(model, to_official(read_state(file), file), file)
    return model


def forward(model: nn.Module, pixels: Tensor, captions: list[str], dtype: torch.dtype) -> dict[str, Tensor]:
    """The package's forward pass, without its warnings, and without what it prints to stdout when it meets NaN.

    Args:
        pixels: [B, 3, h, w], normalised, on the model's device.
        captions: B texts; they may differ.
        dtype: other than fp32, the pass runs under autocast to it.

    Returns:
        pred_logits: [B, Q, 256], -inf beyond a caption's tokens; pred_boxes: [B, Q, 4], centre x, y, width, height in
        shares of the image.
    """
    half = torch.autocast(pixels.device.type, dtype) if dtype != torch.float32 else contextlib.nullcontext()
    with torch.inference_mode(), half, official_fixes.quiet(), contextlib.redirect_stdout(io.StringIO()):
        return model(pixels, captions=captions)


def preparation(folder: Path) -> Callable[[Image.Image], Tensor]:
    """How an image becomes the model's input [3, h, w], by the package's own transforms: its short side scaled to a
    length (its long side to another, where that is less), by Pillow; normalised.
    """
    with official_fixes.quiet():
        from groundingdino.datasets import transforms

    sides = read_sides(folder)
    steps = transforms.Compose(
        [
            transforms.RandomResize([sides.short], max_size=sides.long),
            transforms.ToTensor(),
            transforms.Normalize(sides.mean, sides.std),
        ]
    )
    return lambda image: steps(image, None)[0]


class OfficialDetector:
    """The package's model over the images of a shard, one image and one prompt at a time.

    Args:
        section: detect's parameters; `path` is a weights folder in Hugging Face layout.
        device: where the model runs.

    Raises:
        InputError: the folder's weights, config or vocabulary cannot be used.
    """

    def __init__(self, section: Detect, runtime: Runtime, device: torch.device):
        torch.set_num_threads(runtime.threads)
        folder = Path(section.path)
        config = parse_config(read_config(folder, WHAT), folder / "config.json")
        self.section, self.device, self.dtype = section, device, dtype_of(section.dtype)
        self.tokenizer, self.prepare = read_tokenizer(folder), preparation(folder)
        self.limit = min(config.max_text_len, config.text_config.max_position_embeddings)
        self.rules = Rules(section.box_threshold, section.nms_iou)
        torch.backends.cudnn.allow_tf32 = self.dtype != torch.float32
        self.model = load(config, self.tokenizer, folder).to(device)
        self.meter = Meter(device, self.dtype)
        self.feeder = Feeder(torch.device("cpu"), runtime.threads, self.meter)
        self.memory = Halving("prompts")

    def detect(self, images: pa.Table, phrases: pa.Table) -> Iterator[tuple[str, list[Found] | Miss]]:
        asked, misses = questions(
            images, phrases, self.section.prompting, self.tokenizer, self.limit, self.section.top_k
        )
        yield from misses
        for pictures, bad in self.feeder.batches(images, [[row] for row in asked]):
            for row, error in bad:
                miss = Miss(error.reason, error.detail, "rejected")
                yield from ((name, miss) for prompt in asked[row] for part in prompt.asked for name in part.ids)
            for picture in pictures:
                yield from self._ground(picture, asked[picture.row])

    def _ground(self, picture: Picture, prompts: list[Prompt]) -> Iterator[tuple[str, list[Found] | Miss]]:
        image = Image.fromarray(picture.pixels.permute(1, 2, 0).contiguous().numpy())
        pixels = self.prepare(image).to(self.device)
        place = picture.id, picture.height, picture.width
        for prompt in prompts:
            with self.meter.busy(prompt is prompts[0]):
                ((scores, boxes),) = self.memory.run(self.ask, [(pixels, prompt)])
            yield from ground(scores, boxes, prompt, place, self.rules)

    def ask(self, asked: list[tuple[Tensor, Prompt]]) -> list[tuple[Tensor, Tensor]]:
        """What the model says of each prepared image [3, h, w] and its prompt, one by one, on the CPU: scores [P, Q] of
        the prompt's phrases, boxes [Q, 4].
        """
        made = []
        for pixels, prompt in asked:
            said = forward(self.model, pixels[None], [prompt.text], self.dtype)
            made.append((phrase_scores(said["pred_logits"], [prompt])[0].cpu(), said["pred_boxes"][0].float().cpu()))
        return made
