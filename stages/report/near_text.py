"""Texts that are the same but for case, punctuation and blanks, or share most of their words: an exact search."""

import unicodedata
from collections import Counter, defaultdict
from math import ceil, floor

FEWEST_WORDS = 5


class _Punctuation(dict):
    """A table for str.translate that turns punctuation into blanks, filled as characters come."""

    def __missing__(self, point: int) -> int | str:
        self[point] = " " if unicodedata.category(chr(point)).startswith("P") else point
        return self[point]


_PUNCTUATION = _Punctuation()


def plain(text: str) -> str:
    """What is compared: NFKC, lower case, punctuation as blanks, blanks squeezed."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.lower().translate(_PUNCTUATION).split())


class Texts:
    """Plain texts that others are held against.

    Two texts are near if both have at least `FEWEST_WORDS` different words and the Jaccard index of their word sets,
    shared words over all words, is at least `jaccard`. The search is exact and looks only at texts that can be near:
    of a text of b words, b - ceil(jaccard * b) + 1 may be chosen so that a near text shares one of them with what it
    chooses itself. If all choose their rarest words, few texts share them.

    Args:
        texts: plain texts, each once.
        jaccard: 0 < jaccard <= 1, or None to find only equal texts.
    """

    def __init__(self, texts: list[str], jaccard: float | None):
        self.row_of = {text: row for row, text in enumerate(texts)}
        self.jaccard = jaccard
        if jaccard is None:
            return
        words = [text.split() for text in texts]
        often = Counter(word for some in words for word in set(some))
        self.rank = {word: at for at, word in enumerate(sorted(often, key=lambda word: (often[word], word)))}
        self.words = [frozenset(self.rank[word] for word in some) for some in words]
        # (one of its rarest words, how many words it has) -> rows
        self.rows: dict[tuple[int, int], list[int]] = defaultdict(list)
        for row, ranks in enumerate(self.words):
            if len(ranks) >= FEWEST_WORDS:
                for rank in sorted(ranks)[: self._chosen(len(ranks))]:
                    self.rows[rank, len(ranks)].append(row)

    def equal(self, text: str) -> int | None:
        """The row that is this plain text, or None."""
        return self.row_of.get(text)

    def near(self, text: str) -> list[tuple[int, float]]:
        """The rows that are near to a plain text, an equal one too, each with its Jaccard index."""
        if self.jaccard is None or len(words := set(text.split())) < FEWEST_WORDS:
            return []
        known = {self.rank[word] for word in words if word in self.rank}
        size, unknown = len(words), len(words) - len(known)
        chosen = sorted(known)[: max(0, self._chosen(size) - unknown)]  # words that no row has are the rarest
        least, most = max(FEWEST_WORDS, self._least(size)), floor(size / self.jaccard + 1e-9)
        rows = {row for rank in chosen for other in range(least, most + 1) for row in self.rows.get((rank, other), ())}
        found = []
        for row in rows:
            shared = len(known & self.words[row])
            if (index := shared / (size + len(self.words[row]) - shared)) >= self.jaccard:
                found.append((row, index))
        return found

    def _least(self, size: int) -> int:
        """The fewest words that a text near to one of `size` words shares with it (and has)."""
        return ceil(self.jaccard * size - 1e-9)

    def _chosen(self, size: int) -> int:
        return size - self._least(size) + 1
