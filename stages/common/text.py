"""Text as it is stored."""

import unicodedata


def clean(text: str) -> str:
    """NFC form, control characters and line ends replaced by spaces, ends stripped; nothing else is touched."""
    composed = unicodedata.normalize("NFC", text)
    return "".join(" " if unicodedata.category(c) in ("Cc", "Cs") else c for c in composed).strip()
