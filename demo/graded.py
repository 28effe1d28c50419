"""The files of world STS in SentEval's layout: seven tasks of graded sentence pairs (see `demo.sts`)."""

from collections.abc import Iterator
from pathlib import Path

from demo.sts import EDITS, Pair, plain, sample_pair

# genre (see demo.sts.EDITS) and pairs of each subset; the folders are SentEval's, the subsets are named for what varies
STS_YEARS: dict[str, dict[str, int]] = {
    "STS12-en-test": {"colour": 110, "count": 90},
    "STS13-en-test": {"relation": 110, "size": 90},
    "STS14-en-test": {"kind": 70, "omission": 70, "paraphrase": 70},
    "STS15-en-test": {"place": 70, "roles": 70, "pattern": 60},
    "STS16-en-test": {"addition": 90, "mixed": 110},
}
STSB_SPLITS = {"train": 500, "dev": 250, "test": 250}
SICK_FILES = {"SICK_train.txt": 250, "SICK_trial.txt": 100, "SICK_test_annotated.txt": 250}
GENRES = (*sorted(EDITS), "mixed", "paraphrase")


def sts_files(seed: int, used: set[str]) -> Iterator[tuple[str, str]]:
    """Path under sts/ and content of every file of world STS; its sentences are not in `used` and are added to it."""
    for folder, subsets in STS_YEARS.items():
        for genre, number in subsets.items():
            pairs = [sample_pair(seed, genre, (folder, genre, i), used) for i in range(number)]
            yield f"{folder}/STS.input.{genre}.txt", "".join(f"{p.first}\t{p.second}\n" for p in pairs)
            yield f"{folder}/STS.gs.{genre}.txt", "".join(f"{p.grade:.3f}\n" for p in pairs)
    for split, number in STSB_SPLITS.items():
        pairs = _of_all_genres(seed, number, ("STSBenchmark", split), used)
        yield (
            f"STSBenchmark/sts-{split}.csv",
            "".join(
                f"world\t{p.genre}\tdemo\t{i:04d}\t{p.grade:.3f}\t{p.first}\t{p.second}\n" for i, p in enumerate(pairs)
            ),
        )
    for name, number in SICK_FILES.items():
        yield f"SICK/{name}", _sick(_of_all_genres(seed, number, ("SICK", name), used))


def _of_all_genres(seed: int, number: int, stream: tuple[str, ...], used: set[str]) -> list[Pair]:
    return [sample_pair(seed, GENRES[i % len(GENRES)], (*stream, i), used) for i in range(number)]


def _sick(pairs: list[Pair]) -> str:
    """SICK's own columns; relatedness runs from 1 to 5 there."""
    head = "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n"
    return head + "".join(
        f"{i}\t{p.first}\t{p.second}\t{1 + 0.8 * p.grade:.3f}\t{p.judgment}\n" for i, p in enumerate(pairs, 1)
    )


# where sentences are graded, or have a class: files below a world's folder, lines of head, columns that hold sentences
_COLUMNS = {
    "sts/*/STS.input.*.txt": (0, slice(0, 2)),
    "sts/STSBenchmark/*.csv": (0, slice(5, 7)),
    "sts/SICK/*.txt": (1, slice(1, 3)),
    "sts/probing/*.txt": (0, slice(2, 3)),
}


def graded_sentences(world: Path) -> frozenset[str]:
    """The sentences of a world's STS and probes (see `plain`), to keep them out of what is trained on."""
    return frozenset(
        plain(cell)
        for pattern, (head, columns) in _COLUMNS.items()
        for path in world.glob(pattern)
        for line in path.read_text("utf-8").splitlines()[head:]
        for cell in line.split("\t")[columns]
    )
