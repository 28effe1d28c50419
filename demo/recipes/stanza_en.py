"""Train the English parser that ships: Stanza's tokenizer, tagger, lemmatizer and dependency parser, small.

    python -m demo.recipes.stanza_en --treebank PATH_TO_UD_ENGLISH_EWT

The training code is Stanza's own (stanza.models.*; Qi et al. 2020, "Stanza: A Python Natural Language Processing
Toolkit for Many Human Languages"); no pretrained word vectors and no pretrained character model are used. The recipe
chooses sizes and schedules for one CPU core and about an hour, and adds caption-like copies of the treebank's own
sentences (demo/recipes/treebank.py) and captions of the demo world with their trees, drawn from the recipe's seed.

It goes on where it was stopped: each part (PARTS, in this order) is done once, and `--only PART` does one of them.

The parser must learn to live with wrong tags, but a good tagger makes hardly any errors on the text it was trained on.
So a first, weaker tagger ("draft") tags the training part for the parser: it errs there about as often as the tagger
that ships does on new text.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from demo.recipes.command import SCRATCH

if TYPE_CHECKING:
    from demo.recipes.treebank import Sentence

# Stanza frees and takes large blocks at every step; kept by the allocator they cost no page faults (a third of the
# time of a step). Read by glibc when the process starts, hence the restart in main().
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "8000000000", "MALLOC_TOP_PAD_": "268435456"}


def flags(*switches: str, **options: object) -> list[str]:
    """Command-line arguments: "--switch" for each switch, "--name value" for each option."""
    return [f"--{s}" for s in switches] + [text for k, v in options.items() for text in (f"--{k}", str(v))]


ENGLISH = flags("cpu", lang="en", shorthand="en_ewt")
NETWORK = flags("no_pretrain", word_cutoff=3, word_emb_dim=75, transformed_dim=100, num_layers=2)
CAPTION_SHARE, PHRASE_SHARE, COPIES_SEED = 0.3, 0.4, 1
# One word in twenty-six: enough to learn a small grammar by heart. With 2,000 captions, and a quarter fewer steps,
# the treebank's dev part lost .4 points of UPOS and .8 of LAS.
WORLD_CAPTIONS = 1000
# Those of Stanza's own English tokenizer.
FEATURES = "space_before,capitalized,numeric,end_of_para,start_of_para,labeled_field,phone_id,date_pattern,currency"


def prepare(treebank: Path, work: Path, seed: int, captions: int) -> None:
    """Write the training files of every model to `work`: train.* (with caption-like copies, and captions of the demo
    world), dev.*, types.conllu.

    *.tags.conllu are without morphological features: XPOS already tells the number of a noun, and a small tagger is
    better at two things than at twenty.
    """
    from demo.recipes import treebank as tb

    train, dev = (tb.read_conllu(find_split(treebank, split)) for split in ("train", "dev"))
    train = train + tb.caption_like(train, CAPTION_SHARE, PHRASE_SHARE, COPIES_SEED) + world_trees(seed, captions)
    for name, sentences in (("train", train), ("dev", dev)):
        tb.write_conllu(work / f"{name}.conllu", sentences)
        tb.write_conllu(work / f"{name}.tags.conllu", sentences, features=False)
        tb.write_tokenizer_files(work / f"{name}.txt", work / f"{name}.labels", sentences)
    tb.write_conllu(work / "types.conllu", tb.distinct_words(train))
    (work / "mwt.json").write_text("[]", encoding="utf-8")


def world_trees(seed: int, number: int) -> list[Sentence]:
    """So many captions of the demo world with the trees the grammar gives them; none of the world as it is shipped."""
    from demo.recipes import treebank as tb
    from demo.recipes import world_text

    return [tb.of_caption(caption) for caption in world_text.captions(seed, "trees", number)]


def find_split(treebank: Path, split: str) -> Path:
    """The one CoNLL-U file of a split (plain or .gz) in the treebank folder."""
    found = [p for p in sorted(treebank.glob(f"*-ud-{split}*")) if p.name.endswith((".conllu", ".conllu.gz"))]
    if len(found) != 1:
        raise SystemExit(f"{treebank}: expected one *-ud-{split}*.conllu[.gz], found {len(found)}")
    return found[0]


def train_tokenizer(work: Path, steps: int, seed: int) -> None:
    from stanza.models import tokenizer

    data = flags(
        txt_file=work / "train.txt", label_file=work / "train.labels", dev_txt_file=work / "dev.txt",
        dev_label_file=work / "dev.labels", mwt_json_file=work / "mwt.json", save_dir=work, save_name="tokenize.pt",
    )  # fmt: skip
    schedule = flags(steps=steps, eval_steps=max(1, steps // 5), anneal_after=steps // 2, seed=seed)
    tokenizer.main(ENGLISH + data + schedule + flags("no_use_mwt", max_seqlen=300, feat_funcs=FEATURES))


def train_draft_tagger(work: Path, steps: int, seed: int) -> None:
    files = flags(train_file=work / "train.conllu", eval_file=work / "dev.conllu", save_name="draft.pt")
    _train_tagger(work, files + flags("share_hid", deep_biaff_hidden_dim=150), steps, seed)


def train_tagger(work: Path, steps: int, seed: int) -> None:
    files = flags(train_file=work / "train.tags.conllu", eval_file=work / "dev.tags.conllu", save_name="pos.pt")
    sizes = flags(deep_biaff_hidden_dim=100, tag_emb_dim=32, dropout=0.33, word_dropout=0.2)
    _train_tagger(work, files + sizes, steps, seed)


def _train_tagger(work: Path, settings: list[str], steps: int, seed: int) -> None:
    """Adam, then AMSGrad at a fifth of the rate for the last 2/7 of the steps.

    Stanza changes optimizer when the dev score has not risen for a while; with one evaluation, at the end, that
    "while" is the length of the first phase.
    """
    from stanza.models import tagger

    schedule = flags(
        "fix_eval_interval", max_steps=steps, eval_interval=steps, max_steps_before_stop=steps * 5 // 7, lr=0.003,
        second_optim="amsgrad", second_lr=0.0006, log_step=100, seed=seed,
    )  # fmt: skip
    sizes = flags(hidden_dim=150, char_emb_dim=50, char_hidden_dim=100, batch_size=32)
    tagger.main(ENGLISH + NETWORK + sizes + settings + schedule + flags(save_dir=work))


def train_lemmatizer(work: Path, epochs: int, seed: int) -> None:
    """A dictionary from the whole treebank; for words not in it, a small sequence model trained on distinct words."""
    from stanza.models import lemmatizer

    data = flags(
        train_file=work / "types.conllu", secondary_file=work / "train.conllu", eval_file=work / "dev.conllu",
        save_dir=work, save_name="lemma.pt",
    )  # fmt: skip
    sizes = flags(hidden_dim=100, emb_dim=32, pos_dim=32, batch_size=50)
    dropout = flags(dropout=0.2, emb_dropout=0.1, pos_dropout=0.1)
    schedule = flags("cpu", shorthand="en_ewt", num_epoch=epochs, lr=0.002, log_step=100, seed=seed)
    lemmatizer.main(data + sizes + dropout + schedule)


def retag(work: Path) -> None:
    """Write the treebank's trees and lemmas under predicted tags: train and dev by the draft tagger (*.draft.conllu),
    dev by the tagger that ships as well (dev.tagged.conllu).
    """
    from stanza.models import tagger

    for source, model, name in (
        ("train.conllu", "draft.pt", "train.draft.conllu"),
        ("dev.conllu", "draft.pt", "dev.draft.conllu"),
        ("dev.tags.conllu", "pos.pt", "dev.tagged.conllu"),
    ):
        files = flags(eval_file=work / source, output_file=work / name, save_dir=work, save_name=model)
        tagger.main(ENGLISH + files + flags("no_pretrain", mode="predict"))


def train_parser(work: Path, phase: int, steps: int, seed: int) -> None:
    """Biaffine parser (Dozat and Manning 2017), Adam, in three phases: 7/12 of the steps at 0.0025 and then 0.0005, a
    quarter at 0.0015, a sixth at 0.0003. Each goes on from the best state of the one before. Batches are counted in
    words.
    """
    from stanza.models import parser

    common = ENGLISH + NETWORK + flags(
        "no_ufeats", "no_plateau", "no_checkpoint", train_file=work / "train.draft.conllu", hidden_dim=128,
        deep_biaff_hidden_dim=80, char_emb_dim=32, char_hidden_dim=64, tag_emb_dim=32, dropout=0.33, word_dropout=0.2,
        batch_size=1000, optim="adam", beta2=0.95, weight_decay=0, augment_nopunct=0.3, log_step=50, save_dir=work,
        seed=seed + phase,
    )  # fmt: skip
    if phase == 0:
        count = steps * 7 // 12
        parser.main(common + flags(
            eval_file=work / "dev.draft.conllu", lr=0.0025, second_optim="adam", second_lr=0.0005, max_steps=count,
            second_optim_start_step=count * 2 // 3, second_warmup_steps=1, max_steps_before_stop=count,
            eval_interval=max(1, count // 6), save_name="depparse1.pt",
        ))  # fmt: skip
        return
    count, rate, name = ((steps // 4, 0.0015, "depparse2.pt"), (steps // 6, 0.0003, "depparse.pt"))[phase - 1]
    parser.main(common + flags(
        "no_second_optim", eval_file=work / "dev.tagged.conllu", lr=rate, max_steps=count,
        max_steps_before_stop=count, eval_interval=max(1, count // 3), save_name=name,
        continue_from=work / f"depparse{phase}.pt",
    ))  # fmt: skip


def parts(args: argparse.Namespace) -> dict[str, Callable[[Path], None]]:
    """What there is to do, in order. Only `retagging` (both taggers) and the parser (retagging) need earlier ones."""
    seed = args.seed
    return {
        "preparation": lambda work: prepare(args.treebank, work, seed, args.captions),
        "tokenizer": lambda work: train_tokenizer(work, args.steps_tokenizer, seed),
        "draft-tagger": lambda work: train_draft_tagger(work, args.steps_tagger, seed),
        "tagger": lambda work: train_tagger(work, args.steps_tagger, seed),
        "lemmatizer": lambda work: train_lemmatizer(work, args.epochs_lemmatizer, seed),
        "retagging": retag,
        "parser-1": lambda work: train_parser(work, 0, args.steps_parser, seed),
        "parser-2": lambda work: train_parser(work, 1, args.steps_parser, seed),
        "parser-3": lambda work: train_parser(work, 2, args.steps_parser, seed),
    }


PARTS = tuple(parts(argparse.Namespace(seed=0)))
NEEDS = {
    **dict.fromkeys(("tokenizer", "draft-tagger", "tagger", "lemmatizer"), ("preparation",)),
    "retagging": ("draft-tagger", "tagger"),
    "parser-1": ("retagging",),
    "parser-2": ("parser-1",),
    "parser-3": ("parser-2",),
}


def done(work: Path) -> dict[str, int]:
    """Wall time in seconds of every part that is finished."""
    return {p.stem: json.loads(p.read_text(encoding="utf-8")) for p in sorted((work / "done").glob("*.json"))}


def do(name: str, step: Callable[[Path], None], work: Path) -> None:
    """A part, if it is not done yet. Stanza writes a model whenever it is better than before: only the note that a part
    is finished, written last, says that its files are whole.

    Raises SystemExit if a part that it needs is not done.
    """
    finished = done(work)
    if lacking := [need for need in NEEDS.get(name, ()) if need not in finished]:
        raise SystemExit(f"{name} needs {', '.join(lacking)}, not done yet in {work}")
    if name in finished:
        print(f"{name}: done before, in {finished[name] / 60:.1f} min", flush=True)
        return
    start = time.monotonic()
    step(work)
    (work / "done").mkdir(exist_ok=True)
    (work / "done" / f"{name}.json").write_text(f"{round(time.monotonic() - start)}\n", encoding="utf-8")


def same_settings(work: Path, args: argparse.Namespace) -> None:
    """Raises SystemExit if `work` holds parts of a run with other settings."""
    names = ("seed", "captions", "steps_tokenizer", "steps_tagger", "epochs_lemmatizer", "steps_parser")
    settings = {name: getattr(args, name) for name in names}
    file = work / "settings.json"
    if not file.exists():
        file.write_text(json.dumps(settings) + "\n", encoding="utf-8")
    elif (found := json.loads(file.read_text(encoding="utf-8"))) != settings:
        differing = ", ".join(f"{k} {found.get(k)} there, {v} now" for k, v in settings.items() if found.get(k) != v)
        raise SystemExit(f"{work} holds parts made with other settings ({differing}): name another --work")


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo.recipes.stanza_en", description=__doc__.splitlines()[0])
    parser.add_argument("--treebank", type=Path, required=True, help="folder with en_ewt-ud-{train,dev}.conllu[.gz]")
    parser.add_argument("--out", type=Path, default=Path("demo/checkpoints/stanza_en"))
    parser.add_argument("--work", type=Path, help="finished parts, kept (default: .scratch/recipes/stanza_en-SEED)")
    parser.add_argument("--captions", type=int, default=WORLD_CAPTIONS, help="captions of the demo world to train on")
    parser.add_argument("--steps", type=int, help="at most so many steps for every model, to try the recipe out")
    parser.add_argument("--steps-tokenizer", type=int, default=2500)
    parser.add_argument("--steps-tagger", type=int, default=3600)
    parser.add_argument("--epochs-lemmatizer", type=int, default=6)
    parser.add_argument("--steps-parser", type=int, default=4800)
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--device", default="cpu", choices=["cpu"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--conll2000", type=Path, help="conll2000.zip: adds its noun-phrase figures to the card")
    parser.add_argument("--entities", type=Path, help="Flickr30k Entities marked captions: likewise")
    parser.add_argument("--only", choices=[*PARTS, "package"], help="do this part alone")
    args = parser.parse_args(given)
    args.work = args.work or SCRATCH / f"stanza_en-{args.seed}"
    if args.steps:
        args.epochs_lemmatizer = 1
        for name in ("steps_tokenizer", "steps_tagger", "steps_parser"):
            setattr(args, name, min(args.steps, getattr(args, name)))
    return args


def main() -> None:
    args = arguments()
    if any(os.environ.get(k) != v for k, v in ALLOCATOR.items()):
        os.environ.update(ALLOCATOR, OMP_NUM_THREADS=str(args.threads))
        os.execv(sys.executable, [sys.executable, "-m", "demo.recipes.stanza_en", *sys.argv[1:]])
    import torch

    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    same_settings(args.work, args)
    for name, step in parts(args).items():
        if args.only in (None, name):
            do(name, step, args.work)
    if args.only in (None, "package"):
        from demo.recipes import stanza_package

        if lacking := [name for name in PARTS if name not in done(args.work)]:
            raise SystemExit(f"{args.work}: not done yet: {', '.join(lacking)}")
        stanza_package.package(args.work, args)


if __name__ == "__main__":
    main()
