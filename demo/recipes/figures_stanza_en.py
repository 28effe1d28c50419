"""What the parser that ships does on captions it never saw, and on the treebank it was trained on (the dev part)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from demo.recipes import treebank as tb
from demo.recipes import world_text
from demo.recipes.noun_phrases import f1
from demo.recipes.stanza_package import load_pipeline
from pipeline.sections import Parse
from stages.parse.stanza_parser import StanzaParser

METRICS = ("Tokens", "Sentences", "Words", "UPOS", "XPOS", "Lemmas", "UAS", "LAS")
CAPTIONS_A_SCENE = 3


def figures(folder: Path, seed: int, scenes: int) -> dict[str, float]:
    """`noun_phrase_precision`, `_recall` and `_f1`: exact spans of the phrases that the stage parse finds, base spans,
    nothing dropped, in 3 captions a scene of the seed."""
    captions = world_text.captions(seed, "check", CAPTIONS_A_SCENE * scenes)
    section = Parse(backend="stanza", path=str(folder), span="base", drop_pronouns=False, drop_heads=[], max_words=1000)
    parser = StanzaParser(section, device="cpu", threads=1, batch_rows=32)
    parsed = parser.parse([caption.text for caption in captions])
    found = [{(p.start, p.end) for p in kept} for kept, _ in parsed]
    measured = f1(found, [{(p.start, p.end) for p in caption.phrases} for caption in captions])
    return {f"noun_phrase_{name}": measured[name] / 100 for name in ("precision", "recall", "f1")}


def ewt_figures(folder: Path, treebank: Path) -> dict[str, float]:
    """Of the dev part of EWT, words and sentences given: `ewt_upos`, `ewt_xpos`, `ewt_lemmas`, `ewt_uas`, `ewt_las`."""
    return of_table(ewt_table(folder, treebank, ("gold words",)))


def of_table(table: dict[str, dict[str, float]]) -> dict[str, float]:
    return {f"ewt_{name.lower()}": table["gold words"][name] / 100 for name in METRICS[3:]}


EWT_ROWS = ("raw", "gold words", "lower-case")


def ewt_table(folder: Path, treebank: Path, rows: tuple[str, ...] = EWT_ROWS) -> dict[str, dict[str, float]]:
    """F1 in percent on the dev part of EWT (CoNLL 2018 scorer), by metric.

    "raw": from the raw text against the treebank file as published; "gold words": words and sentences given;
    "lower-case": words given, lower-cased, without final punctuation, as captions often are.
    """
    from demo.recipes.stanza_en import find_split

    dev_path = find_split(treebank, "dev")
    dev = tb.read_conllu(dev_path)
    plain = [tb.without_final_punctuation(tb.lowercased(s)) for s in dev]
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        if "raw" in rows:
            tb.write_tokenizer_files(work / "dev.txt", work / "dev.labels", dev)
            document = load_pipeline(folder)((work / "dev.txt").read_text(encoding="utf-8"))
            found["raw"] = _score(dev_path, document, work)
        given = load_pipeline(folder, tokenize_pretokenized=True)
        for name, sentences in (("gold words", dev), ("lower-case", plain)):
            if name in rows:
                tb.write_conllu(work / "gold.conllu", sentences)
                document = given([[w.form for w in s.words] for s in sentences])
                found[name] = _score(work / "gold.conllu", document, work)
    return found


def _score(gold: Path, document: Any, work: Path) -> dict[str, float]:
    """F1 in percent by metric; 0 for words that are not the text's, as the shared task counts them. Only a tokenizer of
    a few steps writes such."""
    from stanza.models.common.utils import ud_scores
    from stanza.utils.conll import CoNLL
    from udtools.udeval import UDError

    system = work / "system.conllu"
    CoNLL.write_doc2conll(document, str(system))
    try:
        scores = ud_scores(str(gold), str(system))
    except UDError:
        return dict.fromkeys(METRICS, 0.0)
    return {metric: round(100 * scores[metric].f1, 2) for metric in METRICS}
