"""The page: one HTML file that asks for nothing outside itself, in which data can show but not act."""

import base64
import hashlib
import json
import unicodedata
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"
# Zero-width joiner and non-joiner are part of how emoji and several scripts are written.
_KEPT_FORMAT = {"\u200c", "\u200d"}


def render(**values: Any) -> str:
    """The page as text. Everything put into it is escaped, and passes `visible` first."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=_finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(count=count, fixed=fixed, share=share, plain=plain, data=data)
    css = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    return environment.get_template("page.html.jinja").render(
        css=Markup(css), script=Markup(script), policy=policy(css, script), **values
    )


def policy(css: str, script: str) -> str:
    """A Content-Security-Policy under which only this very style and script work, and images only as data: URLs."""
    return (
        f"default-src 'none'; style-src '{_digest(css)}'; script-src '{_digest(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def visible(text: str) -> str:
    """Text without what does not show but changes how the rest shows: bidirectional, zero-width, control characters."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c for c in text if not _hidden(c))


def _hidden(character: str) -> bool:
    category = unicodedata.category(character)
    return (category == "Cf" and character not in _KEPT_FORMAT) or (
        category in ("Cc", "Cs") and character not in "\n\t"
    )


def _finalize(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def data(value: Any) -> Markup:
    """A plain value as JSON for an inert `<script type="application/json">`: nothing in it can end the element."""
    text = json.dumps(_visible_in(value), ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _visible_in(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {key: _visible_in(item) for key, item in value.items()}
    return [_visible_in(item) for item in value] if isinstance(value, list | tuple) else value


def count(value: int) -> str:
    """12345 -> 12,345"""
    return f"{value:,}"


def fixed(value: float | None, digits: int = 2) -> str:
    """A number with fixed digits; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def share(part: float, whole: float, digits: int = 1) -> str:
    """A share in percent, without its sign; 0 of 0 is 0. Small shares are not rounded away."""
    value = 100 * part / whole if whole else 0.0
    return f"{value:.{digits}f}" if value == 0 or value >= 10**-digits else f"<{10**-digits:g}"


def plain(value: Any) -> str:
    """A parameter's value as a reader writes it: text bare, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
