"""The sections of params.yaml, one strict model each.

A section is what its stage's fingerprint and DVC see; `runtime` is in neither, because it must not change any result.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Dtype = Literal["fp32", "bf16", "fp16"]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Sharded(Section):
    max_reject_rate: Share = Field(0.01, description="share of bad records above which the stage fails (exit 4)")


class Splits(Section):
    train: Share = Field(1.0, description="share of images (by a hash of the id) that training sees")
    dev: Share = Field(0.0, description="share kept for development")
    test: Share = Field(0.0, description="share kept for tests")

    @model_validator(mode="after")
    def _whole(self) -> "Splits":
        if abs(self.train + self.dev + self.test - 1.0) > 1e-9:
            raise ValueError("the shares train + dev + test must add up to 1")
        return self


class Columns(Section):
    image: str | None = Field(None, description="column of the images; null: `image` or another usual name")
    caption: str | None = Field(
        None, description="column of the captions, or a pattern for several (`caption_*`); null: a usual name"
    )
    id: str | None = Field(None, description="column of the image ids; null: the file's name and the row's number")


class Ingest(Sharded):
    source: Literal["folder", "coco", "flickr", "parquet", "webdataset", "sentences"] = Field(
        description="how the collection is laid out"
    )
    path: str = Field(description="the collection's folder; for source `sentences`, its text file")
    captions: str = Field(
        "captions.csv",
        description="the file (or glob) inside the folder that holds the captions: .csv, .tsv, .jsonl for folder, "
        ".json for coco, token file, results.csv or lines for flickr, .parquet, .tar",
    )
    images: list[str] = Field(["images"], description="folders inside `path` where image files are looked up, in order")
    lists: str | None = Field(
        None,
        description="source `flickr`, if captions are bare lines (Multi30k): the file (or glob) of image names, line i "
        "for line i; null: captions name their image",
    )
    columns: Columns = Field(default_factory=Columns, description="source `parquet`: what its columns are called")
    sentences_path: str = Field(
        description="text file of the text-only stream, one sentence a line; an empty file for none"
    )
    shards: int = Field(8, ge=1, le=9999, description="how many shards the collection is cut into")
    splits: Splits = Field(
        default_factory=Splits, description="shares of the splits, assigned by a hash of the image id"
    )
    deduplicate: bool = Field(
        True, description="keep one of several byte-equal images (the smallest id) and give it all captions"
    )
    near_duplicates: int | None = Field(
        None,
        ge=0,
        le=12,
        description="drop an image that looks like one with a smaller id: most bits (of 64) in which their perceptual "
        "hashes may differ, 4 finds rescaled and recompressed copies; null: off",
    )
    max_pixels: int = Field(50_000_000, ge=1, description="larger images are rejected before they are decoded")
    min_side: int = Field(16, ge=1, description="images with a shorter side are rejected, in pixels")
    max_aspect: float = Field(10.0, ge=1.0, description="images longer than this many times their width are rejected")
    max_caption_words: int = Field(200, ge=1, description="longer captions are dropped")


class Parse(Sharded):
    backend: Literal["stanza", "markup"] = Field(
        description="stanza parses; markup reads Flickr30k Entities style captions"
    )
    path: str = Field(description="folder of the Stanza models, or the file of marked captions")
    span: Literal["base", "maximal"] = Field(
        "base", description="base noun phrases, or with their modifiers to the right"
    )
    drop_pronouns: bool = Field(True, description="leave out phrases whose head is a pronoun")
    drop_heads: list[str] = Field([], description="head lemmas too abstract to have pixels")
    max_words: int = Field(8, ge=1, description="longest phrase, in words")


class Detect(Sharded):
    backend: Literal["annotations", "transformers", "groundingdino"] = Field(description="where the boxes come from")
    path: str = Field(
        description="weights folder; for backend `annotations` the instances file, or the folder that holds it"
    )
    annotations: str = Field(
        "instances_*.json", description="backend annotations: file name (or glob) when `path` is a folder"
    )
    synonyms: dict[str, list[str]] = Field({}, description="backend annotations: category -> other words for it")
    top_k: int = Field(
        3, ge=1, le=100, description="most boxes kept a phrase (a counted plural keeps one more than its count)"
    )
    box_threshold: Share = Field(0.35, description="model backends: least phrase score of a box")
    nms_iou: Share = Field(0.5, description="model backends: boxes of a phrase that overlap more are merged")
    prompting: Literal["per_image", "per_caption", "per_phrase"] = Field(
        "per_image", description="model backends: what shares a prompt (scores depend on it)"
    )
    dtype: Dtype = Field("fp32", description="model backends: number format")

    @field_validator("synonyms")
    @classmethod
    def _seen_by_dvc(cls, table: dict[str, list[str]]) -> dict[str, list[str]]:
        if hidden := sorted({"size", "nfiles"} & set(table)):
            raise ValueError(f"no category may be named {hidden[0]}: DVC's run cache leaves keys of that name out")
        return table


class GridOfPoints(Section):
    points_per_side: int = Field(32, ge=1, le=128, description="points along each side of the image")
    min_predicted_iou: Share = Field(0.88, description="masks whose predicted IoU is less are left out")
    min_stability: Share = Field(0.95, description="masks less stable under a shifted threshold are left out")
    nms_iou: Share = Field(0.7, description="masks whose boxes overlap more are merged, best predicted IoU first")


class Segment(Sharded):
    backend: Literal["annotations", "sam"] = Field(description="where the masks come from")
    path: str = Field(
        description="weights folder; for backend `annotations` the instances file, or the folder that holds it"
    )
    annotations: str = Field(
        "instances_*.json", description="backend annotations: file name (or glob) when `path` is a folder"
    )
    prompt: Literal["boxes", "grid"] = Field(
        "boxes", description="sam: prompt with boxes, or find masks on a grid of points"
    )
    multimask: bool = Field(
        True, description="sam: of three masks a box take the one of best predicted IoU; false: SAM's single mask"
    )
    grid: GridOfPoints = Field(default_factory=GridOfPoints, description="sam with prompt grid: which masks are kept")
    min_island: int = Field(0, ge=0, description="sam: holes and islands under this many pixels are cleaned away")
    dtype: Dtype = Field("fp32", description="sam: number format")


class Embed(Sharded):
    backend: Literal["transformers"] = Field("transformers", description="frozen encoder, by AutoModel or CLIPModel")
    path: str = Field(description="folder of the vision (or CLIP) encoder in Hugging Face layout")
    crop: Literal["masked", "box", "blur"] = Field(
        "masked", description="what is outside the mask: mean colour, kept, blurred"
    )
    crop_margin: float = Field(
        0.1, ge=0.0, le=1.0, description="the box is widened by this share of its sides before cropping"
    )
    text: bool = Field(True, description="also embed captions and phrases where the encoder has a text tower")
    dtype: Dtype = Field("fp32", description="number format of the encoder")


class Align(Sharded):
    min_score: Share = Field(0.35, description="least box score")
    min_predicted_iou: Share = Field(0.0, description="least predicted IoU of the mask")
    min_mask_box_iou: Share = Field(0.3, description="least IoU of the mask's own bounding box with the detected box")
    min_area: Share = Field(0.005, description="least share of the image a mask may cover")
    max_area: Share = Field(0.9, description="largest share of the image a mask may cover")
    min_similarity: Annotated[float, Field(ge=-1, le=1)] | None = Field(
        None, description="least cosine of crop and phrase; needs an encoder with a text tower; null: no filter"
    )
    tie: Share = Field(
        0.0001, description="candidates whose scores differ by less are equal, and an equal best is ambiguous"
    )
    max_per_caption: int = Field(4, ge=1, description="most pairs a caption keeps, best scores first")


class Quality(Section):
    gold_path: str = Field(
        description="gold that phrases, boxes, masks and pairs are measured against: a folder with phrases_*.json and "
        "instances_*.json, with Flickr30k Entities (Sentences, Annotations), with referring*.json or with "
        "instances_*.json, or one such file (docs/evaluation.md); an empty file for none"
    )


# model.recipes.NAMES, which this package does not import: a test holds the two against each other.
Recipe = Literal[
    "untrained", "simcse", "simcse-sup", "simcse-phrases", "diffcse", "diffcse-code",
    "mcse", "kdmcse", "kdmcse-code", "kdmcse-paper", "dalr", "dalr-code", "dalr-paper",
    "mcseo", "mcseo-span", "mcseo-soft", "mcseo-shuffled", "mcseo-whole", "mcseo-mil",
]  # fmt: skip


class Train(Section):
    path: str = Field(
        description="folder of the text encoder: Hugging Face layout; config and tokenizer suffice for scratch"
    )
    teachers_path: str = Field(
        "presets/no_teachers",
        description="folder of the frozen encoders that some recipes learn from: simcse/ and diffcse/ (dalr), "
        "generator/ (diffcse), each in Hugging Face layout",
    )
    triplets_path: str = Field(
        "presets/no_triplets.tsv",
        description="recipe simcse-sup: .tsv or .csv of premise, entailment, contradiction; no rows for none",
    )
    init: Literal["pretrained", "scratch"] = Field(
        description="start from the weights in `path`, or from seeded random ones"
    )
    pooling: Literal["cls", "cls_mlp", "mean"] | None = Field(
        None,
        description="how token states become a sentence vector; null: the recipe's own, else as stored with the "
        "encoder, else cls",
    )
    epochs: int | None = Field(None, ge=1, description="passes over the mixed schedule; null: the recipe's own")
    max_steps: int | None = Field(None, ge=1, description="stop after this many steps; null: the epochs decide")
    batch_size: int | None = Field(
        None, ge=2, description="rows a batch, text and pair batches alike; null: the recipe's own"
    )
    accumulation: int = Field(1, ge=1, description="batches whose mean loss makes one optimizer step")
    cache_chunk: int | None = Field(
        None,
        ge=1,
        description="gradient cache: rows of a batch encoded at once, for batches that do not fit into memory (a "
        "third slower); null: off",
    )
    learning_rate: float | None = Field(None, gt=0, description="peak learning rate; null: the recipe's own")
    schedule: Literal["linear", "cosine"] = Field("linear", description="how the learning rate falls to 0")
    warmup: Share = Field(0.0, description="share of the steps over which the learning rate rises")
    max_length: int = Field(32, ge=4, description="most tokens a text keeps in training")
    length_chunks: int = Field(
        1, ge=1, description="groups of like length in which a batch is encoded, so that less is padding"
    )
    objects_per_caption: int | None = Field(
        None, ge=1, description="object-phrase pairs sampled a caption and step; null: the recipe's own"
    )
    captions_per_image: Literal["one_fixed", "one_per_epoch", "all"] | None = Field(
        None,
        description="captions of an image that training sees: one, drawn once; one, drawn anew each pass; all. It "
        "changes the schedule: compare recipes under the same. null: the recipe's own",
    )
    pair_every: int | None = Field(
        None, ge=1, description="a pair batch every so many steps; null: the published schedule"
    )
    temperature: float | None = Field(None, gt=0, description="null: the recipe's own")
    image_weight: float | None = Field(
        None, ge=0, description="lambda, weight of the caption-image term; null: the recipe's own"
    )
    object_weight: float | None = Field(
        None, ge=0, description="mu, weight of the object-phrase term; null: the recipe's own"
    )
    eval_every: int = Field(125, ge=1, description="steps between evaluations on the STS-B dev set, and checkpoints")
    patience: int | None = Field(
        None, ge=1, description="stop early after so many evaluations without a better score; null: never"
    )
    dtype: Literal["fp32", "bf16"] = Field("fp32", description="autocast of the encoder; losses are fp32 always")
    compile: bool = Field(False, description="compile the encoder (torch.compile): slow to start")
    normalize: bool = Field(
        False, description="the exported model also divides its vectors by their length; cosines do not change"
    )
    settings: dict[Recipe, dict[str, bool | int | float | str]] = Field(
        {},
        description="recipe -> settings of its own, over those above, by the names of model/settings.py "
        "(`{kdmcse: {margin: 0.125}}`)",
    )

    @field_validator("settings")
    @classmethod
    def _seen_by_dvc(cls, table: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        if hidden := sorted({"size", "nfiles"} & {name for own in table.values() for name in own}):
            raise ValueError(f"no setting is named {hidden[0]}: DVC's run cache leaves keys of that name out")
        return table


class Grid(Section):
    recipes: list[Recipe] = Field(min_length=1, description="recipes to train")
    seeds: list[Annotated[int, Field(ge=0)]] = Field(min_length=1, description="seeds to train each recipe with")

    @model_validator(mode="after")
    def _distinct(self) -> "Grid":
        if len(set(self.recipes)) < len(self.recipes) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError("recipes and seeds must not repeat")
        return self


# What `python -m stages.evaluate --suite` takes.
Suite = Literal["sts", "transfer", "probes", "retrieval", "cxc", "geometry"]


class Evaluate(Section):
    path: str = Field(
        description="folder of the evaluation sets: the STS tasks in SentEval's layout or as Parquet, and where they "
        "are there the transfer tasks (`transfer`), probes (`probes`) and Crisscrossed Captions (`cxc`)"
    )
    suite: list[Suite] = Field(
        ["sts", "geometry"],
        min_length=1,
        description="what is measured; `sts` is always there, because the page needs it",
    )
    protocol: Literal["senteval", "mteb"] = Field(
        "senteval",
        description="STS as SimCSE's SentEval has it (SICK-R: 4,927 test pairs), or as MTEB has it (all 9,927; raw "
        "text; the model's own truncation)",
    )
    dtype: Literal["fp32", "bf16"] = Field(
        "fp32", description="of the encoder's matrix products; published numbers are fp32, bf16 is quicker"
    )
    note: str = Field(
        "", description="a line the report prints beside the scores, for data that is not the published tasks"
    )

    @field_validator("suite")
    @classmethod
    def _with_sts(cls, names: list[str]) -> list[str]:
        if len(set(names)) < len(names):
            raise ValueError("a suite must not repeat")
        if "sts" not in names:
            raise ValueError("sts must be one of them: the page and the metrics stand on it")
        return names


class Report(Section):
    gallery: int = Field(200, ge=0, description="pairs shown, drawn with the seed below; 10,000 stay quick")
    dropped: int = Field(
        100, ge=0, description="candidates and phrases shown that did not come through, drawn evenly over their reasons"
    )
    seed: int = Field(0, ge=0, description="seed of the drawn samples")
    leak_jaccard: float | None = Field(
        0.8,
        gt=0,
        le=1,
        description="training text is as good as an evaluation sentence from this Jaccard index of "
        "their words on; null: only exact matches are looked for",
    )
    leak_distance: int | None = Field(
        4,
        ge=0,
        le=64,
        description="images are near copies up to this many of 64 bits between their perceptual "
        "hashes; null: only exact matches are looked for",
    )


class Runtime(Section):
    devices: list[Device] = Field(
        ["auto"],
        min_length=1,
        description="where models run, one worker a device (`[cuda:0, cuda:1]`); auto: every accelerator, else the cpu",
    )
    workers: int = Field(
        1, ge=1, le=256, description="processes of a stage that runs no model on a device; 1: in this process"
    )
    threads: int = Field(2, ge=1, le=1024, description="threads of a worker")
    batch_rows: int = Field(32, ge=1, description="rows (captions, crops, box prompts) a model sees at once")
    batch_images: int = Field(4, ge=1, description="whole images that detect and segment encode at once")
    compile: bool = Field(False, description="compile detect's and segment's networks (torch.compile): slow to start")
    scratch: str = Field(".scratch", description="the scratch store of finished shards; outside data/")


class Params(Section):
    dataset: Name = Field(description="short name; artifacts go to data/<dataset>/")
    ingest: Ingest
    parse: Parse
    detect: Detect
    segment: Segment
    embed: Embed
    align: Align
    quality: Quality
    train: Train
    grid: Grid
    evaluate: Evaluate
    report: Report
    runtime: Runtime

    def section(self, stage: str) -> dict[str, Any]:
        """A stage's parameters as plain values, defaults filled in: what goes into its fingerprint and sidecars."""
        return getattr(self, stage).model_dump()
