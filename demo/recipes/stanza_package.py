"""From trained Stanza models to the folder that ships: four weight files, card, manifest; and how to load it."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

MODELS = {"tokenize": "tokenize.pt", "pos": "pos.pt", "lemma": "lemma.pt", "depparse": "depparse.pt"}
PATHS = ("_file", "_dir", "save_name", "load_name")
MAX_BYTES = 15 * 1024 * 1024
METRICS = ("Tokens", "Sentences", "Words", "UPOS", "XPOS", "Lemmas", "UAS", "LAS")
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
    out: Path = args.out
    out.mkdir(parents=True, exist_ok=True)
    (out / "resources.json").write_text("{}\n", encoding="utf-8")
    for name in MODELS.values():
        halve(work / name, out / name)
    figures = measure(out, work, args)
    size = sum((out / name).stat().st_size for name in MODELS.values())
    if size > MAX_BYTES:
        raise SystemExit(f"{out}: {size} bytes of weights, more than {MAX_BYTES}: use smaller sizes")
    (out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    (out / "card.md").write_text(card(figures, args, size), encoding="utf-8")
    write_manifest(out)


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


def measure(out: Path, work: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Figures on the treebank's dev part (CoNLL 2018 scorer, F1 in percent), and of the noun phrases if asked for.

    "raw": from the raw text against the treebank file as published; "gold words": words and sentences given;
    "lower-case": words given, lower-cased, without final punctuation, as captions often are.
    """
    from demo.recipes import noun_phrases, treebank
    from demo.recipes.stanza_en import find_split

    dev_path = find_split(args.treebank, "dev")
    dev = treebank.read_conllu(dev_path)
    plain = [treebank.without_final_punctuation(treebank.lowercased(s)) for s in dev]
    treebank.write_conllu(work / "dev.plain.conllu", plain)
    given = load_pipeline(out, tokenize_pretokenized=True)
    raw = load_pipeline(out)((work / "dev.txt").read_text(encoding="utf-8"))
    figures: dict[str, Any] = {
        "dev": {
            "raw": score(dev_path, raw, work),
            "gold words": score(work / "dev.conllu", given([[w.form for w in s.words] for s in dev]), work),
            "lower-case": score(work / "dev.plain.conllu", given([[w.form for w in s.words] for s in plain]), work),
        },
        "seconds": json.loads((work / "times.json").read_text(encoding="utf-8")),
    }
    if args.conll2000:
        figures["conll2000"] = noun_phrases.measure_conll2000(out, args.conll2000)
    if args.entities:
        figures["entities"] = noun_phrases.measure_entities(out, args.entities)
        del figures["entities"]["misses"]
    return figures


def score(gold: Path, document: Any, work: Path) -> dict[str, float]:
    from stanza.models.common.utils import ud_scores
    from stanza.utils.conll import CoNLL

    system = work / "system.conllu"
    CoNLL.write_doc2conll(document, str(system))
    scores = ud_scores(str(gold), str(system))
    return {metric: round(100 * scores[metric].f1, 2) for metric in METRICS}


def card(figures: dict[str, Any], args: argparse.Namespace, size: int) -> str:
    table = ["| dev part of EWT | " + " | ".join(METRICS) + " |", "|---" * (len(METRICS) + 1) + "|"]
    for name, row in figures["dev"].items():
        table.append(f"| {name} | " + " | ".join(f"{row[m]:.2f}" for m in METRICS) + " |")
    minutes = {name: round(seconds / 60, 1) for name, seconds in figures["seconds"].items()}
    return CARD.format(
        table="\n".join(table), phrases=phrase_lines(figures), size=f"{size / 1e6:.1f}", command=COMMAND,
        minutes=", ".join(f"{name} {value} min" for name, value in minutes.items()), total=round(sum(minutes.values())),
        **vars(args),
    )  # fmt: skip


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


CARD = """# stanza_en: a small English parser

Tokenizer, tagger (UPOS and XPOS, no features), lemmatizer and dependency parser, trained with Stanza's own training
code from scratch: no pretrained word vectors, no pretrained character model. {size} MB in all, numbers stored as 16-bit
floats. It is here so that the project runs without a network; Stanza's own English models are better, and are what to
use on real data.

## Data and licence

Trained on Universal Dependencies English EWT, training part (Silveira et al. 2014, "A Gold Standard Dependency Corpus
for English"; https://github.com/UniversalDependencies/UD_English-EWT), licensed CC BY-SA 4.0. The weights are derived
from it and are shared under the same licence, CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/). Besides
the sentences as they are, training sees caption-like copies of them: lower-cased, without final punctuation, and single
noun phrases.

## Figures

F1 in percent, CoNLL 2018 scorer. `raw`: from raw text. `gold words`: words and sentences given; tags, lemmas and trees
predicted. `lower-case`: the same on lower-cased sentences without final punctuation. Multi-word tokens ("don't") are
split by the tokenizer itself, which lowers Tokens but not Words. The dev part also chose the best state of the
tokenizer, the lemmatizer and the parser.

{table}

Noun phrases (extraction of `stages/parse/phrases.py`, base spans, nothing dropped; `demo/recipes/noun_phrases.py` says
how chunk conventions are matched). The rules of the extraction were adjusted on COCO captions; the errors on the 40
captions were looked at once before the last adjustment, so that figure is a little kind.

{phrases}

## Made by

    {command}

Seed {seed}; tokenizer {steps_tokenizer} steps, tagger and draft tagger {steps_tagger} steps each, lemmatizer
{epochs_lemmatizer} epochs, parser {steps_parser} steps. Wall time, {threads} CPU thread for each model on a
busy machine, some of them side by side; {total} min in sum:

    {minutes}
"""
