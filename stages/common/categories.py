"""Which annotated category the words of a phrase name."""

from collections.abc import Iterable


class Categories:
    """Categories by their words: a category's name and its synonyms."""

    def __init__(self, names: Iterable[str], synonyms: dict[str, list[str]]):
        known = list(names)
        self.of_words: dict[str, str] = {name.lower(): name for name in known}
        for category, words in synonyms.items():
            if category in known:
                self.of_words |= {word.lower(): category for word in words}
        self.longest = max((len(words.split()) for words in self.of_words), default=1)

    def named(self, key: str, head: str) -> str | None:
        """The category a phrase names, by the longest known word sequence at the end of its key, else by its head
        lemma: a "hot dog" is no dog and a "computer mouse" no animal.
        """
        words = key.lower().split()
        for length in range(min(self.longest, len(words)), 0, -1):
            if category := self.of_words.get(" ".join(words[-length:])):
                return category
        return self.of_words.get(head)
