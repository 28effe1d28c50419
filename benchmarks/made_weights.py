"""Full-size checkpoints of random weights, in the files and folders in which the official ones come.

Speed does not depend on the values, and the official files cannot be had everywhere: so these are made once from a
seed, by the packages' own builders, into a folder given, and converted as `python -m pipeline weights convert` does.

    python -m benchmarks.made_weights FOLDER [NAME ...]
"""

import argparse
import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.presets import minilm

SEED = 0
SAM = {"sam-vit-base": "vit_b", "sam-vit-large": "vit_l", "sam-vit-huge": "vit_h"}
GROUNDING_DINO = {"grounding-dino-tiny": ("SwinT-OGC", "GroundingDINO_SwinT_OGC.py")}
# Official GroundingDINO files hold these besides what the package's model wants.
_LABELS = (2001, 256)
_STANDS_OUT = 10.0
_SMALL, _APART = 0.4, 2.6
_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def weights(cache: Path, name: str) -> Path:
    """The weights folder `name` below `cache`, as detect, segment and embed read it; made if it is not there."""
    folder = cache / name
    if not (folder / "config.json").is_file():
        if name in ENCODERS:
            _appear(folder, ENCODERS[name])
        else:
            stage, architecture = ("segment", SAM[name]) if name in SAM else ("detect", GROUNDING_DINO[name][0])
            converter = importlib.import_module(f"stages.{stage}.convert")
            converter.convert(checkpoint(cache, name), folder, architecture)
    return folder


def checkpoint(cache: Path, name: str) -> Path:
    """The official kind of file of a SAM or a GroundingDINO, `cache`/downloads/`name`.pth; made if it is not there.

    The vocabulary that GroundingDINO needs lies beside it.
    """
    file = cache / "downloads" / f"{name}.pth"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        state = sam(name).state_dict() if name in SAM else _official_state(grounding_dino(name))
        _appear(file, lambda draft: torch.save(state, draft))
        vocabulary = file.parent / "vocab.txt"
        _appear(vocabulary, lambda draft: draft.write_bytes((Path(minilm()) / "vocab.txt").read_bytes()))
    return file


def sam(name: str) -> nn.Module:
    """A segment-anything model by its own builder.

    Masks of its random weights are a pattern of single pixels whose run-length codes are a hundred times as long as
    those of real ones. So the positions, which it leaves at zero, are drawn as a smooth field that stands out from the
    patches, and the upsampling treats the four pixels that come of one alike: masks are then blobs.
    """
    from segment_anything import sam_model_registry

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(SEED)
        model = sam_model_registry[SAM[name]]()
        encoder = model.image_encoder
        coarse = torch.randn(1, encoder.pos_embed.shape[-1], 5, 5)
        smooth = nn.functional.interpolate(coarse, encoder.pos_embed.shape[1:3], mode="bicubic")
        encoder.pos_embed.copy_(_STANDS_OUT * smooth.permute(0, 2, 3, 1))
        for key, tensor in encoder.named_parameters():
            if "rel_pos" in key:
                tensor.normal_(std=0.02)
        for layer in model.mask_decoder.output_upscaling:
            if isinstance(layer, nn.ConvTranspose2d):
                layer.weight.copy_(layer.weight.mean((2, 3), keepdim=True).expand_as(layer.weight))
    return model.eval()


def grounding_dino(name: str) -> nn.Module:
    """A GroundingDINO by the package's own builders and configuration, put right as the reference backend does it."""
    import groundingdino
    from groundingdino.util.slconfig import SLConfig
    from transformers import BertConfig

    from stages.detect.official_fixes import building, imported, put_right

    imported()
    options = SLConfig.fromfile(str(Path(groundingdino.__file__).parent / "config" / GROUNDING_DINO[name][1]))
    with torch.random.fork_rng(devices=[]), building(tokenizer(), BertConfig()) as package:
        torch.manual_seed(SEED)
        model = put_right(package.build_groundingdino(options)).eval()
        _make_rare(model)
        return model


@torch.no_grad()
def _make_rare(model: nn.Module) -> None:
    """Random phrases and queries agree more often than not; here a phrase finds a few boxes in a photo, as with trained
    weights: both kinds of feature are made small, and pushed apart along one direction.
    """
    apart = nn.functional.normalize(torch.randn(model.hidden_dim), dim=0) * _APART
    for norm, sign in ((model.transformer.decoder.norm, 1), (model.transformer.encoder.text_layers[-1].norm2, -1)):
        norm.weight.mul_(_SMALL)
        norm.bias.copy_(sign * apart)


def _official_state(model: nn.Module) -> dict[str, dict[str, Tensor]]:
    """The state as official files hold it: wrapped, with `module.` before every name, BERT's pooler, and two tensors
    that only training used.
    """
    extra = {
        "bert.pooler.dense.weight": torch.zeros(768, 768),
        "bert.pooler.dense.bias": torch.zeros(768),
        "bert.embeddings.position_ids": torch.arange(512)[None],
        "label_enc.weight": torch.zeros(_LABELS),
    }
    return {"model": {f"module.{key}": value for key, value in {**model.state_dict(), **extra}.items()}}


def tokenizer() -> Any:
    """BERT's uncased tokenizer, from the vocabulary that comes with MiniLM (they are the same)."""
    from transformers import BertTokenizerFast

    words = (Path(minilm()) / "vocab.txt").read_text(encoding="utf-8").splitlines()
    return BertTokenizerFast(vocab={word: number for number, word in enumerate(words)}, do_lower_case=True)


def _write_clip(folder: Path) -> None:
    """CLIP ViT-B/32. Its own vocabulary is not at hand: BERT's cuts captions into about as many tokens."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, PreTrainedTokenizerFast

    words = tokenizer()
    special = {"bos_token": "[CLS]", "eos_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    ids = {key: words.convert_tokens_to_ids(special[key.replace("_id", "")]) for key in _IDS}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = CLIPModel(CLIPConfig(text_config=ids))
    model.config.random_weights = True
    model.save_pretrained(folder)
    CLIPImageProcessor().save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=words.backend_tokenizer, **special).save_pretrained(folder)


def _write_resnet(folder: Path) -> None:
    from transformers import ConvNextImageProcessor, ResNetConfig, ResNetModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = ResNetModel(ResNetConfig())
    model.config.random_weights = True
    model.save_pretrained(folder)
    ConvNextImageProcessor(size={"shortest_edge": 224}).save_pretrained(folder)


ENCODERS = {"clip-vit-base-patch32": _write_clip, "resnet-50": _write_resnet}
NAMES = (*SAM, *GROUNDING_DINO, *ENCODERS)


def _appear(place: Path, write: Callable[[Path], object]) -> None:
    """A file or folder that is there whole or not at all."""
    draft = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    write(draft)
    draft.rename(place)


def main() -> None:
    made = argparse.ArgumentParser(prog="python -m benchmarks.made_weights", allow_abbrev=False)
    made.add_argument("folder", type=Path)
    made.add_argument("names", nargs="*", default=NAMES, metavar="NAME", help=f"of {', '.join(NAMES)} (default: all)")
    arguments = made.parse_args()
    for name in arguments.names:
        print(weights(arguments.folder, name))


if __name__ == "__main__":
    main()
