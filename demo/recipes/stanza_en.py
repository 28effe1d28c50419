"""Train the English parser that ships: Stanza's tokenizer, tagger, lemmatizer and dependency parser, small.

    python -m demo.recipes.stanza_en --treebank PATH_TO_UD_ENGLISH_EWT

The training code is Stanza's own (stanza.models.*; Qi et al. 2020, "Stanza: A Python Natural Language Processing
Toolkit for Many Human Languages"); no pretrained word vectors and no pretrained character model are used. The recipe
chooses sizes and schedules for one CPU core and about an hour, and adds caption-like copies of the treebank's own
sentences (demo/recipes/treebank.py).

The parser must learn to live with wrong tags, but a good tagger makes hardly any errors on the text it was trained on.
So a first, weaker tagger ("draft") tags the training part for the parser: it errs there about as often as the tagger
that ships does on new text.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

# Stanza frees and takes large blocks at every step; kept by the allocator they cost no page faults (a third of the
# time of a step). Read by glibc when the process starts, hence the restart in main().
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "8000000000", "MALLOC_TOP_PAD_": "268435456"}


def flags(*switches: str, **options: object) -> list[str]:
    """Command-line arguments: "--switch" for each switch, "--name value" for each option."""
    return [f"--{s}" for s in switches] + [text for k, v in options.items() for text in (f"--{k}", str(v))]


ENGLISH = flags("cpu", lang="en", shorthand="en_ewt")
NETWORK = flags("no_pretrain", word_cutoff=3, word_emb_dim=75, transformed_dim=100, num_layers=2)
CAPTION_SHARE, PHRASE_SHARE, COPIES_SEED = 0.3, 0.4, 1
# Those of Stanza's own English tokenizer.
FEATURES = "space_before,capitalized,numeric,end_of_para,start_of_para,labeled_field,phone_id,date_pattern,currency"


def prepare(treebank: Path, work: Path) -> None:
    """Write the training files of every model to `work`: train.* (with caption-like copies), dev.*, types.conllu.

    *.tags.conllu are without morphological features: XPOS already tells the number of a noun, and a small tagger is
    better at two things than at twenty.
    """
    from demo.recipes import treebank as tb

    train, dev = (tb.read_conllu(find_split(treebank, split)) for split in ("train", "dev"))
    train = train + tb.caption_like(train, CAPTION_SHARE, PHRASE_SHARE, COPIES_SEED)
    for name, sentences in (("train", train), ("dev", dev)):
        tb.write_conllu(work / f"{name}.conllu", sentences)
        tb.write_conllu(work / f"{name}.tags.conllu", sentences, features=False)
        tb.write_tokenizer_files(work / f"{name}.txt", work / f"{name}.labels", sentences)
    tb.write_conllu(work / "types.conllu", tb.distinct_words(train))
    (work / "mwt.json").write_text("[]", encoding="utf-8")


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


def train_parser(work: Path, steps: int, seed: int) -> None:
    """Biaffine parser (Dozat and Manning 2017), Adam, in three phases: 7/12 of the steps at 0.0025 and then 0.0005, a
    quarter at 0.0015, a sixth at 0.0003. Each goes on from the best state of the one before. Batches are counted in
    words.
    """
    from stanza.models import parser

    common = ENGLISH + NETWORK + flags(
        "no_ufeats", "no_plateau", "no_checkpoint", train_file=work / "train.draft.conllu", hidden_dim=128,
        deep_biaff_hidden_dim=80, char_emb_dim=32, char_hidden_dim=64, tag_emb_dim=32, dropout=0.33, word_dropout=0.2,
        batch_size=1000, optim="adam", beta2=0.95, weight_decay=0, augment_nopunct=0.3, log_step=50, save_dir=work,
    )  # fmt: skip
    count = steps * 7 // 12
    first = flags(
        eval_file=work / "dev.draft.conllu", lr=0.0025, second_optim="adam", second_lr=0.0005, max_steps=count,
        second_optim_start_step=count * 2 // 3, second_warmup_steps=1, max_steps_before_stop=count,
        eval_interval=max(1, count // 6), seed=seed, save_name="depparse1.pt",
    )  # fmt: skip
    parser.main(common + first)
    for phase, count, rate, name in ((1, steps // 4, 0.0015, "depparse2.pt"), (2, steps // 6, 0.0003, "depparse.pt")):
        more = flags(
            "no_second_optim", eval_file=work / "dev.tagged.conllu", lr=rate, max_steps=count,
            max_steps_before_stop=count, eval_interval=max(1, count // 3), seed=seed + phase, save_name=name,
            continue_from=work / f"depparse{phase}.pt",
        )  # fmt: skip
        parser.main(common + more)


def timed(name: str, work: Path, step: Callable[[], None]) -> None:
    """Run a training step; its wall time in seconds goes to work/times.json."""
    times_path = work / "times.json"
    times = json.loads(times_path.read_text(encoding="utf-8")) if times_path.exists() else {}
    start = time.monotonic()
    step()
    times[name] = round(time.monotonic() - start)
    times_path.write_text(json.dumps(times), encoding="utf-8")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--treebank", type=Path, required=True, help="folder with en_ewt-ud-{train,dev}.conllu[.gz]")
    parser.add_argument("--out", type=Path, default=Path("demo/checkpoints/stanza_en"))
    parser.add_argument("--work", type=Path, help="folder of intermediate files, kept (default: a temporary one)")
    parser.add_argument("--steps-tokenizer", type=int, default=2000)
    parser.add_argument("--steps-tagger", type=int, default=2800)
    parser.add_argument("--epochs-lemmatizer", type=int, default=6)
    parser.add_argument("--steps-parser", type=int, default=3600)
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--conll2000", type=Path, help="conll2000.zip: adds its noun-phrase figures to the card")
    parser.add_argument("--entities", type=Path, help="Flickr30k Entities marked captions: likewise")
    parser.add_argument("--only", choices=["train", "package"], help="stop after training, or only package --work")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    if any(os.environ.get(k) != v for k, v in ALLOCATOR.items()):
        os.environ.update(ALLOCATOR, OMP_NUM_THREADS=str(args.threads))
        os.execv(sys.executable, [sys.executable, "-m", "demo.recipes.stanza_en", *sys.argv[1:]])
    import torch

    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        if args.only != "package":
            prepare(args.treebank, work)
            timed("tokenizer", work, lambda: train_tokenizer(work, args.steps_tokenizer, args.seed))
            timed("draft tagger", work, lambda: train_draft_tagger(work, args.steps_tagger, args.seed))
            timed("tagger", work, lambda: train_tagger(work, args.steps_tagger, args.seed))
            timed("lemmatizer", work, lambda: train_lemmatizer(work, args.epochs_lemmatizer, args.seed))
            timed("retagging", work, lambda: retag(work))
            timed("parser", work, lambda: train_parser(work, args.steps_parser, args.seed))
        if args.only != "train":
            from demo.recipes import stanza_package

            stanza_package.package(work, args)


if __name__ == "__main__":
    main()
