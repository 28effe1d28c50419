"""A page as its tags, attributes and text, by the standard library's parser."""

from html.parser import HTMLParser


class Parsed(HTMLParser):
    """`tags`: (name, attributes) in order; `inside`: text of every element of a name, in order."""

    VOID = frozenset(("meta", "input", "link", "img", "br", "image", "rect", "path", "use", "line"))

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict]] = []
        self.inside: dict[str, list[str]] = {}
        self._open: list[tuple[str, list[str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("td", "th", "dd", "dt", "small", "span"):
            self.handle_data(" ")
        if tag not in self.VOID:
            self._open.append((tag, []))

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        for _, words in self._open:
            words.append(data)

    def handle_endtag(self, tag: str) -> None:
        while self._open:
            name, words = self._open.pop()
            self.inside.setdefault(name, []).append("".join(words))
            if name == tag:
                return

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]

    def of_class(self, name: str) -> list[dict]:
        return [attributes for _, attributes in self.tags if name in (attributes.get("class") or "").split()]
