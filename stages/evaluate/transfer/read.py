"""The files of the transfer tasks: SentEval's layout, and the Parquet layout of Hugging Face data sets.

SentEval's MR, CR, SUBJ and MPQA are a file a class with a sentence a line; SST2 is `sentence<TAB>0|1`; TREC is
`CLASS:detail question`; MRPC is a TAB-separated table with a header; a probing task is a file of
`split<TAB>class<TAB>sentence`. The encodings are those SentEval reads with: Latin-1, but UTF-8 for SST2, MRPC and
probing tasks. Sentences are split at whitespace and re-joined with single spaces. A byte-order mark is taken off, CRLF
and a lone CR end a line, quotes are plain characters. An empty sentence is one (CR has four): it keeps its place and is
counted. A line that has no label, or another number of columns than its file must have, is an error that names file and
line.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.errors import ModelError
from model.text_files import read_text
from stages.evaluate.transfer import parquet
from stages.evaluate.transfer.labelled import Labelled, Part, number_of

TASKS = ("MR", "CR", "SUBJ", "MPQA", "SST2", "TREC", "MRPC")
TREC_CLASSES = ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")
_BASES = ("transfer", "downstream", "")
# folder, and file of each class (class 0 first) or of each split
_SENTEVAL = {
    "MR": ("MR", {"neg": "rt-polarity.neg", "pos": "rt-polarity.pos"}),
    "CR": ("CR", {"neg": "custrev.neg", "pos": "custrev.pos"}),
    "SUBJ": ("SUBJ", {"subjective": "subj.subjective", "objective": "subj.objective"}),
    "MPQA": ("MPQA", {"neg": "mpqa.neg", "pos": "mpqa.pos"}),
    "SST2": ("SST/binary", {"train": "sentiment-train", "dev": "sentiment-dev", "test": "sentiment-test"}),
    "TREC": ("TREC", {"train": "train_5500.label", "test": "TREC_10.label"}),
    "MRPC": ("MRPC", {"train": "msr_paraphrase_train.txt", "test": "msr_paraphrase_test.txt"}),
}
BINARY = ("MR", "CR", "SUBJ", "MPQA")


@dataclass(frozen=True)
class Found:
    """Where a task's data lies: SentEval's files by class or split, or a folder of Parquet files."""

    name: str
    files: dict[str, Path]
    folder: Path | None = None  # of the Parquet layout

    def read(self) -> Labelled:
        """Raises ModelError naming file and line (Parquet: row) of what cannot be taken as it is."""
        if self.folder is not None:
            return parquet.read(self.name, self.folder, list(self.files.values()))
        if self.name in BINARY:
            return Labelled(self.name, tuple(self.files), {"all": _read_classes(self.files)})
        read = {"SST2": read_sst, "TREC": read_trec, "MRPC": read_mrpc}[self.name]
        classes = TREC_CLASSES if self.name == "TREC" else ("0", "1")
        return Labelled(self.name, classes, {split: read(file) for split, file in self.files.items()})


def find(root: Path, name: str) -> Found | str:
    """Where task `name` lies below root (root/transfer, root/downstream, root itself), or why it is missing."""
    folder, files = _SENTEVAL[name]
    why = None
    for base in (root / part for part in _BASES):
        place = base / folder
        there = {key: place / file for key, file in files.items() if (place / file).is_file()}
        if len(there) == len(files):
            return Found(name, there)
        if there and why is None:
            why = f"{place} has no {', '.join(file for key, file in files.items() if key not in there)}"
        for other in parquet.folders(base, name):
            listed = sorted(other.rglob("*.parquet"))
            if listed:
                return Found(name, {str(file.relative_to(other)): file for file in listed}, other)
    return why or f"{root} has no {folder} (nor transfer/{folder}) with {', '.join(files.values())}"


def _read_classes(files: dict[str, Path]) -> Part:
    sentences, labels = [], []
    for label, file in enumerate(files.values()):
        lines = _lines(file, "latin-1")
        sentences += [_spaced(line) for line in lines]
        labels += [label] * len(lines)
    return Part((sentences,), np.array(labels, dtype=np.int64))


def read_sst(file: Path) -> Part:
    """Lines of `sentence<TAB>label`, label 0 or 1."""
    sentences, labels = [], []
    for number, line in enumerate(_lines(file, "utf-8"), 1):
        cells = _cells(file, number, line, 2)
        sentences.append(_spaced(cells[0]))
        labels.append(number_of(f"{file}:{number}", cells[1], 2))
    return Part((sentences,), np.array(labels, dtype=np.int64))


def read_trec(file: Path) -> Part:
    """Lines of `CLASS:detail question`; CLASS is one of the six coarse classes."""
    sentences, labels = [], []
    for number, line in enumerate(_lines(file, "latin-1"), 1):
        name, colon, rest = line.strip().partition(":")
        if not colon or name not in TREC_CLASSES:
            shown = f"{name[:20]!r} is none of {', '.join(TREC_CLASSES)}" if colon else "no `CLASS:detail` at its start"
            raise ModelError(f"{file}:{number}: {shown}")
        sentences.append(_spaced(rest.partition(" ")[2]))
        labels.append(TREC_CLASSES.index(name))
    return Part((sentences,), np.array(labels, dtype=np.int64))


def read_probe(name: str, file: Path) -> Labelled:
    """A probing task: lines of `tr|va|te<TAB>class<TAB>sentence`; its classes are those of tr, sorted."""
    rows: dict[str, list[tuple[int, str, str]]] = {"tr": [], "va": [], "te": []}
    for number, line in enumerate(_lines(file, "utf-8"), 1):
        split, label, sentence = _cells(file, number, line, 3)
        if split not in rows:
            raise ModelError(f"{file}:{number}: split {split[:20]!r} is none of {', '.join(rows)}")
        rows[split].append((number, label, _spaced(sentence)))
    if empty := [split for split, found in rows.items() if not found]:
        raise ModelError(f"{file}: no line of split {empty[0]}")
    classes = sorted({label for _, label, _ in rows["tr"]})
    if len(classes) < 2:
        raise ModelError(f"{file}: one class only in split tr, {classes[0][:20]!r}")
    known, parts = {label: i for i, label in enumerate(classes)}, {}
    for split, part in zip(rows, ("train", "dev", "test"), strict=True):
        for number, label, _ in rows[split]:
            if label not in known:
                raise ModelError(f"{file}:{number}: class {label[:20]!r} is not in split tr")
        labels = np.array([known[label] for _, label, _ in rows[split]], dtype=np.int64)
        parts[part] = Part(([sentence for _, _, sentence in rows[split]],), labels)
    return Labelled(name, tuple(classes), parts)


def read_mrpc(file: Path) -> Part:
    """A header, then lines of `label, id, id, sentence, sentence` between TABs; label 1 = paraphrases."""
    lines = _lines(file, "utf-8")
    if len(header := lines[0].split("\t")) != 5 or header[0].strip() in ("0", "1"):
        raise ModelError(f"{file}:1: the header must name five TAB-separated columns: Quality, two ids, two strings")
    if len(lines) == 1:
        raise ModelError(f"{file}:1: a header and no pair")
    one, two, labels = [], [], []
    for number, line in enumerate(lines[1:], 2):
        cells = _cells(file, number, line, 5)
        one.append(_spaced(cells[3]))
        two.append(_spaced(cells[4]))
        labels.append(number_of(f"{file}:{number}", cells[0], 2))
    return Part((one, two), np.array(labels, dtype=np.int64))


def _cells(file: Path, number: int, line: str, wanted: int) -> list[str]:
    cells = line.split("\t")  # never a CSV reader: quotes are plain characters here, and unbalanced ones occur
    if len(cells) != wanted:
        raise ModelError(f"{file}:{number}: {len(cells)} TAB-separated columns where {wanted} are needed")
    return cells


def _spaced(text: str) -> str:
    return " ".join(text.split())


def _lines(file: Path, encoding: str) -> list[str]:
    """The file's lines; at least one. LF, CRLF and CR end one, nothing else does (str.splitlines cuts at more)."""
    lines = read_text(file, encoding).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    lines = lines[:-1] if lines[-1] == "" else lines
    if not lines:
        raise ModelError(f"{file}:1: the file is empty")
    return lines
