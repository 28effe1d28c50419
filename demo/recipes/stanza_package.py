"""From trained Stanza models to the folder that ships: four weight files, card, manifest; and how to load it."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from demo.recipes.cards import Figures

MODELS = {"tokenize": "tokenize.pt", "pos": "pos.pt", "lemma": "lemma.pt", "depparse": "depparse.pt"}
PATHS = ("_file", "_dir", "save_name", "load_name", "continue_from")
MAX_BYTES = 15 * 1024 * 1024
SCENES = 400
COMMAND = "python -m demo.recipes.stanza_en --treebank PATH_TO_UD_ENGLISH_EWT"


def load_pipeline(folder: Path, **options: Any):
    """Stanza pipeline (tokenize, pos, lemma, depparse) over the weights of `folder`, on the CPU, without a network."""
    import stanza

    paths = {f"{processor}_model_path": str(folder / name) for processor, name in MODELS.items()}
    return stanza.Pipeline(
        lang="en", dir=str(folder), processors=",".join(MODELS), package=None, download_method=None,
        allow_unknown_language=True, use_gpu=False, verbose=False, **{**paths, **options},
    )  # fmt: skip


def package(work: Path, args: argparse.Namespace) -> None:
    """Copy the weights to `args.out`, measure them, write figures.json, card.md and manifest.json."""
    from demo.recipes import figures_stanza_en as measuring
    from demo.recipes.cards import Figures, machine, write_figures
    from demo.recipes.heldout import FIGURES_SEED
    from demo.recipes.stanza_en import done

    out: Path = args.out
    out.mkdir(parents=True, exist_ok=True)
    (out / "resources.json").write_text("{}\n", encoding="utf-8")
    for name in MODELS.values():
        halve(work / name, out / name)
    size = sum((out / name).stat().st_size for name in MODELS.values())
    if size > MAX_BYTES:
        raise SystemExit(f"{out}: {size} bytes of weights, more than {MAX_BYTES}: use smaller sizes")
    write_manifest(out)
    table = measuring.ewt_table(out, args.treebank)
    measured = measuring.figures(out, FIGURES_SEED, SCENES) | measuring.of_table(table)
    phrases = phrase_figures(out, args)
    minutes = {name: seconds / 60 for name, seconds in done(work).items()}
    steps = args.steps_tokenizer + 2 * args.steps_tagger + args.steps_parser
    figures = Figures(
        "stanza_en", args.seed, steps, sum(minutes.values()), machine(args.device), measured, FIGURES_SEED
    )
    write_figures(out, figures)
    write_parser_card(out, figures, args, minutes, table, phrases)
    print(", ".join(f"{name} {value:.4f}" for name, value in measured.items()))


def halve(source: Path, target: Path) -> None:
    """Copy a model with its weights as float16; Stanza copies them into float32 parameters when it loads them.

    Raises SystemExit if the file needs pickled code to load or holds the state of an optimizer.
    """
    import torch

    state = torch.load(source, weights_only=True, map_location="cpu")
    if extra := [key for key in state if "optimizer" in key or "scheduler" in key]:
        raise SystemExit(f"{source}: holds training state {extra}")
    state["model"] = {k: v.half() if v.is_floating_point() else v for k, v in state["model"].items()}
    # Where the files lay on the training machine is of no use to anyone, and differs from run to run.
    state["config"] = {k: v for k, v in state["config"].items() if not (k.endswith(PATHS) and isinstance(v, str))}
    torch.save(state, target, _use_new_zipfile_serialization=False)


def write_manifest(out: Path) -> None:
    """manifest.json: name of each weight file -> its sha256 and size."""
    entries = {
        name: {"sha256": hashlib.sha256((out / name).read_bytes()).hexdigest(), "bytes": (out / name).stat().st_size}
        for name in MODELS.values()
    }
    (out / "manifest.json").write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


def phrase_figures(out: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Noun phrases of marked text, where it is named."""
    from demo.recipes import noun_phrases

    found: dict[str, Any] = {}
    if args.conll2000:
        found["conll2000"] = noun_phrases.measure_conll2000(out, args.conll2000)
    if args.entities:
        found["entities"] = noun_phrases.measure_entities(out, args.entities)
    return found


def write_parser_card(
    out: Path,
    figures: Figures,
    args: argparse.Namespace,
    minutes: dict[str, float],
    table: dict[str, dict[str, float]],
    phrases: dict[str, Any],
) -> None:
    from demo.recipes.cards import write_card

    metrics = list(table["raw"])
    lines = ["| dev part of EWT | " + " | ".join(metrics) + " |", "|---" * (len(metrics) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(f"{row[m]:.2f}" for m in metrics) + " |" for name, row in table.items()]
    facts = {
        "Models": "tokenizer, tagger (UPOS and XPOS, no features), lemmatizer, dependency parser; 16-bit floats",
        "Treebank": 'training part of UD English EWT (Silveira et al. 2014, "A Gold Standard Dependency Corpus for '
        'English"; https://github.com/UniversalDependencies/UD_English-EWT), CC BY-SA 4.0, of which the weights are '
        "derived",
        "Captions": f"{args.captions} captions of the demo world with the trees its grammar gives them, drawn from the "
        "seed; none of the demo world as it is shipped was drawn for it",
        "Steps": f"tokenizer {args.steps_tokenizer}, tagger and draft tagger {args.steps_tagger} each, lemmatizer "
        f"{args.epochs_lemmatizer} epochs, parser {args.steps_parser}",
        "Minutes": ", ".join(f"{name} {value:.1f}" for name, value in minutes.items()),
    }
    write_card(
        out,
        "stanza_en: a small English parser",
        ABOUT,
        facts,
        figures,
        licence="cc-by-sa-4.0",
        library="stanza",
        command=COMMAND,
        more=MORE.format(table="\n".join(lines), phrases=phrase_lines(phrases)),
    )


def phrase_lines(figures: dict[str, Any]) -> str:
    rows = []
    for name, label in (("all", "every NP chunk"), ("nouns", "chunks with a noun")):
        if "conll2000" in figures:
            rows.append((f"conll2000 test, {label}", figures["conll2000"][name]))
    if "entities" in figures:
        captions = figures["entities"]
        rows.append((f"{captions['captions']} captions of Flickr30k Entities, from raw text", captions))
    if not rows:
        return "Not measured in this run."
    lines = ["| exact spans | precision | recall | F1 | gold phrases |", "|---|---|---|---|---|"]
    lines += [f"| {n} | {f['precision']:.2f} | {f['recall']:.2f} | {f['f1']:.2f} | {f['gold']} |" for n, f in rows]
    return "\n".join(lines)


ABOUT = """Trained with Stanza's own training code from scratch: no pretrained word vectors, no pretrained character
model. It is here so that the project runs without a network; Stanza's own English models are better, and are what to
use on real data.

Besides the sentences of the treebank as they are, training sees caption-like copies of them (lower-cased, without final
punctuation, single noun phrases) and captions of the demo world."""

MORE = """## On the treebank and on other text

F1 in percent, CoNLL 2018 scorer. `raw`: from raw text. `gold words`: words and sentences given; tags, lemmas and trees
predicted. `lower-case`: the same on lower-cased sentences without final punctuation. Multi-word tokens ("don't") are
split by the tokenizer itself, which lowers Tokens but not Words. The dev part also chose the best state of the
tokenizer, the lemmatizer and the parser.

{table}

Noun phrases (extraction of `stages/parse/phrases.py`, base spans, nothing dropped; `demo/recipes/noun_phrases.py` says
how chunk conventions are matched). The rules of the extraction were adjusted on COCO captions; the errors on the 40
captions were looked at once before the last adjustment, so that figure is a little kind.

{phrases}"""
